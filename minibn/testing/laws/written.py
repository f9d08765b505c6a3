"""A function with a hand-written vjp, as an op of the tape: so that laws can be put to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibn.autograd.tape import Op, apply


class Written(Op):
    """y = f(*inputs).    The gradients are vjp(g, *inputs), and are taken as they come."""

    def __init__(self, f: Callable[..., Any], vjp: Callable[..., Any]) -> None:
        self.f, self.written = f, vjp

    def forward(self, *inputs):
        return self.f(*inputs)

    def vjp(self, g, out, *inputs):
        found = self.written(g, *inputs)
        found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        for i, (gradient, x) in enumerate(zip(found, inputs, strict=False)):
            if gradient is not None and gradient.dtype != x.dtype:  # the tape would mend it
                raise TypeError(f"the vjp gives {gradient.dtype} for input {i}, which is {x.dtype}")
        return found


def recorded(f: Callable[..., Any], vjp: Callable[..., Any]) -> Callable[..., Any]:
    """f, for arrays and Tensors, with the gradients that `vjp(g, *inputs)` says (an array for one
    input, else a tuple). NumPy code needs no law of the groups "backends" and "second order".

    >>> import numpy as np
    >>> from minibn.testing import Problem
    >>> from minibn.testing.laws import check_laws
    >>> cube = recorded(lambda x: x * x * x, lambda g, x: 3 * g * x * x)
    >>> check_laws(Problem(cube, (np.ones(3),)), without=("backends", "second order"))
    """
    return lambda *inputs: apply(Written(f, vjp), *inputs)
