"""A function with a hand-written vjp, as an op of the tape: so that laws can be checked on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibn.autograd.tape import Op, apply


class FunctionOp(Op):
    """y = f(*inputs).    The gradients are those of vjp(g, *inputs), unchanged."""

    def __init__(self, f: Callable[..., Any], vjp: Callable[..., Any]) -> None:
        self.f, self.vjp_of_f = f, vjp

    def forward(self, *inputs):
        return self.f(*inputs)

    def vjp(self, g, out, *inputs):
        result = self.vjp_of_f(g, *inputs)
        gradients = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        for i, (gradient, x) in enumerate(zip(gradients, inputs, strict=False)):
            if gradient is not None and gradient.dtype != x.dtype:  # the tape would cast it
                raise TypeError(f"the vjp gives {gradient.dtype} for input {i}, which is {x.dtype}")
        return gradients


def make_op(f: Callable[..., Any], vjp: Callable[..., Any]) -> Callable[..., Any]:
    """f, for arrays and Tensors, with the gradients of `vjp(g, *inputs)` (an array for one input,
    else a tuple). NumPy code needs no law of the groups "backends" and "second order".

    >>> import numpy as np
    >>> from minibn.testing import Problem
    >>> from minibn.testing.laws import check_laws
    >>> cube = make_op(lambda x: x * x * x, lambda g, x: 3 * g * x * x)
    >>> check_laws(Problem(cube, (np.ones(3),)), without=("backends", "second order"))
    """
    return lambda *inputs: apply(FunctionOp(f, vjp), *inputs)
