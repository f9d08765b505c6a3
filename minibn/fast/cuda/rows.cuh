// How an activation (R, C), whose rows are the pixels of all images, is divided among threads.
//
// A block has 256 threads and takes `chunk` rows (or windows of four rows). Thread t has V
// channels, those of group t % G, and of the rows every L-th, from t / G on: L = 256 / G. So the
// loads of a warp are coalesced, and vectors over channels are loaded once.
#include "common.cuh"
#define THREADS 256

struct __align__(V == 4 ? 16 : sizeof(REAL)) Vec {  // V channels: with V = 4 loads of 16 bytes
  real v[V];
};
template <class T, int n> struct Wide { typedef T type; };
template <> struct Wide<float, 4> { typedef float4 type; };
template <> struct Wide<double, 4> { typedef double2 type; };

// From an array that the kernel does not write, so that loads may be reordered before stores.
__device__ __forceinline__ Vec load(const real* p) {
  typedef Wide<real, V>::type Part;
  union { Vec whole; Part part[sizeof(Vec) / sizeof(Part)]; } r;
#pragma unroll
  for (int i = 0; i < sizeof(Vec) / sizeof(Part); ++i)
    r.part[i] = __ldg(reinterpret_cast<const Part*>(p) + i);
  return r.whole;
}
__device__ __forceinline__ void store(real* p, const Vec& a) { *reinterpret_cast<Vec*>(p) = a; }
__device__ __forceinline__ Vec broadcast(real a) {
  Vec r;
#pragma unroll
  for (int j = 0; j < V; ++j) r.v[j] = a;
  return r;
}

// Whether a replaces b as the maximum: the first of ties is kept, and so is a NaN.
__device__ __forceinline__ bool beats(real a, real b) { return !(a <= b) && b == b; }

struct RowLoop {  // for (int t = 0; t < w.count; ++t) { int q = w.first + t * w.step; ... }
  int first, step, count, c;  // c: the first channel
};
__device__ __forceinline__ RowLoop row_loop(int count, int C, int G, int chunk) {
  int lane = threadIdx.x / G, group = blockIdx.y * G + threadIdx.x % G;
  RowLoop w = {int(blockIdx.x) * chunk + lane, THREADS / G, 0, group * V};
  int left = min(count - int(blockIdx.x) * chunk, chunk) - lane;
  if (lane < w.step && w.c < C && left > 0) w.count = (left + w.step - 1) / w.step;
  return w;
}

// partial (blocks, 2, C) = two sums of each channel over the block's rows: first its threads' own,
// then, in double and in the order of the lanes, those of its threads.
__device__ __forceinline__ void block_sums(const double* a, const double* b, double* partial, int C,
                                           int G) {
  __shared__ double sums[2 * V * THREADS];
  int lane = threadIdx.x / G, lanes = THREADS / G, width = 2 * G * V;
  double* mine = sums + lane * width + threadIdx.x % G * V;
  if (lane < lanes)
#pragma unroll
    for (int j = 0; j < V; ++j) mine[j] = a[j], mine[G * V + j] = b[j];
  __syncthreads();
  for (int i = threadIdx.x; i < width; i += THREADS) {
    double total = 0;
    for (int l = 0; l < lanes; ++l) total += sums[l * width + i];
    int which = i / (G * V), c = blockIdx.y * G * V + i % (G * V);
    if (c < C) partial[(blockIdx.x * 2 + which) * C + c] = total;
  }
}

// The sum of P partials, for one channel: threads (32, lanes), each lane adding every lanes-th.
// True for the thread that has the totals of channel c.
__device__ __forceinline__ bool totals(const double* partial, int P, int C, int* c, double* a,
                                       double* b) {
  __shared__ double sums[2][32][32];
  int x = threadIdx.x, y = threadIdx.y;
  *c = blockIdx.x * 32 + x, *a = 0, *b = 0;
  if (*c < C)
    for (int p = y; p < P; p += blockDim.y) {
      *a += partial[2 * p * C + *c];
      *b += partial[(2 * p + 1) * C + *c];
    }
  sums[0][y][x] = *a, sums[1][y][x] = *b;
  __syncthreads();
  if (y || *c >= C) return false;
  for (int l = 1; l < blockDim.y; ++l) *a += sums[0][l][x], *b += sums[1][l][x];
  return true;
}
