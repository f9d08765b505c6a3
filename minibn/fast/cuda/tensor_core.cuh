// The tensor core operations of a warp, by inline PTX, and the same for the emulator.
//
//   round_tf32, round_bf16       factors as the tensor cores take them, to nearest, ties to even
//   multiply_add_tf32, .._bf16   z (16, 8) += a · b, 8 or 16 deep, by the 32 threads together
//   ldmatrix                     four matrices of 8 rows of 16 bytes, from shared memory
//   fetch, put_bf16              copies by way of registers, where they are rounded
//   copy_async, commit, wait     asynchronous copies to shared memory, in groups; wait<n>() returns
//                                when all but the last n groups are complete
//
// The layout of fragments (PTX ISA, "Matrix fragments for mma.m16n8k8" and "m16n8k16"), for
// thread 4·g + t of the warp: z[q] is element (g + 8·(q / 2), 2·t + q % 2), and
//
//   tf32   a[q] (g + 8·(q % 2), t + 4·(q / 2))           b[q] (t + 4·q, g)
//   bf16   a[q] (g + 8·(q % 2), 2·t + 8·(q / 2) and +1)  b[q] (2·t + 8·q and +1, g), pairs
#ifndef EMULATED

__device__ inline uint32_t round_tf32(float x) {
  uint32_t r;
#if __CUDA_ARCH__ >= 900
  asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));  // one instruction, where rna is three
#else
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));  // ties away from zero: all there is
#endif
  return r;
}

__device__ inline uint32_t round_bf16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

#define MULTIPLY_ADD(name, shape, type)                                                   \
  __device__ inline void name(float* z, const uint32_t* a, const uint32_t* b) {           \
    asm("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 "                   \
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                 \
        : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])                                  \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));              \
  }
MULTIPLY_ADD(multiply_add_tf32, "m16n8k8", "tf32")
MULTIPLY_ADD(multiply_add_bf16, "m16n8k16", "bf16")

// Row r of matrix q begins where thread 8·q + r says. r[q] of thread 4·g + t has bytes 4·t to 4·t + 3
// of row g: a float, or a pair of bf16. TRANSPOSED: the pair (2·t, g) and (2·t + 1, g).
template <bool TRANSPOSED>
__device__ inline void ldmatrix(uint32_t* r, const void* row) {
  uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
}

// FLOATS (1 or 4) from global memory, aligned to them; zeros unless `there`. Volatile, so that loads
// are not moved behind the products that hide their latency.
template <int FLOATS>
__device__ inline void fetch(float* to, const float* from, bool there) {
#pragma unroll
  for (int i = 0; i < FLOATS; ++i) to[i] = 0;
  if constexpr (FLOATS == 1)
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %2, 0; @p ld.global.nc.f32 %0, [%1]; }"
                 : "+f"(to[0]) : "l"(from), "r"(int(there)));
  else
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %5, 0;"
                 "  @p ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4]; }"
                 : "+f"(to[0]), "+f"(to[1]), "+f"(to[2]), "+f"(to[3])
                 : "l"(from), "r"(int(there)));
}

// FLOATS (1 or 4) from global to shared memory, both aligned to them; zeros unless `there`.
// Copies of 16 bytes bypass the L1 cache, unless the data will soon be read AGAIN.
template <int FLOATS, bool AGAIN>
__device__ inline void copy_async(void* to, const float* from, bool there) {
  uint32_t target = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  int bytes = there ? 4 * FLOATS : 0;
  if (FLOATS == 4 && !AGAIN)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(target), "l"(from), "r"(bytes));
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(target), "l"(from), "n"(4 * FLOATS), "r"(bytes));
}

__device__ inline void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int LEFT>
__device__ inline void wait() { asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory"); }

#else  // the same for the emulator

inline uint32_t nearest(float x, int bits) {  // the float32 without its last bits
  uint32_t u = __float_as_uint(x);
  if (x != x) return 0x7fffffff;
  return (u + (1u << (bits - 1)) - 1 + (u >> bits & 1)) >> bits << bits;
}

inline uint32_t round_tf32(float x) { return nearest(x, 13); }

inline uint32_t round_bf16(float low, float high) {
  return nearest(low, 16) >> 16 | nearest(high, 16);
}

// z + the sum of products, as coarse as tensor cores were found to be (Fasi, Higham, Mikaitis &
// Pranesh 2021, "Numerical behavior of NVIDIA tensor cores"): products are exact; all terms are cut
// to the last bit of the largest, added, and the sum is cut to 24 bits. Never to nearest. Too large a
// sum is infinite.
inline float cut_sum(float z, const double* products, int n) {
  double largest = std::fabs(z), sum = z;
  for (int i = 0; i < n; ++i) {
    largest = std::max(largest, std::fabs(products[i]));
    sum += products[i];
  }
  if (!(largest > 0) || !std::isfinite(sum)) return float(sum);
  double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
  sum = double(int64_t(z / unit));
  for (int i = 0; i < n; ++i) sum += double(int64_t(products[i] / unit));
  sum *= unit;
  float cut = float(sum);
  bool up = std::fabs(cut) > std::fabs(sum) && std::isfinite(cut);
  return up ? std::nextafter(cut, 0.0f) : cut;
}

struct Fragments { float* z; const uint32_t *a, *b; };

template <int K>
void multiply_add(float* z, const uint32_t* a, const uint32_t* b) {  // K: 8 for tf32, 16 for bf16
  Fragments mine{z, a, b};
  emulator::in_warp(mine, [](Fragments** of, int) {
    double A[16][K], B[8][K], products[K];
    for (int lane = 0; lane < 32; ++lane)
      for (int q = 0, g = lane / 4, t = lane % 4; q < 4; ++q)
        for (int e = 0; e < K / 8; ++e) {
          int bits = K == 8 || e ? 0 : 16, mask = K == 8 ? ~0x1fff : ~0xffff;  // of the number
          int k = K == 8 ? t : 2 * t + e;
          A[g + 8 * (q % 2)][k + K / 2 * (q / 2)] = __uint_as_float(of[lane]->a[q] << bits & mask);
          if (q < 2) B[g][k + K / 2 * q] = __uint_as_float(of[lane]->b[q] << bits & mask);
        }
    for (int lane = 0; lane < 32; ++lane)
      for (int q = 0, g = lane / 4, t = lane % 4; q < 4; ++q) {
        const double *row = A[g + 8 * (q / 2)], *column = B[2 * t + q % 2];
        for (int k = 0; k < K; ++k) products[k] = row[k] * column[k];
        of[lane]->z[q] = cut_sum(of[lane]->z[q], products, K);
      }
  });
}

constexpr auto multiply_add_tf32 = multiply_add<8>, multiply_add_bf16 = multiply_add<16>;

// What is not aligned gives NaN.
inline bool aligned(const void* x, int bytes) {
  return reinterpret_cast<uintptr_t>(x) % bytes == 0;
}

struct Row { uint32_t* r; const void* row; };

template <bool TRANSPOSED>
void ldmatrix(uint32_t* r, const void* row) {
  Row mine{r, row};
  emulator::in_warp(mine, [](Row** of, int) {
    for (int q = 0; q < 4; ++q) {
      uint16_t matrix[8][8];
      for (int i = 0; i < 8; ++i) {
        const void* row = of[8 * q + i]->row;
        aligned(row, 16) ? std::memcpy(matrix[i], row, 16) : std::memset(matrix[i], 0xff, 16);
      }
      for (int lane = 0; lane < 32; ++lane) {
        int g = lane / 4, t = lane % 4;
        of[lane]->r[q] = TRANSPOSED ? matrix[2 * t][g] | matrix[2 * t + 1][g] << 16
                                    : matrix[g][2 * t] | matrix[g][2 * t + 1] << 16;
      }
    }
  });
}

template <int FLOATS>
void fetch(float* to, const float* from, bool there) {
  for (int i = 0; i < FLOATS; ++i)
    to[i] = !aligned(from, 4 * FLOATS) ? NAN : there ? from[i] : 0;
}

// A copy is executed as late as possible: when its thread waits.
struct Copy { float* to; const float* from; int floats; bool there; };
static std::vector<std::vector<Copy>> on_their_way[1024];  // of each thread, its groups

inline std::vector<std::vector<Copy>>& my_copies() {
  auto& groups = on_their_way[emulator::current->number];
  if (groups.empty()) groups.emplace_back();
  return groups;
}

template <int FLOATS, bool AGAIN>
void copy_async(void* to, const float* from, bool there) {
  my_copies().back().push_back({static_cast<float*>(to), from, FLOATS, there});
}

inline void commit() { my_copies().emplace_back(); }

template <int LEFT>
void wait() {
  auto& groups = my_copies();
  while (groups.size() > LEFT + 1) {  // the last one is not committed
    for (const Copy& c : groups.front()) {
      bool fits = aligned(c.to, 4 * c.floats) && aligned(c.from, 4 * c.floats);
      for (int i = 0; i < c.floats; ++i) c.to[i] = !fits ? NAN : c.there ? c.from[i] : 0;
    }
    groups.erase(groups.begin());
  }
}

#endif

// FLOATS (1 or 4) rounded, to shared memory that is aligned to 2 · FLOATS bytes.
template <int FLOATS>
__device__ inline void put_bf16(void* to, const float* x) {
  if constexpr (FLOATS == 1)
    *static_cast<uint16_t*>(to) = static_cast<uint16_t>(round_bf16(x[0], 0));
  else
    *static_cast<uint2*>(to) = {round_bf16(x[0], x[1]), round_bf16(x[2], x[3])};
}
