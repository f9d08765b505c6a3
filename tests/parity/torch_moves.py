"""The ops that move values and compute none, with PyTorch's functions that mean the same."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from parity.torch_adapter import Pair, tensor, torch

from minibn import ops

seeds = st.integers(0, 2**32 - 1)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)


@st.composite
def moves(draw, settings):
    """settings(draw, rng, x) -> (ours, theirs), which move x's values about."""
    rng = np.random.default_rng(seed := draw(seeds))
    x = rng.standard_normal(draw(shapes))
    return Pair(*settings(draw, rng, x), (x,), seed)


def broadcast(draw, rng, x):
    x_shape = tuple(np.where(rng.random(x.ndim) < 0.5, 3, x.shape) * (np.array(x.shape) == 1))
    shape = (2, *(int(a) or b for a, b in zip(x_shape, x.shape, strict=True)))
    return (lambda x: ops.broadcast_to(x, shape)), (lambda x: x.broadcast_to(shape))


def reshaped(draw, rng, x):
    to = draw(st.sampled_from([(-1,), x.shape[::-1], (1, *x.shape), (x.size, -1)]))
    return (lambda x: ops.reshape(x, to)), (lambda x: x.reshape(to))


def transposed(draw, rng, x):
    axes = draw(st.permutations(range(x.ndim)))
    return (lambda x: ops.transpose(x, axes)), (lambda x: x.permute(axes))


def padded(draw, rng, x):
    widths = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in x.shape]
    backwards = [n for pair in widths[::-1] for n in pair]  # theirs starts with the last axis
    return (lambda x: ops.pad(x, widths)), (lambda x: torch.nn.functional.pad(x, backwards))


def concatenated(draw, rng, x):
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    return (
        lambda x: ops.concatenate([x, x * 2, x], axis),
        lambda x: torch.cat([x, x * 2, x], axis),
    )


def stacked(draw, rng, x):
    axis = draw(st.integers(-x.ndim - 1, x.ndim))
    return (lambda x: ops.stack([x, x * 2], axis)), (lambda x: torch.stack([x, x * 2], axis))


def split(draw, rng, x):
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    sizes = draw(st.sampled_from([1, 2, 3, [x.shape[axis]], [x.shape[axis] - 1, 1]]))

    def both(split, concatenate):
        return lambda x: concatenate([y * i for i, y in enumerate(split(x, sizes, axis), 1)], axis)

    return both(ops.split, ops.concatenate), both(torch.split, torch.cat)


def gathered(draw, rng, x):
    index = rng.integers(0, x.size, draw(shapes))
    return (lambda x: ops.gather(x, index)), (lambda x: x.take(tensor(index)))


def scattered(draw, rng, x):
    shape = draw(shapes)
    index = rng.integers(0, int(np.prod(shape)), x.shape)

    def theirs(x):
        zeros = torch.zeros(shape, dtype=x.dtype)
        return zeros.put(tensor(index), x, accumulate=True)

    return (lambda x: ops.scatter(x, index, shape)), theirs


def indexed(draw, rng, x):
    """Slices, integers, None, Ellipsis; integer arrays with repeats; masks; mixtures."""
    n = x.shape[0]
    kind = draw(st.sampled_from(["slices", "integer", "integers", "mask", "first", "last"]))
    index: Any = {
        "slices": (slice(draw(st.integers(0, 2)), None, draw(st.integers(1, 2))), ..., None),
        "integer": -1,
        "integers": rng.integers(-n, n, (2, 3)),
        "mask": rng.random(x.shape) < 0.6,
        "first": (rng.integers(-n, n, 5), ..., None),
        "last": (..., rng.integers(-x.shape[-1], x.shape[-1], 3)),
    }[kind]
    parts = index if isinstance(index, tuple) else (index,)
    theirs = tuple(tensor(p) if isinstance(p, np.ndarray) else p for p in parts)
    return (lambda x: ops.getitem(x, index)), (lambda x: x[theirs])
