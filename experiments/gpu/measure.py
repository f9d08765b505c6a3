"""The measurements of `experiments.gpu_check`, each in a process of its own:

    python -m experiments.gpu.measure PART FILE '{"backend": "cupy", ...}'

FILE is written after every result.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from experiments.benchmarking.device import Device, device_of
from experiments.gpu.kernels import Rates, calls_of, compare_kernels, compare_plans
from experiments.gpu.losses import CASES, carried, compare, describe, tiny
from experiments.gpu.sitting import PARTLY
from experiments.output import say
from experiments.training.json_files import write_json
from experiments.training.loop import cores
from experiments.training.provenance import environment
from experiments.vgg.settings import Settings
from minibn import precision, use
from minibn.console import prints_anywhere
from minibn.fast.cuda.emulator import emulate


@dataclass(frozen=True)
class Sizes:
    """What is measured, and in which sizes. backend: "emulated" is the strict double with CUDA's
    kernels compiled for the host. precision: of the trainings that come after."""

    backend: str
    way: str = "graph"
    precision: str = "tf32"
    rehearsal: bool = False


@contextmanager
def chosen(s: Sizes) -> Iterator[Device]:
    """The backend in use, as a device."""
    emulated = s.backend == "emulated"
    on = emulate() if emulated else nullcontext()
    with use("strict" if emulated else s.backend) as backend, on:
        yield device_of(backend)


def losses(s: Sizes, path: Path) -> int:
    """Compare the losses of every case with NumPy's. Returns the exit code: 1 if some in fp32
    differ, which then are wrong, PARTLY if only some of rounded products do."""
    found: dict[str, Any] = {}
    with chosen(s) as device:
        found["environment"] = environment(device.backend, cores()) | {"variables": _variables()}
        for name, value in found["environment"].items():
            say(f"{name:<20} {value}")
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["nvidia-smi"], check=False, timeout=5)
        code = 0
        cases = [case for case in CASES if s.way != "reference" or case.precision == "fp32"]
        for case, right in carried(map(tiny, cases[2:5]) if s.rehearsal else cases):
            began = time.perf_counter()
            result = compare(right, case.losses(device.backend.name, s.way))
            seconds = round(time.perf_counter() - began, 2)
            found[str(case)] = result | {"seconds": seconds}
            write_json(path, found)
            if not result["agree"]:
                code = 1 if case.precision == "fp32" or code == 1 else PARTLY
            say(f"{case}: from NumPy's by {describe(result)}; {seconds} s")
    return code


def _variables() -> dict[str, str]:
    """The environment variables that a result may depend on."""
    names = ("CUDA_", "CUPY_", "MINIBN_", "NVIDIA_VISIBLE", "OPENBLAS_")
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(names)}


def kernels(s: Sizes, path: Path) -> int:
    """Every call of a step of VGG-16 by every kernel, and every plan of its products, in the
    precision of the trainings, then in the others."""
    order = tuple(dict.fromkeys((s.precision, "bf16", "tf32", "fp32")))
    found: dict[str, Any] = {"machine": {}, "calls": [], "products": []}
    step: tuple[Any, ...] = (Settings(model="vgg16"), 128)
    if s.rehearsal:
        step, order = (Settings(model="vgg11", width=1 / 16), 4, ("noisy-batchnorm",)), order[:1]
    with chosen(s) as device:
        rates = Rates.measured(device, *((1, 64) if s.rehearsal else (1024, 8192)))
        found["machine"] = {"copy_bytes_per_second": rates.copy, "product_flops": rates.products}
        write_json(path, found)
        with precision(s.precision):
            calls = calls_of(*step)
        for name, records in (
            ("calls", compare_kernels(device, calls, rates, order)),
            ("products", compare_plans(device, calls[:1] if s.rehearsal else calls, order)),
        ):
            for record in records:
                found[name].append(record)
                write_json(path, found)
    return 0


PARTS: dict[str, Callable[[Sizes, Path], int]] = {"losses": losses, "kernels": kernels}


@prints_anywhere
def main(arguments: list[str]) -> int:
    """Measure one part. Returns the exit code."""
    name, path, sizes = arguments
    given: dict[str, Any] = json.loads(sizes)
    assert set(given) <= {field.name for field in fields(Sizes)}
    began = time.perf_counter()
    code = PARTS[name](Sizes(**given), Path(path))
    say(f"{name}: {time.perf_counter() - began:.1f} s" + (": FAILED" if code else ""))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
