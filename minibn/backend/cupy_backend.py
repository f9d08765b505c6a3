"""CuPy as a backend, and why it can't run here if it can't. Imported only when it is asked for."""

import importlib
import os
import warnings
from typing import Any

import numpy as np

from minibn.backend.libraries import DeviceBackend

_IS_READY: list[bool] = []  # not empty once CuPy has computed something in this process


class CupyBackend(DeviceBackend):
    """Arrays on an NVIDIA GPU, through CuPy 14 or newer."""

    name = "cupy"

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._cupy = importlib.import_module("cupy")

    @property
    def xp(self) -> Any:
        return self._cupy

    @property
    def memory_exhausted(self) -> tuple[type[Exception], ...]:
        return (MemoryError, self._cupy.cuda.memory.OutOfMemoryError)

    def synchronize(self) -> None:
        self._cupy.cuda.Device().synchronize()

    def describe(self) -> dict[str, str | int]:
        device = self._cupy.cuda.Device()
        runtime = self._cupy.cuda.runtime
        name = runtime.getDeviceProperties(device.id)["name"]
        return {
            "backend": self.name,
            "device": name.decode() if isinstance(name, bytes) else str(name),
            "memory_bytes": int(device.mem_info[1]),
            "compute_capability": str(device.compute_capability),
            "cuda_driver": int(runtime.driverGetVersion()),
            "cuda_runtime": int(runtime.runtimeGetVersion()),
            "cupy": str(self._cupy.__version__),
        }

    def _from_host(self, x: np.ndarray) -> Any:
        return self._cupy.asarray(x)

    def _to_host(self, x: Any) -> np.ndarray:
        return self._cupy.asnumpy(x)


def trouble() -> str | None:
    """Why CuPy can't run here, in one line with the remedy; None if it can."""
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
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            return f"backend 'cupy': CuPy is not installed. Install it: {install}"
        return f"backend 'cupy': CuPy can't be imported: {_line(error)}. Reinstall it: {install}"
    except Exception as error:  # whatever a broken installation raises: it is told, not hidden
        return f"backend 'cupy': CuPy can't be imported: {_line(error)}. Reinstall it: {install}"
    if int(cupy.__version__.partition(".")[0]) < 14:
        return f"backend 'cupy': CuPy {cupy.__version__} is older than 14. Upgrade: {install}"
    runtime = cupy.cuda.runtime
    try:
        devices = runtime.getDeviceCount()
    except Exception as error:  # whatever a broken installation raises: it is told, not hidden
        if runtime.driverGetVersion() == 0:
            return "backend 'cupy': no NVIDIA driver is loaded. Install one, or use backend 'numpy'"
        if "InsufficientDriver" in str(error):
            return (
                f"backend 'cupy': the NVIDIA driver is too old for this CuPy: {_line(error)}. "
                "Update the driver, or pip install 'cupy-cuda12x[ctk]'"
            )
        devices, reason = 0, _line(error)
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
    except Exception as error:  # whatever a broken installation raises: it is told, not hidden
        return (
            f"backend 'cupy': the device is there, computing on it fails: {_line(error)}. "
            "CUDA's libraries come with pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]')"
        )
    return None


def _line(error: BaseException) -> str:
    """The error in one line: its first one that says something."""
    lines = [line.strip(" =*-") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)[:200].rstrip(".")
