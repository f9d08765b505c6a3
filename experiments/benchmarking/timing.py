"""Timing several contenders in one process: in turn, so that other load affects all alike.

A round runs every contender once, every other round in reverse. Garbage is collected before each
round. Before each turn the process sleeps: OpenMP's and OpenBLAS's threads spin for up to 30 ms
after their last piece of work, and would take the cores from the next contender. Measured on two
cores (VGG-11 at half width, batch 16, best of seven): ours takes 60 ms alone, 68 right after
PyTorch, 61 after the pause. Forbidding the spinning (OMP_WAIT_POLICY=passive) does as much for
ours, but PyTorch's step then takes 56 ms instead of 28: with the pause both are at their best. On a
GPU, where no threads spin, turns follow each other at once.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.benchmarking.clock import HOST, Clock

PAUSE = 0.05  # seconds before each turn
SETTLED = 0.03  # relative difference of two rounds in a row that ends the warm-up
PATIENCE = 15  # rounds of warm-up at most


@dataclass(frozen=True)
class Contender:
    """An implementation to be timed: `run` does the work and returns {phase: seconds}."""

    name: str
    run: Callable[[], Mapping[str, float]]


def single_phase(
    phase: str, work: Callable[[], Any], clock: Clock = HOST, times: int = 1
) -> Callable[[], dict[str, float]]:
    """A contender's `run` of a single phase: the mean seconds of `times` calls in a row."""
    return lambda: {phase: clock.seconds(work, times)}


def settle(run: Callable[[], float], patience: int = PATIENCE) -> tuple[float, bool]:
    """Warm up: run until two times in a row are the same (SETTLED), at most `patience` times.
    Returns (the last seconds, whether they settled)."""
    before, last = math.inf, run()
    for _ in range(patience - 1):
        before, last = last, run()
        if abs(last - before) <= SETTLED * before:
            return last, True
    return last, False


@dataclass(frozen=True)
class Times:
    """Seconds of one contender's rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def __str__(self) -> str:
        """The median and quartiles in ms: "12.3 (12.1-12.9)"."""
        digits = 0 if self.median > 0.1 else 1 if self.median > 0.005 else 2
        median, low, high = (f"{1000 * s:.{digits}f}" for s in (self.median, *self.quartiles))
        return f"{median} ({low}-{high})"

    def record(self) -> dict[str, Any]:
        return {
            "median_ms": 1000 * self.median,
            "quartiles_ms": [1000 * s for s in self.quartiles],
            "range_ms": [1000 * min(self.seconds), 1000 * max(self.seconds)],
            "rounds_ms": [1000 * s for s in self.seconds],
        }


Timings = dict[str, dict[str, Times]]  # {contender: {phase: its times}}


def in_turn(
    contenders: Sequence[Contender], rounds: int, warm_up: int = 1, pause: float | None = None
) -> Timings:
    """Time all contenders over `rounds` rounds, after `warm_up` rounds that are not counted.
    pause: seconds before each turn, PAUSE if not given.

    A contender of several phases also gets a "total", their sum in each round.
    """
    seconds: dict[str, dict[str, list[float]]] = {c.name: {} for c in contenders}
    for turn in range(warm_up + rounds):
        gc.collect()
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            time.sleep(PAUSE if pause is None else pause)
            phases = dict(contender.run())
            if len(phases) > 1:
                phases["total"] = sum(phases.values())
            if turn >= warm_up:
                for phase, spent in phases.items():
                    seconds[contender.name].setdefault(phase, []).append(spent)
    return {
        name: {phase: Times(tuple(spent)) for phase, spent in phases.items()}
        for name, phases in seconds.items()
    }


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs: of the medians, and the median of the rounds' own ratios."""

    rival: str
    medians: float
    paired: float

    @classmethod
    def to_best(cls, ours: Times, rivals: Mapping[str, Times]) -> Ratio | None:
        """Against the rival with the smallest median; None without rivals."""
        if not rivals:
            return None
        best = min(rivals, key=lambda name: rivals[name].median)
        theirs = rivals[best]
        paired = [a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
        return cls(best, ours.median / theirs.median, statistics.median(paired))
