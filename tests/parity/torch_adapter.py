"""PyTorch beside minibn: one point through both, forward, backward and backward twice.

Our layout is channels-last, theirs channels-first. The peer's function is wrapped so that it takes
and gives channels-last arrays: the permutation is part of PyTorch's graph, so gradients come back
in our layout too, and every comparison is between arrays of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from minibn import Tensor, grad
from minibn.backend import to_numpy
from minibn.ops import sum as sum_

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
torch.set_num_threads(1)  # its threads wait for each other on a busy machine: thirty times as long

TOLERANCE = 1e-12  # of the largest entry of the result
ROUNDING = 1e-15  # of the terms that a sum is made of: they may cancel in both libraries


@dataclass(frozen=True)
class Pair:
    """One function in both libraries, and the point at which they are compared."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    seed: int = 0


# -- layouts


def tensor(array: Any) -> Any:
    """An array as a tensor of PyTorch, with memory of its own."""
    return torch.from_numpy(np.array(array))


def channels_first(f: Callable[..., Any]) -> Callable[..., Any]:
    """PyTorch's f of images (N, C, H, W), as a function of images (N, H, W, C)."""

    def of_channels_last(x: Any, *rest: Any) -> Any:
        return f(x.movedim(-1, 1), *rest).movedim(1, -1)

    return of_channels_last


def filters_first(w: Any) -> Any:
    """(Kh, Kw, C, F) -> (F, C, Kh, Kw), copied: the gradient of a small convolution whose weight is
    a view raises "slow_conv2d: grad_weight must be contiguous" in PyTorch 2.13."""
    return w.permute(3, 2, 0, 1).contiguous()


# -- comparisons


def close(
    ours: Any, theirs: Any, tolerance: float = TOLERANCE, what: str = "", terms: float = 0.0
) -> float:
    """Equal shapes, and a difference of at most `tolerance` of the largest entry, plus a few
    roundings of the `terms` of its sums (see `terms_of`). Returns the difference, relative."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: minibn {ours.shape}, PyTorch {theirs.shape}"
    if ours.size == 0:
        return 0.0
    scale = float(np.abs(theirs).max())
    off = float(np.abs(ours - theirs).max())
    assert off <= tolerance * scale + ROUNDING * terms, (
        f"{what}: they differ by {off:.2g}, that is {off / (scale or 1):.2g} of the largest entry"
        f"\nminibn  {ours!r}\nPyTorch {theirs!r}"
    )
    return off / (scale or 1)


def terms_of(*factors: np.ndarray) -> float:
    """How large a product of entries of the factors can be.

    A result that is all cancellation is known to a rounding of its terms, in either library. So is
    the gradient of BatchNorm over two values: x̂ is ±1 there, whatever x is, and of terms of
    size 1 only a part of size eps / var is left.
    """
    return float(np.prod([max(1.0, np.abs(x).max(initial=0)) for x in factors]))


class Compared(NamedTuple):
    """What the caller can judge a set of comparisons by."""

    largest: float  # entry of the derivatives: if it is 0, nothing was compared
    difference: float  # the worst, relative to the largest entry of its array


def compare(pair: Pair, order: int = 1, tolerance: float = TOLERANCE) -> Compared:
    """Compare the values, the gradients, and with order=2 a Hessian-vector product of ⟨c, f⟩ (c is
    one of its inputs, so that how the vjp depends on its cotangent is seen as well)."""
    rng = np.random.default_rng((pair.seed, 2))
    y, other_y = pair.ours(*pair.inputs), pair.theirs(*map(tensor, pair.inputs))
    differences = [close(y, other_y.numpy(), tolerance, "the values", terms_of(*pair.inputs))]
    cotangent = rng.standard_normal(y.shape).astype(np.asarray(y).dtype)
    directions = [rng.standard_normal(x.shape) for x in (*pair.inputs, cotangent)]
    along, name = (directions, "second derivative") if order == 2 else (None, "gradient")
    found = derivatives_of_ours(pair, cotangent, along)
    expected = derivatives_of_theirs(pair, cotangent, along)
    terms = terms_of(*pair.inputs, cotangent, *(along or ()))
    for i, (g, e) in enumerate(zip(found, expected, strict=True)):
        assert g.dtype == e.dtype
        what = f"the {name} with respect to input {i}"
        differences.append(close(g, e, tolerance, what, terms))
    largest = max((float(np.abs(e).max(initial=0)) for e in expected), default=0.0)
    return Compared(largest, max(differences))


def derivatives_of_ours(
    pair: Pair, cotangent: np.ndarray, along: Sequence[np.ndarray] | None
) -> list[np.ndarray]:
    """The gradients; or, `along` directions of the inputs and the cotangent, their derivative."""
    leaves = [Tensor(x, requires_grad=True) for x in pair.inputs]
    if along is None:
        found = grad(pair.ours(*leaves), leaves, cotangent, unused="zeros")
        return [to_numpy(g.data) for g in found]
    leaves.append(Tensor(cotangent, requires_grad=True))
    loss = sum_(pair.ours(*leaves[:-1]) * leaves[-1])
    slopes = grad(loss, leaves, create_graph=True, unused="zeros")
    total = sum(sum_(s * v) for s, v in zip(slopes, along, strict=True))
    return [to_numpy(g.data) for g in grad(total, leaves, unused="zeros")]


def derivatives_of_theirs(
    pair: Pair, cotangent: np.ndarray, along: Sequence[np.ndarray] | None
) -> list[np.ndarray]:
    """The same, by PyTorch."""
    leaves = [tensor(x).requires_grad_() for x in pair.inputs]
    zeros = {"allow_unused": True, "materialize_grads": True}
    if along is None:
        y = pair.theirs(*leaves)
        return [g.numpy() for g in torch.autograd.grad(y, leaves, tensor(cotangent), **zeros)]
    leaves.append(tensor(cotangent).requires_grad_())
    loss = (pair.theirs(*leaves[:-1]) * leaves[-1]).sum()
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, **zeros)
    total = sum((s * tensor(v)).sum() for s, v in zip(slopes, along, strict=True))
    return [g.detach().numpy() for g in torch.autograd.grad(total, leaves, **zeros)]
