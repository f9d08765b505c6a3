// Convolutions and matrix products as one tiled product on tensor cores: see products.py.
//
//   z (M, N) = a (M, K) · b (K, N)        a is gathered from images (·, H, W, C) as it is loaded
//
//   ROLE           a[m, k]                      b[k, n]                 z
//   FORWARD        x at pixel m, tap k          w[k, n]                 y
//   INPUT_GRAD     c at pixel m, tap k          w[k's tap, n, k's f]    x̄
//   WEIGHT_GRAD    x at pixel k, tap m          c[k, n]                 w̄
//
// A "tap" is one number of a filter: its row, column and channel. Compile-time constants are ROLE,
// PRECISION, and
//
//   BM, BN, BK; WM, WN; STAGES   the tile of a block; of a warp; the prefetched tiles
//   VA, VB, VZ                   numbers in a copy of a and of b (4 or 1), in a store (2 or 1)
//   DILATED                      the pixels of an input gradient's c lie `gap` apart
//   REUSE                        images are read through the L1 cache, and K runs over all positions
//                                of BK channels, then the next: overlapping windows hit the cache
#include "common.cuh"
#include "tensor_core.cuh"

#define FORWARD 0
#define INPUT_GRAD 1
#define WEIGHT_GRAD 2
#define FP32 0
#define TF32 1
#define BF16 2

constexpr int THREADS = 32 * (BM / WM) * (BN / WN);
constexpr int UNROLL = PRECISION == FP32 ? 1 : BK;  // of the loop in a tile: or registers run out
constexpr int OUTSIDE = -(1 << 29);

struct Division { int by; uint32_t multiplier; int shift; };  // n / by for 0 <= n < 2^31

struct Problem {
  int M, N, K, steps, columns;  // steps: of BK, in a part of K; columns: of tiles in z
  int H, W, C;
  Division pixels, row, channels, places, taps;  // of an image, its row; C; of a filter, its row
  int stride_h, stride_w, start_h, start_w, direction;
  Division gap_h, gap_w;
};

struct Tap { int place, channel; };  // of a filter
using Place = int4;  // a pixel or a tap: x position in memory, y row, z column

__device__ inline int quotient(int n, const Division& d) {
  return static_cast<int>(uint64_t(uint32_t(n)) * d.multiplier >> d.shift);
}

// The start of a pixel's window, and the offset of a tap from it. Each has its part of the position
// in `images`; with DILATED the position is computed later.
__device__ inline Place pixel(const Problem& p, int m, int end) {
  int n = quotient(m, p.pixels), rest = m - n * p.pixels.by;
  int i = quotient(rest, p.row), j = rest - i * p.row.by;
  int h = i * p.stride_h + p.start_h, w = j * p.stride_w + p.start_w;
  int position = n * p.H * p.W * p.C + (DILATED ? 0 : (h * p.W + w) * p.C);
  return {position, m < end ? h : OUTSIDE, w, 0};
}

__device__ inline Place place_of(const Problem& p, Tap t, bool there) {
  int i = quotient(t.place, p.taps);
  int h = i * p.direction, w = (t.place - i * p.taps.by) * p.direction;
  int position = t.channel + (DILATED ? 0 : (h * p.W + w) * p.C);
  return {position, there ? h : OUTSIDE, w, 0};
}

// The place and the channel of tap k; and of tap `more` of a tile of K that begins with k.
__device__ inline Tap tap_of(const Problem& p, int k) {
  int place = quotient(k, p.channels);
  return {place, k - place * p.C};
}
__device__ inline Tap tap_of(const Problem& p, int k, int more) {
#if REUSE
  int block = quotient(k / BK, p.places);
  return {k / BK - block * p.places.by, block * BK + more};
#else
  return tap_of(p, k + more);
#endif
}

__device__ inline int without_gap(int h, const Division& gap) {
  int i = quotient(h, gap);
  return h >= 0 && i * gap.by == h ? i : -1;
}

// The V numbers where a pixel and a tap meet, or zeros for what lies outside of the image.
template <int V>
__device__ inline void gather(const Problem& p, const float* images, Place a, Place b, float* to) {
  int position = a.x + b.x, h = a.y + b.y, w = a.z + b.z;
#if DILATED
  h = without_gap(h, p.gap_h);
  w = without_gap(w, p.gap_w);
  position += (h * p.W + w) * p.C;
#endif
  bool inside = static_cast<uint32_t>(h) < static_cast<uint32_t>(p.H) &&
                static_cast<uint32_t>(w) < static_cast<uint32_t>(p.W);
  copy_async<V, REUSE>(to, images + position, inside);
}

// A tile in shared memory, BY_K: k runs along its rows. The pitches let the 32 threads of a warp
// read a fragment, (g, t), from 32 banks: 4·g + t and 8·t + g are different numbers modulo 32.
template <bool BY_K, int ROWS>
struct Tile {
  static constexpr int PITCH = BY_K ? BK + 4 : ROWS + 8;
  static constexpr int SIZE = PITCH * (BY_K ? ROWS : BK);
  static __device__ int at(int row, int k) { return BY_K ? row * PITCH + k : k * PITCH + row; }
};
using A = Tile<ROLE != WEIGHT_GRAD, BM>;
using B = Tile<ROLE == INPUT_GRAD, BN>;

// A tile is filled ROWS of it at a time, LANES threads to a row: their copies are neighbours.
template <bool BY_K, int V>
struct Filling {
  static constexpr int LANES = (BY_K ? BK : 32) / V, ROWS = THREADS / LANES;
  static_assert(BM % ROWS == 0 && BN % ROWS == 0 && BK % ROWS == 0, "tiles are filled evenly");
  static __device__ int row() { return threadIdx.x / LANES; }
  static __device__ int column() { return threadIdx.x % LANES * V; }
};

// `places`: of the tile's BM pixels (taps in WEIGHT_GRAD), which stay while k goes on.
__device__ inline void load_a(const Problem& p, const float* images, const Place* places,
                              float* tile, int k) {
  using Fill = Filling<ROLE != WEIGHT_GRAD, VA>;
  int row = Fill::row(), column = Fill::column();
#if ROLE == WEIGHT_GRAD
  Place there[BM / 32];  // all read first: reads of shared memory wait for copies to it
#pragma unroll
  for (int m = 0; m < BM / 32; ++m) there[m] = places[column + 32 * m];
#pragma unroll
  for (int r = 0; r < BK; r += Fill::ROWS) {
    Place here = pixel(p, k + row + r, p.K);
#pragma unroll
    for (int m = 0; m < BM / 32; ++m)
      gather<VA>(p, images, here, there[m], tile + A::at(column + 32 * m, row + r));
  }
#else
  Tap t = tap_of(p, k, column);
  Place here = place_of(p, t, k + column < p.K), there[4];  // four read first, then four copies
#pragma unroll
  for (int r = 0; r < BM; r += 4 * Fill::ROWS) {
#pragma unroll
    for (int i = 0; i < 4; ++i) there[i] = places[row + r + i * Fill::ROWS];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      gather<VA>(p, images, there[i], here, tile + A::at(row + r + i * Fill::ROWS, column));
  }
#endif
}

__device__ inline void load_b(const Problem& p, const float* b, float* tile, int k, int n) {
  using Fill = Filling<ROLE == INPUT_GRAD, VB>;
  int row = Fill::row(), column = Fill::column();
#if ROLE == INPUT_GRAD
  Tap t = tap_of(p, k, column);
  const float* from = b + (t.place * p.N + n + row) * p.C + t.channel;
#pragma unroll
  for (int r = 0; r < BN; r += Fill::ROWS)
    copy_async<VB, false>(tile + B::at(row + r, column), from + r * p.C,
                          k + column < p.K && n + row + r < p.N);
#else
  Tap t = tap_of(p, k, 0);
  int start = ROLE == FORWARD && REUSE ? t.place * p.C + t.channel : k;
  const float* from = b + (start + row) * p.N + n + column;
#pragma unroll
  for (int r = 0; r < BK; r += Fill::ROWS)
#pragma unroll
    for (int m = 0; m < BN; m += 32)
      copy_async<VB, false>(tile + B::at(column + m, row + r), from + r * p.N + m,
                            k + row + r < p.K && n + column + m < p.N);
#endif
}

// A fragment of Q registers from numbers x(row, k), rounded. small: the rounding error, rounded.
// bf16 takes k in another order, the same in a and b: t, t + 4, ... for 2·t, 2·t + 1, ...
template <int Q, class X>
__device__ inline void fragment(X x, uint32_t* big, uint32_t* small) {
#pragma unroll
  for (int q = 0; q < Q; ++q) {
    int row = Q == 4 ? q % 2 * 8 : 0, k = Q == 4 ? q / 2 : q;
#if PRECISION == BF16
    big[q] = round_bf16(x(row, 8 * k), x(row, 8 * k + 4));
#else
    float value = x(row, 4 * k);
    big[q] = round_tf32(value);
    if (PRECISION == FP32) small[q] = round_tf32(value - __uint_as_float(big[q]));
#endif
  }
}

// sum += a · b. FP32: three products of tf32 numbers, without that of the two rounding errors
// (CUTLASS's 3xTF32); accumulated outside of the tensor core, which does not round to nearest.
__device__ inline void multiply_add(float* sum, const uint32_t* a, const uint32_t* a_small,
                                    const uint32_t* b, const uint32_t* b_small) {
#if PRECISION == FP32
  float part[4] = {0, 0, 0, 0};
  multiply_add_tf32(part, a_small, b);
  multiply_add_tf32(part, a, b_small);
  multiply_add_tf32(part, a, b);
#pragma unroll
  for (int q = 0; q < 4; ++q) sum[q] += part[q];
#elif PRECISION == TF32
  multiply_add_tf32(sum, a, b);
#else
  multiply_add_bf16(sum, a, b);
#endif
}

// A thread's share of a tile, into z (M, N).
__device__ inline void store(const Problem& p, float* z, const float (&sums)[WM / 16][WN / 8][4]) {
  int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  int m0 = blockIdx.x / p.columns * BM + warp % (BM / WM) * WM + g;
  int n0 = blockIdx.x % p.columns * BN + warp / (BM / WM) * WN + 2 * t;
#pragma unroll
  for (int i = 0; i < WM / 16; ++i)
#pragma unroll
    for (int j = 0; j < WN / 8; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int m = m0 + 16 * i + 8 * half, n = n0 + 8 * j;
        float* to = z + static_cast<size_t>(m) * p.N + n;
        const float* sum = sums[i][j] + 2 * half;
        if (m >= p.M || n >= p.N) continue;
#if VZ == 2
        *reinterpret_cast<float2*>(to) = {sum[0], sum[1]};
#else
        to[0] = sum[0];
        if (n + 1 < p.N) to[1] = sum[1];
#endif
      }
}

// z[part] (M, N) = the product over one part of K. A block computes BM × BN of it, a warp WM × WN;
// the next STAGES - 1 tiles of a and b are on their way meanwhile. Reads a once for each column of
// tiles, b once for each row of them; writes z once.
EXPORT __launch_bounds__(THREADS, BLOCKS)
    product(const float* images, const float* b, float* z, const Problem p) {
  DYNAMIC_SHARED(float, memory);
  Place* places = reinterpret_cast<Place*>(memory);
  float* tiles = memory + 4 * BM;
  int m0 = blockIdx.x / p.columns * BM, n0 = blockIdx.x % p.columns * BN;
  int first = blockIdx.y * p.steps, steps = min(p.steps, (p.K + BK - 1) / BK - first);
  for (int m = threadIdx.x; m < BM; m += THREADS) {
    Tap t = tap_of(p, m0 + m);
    places[m] = ROLE == WEIGHT_GRAD ? place_of(p, t, m0 + m < p.M) : pixel(p, m0 + m, p.M);
  }
  __syncthreads();

  auto load = [&](int step) {
    float* tile = tiles + step % STAGES * (A::SIZE + B::SIZE);
    if (step < steps) {
      load_a(p, images, places, tile, (first + step) * BK);
      load_b(p, b, tile + A::SIZE, (first + step) * BK, n0);
    }
    commit();
  };
  for (int step = 0; step < STAGES - 1; ++step) load(step);

  int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  int wm = warp % (BM / WM) * WM + g, wn = warp / (BM / WM) * WN;
  float sums[WM / 16][WN / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait<STAGES - 2>();
    __syncthreads();  // this step's tiles are there for all, and all are done with the last one's
    load(step + STAGES - 1);
    const float* a_tile = tiles + step % STAGES * (A::SIZE + B::SIZE) + A::at(wm, t);
    const float* b_tile = tiles + step % STAGES * (A::SIZE + B::SIZE) + A::SIZE + B::at(wn + g, t);
#pragma unroll UNROLL
    for (int k = 0; k < BK; k += PRECISION == BF16 ? 16 : 8) {
      uint32_t a[WM / 16][4], a_small[WM / 16][4], b[2], b_small[2];
#pragma unroll
      for (int i = 0; i < WM / 16; ++i)
        fragment<4>([&](int r, int c) { return a_tile[A::at(16 * i + r, k + c)]; }, a[i],
                    a_small[i]);
#pragma unroll
      for (int j = 0; j < WN / 8; ++j) {
        fragment<2>([&](int r, int c) { return b_tile[B::at(8 * j + r, k + c)]; }, b, b_small);
#pragma unroll
        for (int i = 0; i < WM / 16; ++i) multiply_add(sums[i][j], a[i], a_small[i], b, b_small);
      }
    }
  }
  wait<0>();

  store(p, z + static_cast<size_t>(blockIdx.y) * p.M * p.N, sums);
}
