// Philox4x64-10 (minibn/backend/philox.py), and the draws of minibn/random.py. Products and sums
// are rounded separately, as in NumPy, without fused multiply-add.
#include "common.cuh"
#include "rounded.cuh"

struct Integers {
  uint64_t word[4];
};

// The four integers of one block: a function of the key (128 bits) and the counter (256 bits).
__device__ __forceinline__ Integers philox(uint64_t k0, uint64_t k1, uint64_t c0, uint64_t c1,
                                           uint64_t c2, uint64_t c3) {
  const uint64_t M0 = 0xD2E7470EE14C6C93, M1 = 0xCA5A826395121157;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    uint64_t high0 = __umul64hi(M0, c0), low0 = M0 * c0;
    uint64_t high1 = __umul64hi(M1, c2), low1 = M1 * c2;
    c0 = high1 ^ c1 ^ k0;
    c2 = high0 ^ c3 ^ k1;
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B97F4A7C15;
    k1 += 0xBB67AE8584CAA73B;
  }
  return {{c0, c1, c2, c3}};
}

// The parameters for a key and a counter, lowest words first. NumPy increments the counter before
// its first block. A kernel adds `tick` to c2, where minibn/random.py puts the step.
#define COUNTER                                                                      \
  uint64_t k0, uint64_t k1, uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3,      \
      const uint64_t *tick
#define BLOCK(b) philox(k0, k1, c0 + 1 + (b), c1, c2, c3)

__device__ __forceinline__ void waves(float a, float* s, float* c) { sincosf(a, s, c); }
__device__ __forceinline__ void waves(double a, double* s, double* c) { sincos(a, s, c); }

#define FRACTION (real(1) / (1 << 24))  // 24 bits to a draw

// A uniform in [0, 1) of an integer's upper bits.
__device__ __forceinline__ real uniform(uint64_t w) { return real(uint32_t(w >> 40)) * FRACTION; }

// Two standard normals of the lower bits of two integers (Box & Muller 1958).
__device__ __forceinline__ void normals(uint64_t first, uint64_t second, real* z0, real* z1) {
  real radius = sqrt(-2 * log((real(uint32_t(first) >> 8) + 1) * FRACTION));  // of (0, 1]
  real s, c;
  waves(times(real(uint32_t(second) >> 8), real(6.283185307179586 / (1 << 24))), &s, &c);
  *z0 = times(radius, c);
  *z1 = times(radius, s);
}
