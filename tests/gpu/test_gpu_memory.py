"""Memory of a GPU: what there is, the peak of a step, and what is said when it runs out."""

import sys
import types

import numpy as np
import pytest
from support.backends import chosen

from minibn import use
from minibn.backend import cupy_backend
from minibn.backend.cupy_backend import CupyBackend
from minibn.errors import BackendUnavailable
from minibn.fast.cuda.products import TILES, Chip, chip_of, plans

GB = 10**9


class Pool:
    """CuPy's memory pool and its hooks, as far as the backend looks at them."""

    hooks: dict[str, object]

    def __init__(self):
        self.hooks, self.used = {}, 3 * GB

    def total_bytes(self):
        return 7 * GB

    def used_bytes(self):
        return self.used

    def malloc(self, size):
        for hook in self.hooks.values():
            hook.malloc_postprocess(device_id=0, size=size, mem_size=size, mem_ptr=1, pmem_id=1)

    def free(self, size):
        for hook in self.hooks.values():
            hook.free_postprocess(device_id=0, mem_size=size, mem_ptr=1, pmem_id=1)


@pytest.fixture
def fake(monkeypatch):
    """(backend, its pool) on a CuPy that is not there."""
    pool = Pool()

    class MemoryHook:
        def __enter__(self):
            assert self.name not in pool.hooks, "CuPy refuses a second hook of a name"
            pool.hooks[self.name] = self

        def __exit__(self, *error):
            del pool.hooks[self.name]

    class Device:
        mem_info = (1 * GB, 80 * GB)

    cupy = types.ModuleType("cupy")
    cupy.get_default_memory_pool = lambda: pool
    cupy.cuda = types.SimpleNamespace(Device=Device, MemoryHook=MemoryHook)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return CupyBackend(), pool


def test_a_shortage_is_told_with_what_was_asked_for_and_what_there_is(fake):
    backend, _ = fake
    error = MemoryError("Out of memory allocating 9,000,000,000 bytes.\nmore")
    assert backend.shortage(error) == (
        "Out of memory allocating 9,000,000,000 bytes; 1.0 of the device's 80.0 GB are free, "
        "CuPy's pool holds 7.0, of which 3.0 are in use"
    )


def test_the_peak_is_the_most_that_was_there_at_once(fake):
    backend, pool = fake
    with backend.peak_memory() as peak:
        pool.malloc(5)
        pool.malloc(7)
        pool.free(5)
        with backend.peak_memory() as inner:
            pool.malloc(2)
    assert (peak.start, peak.now - peak.start, peak.most - peak.start) == (3 * GB, 9, 12)
    assert inner.most - inner.start == 2
    pool.malloc(1000)
    assert peak.most - peak.start == 12, "it is followed inside only"


@pytest.mark.parametrize(
    "capability, multiprocessors, kilobytes, ours",
    [("90", 132, 227, True), ("80", 108, 163, True), ("89", 128, 99, True), ("75", 72, 64, False)],
)
def test_every_product_finds_a_tile_that_the_gpus_shared_memory_holds(
    fake, capability, multiprocessors, kilobytes, ours
):
    backend, _ = fake
    device = types.SimpleNamespace(id=0, compute_capability=capability)
    backend.xp.cuda.Device = lambda: device
    backend.xp.cuda.runtime = types.SimpleNamespace(
        cudaDevAttrMultiProcessorCount=16,
        cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
        deviceGetAttribute=lambda what, device: {16: multiprocessors, 97: kilobytes << 10}[what],
    )
    chip = chip_of.__wrapped__(backend)
    assert chip == Chip(multiprocessors, kilobytes << 10, ours)
    for precision in TILES if ours else ():
        for plan in plans(4096, 512, 4608, precision, chip):
            assert (
                max(plan.tile.shared_bytes(role, precision) for role in range(3)) <= kilobytes << 10
            )


def test_products_rounded_by_an_environment_variable_are_refused(monkeypatch):
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cupy_backend, "_IS_READY", [])
    monkeypatch.setenv("CUPY_TF32", "1")
    with pytest.raises(BackendUnavailable, match=r"CUPY_TF32 is set.*--precision tf32"):
        use("cupy")


@pytest.fixture
def gpu():
    with chosen("cupy") as backend:
        yield backend


@pytest.mark.gpu
def test_a_gpu_without_enough_memory_says_so(gpu):
    total = gpu.memory()["total"]
    with pytest.raises(gpu.out_of_memory_errors) as found:
        gpu.xp.empty(2 * total, np.uint8)
    assert f"{2 * total:,}" in gpu.shortage(found.value)
    assert gpu.asarray([1.0]).sum().item() == 1, "it goes on"


@pytest.mark.gpu
def test_the_peak_of_a_gpu_counts_what_was_freed_in_between(gpu):
    with gpu.peak_memory() as peak:
        x = gpu.xp.zeros(1 << 20)
        x = x + 1  # two at once
        x = x[:10].copy()
    grown = peak.most - peak.start
    assert 2 * (8 << 20) <= grown < 3 * (8 << 20)
    assert peak.now - peak.start < 1 << 20


@pytest.mark.gpu
def test_arrays_of_a_private_pool_are_no_others(gpu):
    before = gpu.memory()["arrays"]
    with gpu.private_pool() as pool:
        x = gpu.xp.zeros(1 << 20)
    assert pool.used_bytes() >= x.nbytes
    assert gpu.memory()["arrays"] == before
    assert (x + 1).sum().item() == 1 << 20


@pytest.mark.gpu
def test_a_gpu_is_described_in_plain_strings_and_numbers(gpu):
    described = gpu.describe()
    assert described["device"] and described["memory_bytes"] > GB
    assert 0 <= described["device_id"] < described["devices"]
    assert all(type(v) in (str, int) for v in described.values())
