"""Each kernel's share of a step: events around every launch.

If the GPU waited for the host, the time between the events around a short kernel would be the
host's. So the device is kept busy first, until all launches of the step are in its queue: the times
are those of kernels, not of launching them. Library calls and CuPy's own kernels are not among our
launches: they are in the rest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from experiments.benchmarking.clock import Span
from experiments.benchmarking.device import Device
from minibn.fast.cuda.program import wrap_launches

LAG = 0.1  # seconds for which the device is kept busy


@dataclass(frozen=True)
class Kernel:
    """Of one step: how often it is launched, and the milliseconds of all its launches."""

    name: str
    launches: int
    ms: float


@dataclass(frozen=True)
class Shares:
    """Medians of several steps: with events around launches, without, and the kernels', the
    slowest first."""

    step_ms: float
    bare_ms: float
    kernels: list[Kernel]

    @property
    def rest_ms(self) -> float:
        return self.step_ms - sum(kernel.ms for kernel in self.kernels)


def shares(device: Device, step: Callable[[], Any], rounds: int) -> Shares:
    """Medians over `rounds` calls of a step that is already warm."""
    bare, whole, each = [], [], []
    for _ in range(rounds):
        device.lag(LAG)
        bare.append(1000 * device.clock.seconds(step))
        seconds, spans = _one(device, step)
        whole.append(1000 * seconds)
        each.append(_sums(spans))
    names = {name: count for sums in each for name, (count, _) in sums.items()}
    kernels = [
        Kernel(name, count, statistics.median(sums[name][1] for sums in each if name in sums))
        for name, count in names.items()
    ]
    kernels.sort(key=lambda kernel: -kernel.ms)
    return Shares(statistics.median(whole), statistics.median(bare), kernels)


def _one(device: Device, step: Callable[[], Any]) -> tuple[float, list[tuple[str, Span]]]:
    """(seconds of the step, its launches)."""
    spans: list[tuple[str, Span]] = []

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        with device.clock.span() as span:
            yield
        spans.append((name, span))

    device.lag(LAG)
    with device.clock.span() as whole, wrap_launches(timed):
        step()
    return whole.seconds, spans


def _sums(spans: list[tuple[str, Span]]) -> dict[str, tuple[int, float]]:
    """{name: (launches, milliseconds)}"""
    sums: dict[str, tuple[int, float]] = {}
    for name, span in spans:
        count, ms = sums.get(name, (0, 0.0))
        sums[name] = count + 1, ms + 1000 * span.seconds
    return sums
