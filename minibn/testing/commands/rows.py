"""Rows of the registry by name: the problems that they draw, and the check of one.

The registry is part of the suite of a checkout, and is imported on first use.
"""

from __future__ import annotations

from typing import Any

from minibn.backend import Backend
from minibn.errors import did_you_mean
from minibn.testing.commands.checkout import suite
from minibn.testing.problem import Problem
from minibn.testing.report import GradReport
from minibn.testing.tensors import check_problem

DTYPES = ("float64", "float32", "float16")


class UnknownName(LookupError):
    """There is no row of this name; the message shows the nearest names, or all."""


def all_rows() -> dict[str, Any]:
    """The rows of all ops, then of all layers, by name."""
    registry = suite("registry")
    return {**registry.CASES, **registry.LAYERS}


def row(name: str) -> Any:
    """The registry's Case or LayerCase; raises UnknownName."""
    known = all_rows()
    if name not in known:
        raise UnknownName(f"there is no row of the registry {name!r}. {did_you_mean(name, known)}")
    return known[name]


def problems(name: str) -> Any:
    """A strategy of Problems: points of the op's domain, or of the layer and its parameters."""
    return row(name).problems.map(as_problem)


def as_problem(drawn: Any) -> Problem:
    """The Problem of a LayerProblem; a Problem itself."""
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
    """`check_problem` under a given name and in a given precision."""
    __tracebackhide__ = True
    return check_problem(
        problem.astype(dtype), backend, order, name=name, raises=raises, diagnose=diagnose
    )
