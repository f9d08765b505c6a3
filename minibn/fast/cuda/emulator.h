// CUDA emulated on the host, for tests: one block after another, its threads as fibers.
//
// It supports the subset of CUDA C++ that minibn's kernels use: barriers, warp shuffles, shared
// memory, atomics. A fiber runs until it waits at a barrier, a warp until all of its fibers wait for
// others; the order of the fibers is the launch's `order`. So with a missing barrier the result
// depends on it. A deadlock is an error.
#pragma once
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>
#include <algorithm>

#define EMULATED 1
#define __global__
#define __device__ __attribute__((visibility("hidden")))  // or libraries share __shared__ arrays
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block at a time
#define __constant__
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct dim3 { unsigned x, y, z; };
struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) int4 { int x, y, z, w; };

namespace emulator {

constexpr int WARP = 32;
constexpr size_t STACK = 128 << 10;

struct Fiber {
  uint3 index;
  int number;
  bool started, done;
  jmp_buf place;
  ucontext_t entry;
  char* stack;
};

struct Meeting {  // a barrier
  int expected, arrived;
  unsigned turn;
  void* posts[WARP];
};

static std::vector<Fiber> fibers;
static std::vector<Meeting> warps;
static Meeting block;
static Fiber* current;
static jmp_buf scheduler;
static ucontext_t home;
static dim3 block_index, block_shape, grid_shape;
static std::vector<char> dynamic;
static long progress;
static void (*body)();

inline void yield() {
  if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

template <class F>
void meet(Meeting& m, F last) {  // the last to arrive does `last` for all
  unsigned turn = m.turn;
  if (++m.arrived >= m.expected) {
    last();
    m.arrived = 0;
    ++m.turn;
    ++progress;
  } else {
    while (m.turn == turn) yield();
  }
}

template <class Post, class F>
void in_warp(Post& mine, F compute) {  // compute(posts, lanes) once all lanes have posted
  Meeting& m = warps[current->number / WARP];
  m.posts[current->number % WARP] = &mine;
  meet(m, [&] { compute(reinterpret_cast<Post**>(m.posts), m.expected); });
}

inline void leave(Meeting& m) {  // barriers do not wait for a thread that has ended
  --m.expected;
  if (m.expected > 0 && m.arrived >= m.expected) {
    m.arrived = 0;
    ++m.turn;
  }
}

inline void trampoline() {
  body();
  current->done = true;
  ++progress;
  leave(block);
  leave(warps[current->number / WARP]);
  _longjmp(scheduler, 1);
}

inline void resume(Fiber& f) {
  current = &f;
  if (_setjmp(scheduler)) return;
  if (f.started) _longjmp(f.place, 1);
  f.started = true;
  getcontext(&f.entry);
  f.entry.uc_stack.ss_sp = f.stack;
  f.entry.uc_stack.ss_size = STACK;
  f.entry.uc_link = nullptr;
  makecontext(&f.entry, trampoline, 0);
  setcontext(&f.entry);
}

inline uint32_t next_random(uint32_t& state) { return state = state * 1664525u + 1013904223u; }

// Run every thread of a block to its end. order: 0 as numbered, 1 backwards, else a shuffle's seed.
inline bool run_block(unsigned order) {
  int n = static_cast<int>(fibers.size());
  std::vector<int> turns(n);
  for (int i = 0; i < n; ++i) turns[i] = order == 1 ? n - 1 - i : i;
  uint32_t state = order;
  if (order > 1) {
    for (int i = n - 1; i > 0; --i) std::swap(turns[i], turns[(next_random(state) >> 8) % (i + 1)]);
    auto rank = [&](int i) { return (i / WARP + order) % warps.size(); };
    std::stable_sort(turns.begin(), turns.end(), [&](int i, int j) { return rank(i) < rank(j); });
  }
  block = {n, 0, 0, {}};
  for (size_t w = 0; w < warps.size(); ++w)
    warps[w] = {std::min(WARP, n - static_cast<int>(w) * WARP), 0, 0, {}};
  for (Fiber& f : fibers) f.started = f.done = false;
  for (int left = n; left > 0;) {
    long before = progress;
    for (int w = 0; w < n; w += WARP)
      for (long last = -1; last != progress;) {  // a warp runs ahead of the others as far as it can
        last = progress;
        for (int k = w; k < std::min(n, w + WARP); ++k) {
          Fiber& f = fibers[turns[k]];
          if (f.done) continue;
          resume(f);
          left -= f.done;
        }
      }
    if (progress == before) return false;  // deadlock
  }
  return true;
}

template <class... A, size_t... I>
int launch(void (*kernel)(A...), void** arguments, std::index_sequence<I...>, const int* shape,
           int shared, unsigned order) {
  static void (*function)(A...);
  static void** values;
  function = kernel;
  values = arguments;
  body = [] { function(*static_cast<std::remove_reference_t<A>*>(values[I])...); };
  grid_shape = {unsigned(shape[0]), unsigned(shape[1]), unsigned(shape[2])};
  block_shape = {unsigned(shape[3]), unsigned(shape[4]), unsigned(shape[5])};
  size_t n = size_t(block_shape.x) * block_shape.y * block_shape.z;
  fibers.resize(n);
  warps.resize((n + WARP - 1) / WARP);
  static std::vector<char> stacks;  // reused: allocating takes longer than most launches
  if (stacks.size() < n * STACK) stacks.resize(n * STACK);
  dynamic.assign(size_t(shared) + 32, 0x7f);
  for (size_t i = 0; i < n; ++i) {
    unsigned x = i % block_shape.x, y = i / block_shape.x % block_shape.y;
    fibers[i].index = {x, y, unsigned(i / (size_t(block_shape.x) * block_shape.y))};
    fibers[i].number = int(i);
    fibers[i].stack = stacks.data() + i * STACK;
  }
  for (unsigned z = 0; z < grid_shape.z; ++z)
    for (unsigned y = 0; y < grid_shape.y; ++y)
      for (unsigned x = 0; x < grid_shape.x; ++x) {
        block_index = {x, y, z};
        if (!run_block(order)) return 1;
      }
  return 0;
}

template <class... A>
int start(void (*kernel)(A...), void** arguments, const int* shape, int shared, unsigned order) {
  return launch(kernel, arguments, std::index_sequence_for<A...>{}, shape, shared, order);
}

inline char* dynamic_shared() {
  return dynamic.data() + (16 - reinterpret_cast<uintptr_t>(dynamic.data()) % 16) % 16;
}

}  // namespace emulator

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_shape)
#define gridDim (emulator::grid_shape)
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::dynamic_shared())

inline void __syncthreads() { emulator::meet(emulator::block, [] {}); }
inline void __syncwarp(unsigned = ~0u) {
  int nothing = 0;
  emulator::in_warp(nothing, [](int**, int) {});
}

template <class T>
struct Shuffled { T value, result; int from; };

template <class T>
T shuffled(T value, int from) {
  Shuffled<T> mine{value, value, from};
  emulator::in_warp(mine, [](Shuffled<T>** posts, int lanes) {
    for (int i = 0; i < lanes; ++i)
      if (posts[i]->from < lanes) posts[i]->result = posts[posts[i]->from]->value;
  });
  return mine.result;
}

inline int lane_number() { return emulator::current->number % emulator::WARP; }
template <class T> T __shfl_sync(unsigned, T v, int lane) { return shuffled(v, lane % 32); }
template <class T> T __shfl_xor_sync(unsigned, T v, int mask) { return shuffled(v, lane_number() ^ mask); }
template <class T> T __shfl_down_sync(unsigned, T v, unsigned by) {
  return shuffled(v, lane_number() + int(by) < 32 ? lane_number() + int(by) : lane_number());
}
template <class T> T atomicAdd(T* place, T value) { T before = *place; *place += value; return before; }
template <class T> T __ldg(const T* p) { return *p; }

inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return uint64_t((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline float __int_as_float(int i) { float f; std::memcpy(&f, &i, 4); return f; }
inline int __float_as_int(float f) { int i; std::memcpy(&i, &f, 4); return i; }
inline unsigned __float_as_uint(float f) { unsigned i; std::memcpy(&i, &f, 4); return i; }
inline float __uint_as_float(unsigned i) { float f; std::memcpy(&f, &i, 4); return f; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
using std::max;
using std::min;
