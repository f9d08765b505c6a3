"""`check_autograd`: the gradients of a function of HIPS autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.testing.adapters.packages import package
from minibn.testing.arguments import check_leaves, name_of
from minibn.testing.check import check_vjp
from minibn.testing.containers import paths, rebuild
from minibn.testing.libraries import is_array
from minibn.testing.report import GradReport


def check_autograd(fn: Callable[..., Any], *args: Any, **keywords: Any) -> GradReport:
    """Compare the gradients of `autograd.make_vjp(fn)` with derivatives computed from values: so
    the rules of `autograd.extend.defvjp` that fn uses are checked.

    fn        a function of autograd.numpy; its outputs may be in dicts, lists and tuples
    args      its arguments: arrays and numbers, also in dicts, lists and tuples
    keywords  those of `check_vjp`. Complex gradients are in autograd's convention ("jax")

    Raises as `check_vjp` does; ImportError without autograd.

    >>> import autograd.numpy as anp                              # doctest: +SKIP
    >>> check_autograd(anp.tanh, np.array([0.5, -2.0])).passed    # doctest: +SKIP
    True
    """
    make_vjp = package("autograd", "check_autograd").make_vjp

    def vjp(g: Any, *arguments: Any) -> list[Any]:
        found = paths(tuple(arguments))
        moving = [k for k, (_, x) in enumerate(found) if _is_inexact(x)]
        totals: dict[int, Any] = dict.fromkeys(moving)
        for number, (_, c) in enumerate(paths(g)):
            if c is None:
                continue

            def one_output(*leaves: Any, number: int = number) -> Any:
                whole = [x for _, x in found]
                for k, leaf in zip(moving, leaves, strict=True):
                    whole[k] = leaf
                return paths(fn(*rebuild(tuple(arguments), iter(whole))))[number][1]

            pull, _ = make_vjp(one_output, argnum=tuple(range(len(moving))))(
                *(found[k][1] for k in moving)
            )
            for k, d in zip(moving, pull(c), strict=True):
                totals[k] = d if totals[k] is None else totals[k] + d
        copies = {k: np.array(d) for k, d in totals.items()}  # autograd shares arrays
        every = [copies.get(k) for k in range(len(found))]
        return list(rebuild(tuple(arguments), iter(every)))

    keywords = {"name": name_of(fn), "complex_convention": "jax"} | keywords
    return check_leaves(check_vjp, fn, vjp, args, **keywords)


def _is_inexact(x: Any) -> bool:
    return type(x) in (float, complex) or (is_array(x) and np.asarray(x).dtype.kind in "fc")
