"""Observers: what is told of every op that runs, such as `profile` and `detect_anomaly`.

The tape asks for the current observers once an op. There are none unless somebody watches, and the
tape knows nothing of those that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from minibn.setting import Setting

Call = Callable[..., Any]


class Observer:
    """What may watch ops. The defaults do nothing.

    every_layer: whether layers must run one by one, not several of them as one op.
    """

    every_layer = False

    def wrap(self, call: Call, op: Any, run: Any, node: Any) -> Call:
        """What to call in the place of `call`, which is `run.forward` (node is None) or, for the
        node that is walked back, `run.vjp`. run: the op itself, or the kernel that runs it."""
        return call

    def on_record(self, node: Any) -> None:
        """An op left this node on the tape."""

    def layer(self, name: str) -> AbstractContextManager[None]:
        """What is around the call of a module of this name."""
        return nullcontext()


_observers: Setting[tuple[Observer, ...]] = Setting("observers", ())
current = _observers.get  # () -> the observers of this thread or task, outermost first


@contextmanager
def observe_with(observer: Observer) -> Iterator[None]:
    """Inside, `observer` is told of every op that this thread or task runs."""
    with _observers.override((*current(), observer)):
        yield


@contextmanager
def layer(name: str) -> Iterator[None]:
    """Inside, a module of this name is called: each observer is told."""
    with ExitStack() as stack:
        for observer in current():
            stack.enter_context(observer.layer(name))
        yield


def source_of(run: Any) -> str:
    """The file of an op or a kernel, as "minibn/ops/conv.py"."""
    return type(run).__module__.replace(".", "/") + ".py"


def wrap(call: Call, op: Any, run: Any, node: Any = None) -> Call:
    """`call` with all current observers around it."""
    for observer in current():
        call = observer.wrap(call, op, run, node)
    return call
