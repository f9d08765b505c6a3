"""Laws of the numbers that any op or layer takes: no sum overflows, nothing wraps, no mask is lost.

They are about minibn's own ops and layers, since they promise what minibn makes of an input, where
NumPy has another rule or none.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from minibn.autograd import tape
from minibn.backend import Backend
from minibn.ops import batch_normalization, elementwise, precision
from minibn.testing.laws.agreement import agree, pull, value
from minibn.testing.problem import Problem
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import ANYTHING, EVERY_OP, law


def except_for(*names: str) -> tuple[str, ...]:
    return tuple(name for name in ANYTHING if name not in names)


def inputs_to_vary(problem: Problem) -> range:
    """The positions of an op's inputs; of a layer's the first, since parameters are its own."""
    is_layer = "layer" in getattr(problem.f, "keywords", {})
    return range(1 if is_layer else len(problem.inputs))


# -- float16

SIZES = (1, 30, 1000, 20000)  # squares of 1000 and sums of four times 20000 are beyond 65,504


def in_half(problem: Problem, size: float, only_first: bool) -> Problem:
    """The problem in float16, all inputs scaled to this largest entry; or only the first, made
    positive, so that its sums are large."""

    def scaled(x: np.ndarray) -> np.ndarray:
        x = x * size / (np.abs(x).max(initial=0) or 1)
        return (np.abs(x) if only_first else x).astype(np.float16)

    inputs = tuple(
        x.astype(np.float16) if only_first and i else scaled(x)
        for i, x in enumerate(problem.inputs)
    )
    return Problem(problem.f, inputs, problem.seed, problem.flat)


@law(
    "numbers",
    "In float16 the value is that of float64, and its gradients are finite, where these are below "
    "10,000.",
    # whose sums over activations may be larger than their results, or cancel
    over=except_for("nn.Sequential", "nn.WSConv2d", "nn.WSLinear"),
)
def float16_does_not_overflow_inside(problem: Problem, backend: Backend) -> None:
    for size in SIZES:
        for only_first in (False, True):
            with np.errstate(all="ignore"):
                half = in_half(problem, size, only_first)
                wide = tuple(x.astype(np.float64) for x in half.inputs)
                c = Problem(problem.f, wide, problem.seed).cotangent()
                expected = [
                    value(problem.f, wide, backend), *pull(problem.f, wide, c, backend)
                ]  # fmt: skip
                if any(not (np.abs(e) < 1e4).all() for e in expected):
                    continue
                actual = [
                    value(problem.f, half.inputs, backend),
                    *pull(problem.f, half.inputs, c.astype(np.float16), backend),
                ]
            scale = max(np.abs(expected[0]).max(initial=0), 1e-2)  # smaller ones have few digits
            agree(actual[0], expected[0], f"the value, of inputs to {size}", 1.5, scale)
            for i, g in enumerate(actual[1:]):
                assert np.isfinite(g).all(), f"gradient {i} is not finite, of inputs to {size}"


# -- integers

RANGES = {"?": 2, "u1": 2**8, "i1": 2**7, "u2": 2**16, "i2": 2**15, "u4": 2**31, "i4": 2**31}


def whole_numbers(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Integers from all of a dtype's range (of four bytes: below 2³¹)."""
    top = RANGES[kind]
    return rng.integers(-top if kind[0] == "i" else 0, top, shape).astype(kind)


@law(
    "numbers",
    "Integers, of one byte or more, give what the same numbers give in floating point.",
    over=ANYTHING,
)
def integers_do_not_wrap(problem: Problem, backend: Backend) -> None:
    rng, places = problem.rng(), inputs_to_vary(problem)
    for kind in RANGES:
        for chosen in ({0}, {places[-1]}, set(places)):
            inputs = tuple(
                whole_numbers(rng, kind, x.shape) if i in chosen else x
                for i, x in enumerate(problem.inputs)
            )
            with np.errstate(all="ignore"):  # outside the domain of some ops
                expected = value(problem.f, [x.astype(np.float64) for x in inputs], backend)
                actual = value(problem.f, inputs, backend)
            agree(actual.astype(expected.dtype), expected, f"the value, of {kind}", digits=9)


# -- arrays that are not plain numbers


def refused(problem: Problem, position: int, x: Any, what: str) -> None:
    """Raise unless f raises the TypeError with the remedy, or gives x back as it is."""
    inputs = list(problem.inputs)
    inputs[position] = x
    try:
        result = problem.f(*inputs)
    except TypeError as error:
        assert "is not computed on. Use " in str(error), f"{what}: {error}"
    else:
        assert result is x, f"{what} is computed on"


@law(
    "numbers",
    "A masked array, a matrix and an array of anything but numbers is refused with the remedy.",
    over=ANYTHING,
    devices=False,
    examples=3,
)
def only_plain_arrays_of_numbers(problem: Problem, backend: Backend) -> None:
    for i in inputs_to_vary(problem):
        x = problem.inputs[i]
        refused(problem, i, np.ma.array(x, mask=x > 0), "a masked array")
        if x.ndim == 2:
            refused(problem, i, x.view(np.matrix), "a matrix")
        for kind in (object, str, "M8[s]"):
            refused(problem, i, x.astype(kind), f"an array of {np.dtype(kind)}")


# -- cotangents that are not finite


@law(
    "numbers",
    "An infinite or NaN cotangent leaves the gradient of entries on which its result does not "
    "depend as it is.",
    over=except_for(
        # 0 · inf in a sum over windows, where a weight meets only padding
        "conv2d", "fused_block", "nn.Conv2d",
        # one class, or one value: the result is constant, and its derivative is a difference
        "softmax", "log_softmax", "softmax_cross_entropy", "var",
    ),
)  # fmt: skip
def zero_derivatives_select(problem: Problem, backend: Backend) -> None:
    rng, c = problem.rng(), problem.cotangent()
    near = [x + 1e-7 * rng.standard_normal(x.shape) for x in problem.inputs]
    for k in rng.choice(c.size, min(3, c.size), replace=False):
        here = (np.arange(c.size) == k).reshape(c.shape)
        unit = here.astype(np.float64)
        zero = [
            (a == 0) & (b == 0)
            for a, b in zip(
                pull(problem.f, problem.inputs, unit, backend),
                pull(problem.f, near, unit, backend),
                strict=True,
            )
        ]
        expected = pull(problem.f, problem.inputs, np.where(here, 0, c), backend)
        for bad in (np.inf, np.nan):
            with np.errstate(all="ignore"):
                actual = pull(problem.f, problem.inputs, np.where(here, bad, c), backend)
            for i, (a, e, untouched) in enumerate(zip(actual, expected, zero, strict=True)):
                agree(a[untouched], e[untouched], f"a cotangent of {bad}, input {i}")


# -- settings


@law(
    "numbers",
    "A setting given as a NumPy number gives the dtype that the Python number gives.",
    over=EVERY_OP,
    devices=False,
    examples=10,
)
def settings_are_weak(problem: Problem, backend: Backend) -> None:
    settings = getattr(problem.f, "keywords", {})
    inputs = [x.astype(np.float32) for x in problem.inputs]
    for name, number in settings.items():
        if type(number) not in (int, float):
            continue
        for kind in (np.float64, np.float32) if type(number) is float else (np.int64, np.int32):
            f = partial(problem.f, **{name: kind(number)})
            dtype = value(f, inputs, backend).dtype
            assert dtype == np.float32, f"{name}={kind.__name__}({number}) gives {dtype}"


# -- faults


def wrapping(values: list[Any], integers: str) -> list[Any]:
    return values


add_faults(
    float16_does_not_overflow_inside=Fault(
        "batch_norm", patch=(precision, "_is_half", lambda x: False)
    ),
    integers_do_not_wrap=Fault("add", patch=(tape, "_as_operands", wrapping)),
    only_plain_arrays_of_numbers=Fault("exp", patch=(tape, "check_operands", lambda values: None)),
    zero_derivatives_select=Fault("relu", patch=(elementwise, "select", lambda mask, g: mask * g)),
    settings_are_weak=Fault(
        "batch_norm", patch=(batch_normalization, "check_eps", lambda who, eps: eps)
    ),
)
