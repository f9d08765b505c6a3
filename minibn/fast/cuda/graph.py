"""A captured CUDA graph: the launches of a whole step as a single launch.

During a capture CUDA executes nothing: it records every launch with its arguments, both addresses
and numbers. `launch()` then executes all of them at the cost of one launch (CUDA C++ Programming
Guide, "CUDA Graphs"). So a replay reads the current contents of the same arrays, with the same
numbers; numbers that change between replays are read from device memory (see `scalars`).

Arrays made in the capture keep their addresses while the graph is alive: they come from a private
memory pool, in which freed memory is reused within the step only. They are freed with the graph:
copy what is needed longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Graph:
    """The computations of a `with graph.capture()` block, repeated by `launch()`."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self._pool: Any = None
        self._graph: Any = None

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Context manager: computations are recorded, not executed. An exception ends it."""
        # A blocking stream, so that work on the default stream, outside the graph, raises.
        stream = self.backend.cupy.cuda.Stream()
        with self.backend.private_pool() as self._pool, stream:
            stream.begin_capture()
            try:
                yield
            except BaseException:  # a Ctrl-C too: no stream is left capturing
                with contextlib.suppress(Exception):  # raise the first error
                    stream.end_capture()
                raise
            self._graph = stream.end_capture()

    def launch(self) -> None:
        """Execute it once, on the current stream."""
        self._graph.launch()
