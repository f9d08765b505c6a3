"""The device of the timed steps: a GPU, or the host in its place for a rehearsal.

minibn and PyTorch each cache the memory that they free, where the other cannot use it. So both
caches are emptied between two cases (`tidy`).
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import minibn
from experiments.benchmarking.clock import Clock, host_clock
from minibn import ops
from minibn.backend import Backend

Work = Callable[[], Any]

# One thread that keeps its stream busy for so many nanoseconds.
SPIN = r"""
__device__ unsigned long long now() {
  unsigned long long time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}
extern "C" __global__ void spin(unsigned long long nanoseconds) {
  const unsigned long long start = now();
  while (now() - start < nanoseconds) {}
}
"""


class NotHere(Exception):
    """This machine lacks what a contender needs."""


class Device:
    """The host in the place of a GPU: its clock, and the memory that Python traces."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.clock: Clock = host_clock(backend.synchronize)
        self.out_of_memory_errors: tuple[type[Exception], ...] = backend.out_of_memory_errors

    def tidy(self) -> None:
        """Free all cached memory."""
        gc.collect()

    def lag(self, seconds: float) -> None:
        """Keep the device busy for so long, so that later launches wait in its queue."""

    def peak(self, prepare: Callable[[], Work], times: int) -> dict[str, int]:
        """Bytes of arrays: "loaded" after `work = prepare()`, at the "peak" of `times` calls of
        `work`, and "step", their difference."""
        self.tidy()
        tracemalloc.start()
        try:
            work = prepare()
            tracemalloc.reset_peak()
            loaded = tracemalloc.get_traced_memory()[0]
            for _ in range(times):
                work()
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return {"loaded": loaded, "peak": most, "step": most - loaded}

    def copying(self, size: int) -> Work:
        """A copy between two arrays of `size` float32."""
        xp = self.backend.xp
        source, target = xp.ones(size, np.float32), xp.zeros(size, np.float32)

        def copy() -> None:
            target[...] = source

        return copy

    def multiplying(self, n: int, precision: str) -> Work:
        """A product of two random n×n matrices of float32, their factors rounded to `precision`."""
        draws = np.random.default_rng(0)
        a, b = (self.backend.asarray(draws.standard_normal((n, n), np.float32)) for _ in range(2))

        def multiply() -> Any:
            with minibn.precision(precision), minibn.no_grad():
                return ops.matmul(a, b)

        return multiply


class Cuda(Device):
    """A GPU through CuPy, with the events of its current stream."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.backend: Any = backend
        self._cupy = backend.xp
        cuda = self._cupy.cuda
        self.clock = Clock(cuda.Event, cuda.get_elapsed_time)
        self._spin = self._cupy.RawKernel(SPIN, "spin")

    def tidy(self) -> None:
        super().tidy()
        self._cupy.get_default_memory_pool().free_all_blocks()
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def lag(self, seconds: float) -> None:
        self._spin((1,), (1,), (np.uint64(1e9 * seconds),))

    def peak(self, prepare: Callable[[], Work], times: int) -> dict[str, int]:
        self.tidy()
        work = prepare()
        with self.backend.peak_memory() as peak:
            for _ in range(times):
                work()
        return {"loaded": peak.start, "peak": peak.most, "step": peak.most - peak.start}


def device_of(backend: Backend) -> Device:
    return Cuda(backend) if backend.name == "cupy" else Device(backend)
