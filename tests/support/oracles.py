"""What gradients are compared with: complex steps, extrapolated differences, float64.

The numbers on the other side come from NumPy arrays alone: `f` is run forward, nothing else. Each
estimate brings the scale of the terms that were summed for it, so that tolerances are relative to
what could cancel, and a gradient can't be small enough to pass unseen.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibn import Tensor, grad
from minibn.backend import Backend, get_backend, to_numpy
from minibn.ops import multiply
from minibn.ops import sum as sum_
from minibn.testing import Problem

TINY = 1e-20  # the complex step: it cancels nothing, so it can be as small as one likes


class Vacuous(AssertionError):
    """Both sides of a comparison are zero: the check could not have failed."""


def gradients(
    f: Callable[..., Any], inputs: Sequence[np.ndarray], cotangent: np.ndarray, backend: Backend
) -> list[np.ndarray]:
    """The vector-Jacobian product as minibn computes it on `backend`, brought to the host."""
    leaves = [Tensor(backend.asarray(x), requires_grad=True) for x in inputs]
    found = grad(f(*leaves), leaves, backend.asarray(cotangent), unused="zeros")
    return [to_numpy(g) for g in found]


def complex_step(
    f: Callable[..., Any], inputs: Sequence[np.ndarray], i: int, u: np.ndarray, c: np.ndarray
) -> tuple[float, float]:
    """d⟨c, f⟩ along u in input i, to the last digit, and the scale of its terms.

    Guarded: the result must be complex, with f's own value as the real part.
    """
    moved = [np.asarray(x + TINY * 1j * u) if k == i else x for k, x in enumerate(inputs)]
    y, plain = np.asarray(f(*moved)), np.asarray(f(*inputs))
    assert y.dtype.kind == "c", "f drops the imaginary part: it is not analytic as written"
    scale = float(np.abs(plain).max(initial=0))
    np.testing.assert_allclose(y.real, plain, rtol=1e-12, atol=1e-12 * scale + 1e-30)
    terms = c * y.imag / TINY
    return float(terms.sum()), float(np.abs(terms).sum())


def richardson(
    f: Callable[..., Any], inputs: Sequence[np.ndarray], i: int, u: np.ndarray, c: np.ndarray
) -> tuple[float, float]:
    """d⟨c, f⟩ along u in input i by central differences, twice extrapolated, and its error."""
    step = 2e-3 / max(1.0, float(np.abs(u).max(initial=0)))

    def central(h: float) -> float:
        ahead, behind = (
            [np.asarray(x + s * u) if k == i else x for k, x in enumerate(inputs)] for s in (h, -h)
        )
        return float((c * (np.asarray(f(*ahead)) - np.asarray(f(*behind)))).sum() / (2 * h))

    coarse, middle, fine = central(step), central(step / 2), central(step / 4)
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    rounding = 1e-15 * float(np.abs(c * np.asarray(f(*inputs))).sum()) / step
    return second, abs(second - first) + rounding


def directions(x: np.ndarray, rng: np.random.Generator, full: int = 16) -> list[np.ndarray]:
    """Every unit vector of a small input, three normal directions in a larger one."""
    if x.size <= full:
        return list(np.eye(x.size).reshape(x.size, *x.shape))
    return [rng.standard_normal(x.shape) for _ in range(3)]


def check_gradients(problem: Problem, backend: Backend, analytic: bool = True) -> None:
    """Compare each input's gradient with the oracles; raise Vacuous if there is none to compare."""
    f, inputs, c = problem.f, problem.inputs, problem.cotangent()
    rng = problem.rng()
    for i, (x, g) in enumerate(zip(inputs, gradients(f, inputs, c, backend), strict=True)):
        assert g.shape == x.shape, f"input {i}: gradient {g.shape} for {x.shape}"
        assert g.dtype == x.dtype
        found, seen = [], 0.0
        for n, u in enumerate(directions(x, rng)):
            ours = float((g * u).sum())
            if analytic:
                value, scale = complex_step(f, inputs, i, u, c)
                found.append((ours, value, 1e-11 * scale, "complex step"))
                seen = max(seen, scale)
            if n == 0 or not analytic:
                value, error = richardson(f, inputs, i, u, c)
                found.append((ours, value, 10 * error + 1e-9 * abs(value), "differences"))
                seen = max(seen, abs(value))
        for ours, value, tolerance, oracle in found:
            assert abs(ours - value) <= tolerance + 1e-12 * seen, (
                f"input {i} of shape {x.shape}: minibn {ours!r}, {oracle} {value!r}"
            )
        largest = max((max(abs(a), abs(b)) for a, b, *_ in found), default=0.0)
        if x.size and c.size and i not in problem.flat and largest <= 1e-11 * seen:
            raise Vacuous(f"input {i} of shape {x.shape} has no gradient at this point")


def check_second_derivatives(problem: Problem, backend: Backend, analytic: bool = True) -> None:
    """Compare Hessian-vector products of h(x, c) = ⟨c, f(x)⟩ with differences of h's gradient.

    c is an input of h, so that what is checked is how the vjp depends on its cotangent, too.
    """
    c, rng = problem.cotangent(), problem.rng()
    leaves = (*problem.inputs, c)
    along = [rng.standard_normal(x.shape) for x in leaves]

    def slopes(*values: Any, create_graph: bool = False) -> Any:
        tensors = [Tensor(x, requires_grad=True) for x in values]
        loss = sum_(multiply(problem.f(*tensors[:-1]), tensors[-1]))
        return tensors, grad(loss, tensors, create_graph=create_graph, unused="zeros")

    tensors, first = slopes(*map(backend.asarray, leaves), create_graph=True)
    total = sum(sum_(g * backend.asarray(v)) for g, v in zip(first, along, strict=True))
    ours = [to_numpy(h) for h in grad(total, tensors, unused="zeros")]

    def at(step: complex) -> list[np.ndarray]:
        moved = [np.asarray(x + step * v) for x, v in zip(leaves, along, strict=True)]
        return [g.numpy() for g in slopes(*moved)[1]]

    if analytic:
        expected = [np.asarray(g.imag / TINY) for g in at(TINY * 1j)]
        digits = 1e-10
    else:
        h = 1e-3
        coarse, fine = (
            [(a - b) / (2 * s) for a, b in zip(at(s), at(-s), strict=True)] for s in (h, h / 2)
        )
        expected = [(4 * b - a) / 3 for a, b in zip(coarse, fine, strict=True)]
        digits = 1e-7
    largest = max(float(np.abs(e).max(initial=0)) for e in expected)
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.shape == leaves[i].shape
        np.testing.assert_allclose(a, b, rtol=digits, atol=digits * largest, err_msg=f"input {i}")
    if c.size and any(x.size for x in problem.inputs) and not problem.flat and largest == 0:
        raise Vacuous("the second derivative is zero at this point")


def check_float32(problem: Problem, digits: float, backend: Backend) -> None:
    """Gradients of float32 inputs are float32, and agree with float64 at the rounded inputs."""
    rounded = [x.astype(np.float32) for x in problem.inputs]
    c = problem.cotangent().astype(np.float32)
    ours = gradients(problem.f, rounded, c, backend)
    exact = gradients(
        problem.f, [x.astype(float) for x in rounded], c.astype(float), get_backend("numpy")
    )
    y = problem.f(*map(backend.asarray, rounded))
    assert y.dtype == np.float32
    for i, (g, e) in enumerate(zip(ours, exact, strict=True)):
        assert g.dtype == np.float32, f"input {i}: the gradient of float32 is {g.dtype}"
        scale = float(np.abs(e).max(initial=0))
        np.testing.assert_allclose(g, e, rtol=0, atol=10**-digits * scale, err_msg=f"input {i}")
