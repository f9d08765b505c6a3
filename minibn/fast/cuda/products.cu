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
//   BM, BN; WM, WN    the tile of a block; of a warp
//   BLOCKS, SHARED    blocks at once per multiprocessor; bytes of shared memory
//   VA, VB, VZ        numbers in a copy of a and of b (4 or 1), in a store (2 or 1)
//   DILATED           the pixels of an input gradient's c lie `gap` apart
//   REUSE             images are read through the L1 cache, and K runs over all positions of BK
//                     channels, then the next: overlapping windows hit the cache
#include "common.cuh"
#include "tensor_core.cuh"

#define FORWARD 0
#define INPUT_GRAD 1
#define WEIGHT_GRAD 2
#define FP32 0
#define TF32 1
#define BF16 2

#if PRECISION == BF16
using Number = uint16_t;  // in shared memory
#else
using Number = float;
#endif
constexpr int CHUNK = 16 / sizeof(Number);  // of K: a fragment is two chunks deep
constexpr int BK = 32;                             // the depth of a tile
constexpr int STAGES = PRECISION == BF16 ? 2 : 3;  // tiles of a and b in shared memory
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

struct Source { const float* from; bool there; };  // of a copy: zeros unless `there`

// The numbers where a pixel and a tap meet; zeros for what lies outside of the image.
__device__ inline Source gather(const Problem& p, const float* images, Place a, Place b) {
  int position = a.x + b.x, h = a.y + b.y, w = a.z + b.z;
#if DILATED
  h = without_gap(h, p.gap_h);
  w = without_gap(w, p.gap_w);
  position += (h * p.W + w) * p.C;
#endif
  return {images + position, static_cast<uint32_t>(h) < static_cast<uint32_t>(p.H) &&
                                 static_cast<uint32_t>(w) < static_cast<uint32_t>(p.W)};
}

// A tile in shared memory, BY_K: k runs along its lines, else rows. Its pitch lets a warp read a
// fragment without bank conflicts. `ldmatrix` reads 8 lines of 16 bytes at once: they lie in 32
// different banks if the pitch is an odd number of 16 bytes. Floats of (g, t) that lie the other
// way are read one by one: 8·t + g are different numbers modulo 32.
//
// A thread fills it by COPIES of V numbers, the first of them at (line, column), the others down and
// across from there. Half a warp stores 2 lines of bf16: in different banks if 4 pitches apart.
template <bool IS_A_, bool BY_K_, int ROWS, int V>
struct Tile {
  static constexpr bool IS_A = IS_A_, BY_K = BY_K_;
  static constexpr int LINES = BY_K ? ROWS : BK, LENGTH = BY_K ? BK : ROWS;
  static constexpr int PITCH = LENGTH + (BY_K ? CHUNK : 8), SIZE = LINES * PITCH;
  static constexpr int LANES = 32 / V, DOWN = THREADS / LANES, ACROSS = LENGTH / 32;
  static constexpr int COPIES = LINES / DOWN * ACROSS;
  static_assert(LINES % DOWN == 0 && LENGTH % 32 == 0, "tiles are filled evenly");
  static_assert(BY_K || PRECISION == BF16 ? PITCH * sizeof(Number) % 32 == 16 : PITCH % 32 == 8,
                "without bank conflicts");

  static __device__ int at(int row, int k) { return BY_K ? row * PITCH + k : k * PITCH + row; }
  static __device__ int line() {
    int n = threadIdx.x / LANES;
    return V == 4 && PRECISION == BF16 ? n / 8 * 8 + n % 2 * 4 + n / 2 % 4 : n;
  }
  static __device__ int column() { return threadIdx.x % LANES * V; }
  static __device__ int down(int copy) { return copy / ACROSS * DOWN; }
  static __device__ int across(int copy) { return copy % ACROSS * 32; }
  static __device__ Number* begin(Number* tile) { return tile + line() * PITCH + column(); }
  static __device__ int next(int copy) { return down(copy) * PITCH + across(copy); }
};
using A = Tile<true, ROLE != WEIGHT_GRAD, BM, VA>;
using B = Tile<false, ROLE == INPUT_GRAD, BN, VB>;

// copy(i, source) for each copy of a tile of a. `places`: of the tile's BM pixels (taps in
// WEIGHT_GRAD), which stay while k goes on.
template <class Copy>
__device__ inline void load_a(const Problem& p, const float* images, const Place* places, int k,
                              Copy copy) {
#if ROLE == WEIGHT_GRAD
  Place there[A::ACROSS], here;  // all read first: reads of shared memory wait for copies to it
#pragma unroll
  for (int i = 0; i < A::ACROSS; ++i) there[i] = places[A::column() + A::across(i)];
#pragma unroll
  for (int i = 0; i < A::COPIES; ++i) {
    if (i % A::ACROSS == 0) here = pixel(p, k + A::line() + A::down(i), p.K);
    copy(i, gather(p, images, here, there[i % A::ACROSS]));
  }
#else
  Tap t = tap_of(p, k, A::column());
  Place here = place_of(p, t, k + A::column() < p.K), there[4];  // four read, then four copies
#pragma unroll
  for (int first = 0; first < A::COPIES; first += 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) there[i] = places[A::line() + A::down(first + i)];
#pragma unroll
    for (int i = 0; i < 4; ++i) copy(first + i, gather(p, images, there[i], here));
  }
#endif
}

template <class Copy>
__device__ inline void load_b(const Problem& p, const float* b, int k, int n, Copy copy) {
  int line = B::line(), column = B::column(), pitch = B::BY_K ? p.C : p.N;
  Tap t = tap_of(p, k, B::BY_K ? column : 0);
  int at_k = ROLE == FORWARD && REUSE ? t.place * p.C + t.channel : k;
  const float* from = B::BY_K ? b + (t.place * p.N + n + line) * pitch + t.channel
                              : b + (at_k + line) * pitch + n + column;
#pragma unroll
  for (int i = 0; i < B::COPIES; ++i) {
    int down = line + B::down(i), across = column + B::across(i);
    bool there = k + (B::BY_K ? across : down) < p.K && n + (B::BY_K ? down : across) < p.N;
    copy(i, Source{from + B::down(i) * pitch + B::across(i), there});
  }
}

// A fragment is 16 rows by 2 CHUNKs of K, four matrices of 8 rows. Those of a are in the order
// (rows, chunk) = (0, 0), (1, 0), (0, 1), (1, 1); those of b (0, 0), (0, 1), (1, 0), (1, 1): two
// factors of a product, of 8 rows each. `read_place`: where a thread reads in a fragment.
template <class T>
__device__ inline int matrix(int q, int row, int k) {
  int rows = T::IS_A ? q % 2 : q / 2, chunk = T::IS_A ? q / 2 : q % 2;
  return T::at(8 * rows + row, CHUNK * chunk + k);
}
template <class T>
__device__ inline int read_place() {
  int lane = threadIdx.x % 32;
  return T::BY_K             ? matrix<T>(lane / 8, lane % 8, 0)
         : PRECISION == BF16 ? matrix<T>(lane / 8, 0, lane % 8)
                             : matrix<T>(0, lane / 4, lane % 4);
}

// The registers of a fragment, rounded. small: the rounding error, rounded.
template <class T>
__device__ inline void fragment(const Number* from, uint32_t* big, uint32_t* small) {
  if (T::BY_K || PRECISION == BF16) ldmatrix<!T::BY_K>(big, from);
#pragma unroll
  for (int q = 0; q < 4 && PRECISION != BF16; ++q) {
    float value = T::BY_K ? __uint_as_float(big[q]) : from[matrix<T>(q, 0, 0)];
    big[q] = round_tf32(value);
    if (PRECISION == FP32) small[q] = round_tf32(value - __uint_as_float(big[q]));
  }
}

// sum += a · b. FP32: three products of tf32 numbers, without that of the two rounding errors
// (CUTLASS's 3xTF32); accumulated outside of the tensor core, which does not round to nearest.
__device__ inline void multiply_add(float* sum, const uint32_t* a, const uint32_t* a_small,
                                    const uint32_t* b, const uint32_t* b_small) {
  if (PRECISION == BF16) return multiply_add_bf16(sum, a, b);
  if (PRECISION == TF32) return multiply_add_tf32(sum, a, b);
  float part[4] = {0, 0, 0, 0};
  multiply_add_tf32(part, a_small, b);
  multiply_add_tf32(part, a, b_small);
  multiply_add_tf32(part, a, b);
#pragma unroll
  for (int q = 0; q < 4; ++q) sum[q] += part[q];
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
// the next two tiles of a and b are on their way meanwhile: to shared memory, with BF16 one by way of
// registers, from where it is `put` there rounded. Reads a once for each column of tiles, b once for
// each row of them; writes z once.
EXPORT __launch_bounds__(THREADS, BLOCKS)
    product(const float* images, const float* b, float* z, const Problem p) {
  DYNAMIC_SHARED(Place, places);
  Number* tiles = reinterpret_cast<Number*>(places + BM);
  static_assert(sizeof(Place) * BM + sizeof(Number) * STAGES * (A::SIZE + B::SIZE) == SHARED,
                "products.py asks for this much");
  int m0 = blockIdx.x / p.columns * BM, n0 = blockIdx.x % p.columns * BN;
  int first = blockIdx.y * p.steps, steps = min(p.steps, (p.K + BK - 1) / BK - first);
  for (int m = threadIdx.x; m < BM; m += THREADS) {
    Tap t = tap_of(p, m0 + m);
    places[m] = ROLE == WEIGHT_GRAD ? place_of(p, t, m0 + m < p.M) : pixel(p, m0 + m, p.M);
  }
  __syncthreads();

  auto tile_of = [&](int step) { return tiles + step % STAGES * (A::SIZE + B::SIZE); };
  float a_next[A::COPIES][VA], b_next[B::COPIES][VB];  // with BF16
  auto load = [&](int step) {
    Number *a_tile = A::begin(tile_of(step)), *b_tile = B::begin(tile_of(step) + A::SIZE);
    if (step < steps) {
      load_a(p, images, places, (first + step) * BK, [&](int i, Source s) {
        if (PRECISION == BF16) fetch<VA>(a_next[i], s.from, s.there);
        else copy_async<VA, REUSE>(a_tile + A::next(i), s.from, s.there);
      });
      load_b(p, b, (first + step) * BK, n0, [&](int i, Source s) {
        if (PRECISION == BF16) fetch<VB>(b_next[i], s.from, s.there);
        else copy_async<VB, false>(b_tile + B::next(i), s.from, s.there);
      });
    }
    if (PRECISION != BF16) commit();
  };
  auto put = [&](int step) {  // with BF16: what was loaded
    if (step >= steps) return;
    Number *a_tile = A::begin(tile_of(step)), *b_tile = B::begin(tile_of(step) + A::SIZE);
#pragma unroll
    for (int i = 0; i < A::COPIES; ++i) put_bf16<VA>(a_tile + A::next(i), a_next[i]);
#pragma unroll
    for (int i = 0; i < B::COPIES; ++i) put_bf16<VB>(b_tile + B::next(i), b_next[i]);
  };
  load(0);
  if (PRECISION == BF16) put(0);
  load(1);

  int warp = threadIdx.x / 32;
  int a_place = A::at(warp % (BM / WM) * WM, 0) + read_place<A>();
  int b_place = A::SIZE + B::at(warp / (BM / WM) * WN, 0) + read_place<B>();
  float sums[WM / 16][WN / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    if (PRECISION != BF16) wait<1>();
    __syncthreads();  // this step's tiles are there for all, and all are done with the last one's
    if (PRECISION != BF16) load(step + 2);
    const Number *a_tile = tile_of(step) + a_place, *b_tile = tile_of(step) + b_place;
#pragma unroll UNROLL
    for (int k = 0; k < BK; k += 2 * CHUNK) {
      const Number *a_at = a_tile + A::at(0, k), *b_at = b_tile + B::at(0, k);
      uint32_t a[WM / 16][4], a_small[WM / 16][4], b[4], b_small[4];
#pragma unroll
      for (int i = 0; i < WM / 16; ++i) fragment<A>(a_at + A::at(16 * i, 0), a[i], a_small[i]);
#pragma unroll
      for (int j = 0; j < WN / 8; ++j) {
        if (j % 2 == 0) fragment<B>(b_at + B::at(8 * j, 0), b, b_small);
#pragma unroll
        for (int i = 0; i < WM / 16; ++i)
          multiply_add(sums[i][j], a[i], a_small[i], b + j % 2 * 2, b_small + j % 2 * 2);
      }
      if (PRECISION == BF16 && k == 0) {  // amid the products, which hide what it costs
        put(step + 1);
        load(step + 2);
      }
    }
  }
  store(p, z + static_cast<size_t>(blockIdx.y) * p.M * p.N, sums);
}
