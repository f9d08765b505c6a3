"""A row of the registry: the problems of one op, and its expected properties."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn.autograd.tensor import value
from minibn.backend import backend_of
from minibn.testing.problem import Problem

Positions = tuple[int, ...]
Rng = np.random.Generator
Plain = Callable[[Rng], tuple[Callable[..., Any], tuple[np.ndarray, ...]]]


@dataclass(frozen=True)
class Tied:
    """A problem on the kink, with the gradient that the op's documentation promises there."""

    problem: Problem
    expected: Callable[..., tuple[np.ndarray, ...]]  # (g, *inputs), NumPy arrays


@dataclass(frozen=True, kw_only=True)
class Precise:
    """How many digits the gradient keeps in each precision, beside float64 at the rounded inputs.

    They are relative to the largest entry for cotangents of this size, so that one in which terms
    cancel by chance doesn't matter. float16 may be None, and nothing is promised: in it 10⁻⁵, an
    eps, has half of its digits, and the square of a small spread is zero.
    """

    digits: float = 4.5  # float32
    half_digits: float | None = 1.0  # float16

    def digits_of(self, dtype: Any) -> float | None:
        """The digits of float64, float32 or float16, as declared."""
        return {8: 10.0, 4: self.digits, 2: self.half_digits}[np.dtype(dtype).itemsize]


@dataclass(frozen=True)
class Case(Precise):
    """One op.

    problems: smooth points, away from every kink. plain: a hand-written problem.
    torch: the op's name in PyTorch, if it takes the same arguments ("nn.functional.relu");
    other ops have an entry in `tests/parity/torch_pairs.py`.
    linear: groups of inputs in which the op is linear, jointly in a group with the others fixed,
    up to a constant: the Jacobian in such a group is J u = f(u) - f(0).
    homogeneous: f(a·x) = a·f(x) for a > 0, in all inputs together.
    operands: how many an elementwise op has, which broadcast; 0 for other ops.
    kinks: points with exact ties, and the documented gradient there. convention: that in words.
    """

    problems: st.SearchStrategy[Problem]
    plain: Plain | None = None
    torch: str = ""
    linear: tuple[Positions, ...] = ()
    homogeneous: bool = False
    operands: int = 0
    kinks: st.SearchStrategy[Tied] | None = None
    convention: str = ""

    def linear_in(self, problem: Problem) -> list[Positions]:
        """The groups of `linear`, without inputs that this problem leaves out (such as a bias)."""
        return groups(self.linear, problem)


def groups(linear: tuple[Positions, ...], problem: Problem) -> list[Positions]:
    present = [tuple(i for i in group if i < len(problem.inputs)) for group in linear]
    return [group for group in present if group]


def here(x: Any, constant: np.ndarray) -> Any:
    """A constant of the problem on x's backend, in x's precision."""
    array = backend_of(value(x)).asarray(constant)
    if array.dtype.kind != "f" or value(x).dtype.kind not in "fc":
        return array
    return array.astype(value(x).real.dtype)
