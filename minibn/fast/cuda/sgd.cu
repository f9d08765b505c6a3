// SGD, the rule of `optim.SGD`, for all parameters in one launch.
#include "common.cuh"
#include "rounded.cuh"

struct Tensor {
  real *w, *v;    // (count,) parameter and velocity; no velocity without momentum
  const real* g;  // (count,) gradient
  int count, first_block, nesterov, unused;
  double lr, decay, momentum;
};

struct Table {
  Tensor tensor[MOST];
};

// w, v, g (count,) of each tensor -> w and v updated in place. A block takes ITEMS values a thread
// of one tensor, which it finds by its number; each value is read and written once.
EXPORT __launch_bounds__(THREADS) sgd(Table table, int tensors, const double* rate) {
  int i = 0;
  while (i + 1 < tensors && table.tensor[i + 1].first_block <= int(blockIdx.x)) ++i;
  const Tensor& t = table.tensor[i];
  real lr = real(t.lr * *rate), decay = real(t.decay), momentum = real(t.momentum);
  int start = (int(blockIdx.x) - t.first_block) * (THREADS * ITEMS) + int(threadIdx.x);
#pragma unroll
  for (int item = 0; item < ITEMS; ++item) {
    int k = start + item * THREADS;
    if (k >= t.count) break;
    real g = t.g[k], w = t.w[k];
    if (decay != 0) g = plus(g, times(decay, w));
    if (t.v) {
      real v = plus(times(t.v[k], momentum), g);
      t.v[k] = v;
      g = t.nesterov ? plus(g, times(momentum, v)) : v;
    }
    t.w[k] = plus(w, -times(lr, g));
  }
}
