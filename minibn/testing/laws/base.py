"""A law: one sentence, and one function that checks it on a problem.

    @law("algebra of the vjp", "The vjp of a zero cotangent is exactly zero.")
    def zero_at_the_zero_cotangent(problem, backend): ...

The function raises AssertionError where the sentence is false. Laws of this package are about any
op: `check_laws` checks all of them on an op of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from minibn.backend import Backend, get_backend, use
from minibn.testing.problem import Problem


@dataclass(frozen=True)
class Law:
    """A sentence with the function that checks it, in a group of laws.

    check     (problem, backend) -> None; raises AssertionError.
    devices   whether the law is checked on other backends than NumPy, too.
    examples  how many problems are drawn in a profile of 25 examples, in others in proportion.
    """

    group: str
    sentence: str
    check: Callable[..., None]
    devices: bool = True
    examples: int = 8

    @property
    def name(self) -> str:
        return self.check.__name__

    def __call__(self, *what: Any) -> None:
        """Check one example, with `backend` last. Any exception is a broken law."""
        try:
            with use(what[-1].name):
                self.check(*what)
        except Exception as error:
            raise self.to_error(error) from error

    def to_error(self, error: Exception) -> AssertionError:
        """The error that names the law."""
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, AssertionError):
            text = str(error) or "it is false"
        return AssertionError(f"law broken: {self.sentence}\n  [{self.name}] {text}")


LAWS: dict[str, Law] = {}
"""Name -> law, of those about any op."""


def law(
    group: str, sentence: str, *, devices: bool = True, examples: int = 8
) -> Callable[[Callable[..., None]], Law]:
    """Register the decorated function as the law of that sentence (see `Law` for the settings)."""

    def register(check: Callable[..., None]) -> Law:
        return add_law(LAWS, Law(group, sentence, check, devices, examples))

    return register


def add_law(laws: dict[str, Any], made: Any) -> Any:
    """Enter a law into a table by its name; raises ValueError if the name is taken."""
    if made.name in laws:
        raise ValueError(f"law: {made.name} is registered already. Names are unique.")
    laws[made.name] = made
    return made


def check_laws(
    problem: Problem, backend: str | Backend = "numpy", without: Collection[str] = ()
) -> None:
    """Check every law that is about any op on an op of your own.

    problem: the op as a function of arrays or Tensors, at a point of its domain. Laws do not check
    the numbers of its derivative: `check_problem` does.
    backend: on which they are checked, by name. without: names of laws, or of groups, to leave out.
    Raises AssertionError, which names every law that is broken, and how; ValueError for an unknown
    name in `without`.

    >>> import numpy as np
    >>> from minibn import ops
    >>> check_laws(Problem(lambda x, y: ops.exp(x) * y, (np.ones((2, 3)), np.ones(3))))
    """
    device = get_backend(backend) if isinstance(backend, str) else backend
    if unknown := set(without) - {word for law in LAWS.values() for word in (law.name, law.group)}:
        raise ValueError(
            f"check_laws: without={sorted(unknown)}: no law and no group has such a name. "
            "python -m minibn.testing laws prints all names."
        )
    chosen = [
        law
        for law in LAWS.values()
        if (law.devices or device.name == "numpy") and {law.group, law.name}.isdisjoint(without)
    ]
    broken = list(_errors(chosen, problem, device))
    if broken:
        raise AssertionError(
            f"{len(broken)} of {len(chosen)} laws are broken\n\n" + "\n\n".join(broken)
        )


def _errors(laws: Iterable[Law], problem: Problem, backend: Backend) -> Iterable[str]:
    for one in laws:
        try:
            one(problem, backend)
        except AssertionError as error:
            yield str(error)
