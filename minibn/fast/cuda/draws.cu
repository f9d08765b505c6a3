// The draws of minibn/random.py: integers, uniforms, and uniforms with normals.
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

// out (n) = uniforms. A thread makes a block of four.
EXPORT uniforms(real* out, int n, COUNTER) {
  c2 += *tick;
  int b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b >= (n + 3) / 4) return;
  Integers drawn = BLOCK(b);
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (4 * b + j < n) out[4 * b + j] = uniform(drawn.word[j]);
}

// A draw times `scale`, plus the shift of its channel.
__device__ __forceinline__ real scale_and_shift(real draw, int i, real scale,
                                                     const real* shift, int C) {
  return C ? plus(times(draw, scale), shift[i % C]) : draw;
}

// u (n) = uniforms, z (n) = normals, each scaled and shifted where it has channels (Cu, Cz > 0).
// The normals i and half + i share two integers: a thread makes four of these pairs. OFFSET is
// half % 4, the position in a block of the first of the second integers.
EXPORT both(real* u, real* z, int n, int half, double u_scale, const real* u_shift, int Cu,
            double z_scale, const real* z_shift, int Cz, COUNTER) {
  c2 += *tick;
  int b = blockIdx.x * blockDim.x + threadIdx.x;
  if (4 * b >= half) return;
  uint64_t second[8];
  Integers first = BLOCK(b), next = BLOCK(half / 4 + b);
#pragma unroll
  for (int j = 0; j < 4; ++j) second[j] = next.word[j];
  if (OFFSET) {
    next = BLOCK(half / 4 + b + 1);
#pragma unroll
    for (int j = 0; j < 4; ++j) second[4 + j] = next.word[j];
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    int i = 4 * b + j;
    if (i >= half) return;
    uint64_t partner = second[OFFSET + j];
    real z0, z1;
    normals(first.word[j], partner, &z0, &z1);
    u[i] = scale_and_shift(uniform(first.word[j]), i, u_scale, u_shift, Cu);
    z[i] = scale_and_shift(z0, i, z_scale, z_shift, Cz);
    if ((i += half) >= n) return;
    u[i] = scale_and_shift(uniform(partner), i, u_scale, u_shift, Cu);
    z[i] = scale_and_shift(z1, i, z_scale, z_shift, Cz);
  }
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
