// The running statistics of a norm.
#include "common.cuh"
#include "rounded.cuh"

// kept <- keep kept + weight new, for two statistics (size,): a thread updates one value of both.
EXPORT average(real* kept_a, const real* new_a, real* kept_b, const real* new_b, double keep,
               double weight, int size) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  kept_a[i] = plus(times(kept_a[i], real(keep)), times(real(weight), new_a[i]));
  kept_b[i] = plus(times(kept_b[i], real(keep)), times(real(weight), new_b[i]));
}
