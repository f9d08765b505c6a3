"""The CuPy backend, imported on first use. If CuPy can't run here, `why_unavailable` says why.

One process uses one GPU: CuPy's current device, which is the first of those that
CUDA_VISIBLE_DEVICES lists (all, where it is not set). `use("cupy")` neither chooses nor changes it:

    CUDA_VISIBLE_DEVICES=2 python -m experiments.vgg_cifar --backend cupy

Products of float32 are computed in float32 unless `minibn.precision` says otherwise. CuPy's own
switch, CUPY_TF32=1, would round all of them, also in gradient checks, without a trace in a run's
config. So `use("cupy")` raises if it is set.
"""

import functools
import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn.backend.backends import DeviceBackend
from minibn.errors import CaptureError, first_line

_IS_READY: list[bool] = []  # not empty once CuPy has computed something in this process


@dataclass
class Peak:
    """Bytes in arrays: at the `start` of a `peak_memory` block, `now`, and at `most` in between."""

    start: int
    now: int
    most: int


class CupyBackend(DeviceBackend):
    """Arrays on an NVIDIA GPU, through CuPy 14 or newer."""

    name = "cupy"

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.xp = self.cupy = importlib.import_module("cupy")

    @property
    def out_of_memory_errors(self) -> tuple[type[Exception], ...]:
        return (MemoryError, self.cupy.cuda.memory.OutOfMemoryError)

    def synchronize(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def describe(self) -> dict[str, str | int]:
        device = self.cupy.cuda.Device()
        runtime = self.cupy.cuda.runtime
        name = runtime.getDeviceProperties(device.id)["name"]
        return {
            "backend": self.name,
            "device": name.decode() if isinstance(name, bytes) else str(name),
            "device_id": int(device.id),
            "devices": int(runtime.getDeviceCount()),
            "memory_bytes": int(device.mem_info[1]),
            "compute_capability": str(device.compute_capability),
            "cuda_driver": int(runtime.driverGetVersion()),
            "cuda_runtime": int(runtime.runtimeGetVersion()),
            "cupy": str(self.cupy.__version__),
        }

    def memory(self) -> dict[str, int]:
        """Bytes: `total` and `free` of the device, `pool` in CuPy's memory pool, of which `arrays`
        are in use; the rest of the pool is free for new arrays."""
        free, total = self.cupy.cuda.Device().mem_info
        pool = self.cupy.get_default_memory_pool()
        return {
            "total": int(total),
            "free": int(free),
            "pool": int(pool.total_bytes()),
            "arrays": int(pool.used_bytes()),
        }

    def shortage(self, error: BaseException) -> str:
        size = {key: f"{bytes_ / 1e9:.1f}" for key, bytes_ in self.memory().items()}
        return (
            f"{first_line(error)}; {size['free']} of the device's {size['total']} GB are free, "
            f"CuPy's pool holds {size['pool']}, of which {size['arrays']} are in use"
        )

    @contextmanager
    def peak_memory(self) -> Iterator[Peak]:
        """Context manager that tracks the bytes of this thread's arrays: `... as peak: peak.most`.

        It counts allocations from memory pools, the default and private ones, in their rounded
        sizes; not the memory of CUDA, cuBLAS and compiled kernels.
        """
        start = int(self.cupy.get_default_memory_pool().used_bytes())
        peak = Peak(start, start, start)

        class Follow(self.cupy.cuda.MemoryHook):  # type: ignore[name-defined]  # imported at run time
            name = f"minibn peak {id(peak)}"  # unique, as nested hooks require

            def malloc_postprocess(self, **event: int) -> None:
                peak.now += event["mem_size"]
                peak.most = max(peak.most, peak.now)

            def free_postprocess(self, **event: int) -> None:
                peak.now -= event["mem_size"]

        with Follow():
            yield peak

    @contextmanager
    def private_pool(self) -> Iterator[Any]:
        """Context manager: this thread's arrays come from a new memory pool, which is yielded. For
        arrays at fixed addresses, such as those of a captured graph: as long as the pool is
        alive, their memory is not reused outside of it. The default pool frees its unused memory
        first."""
        self.cupy.get_default_memory_pool().free_all_blocks()
        pool = self.cupy.cuda.MemoryPool()
        with self.cupy.cuda.using_allocator(pool.malloc):
            yield pool

    @property
    def is_capturing(self) -> bool:
        return bool(self.cupy.cuda.get_current_stream().is_capturing())

    @functools.cached_property
    def compute_capability(self) -> int:
        """The device's compute capability: 90 for 9.0 (Hopper)."""
        return int(self.cupy.cuda.Device().compute_capability)

    @functools.cached_property
    def multiprocessors(self) -> int:
        """The number of multiprocessors of the device."""
        return self._attribute("cudaDevAttrMultiProcessorCount")

    @functools.cached_property
    def shared_memory(self) -> int:
        """Bytes of shared memory that a block may ask for."""
        return self._attribute("cudaDevAttrMaxSharedMemoryPerBlockOptin")

    def _attribute(self, name: str) -> int:
        runtime = self.cupy.cuda.runtime
        device = self.cupy.cuda.Device().id
        return int(runtime.deviceGetAttribute(getattr(runtime, name), device))

    def _from_host(self, x: np.ndarray) -> Any:
        if self.is_capturing:
            raise CaptureError(
                f"an array of shape {x.shape} that is brought to the device would be the same in "
                "every replay of the captured step. Make it before"
            )
        return self.cupy.asarray(x)

    def _to_host(self, x: Any) -> np.ndarray:
        return self.cupy.asnumpy(x)


def why_unavailable() -> str | None:
    """Why CuPy can't run here, in one line with the fix; None if it can."""
    if _IS_READY:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _try_cupy()
    if found is None:
        _IS_READY.append(True)
    return found


def _try_cupy() -> str | None:
    install = "pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]' for an older driver)"
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # of any kind, from a broken installation: report it
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return f"backend 'cupy': CuPy is not installed. Install it: {install}"
        why = first_line(error)
        return f"backend 'cupy': CuPy can't be imported: {why}. Reinstall it: {install}"
    if int(cupy.__version__.partition(".")[0]) < 14:
        return f"backend 'cupy': CuPy {cupy.__version__} is older than 14. Upgrade: {install}"
    if os.environ.get("CUPY_TF32", "0") not in ("", "0"):
        return (
            "backend 'cupy': CUPY_TF32 is set, which rounds the factors of every product unasked. "
            "Unset it, and ask for it where it is wanted: --precision tf32, minibn.precision"
        )
    runtime = cupy.cuda.runtime
    try:
        devices = runtime.getDeviceCount()
    except Exception as error:  # of any kind, from a broken installation: report it
        if runtime.driverGetVersion() == 0:
            return "backend 'cupy': no NVIDIA driver is loaded. Install one, or use backend 'numpy'"
        if "InsufficientDriver" in str(error):
            return (
                f"backend 'cupy': the NVIDIA driver is too old for this CuPy: {first_line(error)}. "
                "Update the driver, or pip install 'cupy-cuda12x[ctk]'"
            )
        devices, reason = 0, first_line(error)
    else:
        reason = "the device count is 0"
    if devices == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return (
            f"backend 'cupy': no CUDA device: {reason} (CUDA_VISIBLE_DEVICES is {visible!r}). "
            "Make one visible, or use backend 'numpy'"
        )
    try:  # a kernel to compile and a product: the compiler and cuBLAS are separate libraries
        (cupy.ones((2, 2)) @ cupy.ones((2, 2)) + 1).sum().item()
    except Exception as error:  # of any kind, from a broken installation: report it
        return (
            f"backend 'cupy': the device is there, computing on it fails: {first_line(error)}. "
            "CUDA's libraries come with pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]')"
        )
    return None
