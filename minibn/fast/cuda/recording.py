"""A captured CUDA graph on the strict double: a list of calls that can be repeated.

Every computation on strict arrays, kernels included, goes through `strict_array.compute`. An active
`Recording` stores each call and its result arrays. `launch()` repeats the calls, into the same
arrays: it reads the current contents of arrays from outside, and the recorded values of arguments
that were passed by value. As in a stream capture, nothing may wait for the device or be copied to
it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from minibn.backend.strict_array import StrictArray, current_recorder, wrap
from minibn.errors import CaptureError

# Functions that CuPy computes by cuBLAS.
PRODUCTS = frozenset(("dot", "einsum", "inner", "matmul", "tensordot", "vdot"))


class Stream:
    """As `cupy.cuda.Stream`.

    What is computed while it captures is recorded. At the end all strict arrays get their values
    back, as if nothing had run.
    """

    current: Stream | None = None

    def __enter__(self) -> Stream:
        self._outside, Stream.current = Stream.current, self
        return self

    def __exit__(self, *error: Any) -> None:
        Stream.current = self._outside

    def is_capturing(self) -> bool:
        return current_recorder.get() is not None

    def begin_capture(self, mode: Any = None) -> None:
        assert Stream.current is self, "what is captured must be asked of this stream"
        if current_recorder.get() is not None:
            raise CaptureError("a step is being captured already: captures do not nest")
        arrays = [x for x in gc.get_objects() if type(x) is StrictArray and x._host.flags.writeable]
        self._values = [(x, x._host.copy()) for x in arrays]
        self._recording = Recording()
        current_recorder.set(self._recording)

    def end_capture(self) -> Recording:
        current_recorder.set(None)
        for x, values in self._values:
            x._host[...] = values
        del self._values
        return self._recording


class Recording:
    """The calls of one step, in order, each with the arrays that it made."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[], Any], list[StrictArray]]] = []
        self._computing = False

    def launch(self) -> None:
        """Repeat all calls."""
        for call, made in self.calls:
            for x, again in zip(made, _arrays(wrap(call())), strict=True):
                if x._host.flags.writeable:  # a broadcast view is not, and needs no copy
                    x._host[...] = again._host

    # -- called by `strict_array`
    def on_call(self, call: Callable[[], Any], name: str) -> Any:
        if name in PRODUCTS:
            raise CaptureError(f"{name} goes through cuBLAS, which CuPy refuses in a capture")
        self._computing = True
        try:
            found = wrap(call())
        finally:
            self._computing = False
        self.calls.append((call, _arrays(found)))
        return found

    def on_new_array(self, x: StrictArray) -> None:
        if not self._computing:
            raise CaptureError(
                f"an array of shape {x.shape} was brought to the device in a captured step: a "
                "replay would not see its next values. Make it before"
            )

    def on_wait(self, name: str) -> None:
        raise CaptureError(f"{name} waits for the device, in a captured step")


def _arrays(found: Any) -> list[StrictArray]:
    if isinstance(found, StrictArray):
        return [found]
    return [x for part in found for x in _arrays(part)] if isinstance(found, (list, tuple)) else []
