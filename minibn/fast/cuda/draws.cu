// The draws of minibn/random.py: integers, and the noise parameters of units.
#include "philox.cuh"

// out (n) = the integers. A thread makes a block of four.
EXPORT integers(uint64_t* out, int n, COUNTER) {
  c2 += *tick;
  int b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b >= (n + 3) / 4) return;
  Integers drawn = BLOCK(b);
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (4 * b + j < n) out[4 * b + j] = drawn.word[j];
}

// The noise parameters of the units (2, C): mu_j - r_mu and sigma_j, from the first and second C
// uniforms of stream 1. A thread makes a block of four.
EXPORT units(real* out, int C, double n_mu, double n_sigma, double r_mu, COUNTER) {
  c2 += *tick;
  int b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b >= (2 * C + 3) / 4) return;
  Integers drawn = BLOCK(b);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    int i = 4 * b + j;
    real u = uniform(drawn.word[j]);
    if (i < C)
      out[i] = plus(times(real(n_mu), 2 * u - 1), -real(r_mu));
    else if (i < 2 * C)
      out[i] = plus(1, times(real(n_sigma - 1), u));
  }
}
