"""Shared by the laws: the vjp as a function of arrays, and agreement in digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibn import Tensor, grad
from minibn.backend import Backend, to_numpy


def leaves_of(inputs: Sequence[np.ndarray], backend: Backend) -> list[Tensor]:
    return [Tensor(backend.asarray(x), requires_grad=True) for x in inputs]


def value(f: Callable[..., Any], inputs: Sequence[np.ndarray], backend: Backend) -> np.ndarray:
    """f at plain arrays of `backend`, brought to the host."""
    return np.asarray(to_numpy(f(*map(backend.asarray, inputs))))  # host: it is there


def pull(
    f: Callable[..., Any], inputs: Sequence[np.ndarray], c: np.ndarray, backend: Backend
) -> list[np.ndarray]:
    """The vector-Jacobian product, one gradient an input, computed on `backend`."""
    leaves = leaves_of(inputs, backend)
    gradients = grad(f(*leaves), leaves, backend.asarray(c), unused="zeros")
    return [to_numpy(g) for g in gradients]


def agree(found: Any, expected: Any, what: str, digits: float = 11, scale: Any = None) -> None:
    """Raise unless every entry agrees to `digits`, relative to itself or to `scale`.

    scale: the size of the terms of a sum that may cancel (default: the largest entry).
    """
    found, expected = np.asarray(found), np.asarray(expected)  # host: both are there
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    if not found.size:
        return
    scale = np.abs(expected).max() if scale is None else scale
    with np.errstate(all="ignore"):
        allowed = 10.0**-digits * (np.abs(expected) + scale)
        wrong = ~((np.abs(found - expected) <= allowed) | same(found, expected))
    if wrong.any():
        error = np.where(wrong, np.nan_to_num(np.abs(found - expected), nan=np.inf), -1)
        where = np.unravel_index(error.argmax(), error.shape)
        raise AssertionError(
            f"{what}: {found[where].item()!r} where {expected[where].item()!r} is expected, at "
            f"{tuple(map(int, where))} of {found.shape}; {wrong.sum()} of {wrong.size} entries "
            f"agree to fewer than {digits:g} digits"
        )


def same(a: np.ndarray, b: np.ndarray) -> Any:
    """Equal, or both NaN."""
    return (a == b) | ((a != a) & (b != b))


def identical(found: Any, expected: Any, what: str) -> None:
    """Raise unless both are the same bits."""
    found, expected = np.asarray(found), np.asarray(expected)  # host: both are there
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), (
        f"{what}: {found.dtype}{found.shape}, not {expected.dtype}{expected.shape}"
    )
    assert found.tobytes() == expected.tobytes(), (
        f"{what}: {max(1, (~same(found, expected)).sum())} of {found.size} entries have other bits"
    )


def each(found: Sequence[Any], expected: Sequence[Any], what: str, **tolerance: Any) -> None:
    """`agree` for the gradients of all inputs."""
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        agree(a, b, f"{what}, input {i}", **tolerance)
