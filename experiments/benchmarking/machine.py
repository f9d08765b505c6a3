"""The machine's measured rates, and the FLOP and bytes of a step.

The counts are those of direct convolution, so that they do not depend on the kernel: a step with
Winograd's convolution does less arithmetic, and may exceed the machine's rate.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.benchmarking.cases import Case
from experiments.benchmarking.clock import HOST, Clock
from experiments.training.provenance import blas, environment
from minibn import nn
from minibn.backend import get_backend
from minibn.fast.cpu.threads import map_shares

VARIABLES = ("CUPY_", "MINIBN_", "NVIDIA_TF32", "TORCH")  # environment variables that change times


def header(threads: int, torch: Any) -> dict[str, Any]:
    """Machine, date, versions, threads and commit. torch: PyTorch's side, or None."""
    return {
        **environment(get_backend(), threads),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "system": platform.platform(),
        "blas": ", ".join(blas()) or "unknown",
        "torch": torch.version() if torch else None,
        "memory_gb": _memory_gb(),
        "variables": " ".join(
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLES)
        )
        or None,
    }


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


class Bystanders:
    """How busy other processes have kept the cores since construction. A contender whose threads
    wait for each other loses much more than the share that was taken: PyTorch's step took seven
    times as long while others used one core of two."""

    def __init__(self) -> None:
        self._start = _cpu_seconds()

    def share(self) -> float | None:
        """Their share of all cores' time, 0 to 1; None except on Linux."""
        now = _cpu_seconds()
        if self._start is None or now is None:
            return None
        total, busy, own = (b - a for a, b in zip(self._start, now, strict=True))
        return min(1.0, max(0.0, (busy - own) / total)) if total > 0 else 0.0


def _cpu_seconds() -> tuple[float, float, float] | None:
    """Seconds of all cores together: elapsed; busy, with those taken by the host of a virtual
    machine; spent by this process and its finished children."""
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            ticks = [int(number) for number in lines.readline().split()[1:9]]
    except OSError:
        return None
    idle, own = ticks[3] + ticks[4], os.times()
    a_second = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / a_second, (sum(ticks) - idle) / a_second, sum(own[:4])


def product_rate(n: int, repeats: int) -> float:
    """FLOP/s of a float32 product of two n×n matrices in NumPy, on all threads; the best of
    `repeats`."""
    a, b = np.random.default_rng(0).standard_normal((2, n, n), np.float32)
    out = np.empty_like(a)
    return 2 * n**3 / least_seconds(lambda: np.matmul(a, b, out=out), repeats)


def copy_bandwidth(megabytes: int, repeats: int) -> float:
    """Bytes/s of copying between two large arrays on all threads, read and written bytes both
    counted; the best of `repeats`."""
    source = np.ones(megabytes * 250_000, np.float32)
    target = np.zeros_like(source)

    def copy(some: slice) -> None:
        np.copyto(target[some], source[some])

    return 2 * source.nbytes / least_seconds(lambda: map_shares(copy, source.size), repeats)


def least_seconds(
    work: Callable[[], Any], repeats: int, clock: Clock = HOST, times: int = 1
) -> float:
    """Seconds of one `work()`: the best of `repeats` means over `times` calls in a row."""
    return min(clock.seconds(work, times) for _ in range(repeats))


@dataclass(frozen=True)
class Cost:
    """The least work of a training step by direct convolution.

    flop   of the products: 2·N·H·W·Kh·Kw·C·F per convolution, three times (forward and both
           gradients), twice for the first layer, which needs no gradient of its input
    bytes  to and from memory of the activations between convolutions, by passes over an array of
           their size. Per convolution's output y, with a = relu(norm(y)):
             forward    write y, read it for norm, write a, read a
             backward   read ā and y for norm's sums, both again for ȳ, write ȳ; read ȳ
                        and the layer's input, write the input's gradient
           that is 4 + 8 passes. Without norm: write and read a; read its gradient and a, read the
           layer's input, write the input's gradient: 2 + 4. Noise writes and reads its draws: + 2
    """

    flop: float
    bytes: float


def cost(case: Case) -> Cost:
    flop, activations, pixels = 0.0, 0, 32 * 32
    for _, module in case.network().children():
        if isinstance(module, nn.MaxPool2d):
            pixels //= 4
        elif isinstance(module, nn.Conv2d):
            products = 3 if activations else 2
            flop += products * 2 * case.batch * pixels * module.weight.size
            activations += case.batch * pixels * module.weight.shape[-1]
        elif isinstance(module, nn.Linear):
            flop += 3 * 2 * case.batch * module.weight.size
    passes = 6 if case.variant.endswith("standard") else 12
    passes += 2 if case.variant.startswith("noisy") else 0
    return Cost(flop, 4.0 * activations * passes)


def shares(record: dict[str, Any]) -> list[list[str]]:
    """Rows of a table: each step's rates by these counts, and their shares of the machine's. A
    share is the time of the arithmetic alone, or of the memory traffic alone, at the machine's
    rate, over the time of the step. The numbers are also added to the record's steps."""
    rates, lines = record["machine"], []
    for step in [*record.get("steps", []), *record.get("precision", [])]:
        case = Case(**step["case"])
        least, seconds = cost(case), step["times"][step["ours"]]["median_ms"] / 1000
        flops, bandwidth = least.flop / seconds, least.bytes / seconds
        of_product = flops / rates["product_flops"][case.precision]
        of_copy = bandwidth / rates["copy_bytes_per_second"]
        step["direct_flop"], step["direct_bytes"] = least.flop, least.bytes
        step["share_of_product_rate"], step["share_of_copy_bandwidth"] = of_product, of_copy
        lines.append(
            [str(case), f"{least.flop / 1e9:.1f}", f"{flops / 1e9:.0f}", f"{of_product:.0%}",
             f"{least.bytes / 1e9:.2f}", f"{bandwidth / 1e9:.1f}", f"{of_copy:.0%}"]
        )  # fmt: skip
    return lines
