"""A wrong gradient, and how it is put in place of the right one for a while."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minibn.autograd.dispatch import kernels
from minibn.autograd.tape import Op

MUTANTS: dict[str, Mutant] = {}

# What a class body has without anybody having written it there.
_NOT_WRITTEN = {*vars(type("Empty", (), {})), "__firstlineno__", "__static_attributes__"}


@dataclass(frozen=True)
class Mutant:
    """One mistake in one derivative: while `applied()`, minibn makes it.

    case: the row of `suite.registry.CASES` whose gradient is wrong then.
    order: 2 if the first derivative is right and only the second is wrong.
    kink: whether only ties (or zeros) tell it from the right gradient.
    """

    name: str
    family: str
    case: str
    sentence: str
    target: Any  # the class of an op, or a module
    changes: dict[str, Any]
    order: int = 1
    kink: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the mistake is made, and no kernel runs in its place. Afterwards all is as
        before, whatever was left behind."""
        before = dict(vars(self.target))
        try:
            for name, wrong in self.changes.items():
                setattr(self.target, name, wrong)
            with kernels("reference"):
                yield
        finally:
            for name in set(vars(self.target)) - set(before):  # say, a saved array
                delattr(self.target, name)
            for name in self.changes:
                if name in before:
                    setattr(self.target, name, before[name])


def wrong(
    target: Any, case: str, attribute: str = "vjp", *, order: int = 1, kink: bool = False
) -> Callable[[Any], Mutant]:
    """A decorator: what follows is written in the place of `target`'s own.

    target: the class of an op, or the name of a module. What follows is a function, which
    replaces `attribute`, or a class, all of whose members replace those of their names. Its name
    is the mutant's, its docstring says the mistake.
    """

    def enter(mistake: Any) -> Mutant:
        place = importlib.import_module(target) if isinstance(target, str) else target
        if inspect.isclass(mistake):
            changes = {k: v for k, v in vars(mistake).items() if k not in _NOT_WRITTEN}
        else:
            changes = {attribute: mistake}
        if inspect.isclass(place) and issubclass(place, Op):
            # A mistake may read what the right formula does not need.
            changes = {"needs": None, "needs_output": True, **changes}
        mutant = Mutant(
            mistake.__name__, mistake.__module__.rpartition(".")[2], case,
            " ".join(mistake.__doc__.split()), place, changes, order, kink,
        )  # fmt: skip
        if mutant.name in MUTANTS:
            raise ValueError(f"mutants: there are two called {mutant.name!r}. Rename one.")
        MUTANTS[mutant.name] = mutant
        return mutant

    return enter
