"""Settings of a thread or an asyncio task, overridden inside a `with` block.

Each is one ContextVar. An asyncio task, or a thread that runs in a copied context, inherits the
settings of the code that starts it; a new thread begins with the defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from minibn.errors import did_you_mean

T = TypeVar("T")


class Setting(Generic[T]):
    """A value that can be overridden in a `with` block.

    >>> depth = Setting("depth", 0)
    >>> with depth.override(1):
    ...     depth.get()
    1
    >>> depth.get()
    0
    """

    def __init__(self, name: str, default: T) -> None:
        self.name = name
        self._variable: ContextVar[T] = ContextVar(f"minibn_{name}", default=default)
        self.get = self._variable.get  # called at every op, so bound directly
        self.set = self._variable.set

    @contextmanager
    def override(self, value: T) -> Iterator[T]:
        """Context manager: the setting is `value`; restored afterwards, also after an exception."""
        before = self.get()
        self.set(value)
        try:
            yield value
        finally:
            self.set(before)


class Choice(Setting[str]):
    """A setting that is one of a few names.

    >>> colour = Choice("colour", ("red", "green"), default="red")
    >>> colour.choose("gren")
    Traceback (most recent call last):
        ...
    ValueError: colour 'gren' is unknown. Did you mean 'green'?
    """

    def __init__(self, name: str, names: Iterable[str], default: str) -> None:
        super().__init__(name, default)
        self.names = tuple(names)

    def choose(self, name: Any) -> ChoiceScope:
        """Set it from here on; in a `with` statement until its end. Raises ValueError."""
        self.check(name)
        return ChoiceScope(self, name)

    def check(self, name: Any) -> None:
        """Raise ValueError, with the nearest name, for an unknown name."""
        if name not in self.names:
            raise ValueError(f"{self.name} {name!r} is unknown. {did_you_mean(name, self.names)}")


class ChoiceScope:
    """Returned by `Choice.choose`, which has set the name; leaving a `with` block undoes it."""

    def __init__(self, choice: Choice, name: str) -> None:
        self.choice, self.name = choice, name
        self._before = [choice.get()]
        self._entered = False
        choice.set(name)

    def __enter__(self) -> Any:
        if self._entered or self.choice.get() != self.name:  # again, or after another choice
            self._before.append(self.choice.get())
        self._entered = True
        self.choice.set(self.name)
        return self

    def __exit__(self, *error: Any) -> None:
        self.choice.set(self._before.pop())
