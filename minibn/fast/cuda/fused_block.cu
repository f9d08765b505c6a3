// Norm or bias, noise, ReLU and 2x2 max-pooling of an activation x (R, C), and their gradients.
//
// Macros: V channels for a thread (4 or 1: see rows.cuh); POOL 0 or 1; NOISE 0 none, 1 the arrays s
// and m (R, C), 2 drawn here. A unit is a row, or with POOL the four rows of a window, which
// give one row of the result; the images' sides are even. With NOISE 2 a unit is paired with that
// half an activation later, since the normals of both use the same integers (minibn/random.py).
//
//   z = fma(x - pivot, scale, shift)         pivot ~ the mean, against cancellation
//   out = max(0, largest of the unit's s z + m)
#include "rows.cuh"
#include "philox.cuh"
constexpr int PIXELS = POOL ? 4 : 1, PAIR = NOISE == 2 ? 2 : 1;
// Unrolling: enough loads in flight, with few registers.
constexpr int UNITS = POOL || NOISE == 2 ? 1 : 4, LOOKS = NOISE == 2 ? 1 : NOISE ? 2 : 4;

__device__ __forceinline__ float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return __fma_rn(a, b, c); }

// The largest of a unit's values so far, with the x, s and pixel that it came from.
struct Best {
  Vec z, x, s;
  int pixel[V];

  __device__ __forceinline__ void offer(int k, const Vec& new_z, const Vec& new_x,
                                        const Vec& new_s) {
#pragma unroll
    for (int j = 0; j < V; ++j)
      if (k == 0 || beats(new_z.v[j], z.v[j]))
        z.v[j] = new_z.v[j], x.v[j] = new_x.v[j], s.v[j] = new_s.v[j], pixel[j] = k;
  }
};

// The parameters of every pass. has: bits, 1 a pivot, 2 a scale, 4 a shift (C) each. With NOISE 2, s and m
// (C) are sigma_j and mu_j - r_mu. count: units, or pairs of them. Wo: windows in an image's row.
#define PARAMETERS                                                                           \
  const real *x, const real *pivot, const real *scale, const real *shift, int has,           \
      const real *s, const real *m, double range, double spread, COUNTER, int relu,          \
      int count, int Wo, int C, int G, int chunk
#define ARGUMENTS                                                                            \
  x, pivot, scale, shift, has, s, m, range, spread, k0, k1, c0, c1, c2, c3, tick, relu,      \
      count, Wo, C, G, chunk

struct FusedBlock {
  const real *x, *s, *m;
  RowLoop w;
  Vec pivot, scale, shift, sigma, low;
  real range, spread;
  uint64_t k0, k1, c0, c1, c2, c3;
  int relu, Wo, C, half;  // half: values between the units of a pair

  __device__ __forceinline__ FusedBlock(PARAMETERS)
      : x(x), s(s), m(m), w(row_loop(count, C, G, chunk)), range(range), spread(spread), k0(k0),
        k1(k1), c0(c0), c1(c1), c2(c2 + *tick), c3(c3), relu(relu), Wo(Wo), C(C) {
    half = count * PIXELS * C;
    bool there = w.count;
    this->pivot = there && (has & 1) ? load(pivot + w.c) : broadcast(0);
    this->scale = there && (has & 2) ? load(scale + w.c) : broadcast(1);
    this->shift = there && (has & 4) ? load(shift + w.c) : broadcast(0);
    if (NOISE == 2 && there) sigma = load(s + w.c), low = load(m + w.c);
  }

  __device__ __forceinline__ int place(int q, int k) const {  // of pixel k of unit q, in x
    int row = POOL ? 2 * q + 2 * (q / Wo) * Wo + (k & 1) + (k >> 1) * 2 * Wo : q;
    return row * C + w.c;
  }

  // The noise of the values at i, and with NOISE 2 of those half an activation later.
  __device__ __forceinline__ void noise(int i, Vec* factor, Vec* term) const {
#if NOISE == 0
    factor[0] = broadcast(1), term[0] = broadcast(0);
#elif NOISE == 1
    factor[0] = load(s + i), term[0] = load(m + i);
#else
    Integers first = BLOCK(i / 4), second = BLOCK((i + half) / 4);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      real z0, z1;
      normals(first.word[j], second.word[j], &z0, &z1);
      factor[0].v[j] = plus(times(z0, spread), sigma.v[j]);
      factor[1].v[j] = plus(times(z1, spread), sigma.v[j]);
      term[0].v[j] = plus(times(uniform(first.word[j]), range), low.v[j]);
      term[1].v[j] = plus(times(uniform(second.word[j]), range), low.v[j]);
    }
#endif
  }

  // The best of unit q, and with NOISE 2 of its partner.
  __device__ __forceinline__ void look(int q, Best* best) const {
#pragma unroll LOOKS
    for (int k = 0; k < PIXELS; ++k) {
      Vec factor[PAIR], term[PAIR];
      noise(place(q, k), factor, term);
#pragma unroll
      for (int p = 0; p < PAIR; ++p) {
        Vec value = load(x + place(q, k) + p * half), z;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          z.v[j] = fused(value.v[j] - pivot.v[j], scale.v[j], shift.v[j]);
          if (NOISE) z.v[j] = fused(z.v[j], factor[p].v[j], term[p].v[j]);
        }
        best[p].offer(k, z, value, factor[p]);
      }
    }
  }
};

// out (units, C) of x. One pass: reads x, writes out.
EXPORT __launch_bounds__(THREADS) forward(PARAMETERS, real* out) {
  FusedBlock block(ARGUMENTS);
#pragma unroll UNITS
  for (int t = 0; t < block.w.count; ++t) {
    int q = block.w.first + t * block.w.step;
    Best best[PAIR];
    block.look(q, best);
#pragma unroll
    for (int p = 0; p < PAIR; ++p) {
#pragma unroll
      for (int j = 0; j < V; ++j)
        best[p].z.v[j] = relu & (best[p].z.v[j] <= 0) ? real(0) : best[p].z.v[j];  // a NaN stays
      store(out + (q + p * count) * C + block.w.c, best[p].z);
    }
  }
}

// The partial sums of the gradients (blocks, 2, C): Σ ȳ and Σ ȳ (x - pivot), with
//   ȳ = s g at the pixel of the maximum if z > 0 (or without ReLU), else 0.
// A pixel without a cotangent is not added, so that an infinite x there has no effect.
template <bool KEEP>
__device__ __forceinline__ void sum(const FusedBlock& block, int count, int G, const real* g,
                                    double* partial, real* y_bar, int scaled) {
  real a[V] = {}, b[V] = {};
  Vec factor = scaled ? block.scale : broadcast(1);
#pragma unroll UNITS
  for (int t = 0; t < block.w.count; ++t) {
    int q = block.w.first + t * block.w.step;
    Best best[PAIR];
    block.look(q, best);
#pragma unroll
    for (int p = 0; p < PAIR; ++p) {
      Vec bar = load(g + (q + p * count) * block.C + block.w.c);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        bar.v[j] = !block.relu | (best[p].z.v[j] > 0) ? bar.v[j] : real(0);
        if (NOISE) bar.v[j] *= best[p].s.v[j];
        a[j] += bar.v[j];
        b[j] = fused(bar.v[j], best[p].x.v[j] - block.pivot.v[j], b[j]);
        bar.v[j] *= factor.v[j];
      }
      if (KEEP)
#pragma unroll
        for (int k = 0; k < PIXELS; ++k) {
          Vec pixel;
#pragma unroll
          for (int j = 0; j < V; ++j) pixel.v[j] = best[p].pixel[j] == k ? bar.v[j] : real(0);
          store(y_bar + block.place(q, k) + p * block.half, pixel);
        }
    }
  }
  double first[V], second[V];
#pragma unroll
  for (int j = 0; j < V; ++j) first[j] = a[j], second[j] = b[j];
  block_sums(first, second, partial, block.C, G);
}

// The sums alone. One pass: reads x and g (units, C).
EXPORT __launch_bounds__(THREADS) sums(PARAMETERS, const real* g, double* partial) {
  sum<false>(FusedBlock(ARGUMENTS), count, G, g, partial, nullptr, 0);
}

// The sums, and y_bar (R, C) = ȳ, or if it is `scaled` ȳ scale. One pass: reads x and g (units, C),
// writes y_bar.
EXPORT __launch_bounds__(THREADS) cotangent(PARAMETERS, const real* g, double* partial,
                                            real* y_bar, int scaled) {
  sum<true>(FusedBlock(ARGUMENTS), count, G, g, partial, y_bar, scaled);
}

// x_bar (R, C) = scale ȳ + slope (x - pivot) + offset, with ȳ recomputed. One pass: reads x and g,
// writes x_bar. For NOISE 0 only.
EXPORT __launch_bounds__(THREADS) input_grad(PARAMETERS, const real* g, const real* slope,
                                             const real* offset, real* x_bar) {
#if NOISE == 0
  FusedBlock block(ARGUMENTS);
  if (!block.w.count) return;
  Vec k1st = load(slope + block.w.c), k0th = load(offset + block.w.c);
#pragma unroll UNITS
  for (int t = 0; t < block.w.count; ++t) {
    int q = block.w.first + t * block.w.step;
    Best best[PAIR];
    block.look(q, best);
    Vec bar = load(g + q * C + block.w.c);
#pragma unroll
    for (int j = 0; j < V; ++j)
      bar.v[j] = !relu | (best[0].z.v[j] > 0) ? bar.v[j] * block.scale.v[j] : real(0);
#pragma unroll
    for (int k = 0; k < PIXELS; ++k) {
      int i = block.place(q, k);
      Vec value = load(x + i);  // again, from the cache
#pragma unroll
      for (int j = 0; j < V; ++j)
        value.v[j] = fused(value.v[j] - block.pivot.v[j], k1st.v[j], k0th.v[j]) +
                     (best[0].pixel[j] == k ? bar.v[j] : real(0));
      store(x_bar + i, value);
    }
  }
#endif
}

// x_bar (R, C), which holds ȳ, becomes scale ȳ + slope (x - pivot) + offset. One pass: reads x and
// x_bar, writes x_bar. For units of one row.
EXPORT __launch_bounds__(THREADS) finish(PARAMETERS, const real* slope, const real* offset,
                                         real* x_bar) {
  FusedBlock block(ARGUMENTS);
  if (!block.w.count) return;
  Vec k1st = load(slope + block.w.c), k0th = load(offset + block.w.c);
#pragma unroll 4
  for (int t = 0; t < block.w.count; ++t) {
    int q = block.w.first + t * block.w.step;
    int i = q * C + block.w.c;
    Vec value = load(x + i), bar = *reinterpret_cast<Vec*>(x_bar + i);
#pragma unroll
    for (int j = 0; j < V; ++j)
      bar.v[j] = fused(value.v[j] - block.pivot.v[j], k1st.v[j], k0th.v[j]) +
                 bar.v[j] * block.scale.v[j];
    store(x_bar + i, bar);
  }
}
