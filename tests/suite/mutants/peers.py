"""How other projects check gradients, on the same functions as our checks.

A checker takes `f(*arrays)`, `vjp(g, *arrays)` (a tuple, one gradient for each array), the arrays
and a Generator, and raises when it finds something. `PEERS` lists them, in three kinds:

    common practice         what most tests of gradients do
    the original            the package's own function, behind a thin adapter; it must be installed
    our re-implementation   a checker that its project does not publish as a function, from its
                            oracle, step, cotangent, direction and tolerances

`python -m minibn.testing kill` compares what they find.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

Arrays = Sequence[np.ndarray]
Checker = Callable[[Callable, Callable, Arrays, np.random.Generator], None]


@dataclass(frozen=True)
class Peer:
    """A checker: what it is called, how it works, and what it needs."""

    name: str
    kind: str  # "common practice", "the original", "our re-implementation"
    mechanics: str
    check: Checker
    needs: str = ""  # a package

    @property
    def installed(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


# -- differences


def moved(arrays: Arrays, i: int, step: Any) -> list[np.ndarray]:
    """The arrays, with `step` added to number i."""
    return [x + step if k == i else x for k, x in enumerate(arrays)]


def central(f: Callable, arrays: Arrays, i: int, u: Any, h: float) -> np.ndarray:
    """(f(x + hu) - f(x - hu)) / 2h"""
    return (f(*moved(arrays, i, h * u)) - f(*moved(arrays, i, -h * u))) / (2 * h)


def units(x: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Every index of x, with the direction that moves this entry alone."""
    for index in np.ndindex(x.shape):
        u = np.zeros_like(x)
        u[index] = 1
        yield index, u


def by_entries(f: Callable, g: np.ndarray, arrays: Arrays, i: int, h: float) -> np.ndarray:
    """The gradient of Σ g·f in input i, one central difference an entry."""
    gradient = np.zeros(arrays[i].shape)
    for index, u in units(arrays[i]):
        gradient[index] = (g * central(f, arrays, i, u, h)).sum()
    return gradient


def unit_vector(rng: np.random.Generator, shapes: list) -> list[np.ndarray]:
    """A random direction over all inputs together, of length 1."""
    us = [np.asarray(rng.standard_normal(shape)) for shape in shapes]
    length = np.sqrt(sum((u**2).sum() for u in us)) or 1.0
    return [u / length for u in us]


def together(f: Callable, arrays: Arrays, us: Arrays, h: float) -> np.ndarray:
    """The central difference along a direction over all inputs."""
    ahead, behind = ([x + s * u for x, u in zip(arrays, us, strict=True)] for s in (h, -h))
    return (f(*ahead) - f(*behind)) / (2 * h)


def along(grads: Arrays, us: Arrays) -> float:
    return float(sum((g * u).sum() for g, u in zip(grads, us, strict=True)))


# -- common practice


def common_practice(
    f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator, *, tolerance: float
) -> None:
    """The gradient of f(x).sum(), entry by entry, against central differences with step 1e-5."""
    ones = np.ones_like(f(*arrays))
    for i, g in enumerate(vjp(ones, *arrays)):
        numeric = by_entries(f, ones, arrays, i, 1e-5)
        np.testing.assert_allclose(g, numeric, rtol=tolerance, atol=tolerance)


# -- originals


def torch_gradcheck(
    f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator, *, fast_mode: bool
) -> None:
    """`torch.autograd.gradcheck`, with its defaults, of a `torch.autograd.Function`.

    It refuses inputs without entries (their stride is 0), so these are left out.
    """
    import torch

    def tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(array))

    class Adapted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return tensor(f(*(x.detach().numpy() for x in inputs)))

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            gradients = vjp(g.numpy(), *(x.detach().numpy() for x in ctx.saved_tensors))
            return tuple(map(tensor, gradients))

    if any(x.size == 0 for x in arrays):
        return
    torch.manual_seed(int(rng.integers(2**31)))
    inputs = [tensor(x).requires_grad_() for x in arrays]
    torch.autograd.gradcheck(Adapted.apply, inputs, fast_mode=fast_mode)


def hips_check_grads(f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator) -> None:
    """`autograd.test_util.check_grads` in reverse mode, of a `primitive` with its `defvjp`.

    First order only: the second needs the derivative of the vjp, which a pair of functions lacks.
    """
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    def maker(i):
        return lambda y, *inputs: lambda g: vjp(np.asarray(g), *map(np.asarray, inputs))[i]

    op = primitive(lambda *inputs: f(*inputs))
    defvjp(op, *map(maker, range(len(arrays))))
    before = np.random.get_state()  # noqa: NPY002  HIPS draws from the global state
    np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002  as above
    try:
        for i in range(len(arrays)):
            check_grads(op, i, modes=["rev"], order=1)(*arrays)
    finally:
        np.random.set_state(before)  # noqa: NPY002  as above


def jax_check_vjp(f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator) -> None:
    """`jax.test_util.check_vjp` with double precision: what check_grads(order=1, modes=["rev"])
    calls with the function and its jax.vjp. Its direction and cotangent are always the same."""
    import jax
    from jax.test_util import check_vjp

    def value_and_vjp(*inputs):
        return f(*inputs), lambda g: vjp(g, *inputs)

    with jax.enable_x64(True):
        check_vjp(f, value_and_vjp, tuple(arrays))


# -- our re-implementations


def like_chainer(f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator) -> None:
    """One unit direction over all inputs, no component of it below 0.1/√size; step 1e-3,
    atol 1e-5, rtol 1e-4; a random cotangent. It may look for non-differentiable points and draw
    again, but does not by default."""
    us = unit_vector(rng, [x.shape for x in arrays])
    least = 0.1 / np.sqrt(max(1, sum(u.size for u in us)))
    us = [np.where(u < 0, -1, 1) * np.maximum(np.abs(u), least) for u in us]
    c = np.asarray(rng.standard_normal(np.shape(f(*arrays))))
    numeric = float((c * together(f, arrays, us, 1e-3)).sum())
    np.testing.assert_allclose(along(vjp(c, *arrays), us), numeric, rtol=1e-4, atol=1e-5)


def like_mygrad(f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator) -> None:
    """Every entry by the complex step 1e-20 (central differences of 1e-8 where f is not analytic);
    1e-8; a cotangent of different numbers within ±10. No argument is modified, and no gradient is
    a view of the cotangent or of another one."""
    y = f(*arrays)
    c = rng.permutation(np.linspace(-10, 10, max(2, y.size)))[: y.size].reshape(y.shape)
    c_copy, copies = c.copy(), [x.copy() for x in arrays]
    grads = vjp(c, *arrays)
    np.testing.assert_array_equal(c, c_copy, "the cotangent was modified")
    for x, before in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(x, before, "an input was modified")
    for i, g in enumerate(grads):
        for other in (c, *grads[:i]):
            assert not np.shares_memory(g, other), f"gradient {i} is a view"
        np.testing.assert_allclose(g, _complex_or_central(f, c, arrays, i), rtol=1e-8, atol=1e-8)


def _complex_or_central(f: Callable, c: np.ndarray, arrays: Arrays, i: int) -> np.ndarray:
    """MyGrad's user chooses one of the two; here f does: complex numbers in, complex ones out?"""
    gradient = np.zeros(arrays[i].shape)
    for index, u in units(arrays[i]):
        try:
            y = np.asarray(f(*moved(arrays, i, 1e-20j * u)))
        except TypeError:
            y = np.zeros(0)
        if y.dtype.kind != "c":
            return by_entries(f, c, arrays, i, 1e-8)
        gradient[index] = (c * y.imag / 1e-20).sum()
    return gradient


def like_dezero(f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator) -> None:
    """A cotangent of ones; every entry by a central difference of step 1e-4; rtol 1e-4,
    atol 1e-5."""
    ones = np.ones_like(f(*arrays))
    for i, g in enumerate(vjp(ones, *arrays)):
        numeric = by_entries(f, ones, arrays, i, 1e-4)
        np.testing.assert_allclose(g, numeric, rtol=1e-4, atol=1e-5)


def like_minitorch(f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator) -> None:
    """A cotangent of ones; one random entry of each input, by a central difference of step 1e-6;
    1e-2."""
    ones = np.ones_like(f(*arrays))
    for i, g in enumerate(vjp(ones, *arrays)):
        if g.size:
            index = tuple(int(rng.integers(n)) for n in g.shape)
            u = np.zeros_like(arrays[i])
            u[index] = 1
            numeric = central(f, arrays, i, u, 1e-6).sum()
            np.testing.assert_allclose(g[index], numeric, rtol=1e-2, atol=1e-2)


def like_tinygrad(f: Callable, vjp: Callable, arrays: Arrays, rng: np.random.Generator) -> None:
    """The whole Jacobian, in float32, by central differences of step 1e-3, against vjps of
    one-hot cotangents; 1e-3."""
    single = [x.astype(np.float32) for x in arrays]
    rows = [vjp(c, *single) for _, c in units(np.asarray(f(*single)))]
    for i, x in enumerate(single):
        for index, u in units(x):
            column = central(f, single, i, u, 1e-3).reshape(-1)
            ours = [row[i][index] for row in rows]
            np.testing.assert_allclose(ours, column, rtol=1e-3, atol=1e-3)


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "ones, 1e-2", "common practice",
            "sum of the output, central differences 1e-5, rtol = atol = 1e-2",
            partial(common_practice, tolerance=1e-2),
        ),
        Peer(
            "ones, 1e-4", "common practice",
            "sum of the output, central differences 1e-5, rtol = atol = 1e-4",
            partial(common_practice, tolerance=1e-4),
        ),
        Peer(
            "torch gradcheck", "the original", "torch.autograd.gradcheck, with its defaults",
            partial(torch_gradcheck, fast_mode=False), "torch",
        ),
        Peer(
            "torch gradcheck, fast", "the original", "torch.autograd.gradcheck(fast_mode=True)",
            partial(torch_gradcheck, fast_mode=True), "torch",
        ),
        Peer(
            "HIPS check_grads", "the original",
            "autograd.test_util.check_grads(modes=['rev'], order=1), for each input",
            hips_check_grads, "autograd",
        ),
        Peer(
            "jax check_grads", "the original",
            "jax.test_util.check_grads(order=1, modes=['rev']): its check_vjp, with x64",
            jax_check_vjp, "jax",
        ),
        *(
            Peer(name, "our re-implementation", " ".join(str(check.__doc__).split()), check)
            for name, check in (
                ("Chainer check_backward", like_chainer),
                ("MyGrad's factory", like_mygrad),
                ("DeZero", like_dezero),
                ("minitorch", like_minitorch),
                ("tinygrad", like_tinygrad),
            )
        ),
    )
}  # fmt: skip
