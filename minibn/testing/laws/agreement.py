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


def agree(actual: Any, expected: Any, what: str, digits: float = 11, scale: Any = None) -> None:
    """Raise unless every entry agrees to `digits`, relative to itself or to `scale`.

    scale: the size of the terms of a sum that may cancel (default: the largest entry).
    """
    actual, expected = np.asarray(actual), np.asarray(expected)  # host: both are there
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if not actual.size:
        return
    scale = np.abs(expected).max() if scale is None else scale
    with np.errstate(all="ignore"):
        allowed = 10.0**-digits * (np.abs(expected) + scale)
        wrong = ~((np.abs(actual - expected) <= allowed) | same(actual, expected))
    if wrong.any():
        error = np.where(wrong, np.nan_to_num(np.abs(actual - expected), nan=np.inf), -1)
        where = np.unravel_index(error.argmax(), error.shape)
        raise AssertionError(
            f"{what}: {actual[where].item()!r} where {expected[where].item()!r} is expected, at "
            f"{tuple(map(int, where))} of {actual.shape}; {wrong.sum()} of {wrong.size} entries "
            f"agree to fewer than {digits:g} digits"
        )


def same(a: np.ndarray, b: np.ndarray) -> Any:
    """Equal, or both NaN."""
    return (a == b) | ((a != a) & (b != b))


def identical(actual: Any, expected: Any, what: str) -> None:
    """Raise unless both are the same bits."""
    actual, expected = np.asarray(actual), np.asarray(expected)  # host: both are there
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), (
        f"{what}: {actual.dtype}{actual.shape}, not {expected.dtype}{expected.shape}"
    )
    assert actual.tobytes() == expected.tobytes(), (
        f"{what}: {max(1, (~same(actual, expected)).sum())} of {actual.size} entries differ in bits"
    )


def each(actual: Sequence[Any], expected: Sequence[Any], what: str, **tolerance: Any) -> None:
    """`agree` for the gradients of all inputs."""
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        agree(a, b, f"{what}, input {i}", **tolerance)
