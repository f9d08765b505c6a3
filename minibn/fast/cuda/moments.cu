// The moments of an activation x (R, C), and the kernels that add partial sums per channel for the
// passes of fused_block.cu. Macro V: channels for a thread (see rows.cuh).
#include "rows.cuh"

// partial (blocks, 2, C): Σ (x - x_0) and Σ (x - x_0)² over a block's rows, x_0 being row 0. One
// pass: reads x. A thread subtracts its own first value, and converts its sums to x_0 in double.
EXPORT __launch_bounds__(THREADS) moments(const real* x, double* partial, int R, int C, int G,
                                          int chunk) {
  RowLoop w = row_loop(R, C, G, chunk);
  double first[V] = {}, second[V] = {};
  if (w.count) {
    Vec own = load(x + w.first * C + w.c), origin = load(x + w.c);
    real a[V] = {}, b[V] = {};
#pragma unroll 4
    for (int t = 0; t < w.count; ++t) {
      Vec value = load(x + (w.first + t * w.step) * C + w.c);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        real d = value.v[j] - own.v[j];
        a[j] += d;
        b[j] += d * d;
      }
    }
    int n = w.count;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      double by = double(own.v[j]) - origin.v[j];
      first[j] = a[j] + n * by;
      second[j] = b[j] + 2 * by * a[j] + n * by * by;
    }
  }
  block_sums(first, second, partial, C, G);
}

// Mean, variance (biased), scale and shift (C) of a BatchNorm, from the sums of all blocks; and for
// its gradients stats (2, C): the rounding error of the mean, and 1/sqrt(var + eps).
//   y = (x - mean) scale + shift,   scale = gamma inv_std,   shift = beta - rest scale
// Threads (32, lanes): 32 channels, and lanes among which the P partial sums are divided.
EXPORT finish_moments(const double* partial, int P, int C, int R, const real* x, const real* gamma,
            const real* beta, double eps, real* mean, real* var, real* scale, real* shift,
            double* stats) {
  int c;
  double a, b;
  if (!totals(partial, P, C, &c, &a, &b)) return;
  a /= R;
  double exact = x[c] + a, variance = b / R - a * a;
  if (variance < 0) variance = 0;  // a NaN stays
  double inv_std = 1 / sqrt(variance + eps);
  mean[c] = exact;
  var[c] = variance;
  stats[c] = exact - mean[c];
  stats[C + c] = inv_std;
  scale[c] = gamma[c] * inv_std;
  shift[c] = beta[c] - stats[c] * gamma[c] * inv_std;
}

// From the sums of all blocks, Σ ȳ and Σ ȳ (x - mean): the gradients of gamma and beta, and slope
// and offset (C) with  x̄ = scale ȳ + slope (x - mean) + offset. Threads as above.
//   x̄ = scale (ȳ - (beta̅ + x̂ gamma̅) / R)
EXPORT norm_grad(const double* partial, int P, int C, int R, const real* scale, const double* stats,
                 real* g_gamma, real* g_beta, real* slope, real* offset) {
  int c;
  double beta_bar, b;
  if (!totals(partial, P, C, &c, &beta_bar, &b)) return;
  double rest = stats[c], inv_std = stats[C + c], gamma_bar = inv_std * (b - rest * beta_bar);
  double k = -scale[c] * inv_std * gamma_bar / R;
  g_gamma[c] = gamma_bar;
  g_beta[c] = beta_bar;
  slope[c] = k;
  offset[c] = -scale[c] * beta_bar / R - k * rest;
}

// g_shift (C) = Σ ȳ and g_scale (C) = Σ ȳ x, from the sums of all blocks. Threads as above.
EXPORT affine_grad(const double* partial, int P, int C, real* g_scale, real* g_shift) {
  int c;
  double a, b;
  if (!totals(partial, P, C, &c, &a, &b)) return;
  g_shift[c] = a;
  g_scale[c] = b;
}
