"""Clocks: the host's, and a GPU's, which times by events.

    elapsed = time of the event after the work - time of the event before it

A GPU still computes after a call has returned. An event is a mark in its queue of work: the time
between two events is that of the work between them and of the gaps in which the device waited. A
step whose launches come too late is charged for these gaps, as in a training. The host's clock
measures the same, as it waits for the device at each mark.

Source: NVIDIA, CUDA C++ Best Practices Guide, "Using CUDA GPU Timers".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class HostEvent:
    """A mark on the host's clock. wait: waits for the device."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait, self.at = wait, 0.0

    def record(self) -> None:
        self.wait()
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Does nothing: `record` has waited."""


class Span:
    """Work between two marks."""

    def __init__(self, clock: Clock) -> None:
        self._elapsed_ms = clock.elapsed_ms
        self.start, self.end = clock.event(), clock.event()

    @property
    def seconds(self) -> float:
        """Waits for the device."""
        self.end.synchronize()
        return self._elapsed_ms(self.start, self.end) / 1000


class Clock:
    """Times work by pairs of events.

    event()                 a new event: `record()` queues it after all work launched so far,
                            `synchronize()` waits until the device has reached it
    elapsed_ms(start, end)  milliseconds between two
    """

    def __init__(self, event: Callable[[], Any], elapsed_ms: Callable[[Any, Any], float]) -> None:
        self.event, self.elapsed_ms = event, elapsed_ms

    @contextmanager
    def span(self) -> Iterator[Span]:
        """The work inside. Its `seconds` can be read later, so that nothing waits here."""
        span = Span(self)
        span.start.record()
        yield span
        span.end.record()

    def seconds(self, work: Callable[[], Any], times: int = 1) -> float:
        """Seconds of one `work()`: the mean over `times` calls in a row."""
        with self.span() as span:
            for _ in range(times):
                work()
        return span.seconds / times


def host_clock(wait: Callable[[], None] = lambda: None) -> Clock:
    return Clock(lambda: HostEvent(wait), lambda start, end: 1000 * (end.at - start.at))


HOST = host_clock()
