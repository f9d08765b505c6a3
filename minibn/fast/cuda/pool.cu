// 2x2 max-pooling of images x (N, H, W, C), stride 2. A thread has V channels of a window;
// neighbouring threads have neighbouring channels. Macro V: 4 or 1 (see rows.cuh).
#include "rows.cuh"

// y (N, Ho, Wo, C) = the largest of each window. One pass: reads x, writes y.
EXPORT __launch_bounds__(THREADS) pool(const real* x, real* y, int H, int W, int C, int n) {
  int i = blockIdx.x * THREADS + threadIdx.x;  // of n groups of V channels in y
  if (i >= n) return;
  int Ho = H / 2, Wo = W / 2, c = i % (C / V) * V, q = i / (C / V);
  int row = q / Wo / Ho * H + q / Wo % Ho * 2;  // of the images one below the other
  const real* corner = x + (row * W + q % Wo * 2) * C + c;
  Vec best = load(corner);
#pragma unroll
  for (int k = 1; k < 4; ++k) {
    Vec value = load(corner + ((k >> 1) * W + (k & 1)) * C);
#pragma unroll
    for (int j = 0; j < V; ++j)
      if (beats(value.v[j], best.v[j])) best.v[j] = value.v[j];
  }
  store(y + i * V, best);
}

// x_bar (N, H, W, C) = each g at the pixel of its window's maximum, else 0. One pass: reads x and
// g, writes x_bar. With an odd side the last cells of 2x2 pixels are not windows.
EXPORT __launch_bounds__(THREADS) unpool(const real* x, const real* g, real* x_bar, int H, int W,
                                         int C, int n) {
  int i = blockIdx.x * THREADS + threadIdx.x;  // of n groups of V channels of cells
  if (i >= n) return;
  int down = (H + 1) / 2, along = (W + 1) / 2, c = i % (C / V) * V, q = i / (C / V);
  int image = q / along / down, h = q / along % down, w = q % along;
  bool whole = h < H / 2 && w < W / 2;
  int corner = ((image * H + 2 * h) * W + 2 * w) * C + c;
  int pixel[V];
  Vec best, bar = broadcast(0);
  if (whole) {
    best = load(x + corner);
    bar = load(g + ((image * (H / 2) + h) * (W / 2) + w) * C + c);
#pragma unroll
    for (int j = 0; j < V; ++j) pixel[j] = 0;
#pragma unroll
    for (int k = 1; k < 4; ++k) {
      Vec value = load(x + corner + ((k >> 1) * W + (k & 1)) * C);
#pragma unroll
      for (int j = 0; j < V; ++j)
        if (beats(value.v[j], best.v[j])) best.v[j] = value.v[j], pixel[j] = k;
    }
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (2 * h + (k >> 1) >= H || 2 * w + (k & 1) >= W) continue;
    Vec value;
#pragma unroll
    for (int j = 0; j < V; ++j) value.v[j] = whole && pixel[j] == k ? bar.v[j] : real(0);
    store(x_bar + corner + ((k >> 1) * W + (k & 1)) * C, value);
  }
}
