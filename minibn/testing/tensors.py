"""`check_gradients`: the same check for functions of Tensors, and of their second derivatives.

A function of Tensors is made into a pair of functions on NumPy arrays, its value and its vjp, and
passed to `check_vjp`. Second derivatives need no other code: the gradient is itself a function,
and `grad(create_graph=True)` gives its vjp.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from minibn.autograd.backward import grad
from minibn.autograd.tape import no_grad, set_grad_enabled
from minibn.autograd.tensor import Tensor, value
from minibn.backend import Backend, get_backend, to_numpy
from minibn.testing.check import check_vjp, name_of
from minibn.testing.diagnosis.reproducer import script_for_tensors
from minibn.testing.problem import Problem
from minibn.testing.report import GradReport, without_listeners


def _backend(backend: Backend | str | None) -> Backend:
    return backend if isinstance(backend, Backend) else get_backend(backend or "numpy")


def _on_host(x: Any) -> np.ndarray:
    plain = isinstance(x, (list, tuple, int, float))
    return np.asarray(x if plain else to_numpy(value(x)))


def forward_and_vjp(
    f: Callable[..., Any], backend: Backend | str | None = None
) -> tuple[Callable[..., np.ndarray], Callable[..., tuple[np.ndarray, ...]]]:
    """(value, vjp) on NumPy arrays of f, a function of Tensors; the vjp is computed on `backend`,
    by the tape, the value on NumPy.

    >>> value_of, vjp = forward_and_vjp(lambda x, y: x * y)
    >>> vjp(np.array([1.0]), np.array([2.0]), np.array([3.0]))
    (array([3.]), array([2.]))
    """
    device = _backend(backend)

    def forward(*arrays: np.ndarray) -> np.ndarray:
        with no_grad():
            return np.asarray(to_numpy(value(f(*(Tensor(np.asarray(x)) for x in arrays)))))

    def vjp(g: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        leaves = [Tensor(device.asarray(x), requires_grad=True) for x in arrays]
        with set_grad_enabled(True):
            y = f(*leaves)
        if not isinstance(y, Tensor):
            raise TypeError(
                f"f gives a {type(y).__name__} for Tensors, not a Tensor: was .numpy() or .item() "
                "called on the way, or are there several results? Return one Tensor."
            )
        gradients = grad(y, leaves, device.asarray(g), unused="zeros")
        return tuple(np.asarray(to_numpy(g)) for g in gradients)

    return forward, vjp


def gradient_and_vjp(
    f: Callable[..., Any], backend: Backend | str | None = None
) -> tuple[Callable[..., np.ndarray], Callable[..., tuple[np.ndarray, ...]]]:
    """(value, vjp) of the gradient of h(*inputs, c) = ⟨c, f(*inputs)⟩ with respect to all of its
    arguments, in one flat array. The vjp is a Hessian-vector product.

    c is an argument too, so that the derivative of the vjp in its cotangent is checked as well.
    """

    def slopes(device: Backend, arrays: Any, create_graph: bool) -> tuple[list[Tensor], Any]:
        leaves = [Tensor(device.asarray(x), requires_grad=True) for x in arrays]
        with set_grad_enabled(True):
            h = (f(*leaves[:-1]) * leaves[-1]).sum()
        return leaves, grad(h, leaves, create_graph=create_graph, unused="zeros")

    def forward(*arrays: np.ndarray) -> np.ndarray:
        _, gradients = slopes(get_backend("numpy"), arrays, create_graph=False)
        return np.concatenate([g.numpy().reshape(-1) for g in gradients])

    def vjp(v: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        device = _backend(backend)
        leaves, gradients = slopes(device, arrays, create_graph=True)
        ends = np.cumsum([g.size for g in gradients])[:-1]
        with set_grad_enabled(True):
            along = [
                (g.reshape(-1) * device.asarray(part)).sum()
                for g, part in zip(gradients, np.split(v, ends), strict=True)
            ]
            total = sum(along[1:], along[0])
        return tuple(to_numpy(h) for h in grad(total, leaves, unused="zeros"))

    return forward, vjp


def check_gradients(
    f: Callable[..., Any],
    *inputs: Any,
    backend: Backend | str | None = None,
    order: int = 1,
    name: str = "",
    seed: int = 0,
    zero_gradient: Collection[int] = (),
    allow_empty: bool = False,
    reference: Callable[..., Any] | None = None,
    convention: Callable[..., Any] | None = None,
    raises: bool = True,
    diagnose: bool = True,
) -> GradReport:
    """Compare the tape's gradients with derivatives computed from values alone.

    f takes Tensors of the shapes of `inputs` (arrays or Tensors) and gives one; it must also run
    on the host, where the oracles run; the gradient is computed on `backend`. With `order=2`
    Hessian-vector products, too, are compared with derivatives of the gradient. The other
    arguments, the report and the errors are those of `check_vjp`.

    >>> from minibn import ops
    >>> x = np.array([[1.0, 4.0], [2.0, 0.5], [6.0, 5.0]])
    >>> check_gradients(lambda x: ops.batch_norm(x, np.ones(2), np.zeros(2)), x).passed
    True
    """
    __tracebackhide__ = True
    if order not in (1, 2):
        raise ValueError(
            f"check_gradients: order={order!r}: gradients are 1, second derivatives 2."
        )
    arrays = [_on_host(x) for x in inputs]
    name = name or name_of(f)
    settings: dict[str, Any] = {
        "seed": seed, "allow_empty": allow_empty, "diagnose": diagnose
    }  # fmt: skip

    def reproduce(cotangent: np.ndarray, position: int, numeric: np.ndarray, on_arrays: Any) -> str:
        return script_for_tensors(f, arrays, cotangent, position, numeric, name, on_arrays)

    report = check_vjp(
        *forward_and_vjp(f, backend), *arrays, name=name, zero_gradient=zero_gradient,
        reference=reference, convention=convention, raises=raises, reproduce=reproduce, **settings,
    )  # fmt: skip
    if order == 2 and report.passed:
        flat = any(x.verdict in ("zero", "empty") for x in report.inputs)
        report = _check_second(f, arrays, backend, name, settings, flat)
        report.settle(raises)
    return report


def _check_second(
    f: Callable[..., Any],
    arrays: list[np.ndarray],
    backend: Backend | str | None,
    name: str,
    settings: dict[str, Any],
    flat: bool,
) -> GradReport:
    """The gradient of ⟨c, f⟩ as a function with a vjp of its own.

    f may be linear in an input, whose second derivatives are then zero; but the gradient depends
    on c, unless f is flat.
    """
    y = np.asarray(to_numpy(value(f(*map(Tensor, arrays)))))
    rng = np.random.default_rng((settings["seed"], 3))
    c = np.asarray(rng.standard_normal(y.shape)).astype(y.dtype)
    forward, vjp = gradient_and_vjp(f, backend)
    name += ", second derivatives"
    with without_listeners():
        report = check_vjp(forward, vjp, *arrays, c, name=name, raises=False, **settings)
    for entry in report.inputs:
        if entry.verdict == "vacuous" and (flat or entry.position < len(arrays)):
            entry.verdict, entry.how = "zero", "its second derivative"
    return report


def check_problem(
    problem: Problem,
    backend: Backend | str | None = None,
    order: int = 1,
    name: str = "",
    raises: bool = True,
    diagnose: bool = True,
) -> GradReport:
    """`check_gradients` at a problem drawn by a strategy."""
    __tracebackhide__ = True
    return check_gradients(
        problem.f, *problem.inputs, backend=backend, order=order, name=name, seed=problem.seed,
        zero_gradient=problem.flat, allow_empty=True, raises=raises, diagnose=diagnose,
    )  # fmt: skip
