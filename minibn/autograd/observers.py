"""Observers: hooks around every op that runs, for `profile`, `detect_anomaly` and `summary`.

The tape looks up the current observers once per op. By default there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from minibn.setting import Setting

Call = Callable[..., Any]


class Observer:
    """Base class of observers; its hooks do nothing.

    every_layer: whether layers must run one by one, not as fused blocks.
    """

    every_layer = False

    def wrap(self, call: Call, op: Any, run: Any, node: Any) -> Call:
        """The function to call in the place of `call`, which is `run.forward` (node is None) or, in
        the backward pass, `run.vjp` of a node. run: the op, or the kernel in its place."""
        return call

    def on_record(self, node: Any) -> None:
        """Called after an op was recorded as this node."""

    def layer(self, name: str) -> AbstractContextManager[None]:
        """A context manager around the call of the module of this name."""
        return nullcontext()


_observers: Setting[tuple[Observer, ...]] = Setting("observers", ())
current = _observers.get  # () -> the observers of this thread or task, outermost first


@contextmanager
def observe_with(observer: Observer) -> Iterator[None]:
    """Context manager: `observer` sees every op that this thread or task runs."""
    with _observers.override((*current(), observer)):
        yield


@contextmanager
def layer(name: str) -> Iterator[None]:
    """Enter `observer.layer(name)` of each observer, around the call of a module."""
    with ExitStack() as stack:
        for observer in current():
            stack.enter_context(observer.layer(name))
        yield


def source_of(run: Any) -> str:
    """The file of an op or a kernel, as "minibn/ops/conv.py"."""
    return type(run).__module__.replace(".", "/") + ".py"


def wrap(call: Call, op: Any, run: Any, node: Any = None) -> Call:
    """`call`, wrapped by all current observers."""
    for observer in current():
        call = observer.wrap(call, op, run, node)
    return call
