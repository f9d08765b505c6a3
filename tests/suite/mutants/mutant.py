"""A wrong gradient, and its temporary use in place of the right one."""

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

# The entries that Python adds to every class body.
_NOT_WRITTEN = {*vars(type("Empty", (), {})), "__firstlineno__", "__static_attributes__"}


@dataclass(frozen=True)
class Mutant:
    """One mistake in one derivative, which minibn makes inside `applied()`.

    case: the row of `suite.registry.CASES` whose gradient is wrong then.
    order: 2 if the first derivative is right and only the second is wrong.
    kink: whether it differs from the right gradient only at ties (or zeros).
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
        """Inside, the mistake is made, and no kernel runs in its place. Afterwards the target is
        restored, and attributes that were added to it are deleted."""
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
    """A decorator: the decorated function or class replaces members of `target`.

    target: the class of an op, or the name of a module. A function replaces `attribute`; each
    member of a class replaces that of its name. The name of the function or class is the
    mutant's, its docstring describes the mistake. Raises ValueError for a name that is taken.
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
