"""A captured CUDA graph: the launches of a whole step, handed to the device as one.

Between `begin` and the end of a capture CUDA runs nothing: it writes down every launch with its
arguments, addresses and numbers alike. `launch()` then does all of it, for the price of one launch
(CUDA C++ Programming Guide, "CUDA Graphs"). So a replay reads what stands in the same arrays by
then, with the same numbers: what must change between replays is read from the device's memory (see
`scalars`).

Arrays made in the capture keep their place for as long as the graph lives: they come from a pool of
its own, in which memory that is freed on the way is used again within the step, and by nobody else.
They die with the graph: copy what is to be kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from minibn.fast.cuda.recording import Recording


class Graph:
    """What a `with graph.capture(...)` block asked of the device, to be repeated by `launch()`."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self._pool: Any = None
        self._graph: Any = None

    @contextmanager
    def capture(self, state: Iterable[Any]) -> Iterator[None]:
        """Inside, computations are written down, not done. state: the arrays from outside that they
        change in place. Whatever is raised inside is raised again, and capturing is over."""
        if self.backend.name == "strict":
            recording = Recording()
            with recording.on(state):
                yield
            self._graph = recording
            return
        cupy = self.backend.xp  # streams and pools are no array functions
        cupy.get_default_memory_pool().free_all_blocks()  # the memory of the steps before
        # A stream that waits for the default one and is waited for. What would run on that one
        # unasked, outside the graph, then raises.
        stream = cupy.cuda.Stream()
        with self.backend.private_pool() as self._pool, stream:
            stream.begin_capture()
            try:
                yield
            except BaseException:
                with contextlib.suppress(Exception):  # it may be invalid: the first error counts
                    stream.end_capture()
                raise
            self._graph = stream.end_capture()

    def launch(self) -> None:
        """Do all of it once, in the order of the current stream."""
        self._graph.launch()
