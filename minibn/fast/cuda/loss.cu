// Softmax cross-entropy of logits x (N, K) with labels (N).
#include "common.cuh"
#define ROWS 8  // of a block: a warp takes one

// losses (N) = log Z - a[label], with a = x - max x, Z = Σ exp a; and, if `keep`,
// softmax (N, K) = exp a / Z. Reads x three times, twice from the cache. An infinite maximum counts
// as 0, as in the definition. The loss of a label outside of 0..K-1 is NaN.
EXPORT rows(const real* x, const long long* labels, real* losses, real* softmax, int keep, int N,
            int K) {
  int row = blockIdx.x * ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= N) return;
  x += row * K;
  softmax += row * K;
  const real infinity = __int_as_float(0x7f800000);
  real top = -infinity, Z = 0;
  for (int k = lane; k < K; k += 32) top = max(top, x[k]);
  for (int d = 16; d; d /= 2) top = max(top, __shfl_xor_sync(~0u, top, d));
  if (top == infinity || top == -infinity) top = 0;
  for (int k = lane; k < K; k += 32) Z += exp(x[k] - top);
  for (int d = 16; d; d /= 2) Z += __shfl_xor_sync(~0u, Z, d);
  if (keep)
    for (int k = lane; k < K; k += 32) softmax[k] = exp(x[k] - top) / (Z + (Z == 0));
  long long label = labels[row];
  bool there = 0 <= label && label < K;
  if (lane == 0) losses[row] = there ? log(Z) - (x[label] - top) : infinity - infinity;
}

// loss = the mean of losses (N), added in double by one block of 256 threads.
EXPORT mean(const real* losses, real* loss, int N) {
  __shared__ double sums[256];
  double sum = 0;
  for (int n = threadIdx.x; n < N; n += 256) sum += losses[n];
  sums[threadIdx.x] = sum;
  for (int d = 128; d; d /= 2) {
    __syncthreads();
    if (threadIdx.x < d) sums[threadIdx.x] += sums[threadIdx.x + d];
  }
  if (threadIdx.x == 0) loss[0] = sums[0] / N;
}

// x_bar (N, K) = g / N (softmax - onehot(label)), g (1). A thread makes one value.
EXPORT grad(const real* softmax, const long long* labels, const real* g, real* x_bar, int N,
            int K) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N * K) x_bar[i] = (softmax[i] - (labels[i / K] == i % K)) * (g[0] / N);
}
