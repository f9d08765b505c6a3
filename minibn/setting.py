"""Settings of a thread or an asyncio task, overridden inside a `with` block.

Each is one ContextVar. An asyncio task, or a thread that runs in a copied context, inherits the
settings of the code that starts it; a new thread begins with the defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import ContextDecorator
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

    def override(self, value: T) -> Override[T]:
        """Context manager and decorator: the setting is `value`; restored afterwards, also after an
        exception."""
        return Override(self, value)


class Override(ContextDecorator, Generic[T]):
    """Returned by `Setting.override`.

    A class and not a generator, so that an interrupt (a Ctrl-C, a signal handler's exception) that
    arrives while the block is entered leaves the setting as it was.
    """

    def __init__(self, setting: Setting[T], value: T) -> None:
        self.setting, self.value = setting, value
        self._before: list[T] = []  # one for each block that is entered

    def __enter__(self) -> T:
        before = self.setting.get()
        try:
            self._before.append(before)
            self.setting.set(self.value)
            return self.value
        except BaseException:  # an interrupt, after which there is no __exit__
            self.setting.set(before)
            raise

    def __exit__(self, *error: Any) -> None:
        self.setting.set(self._before.pop())

    def __call__(self, function: Any) -> Any:
        """As a decorator. Raises TypeError for a generator or a coroutine function: its body runs
        after the block."""
        kinds = (
            inspect.isgeneratorfunction,
            inspect.iscoroutinefunction,
            inspect.isasyncgenfunction,
        )
        if not callable(function) or any(is_kind(function) for is_kind in kinds):
            raise TypeError(
                f"{self.setting.name}: {getattr(function, '__name__', function)!r} is no function "
                "that this decorator can wrap (a generator or a coroutine runs later). Use a with "
                "block inside of it."
            )
        return super().__call__(function)

    def _recreate_cm(self) -> Override[T]:
        """For each call of a decorated function."""
        return Override(self.setting, self.value)


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

    def choose(self, name: Any) -> SettingScope:
        """Set it from here on; in a `with` statement until its end. Raises ValueError."""
        self.check(name)
        return SettingScope(self, name)

    def check(self, name: Any) -> None:
        """Raise ValueError, with the nearest name, for an unknown name."""
        if name not in self.names:
            raise ValueError(f"{self.name} {name!r} is unknown. {did_you_mean(name, self.names)}")


class SettingScope:
    """A setting that was set at once; leaving a `with` block undoes it."""

    def __init__(self, setting: Setting[Any], value: Any) -> None:
        self.setting, self.value = setting, value
        self._before = [setting.get()]
        self._entered = False
        setting.set(value)

    def __enter__(self) -> Any:
        if self._entered or self.setting.get() != self.value:  # again, or after another choice
            self._before.append(self.setting.get())
        self._entered = True
        self.setting.set(self.value)
        return self

    def __exit__(self, *error: Any) -> None:
        self.setting.set(self._before.pop())
