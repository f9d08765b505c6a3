"""Rows of the registry by name: the problems that they draw, and the check of one.

hypothesis is imported with the registry, when a row is asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from minibn.backend import Backend
from minibn.testing.problem import Problem
from minibn.testing.report import GradReport
from minibn.testing.tensors import check_problem

DTYPES = ("float64", "float32", "float16")


class UnknownName(LookupError):
    """There is nothing of this name; the message shows what it could have been."""

    def __init__(self, what: str, name: str, known: Iterable[str], remedy: str) -> None:
        near = difflib.get_close_matches(name, list(known), 3, 0.5)
        guess = f"Did you mean {' or '.join(map(repr, near))}?" if near else remedy
        super().__init__(f"there is no {what} {name!r}. {guess}")


def names() -> list[str]:
    """Of all ops, then of all layers."""
    from minibn.testing.registry import CASES, LAYERS

    return [*CASES, *LAYERS]


def row(name: str) -> Any:
    """The registry's Case or LayerCase; raises UnknownName."""
    from minibn.testing.registry import CASES, LAYERS

    found = CASES.get(name) or LAYERS.get(name)
    if found is None:
        rows = f"The rows are {', '.join(names())}."
        raise UnknownName("row of the registry", name, names(), rows)
    return found


def problems(name: str) -> Any:
    """A strategy of Problems: points of the op's domain, or of the layer and its parameters."""
    return row(name).problems.map(as_problem)


def as_problem(drawn: Any) -> Problem:
    """A LayerProblem has a Problem, a Problem is one."""
    return drawn if isinstance(drawn, Problem) else drawn.problem()


def check_named(
    name: str,
    problem: Problem,
    *,
    backend: Backend | str | None = None,
    order: int = 1,
    dtype: str = "float64",
    raises: bool = True,
    diagnose: bool = True,
) -> GradReport:
    """`check_problem`, under a name of one's own, and in any precision."""
    return check_problem(
        problem.rounded(dtype), backend, order, name=name, raises=raises, diagnose=diagnose
    )
