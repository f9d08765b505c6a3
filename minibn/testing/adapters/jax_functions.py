"""`check_jax`: the gradients of a function of JAX."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from minibn.testing.adapters.packages import package
from minibn.testing.arguments import check_leaves, name_of
from minibn.testing.check import check_vjp
from minibn.testing.diagnosis.call_script import call_script
from minibn.testing.libraries import is_array, room_for
from minibn.testing.report import GradReport


def check_jax(fn: Callable[..., Any], *args: Any, **keywords: Any) -> GradReport:
    """Compare the gradients of `jax.vjp(fn, *args)` with derivatives computed from values: so the
    rules of `jax.custom_vjp` and `jax.custom_jvp` that fn uses are checked.

    fn        a function of JAX arrays; its outputs and arguments may be any pytrees
    args      its arguments: arrays and numbers; of integers and other objects no gradient is asked
    keywords  those of `check_vjp`. Complex gradients are in JAX's convention

    Where jax_enable_x64 is off, arrays are float32, as everywhere in JAX, and the report says so;
    fn is then judged against itself in float64 if it can compute so. Raises as `check_vjp` does;
    ImportError without JAX.

    >>> import jax.numpy as jnp                          # doctest: +SKIP
    >>> check_jax(jnp.tanh, np.array([0.5, -2.0])).passed    # doctest: +SKIP
    True
    """
    jax = package("jax", "check_jax")
    call = JaxCall(jax, fn, args)
    title = f"The gradient of {name_of(fn)}: is it right?"
    script = partial(call_script, "check_jax", {"fn": fn}, args, {}, title)
    settings = {
        "name": name_of(fn), "complex_convention": "jax", "reproduce": lambda *point: script(),
    }  # fmt: skip
    return check_leaves(
        check_vjp, call.value, call.vjp, call.leaves, only=_is_inexact, labels=call.label,
        finish=call.finish, **(settings | keywords),
    )  # fmt: skip


class JaxCall:
    """A function of pytrees as a function of the list of their leaves, which are NumPy arrays."""

    def __init__(self, jax: Any, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        self.jax, self.fn = jax, fn
        found, self.tree = jax.tree_util.tree_flatten_with_path(tuple(args))
        self.paths = [jax.tree_util.keystr(path) for path, _ in found]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "float64 is not available": the report says so
            self.leaves = [np.array(jax.numpy.asarray(x)) if _is_number(x) else x for _, x in found]
        for x in self.leaves:
            if _is_inexact(x) and x.dtype.kind not in "fc":
                raise TypeError(f"check_jax: {x.dtype} is not differentiated: give float32.")
        self.narrowed = any(
            getattr(x, "dtype", None) in (np.float64, np.complex128)
            and leaf.dtype in (np.float32, np.complex64)
            for (_, x), leaf in zip(found, self.leaves, strict=True)
        )
        self.why = self._why_not_double()

    def label(self, label: str) -> str:
        """ "input 1" is the second leaf: the argument with the path of the leaf."""
        path = self.paths[int(label.removeprefix("input "))]
        return f"input {path[1:].replace(']', '', 1)}"

    def value(self, *leaves: Any) -> Any:
        if self.why:
            if any(np.iscomplexobj(x) != np.iscomplexobj(o)
                   for x, o in zip(leaves, self.leaves, strict=True)):  # fmt: skip
                raise TypeError("fn computes in its own precision: no complex step")
            leaves = tuple(
                x.astype(o.dtype) if _is_inexact(o) else x
                for x, o in zip(leaves, self.leaves, strict=True)
            )
        with self._precision(leaves), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Casting complex values to real": the check sees it
            return self._floats(*(self._on_device(x) for x in leaves))

    def vjp(self, g: Any, *leaves: Any) -> list[Any]:
        moving = [k for k, x in enumerate(leaves) if _is_inexact(x)]

        def f(*moved: Any) -> Any:
            whole = list(leaves)
            for k, x in zip(moving, moved, strict=True):
                whole[k] = x
            return self._floats(*whole)

        with self._precision(leaves):
            _, pull = self.jax.vjp(f, *(self._on_device(leaves[k]) for k in moving))
            found = pull(self.jax.tree_util.tree_map(self.jax.numpy.asarray, g))
        gradients: list[Any] = [None] * len(leaves)
        for k, d in zip(moving, found, strict=True):
            gradients[k] = d
        return gradients

    def _floats(self, *leaves: Any) -> Any:
        """The outputs of floats or complex numbers, in a tuple if there are several."""
        y = self.fn(*self.jax.tree_util.tree_unflatten(self.tree, leaves))
        outputs = self.jax.tree_util.tree_leaves(y)
        inexact = [
            x for x in outputs
            if type(x) in (float, complex) or self.jax.numpy.issubdtype(
                self.jax.numpy.result_type(x), self.jax.numpy.inexact
            )
        ]  # fmt: skip
        if not inexact:
            raise TypeError(
                f"{name_of(self.fn)} gives no floats: there is nothing to differentiate"
            )
        return inexact[0] if len(inexact) == 1 else tuple(inexact)

    def _on_device(self, x: Any) -> Any:
        return self.jax.numpy.asarray(x) if isinstance(x, np.ndarray) else x

    def _precision(self, leaves: Sequence[Any]) -> Any:
        """64 bits inside, if a leaf has so many: the oracles' values need them."""
        arrays = [x for x in leaves if isinstance(x, np.ndarray)]
        return room_for(arrays, [self.jax.numpy.zeros(0)])

    def _why_not_double(self) -> str:
        """Why fn can't be evaluated in float64; empty if it can."""
        self.why = ""
        narrow = [x for x in self.leaves if _is_inexact(x) and x.dtype.itemsize < 8]
        if not narrow:
            return ""
        exact = [
            x.astype(np.result_type(x, np.float64)) if _is_inexact(x) else x for x in self.leaves
        ]
        low = self.jax.tree_util.tree_leaves(self.value(*self.leaves))
        try:
            high = self.jax.tree_util.tree_leaves(self.value(*exact))
        except Exception as error:  # whatever fn raises for numbers that it was not written for
            return f"in float64 it raises {type(error).__name__}"
        for a, b in zip(map(np.asarray, low), map(np.asarray, high), strict=True):
            gap = np.abs(a - b).max(initial=0)
            if not gap <= 10 * np.finfo(a.dtype).eps ** 0.5 * np.abs(b).max(initial=0):
                return "in float64 it has other values"
        return ""

    def finish(self, report: GradReport) -> None:
        if self.narrowed:
            report.notes.append(
                "jax_enable_x64 is off, so arrays of float64 became float32, and the gradient is "
                'judged in float32: jax.config.update("jax_enable_x64", True) for more digits.'
            )
        if self.why:
            report.notes.append(
                f"{name_of(self.fn)} was evaluated in its own precision, since {self.why}: no more "
                "digits than these can be demanded."
            )


def _is_number(x: Any) -> bool:
    return type(x) in (float, complex) or is_array(x)


def _is_inexact(x: Any) -> bool:
    return isinstance(x, np.ndarray) and (
        x.dtype.kind in "fc" or "float" in x.dtype.name  # bfloat16 is refused by its name
    )
