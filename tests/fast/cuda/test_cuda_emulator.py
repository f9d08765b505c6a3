"""The emulator: what a GPU would make of a kernel, mistakes included."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.cuda import on, orders

from minibn.backend import to_numpy
from minibn.fast.cuda import program
from minibn.fast.cuda.program import Program

SOURCE = """
#include "common.cuh"

EXPORT total(const real* x, real* out, int n) {  // out[b] = sum of the 256 values of block b
  __shared__ real part[8];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  real v = i < n ? x[i] : 0;
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(~0u, v, d);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) {
    real sum = 0;
    for (int w = 0; w < 8; ++w) sum += part[w];
    out[blockIdx.x] = sum;
  }
}

EXPORT reversed(const real* x, real* out, int wait) {
  DYNAMIC_SHARED(real, part);
  part[threadIdx.x] = x[threadIdx.x];
  if (wait) __syncthreads();
  out[threadIdx.x] = part[blockDim.x - 1 - threadIdx.x];
}

EXPORT overtaken(real* out, int wait) {  // out = 0 + 1 for each thread
  __shared__ real part[SIZE];
  real sum = 0;
  for (int step = 0; step < 2; ++step) {
    if (threadIdx.x < SIZE) part[threadIdx.x] = step;
    __syncthreads();
    sum += part[threadIdx.x % SIZE];
    for (int i = 0; i < 3; ++i) __syncwarp();
    if (wait) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

EXPORT stuck(real* x) {
  if (threadIdx.x % 2) __syncthreads();
  else __syncwarp();
}

__device__ __forceinline__ real* shared_by_an_inline_function() {
  __shared__ real memory[SIZE];
  return memory;
}

EXPORT filled(real* out) {
  real* memory = shared_by_an_inline_function();
  for (int i = threadIdx.x; i < SIZE; i += 32) memory[i] = i;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = memory[SIZE - 1];
}

EXPORT numbers(double* out, int a, double b, float c) { out[0] = a + b + c; }
"""


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    (tmp_path / "common.cuh").write_text((program.HERE / "common.cuh").read_text())
    (tmp_path / "sample.cu").write_text(SOURCE)
    monkeypatch.setattr(program, "HERE", tmp_path)
    with on("emulated") as backend:
        yield backend, Program("sample")


def test_a_sum_over_warps_and_shared_memory_is_right_in_any_order(kernels):
    backend, program = kernels
    x = np.random.default_rng(0).standard_normal(1000)

    def compute():
        out = backend.xp.empty(4)
        program.launch("total", 4, 256, backend.asarray(x), out, 1000, SIZE=8, REAL="double")
        return to_numpy(out)

    results = orders(backend, compute)
    expected = np.pad(x, (0, 24)).reshape(4, 256).sum(1)
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-12)
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("wait", [0, 1])
def test_a_missing_barrier_shows_as_a_result_that_depends_on_the_order(kernels, wait):
    backend, program = kernels
    x = backend.asarray(np.arange(64, dtype=np.float32))

    def compute():
        out = backend.xp.zeros(64, np.float32)
        program.launch("reversed", 1, 64, x, out, wait, shared=64 * 4, SIZE=8, REAL="float")
        return to_numpy(out)

    same = all(np.array_equal(r, np.arange(64)[::-1]) for r in orders(backend, compute))
    assert same == bool(wait)


@pytest.mark.parametrize("wait", [0, 1])
def test_a_warp_that_overtakes_another_shows_as_well(kernels, wait):
    """It overwrites what the other has still to read, though both met at a barrier before."""
    backend, program = kernels

    def compute():
        out = backend.xp.zeros(64, np.float32)
        program.launch("overtaken", 1, 64, out, wait, SIZE=32, REAL="float")
        return to_numpy(out)

    assert all(np.all(r == 1) for r in orders(backend, compute)) == bool(wait)


def test_threads_that_wait_for_each_other_for_ever_raise(kernels):
    backend, program = kernels
    with pytest.raises(RuntimeError, match="wait for each other for ever"):
        program.launch("stuck", 1, 32, backend.xp.zeros(1), SIZE=8, REAL="double")


def test_numbers_arrive_as_the_types_of_c(kernels):
    backend, program = kernels
    out = backend.xp.zeros(1)
    program.launch("numbers", 1, 1, out, 3, 0.25, np.float32(1.5), SIZE=8, REAL="double")
    assert to_numpy(out)[0] == 4.75


def test_a_view_with_gaps_is_refused(kernels):
    backend, program = kernels
    with pytest.raises(ValueError, match="contiguous"):
        program.launch("stuck", 1, 32, backend.xp.zeros((4, 4))[:, 1], SIZE=8, REAL="double")


@pytest.mark.parametrize(
    "blocks, threads, shared",
    [(1, 1025, 0), ((1, 1 << 16), 32, 0), (1, 32, 228 << 10), ((1.0,), 32, 0), (1, 0, 0)],
)
def test_what_cuda_refuses_is_refused(kernels, blocks, threads, shared):
    backend, program = kernels
    with pytest.raises(AssertionError):
        program.launch(
            "stuck", blocks, threads, backend.xp.zeros(1), shared=shared, REAL="float", SIZE=8
        )


def test_more_shared_memory_than_48_kb_is_asked_for_first(kernels):
    backend, program = kernels
    module = backend.cupy.RawModule(program.text, ("-DREAL=float", "-DSIZE=8"))
    kernel, size = module.get_function("reversed"), 64 << 10
    x, out = (backend.xp.zeros(64, np.float32) for _ in range(2))
    with pytest.raises(AssertionError):
        kernel((1, 1, 1), (64, 1, 1), (x, out, np.int32(1)), shared_mem=size)
    kernel.max_dynamic_shared_size_bytes = size
    kernel((1, 1, 1), (64, 1, 1), (x, out, np.int32(1)), shared_mem=size)


def test_no_blocks_are_no_launch(kernels):
    backend, program = kernels
    program.launch("stuck", 0, 32, backend.xp.zeros(1), SIZE=8, REAL="double")


def test_shared_memory_of_one_size_is_not_that_of_another(kernels):
    """As one symbol in two libraries it would be, and the larger one would not fit."""
    backend, program = kernels
    for size in (8, 1 << 20):
        out = backend.xp.zeros(1)
        program.launch("filled", 1, 32, out, SIZE=size, REAL="double")
        assert to_numpy(out)[0] == size - 1


def test_two_threads_that_launch_the_same_kernel_do_not_meet(kernels):
    """Its fibers and its shared memory are there once: together they crashed."""
    _, program = kernels

    def work(seed):
        x = np.random.default_rng(seed).standard_normal(25_600)
        with on("emulated") as backend:  # a choice belongs to its thread
            given, out = backend.asarray(x), backend.xp.empty(100)
            for _ in range(20):
                program.launch("total", 100, 256, given, out, x.size, SIZE=8, REAL="double")
                np.testing.assert_allclose(to_numpy(out), x.reshape(100, 256).sum(1), atol=1e-9)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (0, 1)))
