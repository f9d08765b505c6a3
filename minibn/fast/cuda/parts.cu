// The reduction of a product whose K was split: the parts are added in a fixed order.
#include "common.cuh"

// z (size,) = the sum of part (parts, size) over its first axis. A thread adds up one number, and the
// threads of a warp neighbours; part is read once, z is written once.
EXPORT sum_of_parts(const float* part, float* z, int size, int parts) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  float sum = 0;
  for (int n = 0; n < parts; ++n) sum += part[static_cast<size_t>(n) * size + i];
  z[i] = sum;
}
