"""Problems of ops that move values, and of pooling and convolution."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.testing.problem import Problem
from minibn.testing.strategies import (
    broadcast_shapes,
    conv2d_problems,
    full_shapes,
    gather_problems,
    index_problems,
    points,
    pool_problems,
    real,
    seeds,
    shapes,
    textures,
)
from suite.registry.case import here

Problems = st.SearchStrategy[Problem]


def convolutions() -> Problems:
    return conv2d_problems("beyond").map(lambda point: point.problem(ops.conv2d))


def poolings(op: Callable[..., Any], padding: bool) -> Problems:
    return pool_problems(padding=padding).map(lambda point: point.problem(op))


def images(f: Callable[..., Any]) -> Problems:
    shape = st.tuples(*[st.integers(1, 3)] * 4)
    return points(shape).map(lambda point: point.problem(f))


def indexed() -> Problems:
    return index_problems().map(lambda point: point.problem(ops.getitem))


@st.composite
def gathers(draw: Any) -> Problem:
    point = draw(gather_problems())
    index, unique = point.settings["index"], point.settings["unique"]
    return Problem(lambda x: ops.gather(x, here(x, index), unique), point.inputs, point.seed)


@st.composite
def scatters(draw: Any) -> Problem:
    """The adjoints of `gathers`."""
    point = draw(gather_problems())
    index, unique = point.settings["index"], point.settings["unique"]
    shape = point.inputs[0].shape
    x = real(np.random.default_rng(point.seed), index.shape, draw(textures))
    return Problem(lambda x: ops.scatter(x, here(x, index), shape, unique), (x,), point.seed)


@st.composite
def broadcasts(draw: Any) -> Problem:
    both = draw(broadcast_shapes(2))
    to = np.broadcast_shapes(*both)
    point = draw(points(both[0]))
    flat = frozenset({0} if 0 in to else ())
    return Problem(partial(ops.broadcast_to, shape=to), point.inputs, point.seed, flat)


@st.composite
def reshapes(draw: Any) -> Problem:
    (x,), seed = (point := draw(points(full_shapes))).inputs, point.seed
    to = draw(st.sampled_from([(-1,), x.shape[::-1], (1, *x.shape), (x.size, 1), (x.size, -1)]))
    return Problem(partial(ops.reshape, shape=to), (x,), seed)


@st.composite
def transposes(draw: Any) -> Problem:
    point = draw(points(st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)))
    ndim = point.inputs[0].ndim
    around = np.roll(range(ndim), 1).tolist()  # from three axes on not its own inverse
    axes = draw(st.sampled_from([None, around]) | st.permutations(range(-ndim, 0)))
    return Problem(partial(ops.transpose, axes=axes), point.inputs, point.seed)


@st.composite
def paddings(draw: Any) -> Problem:
    point = draw(points(full_shapes))
    width = st.integers(0, 2)
    widths = [(draw(width), draw(width)) for _ in point.inputs[0].shape]
    return Problem(partial(ops.pad, widths=widths), point.inputs, point.seed)


@st.composite
def concatenations(draw: Any) -> Problem:
    shape = list(draw(full_shapes))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(seed := draw(seeds))
    inputs = []
    for _ in range(draw(st.integers(1, 3))):
        shape[axis] = draw(st.integers(0, 3))
        inputs.append(real(rng, tuple(shape), draw(textures)))
    return Problem(lambda *parts: ops.concatenate(parts, axis), tuple(inputs), seed)


@st.composite
def stacks(draw: Any) -> Problem:
    shape = draw(full_shapes)
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    rng = np.random.default_rng(seed := draw(seeds))
    inputs = tuple(real(rng, shape, draw(textures)) for _ in range(draw(st.integers(1, 3))))
    return Problem(lambda *parts: ops.stack(parts, axis), inputs, seed)


def regrouped(x: Any, split_size: Any, axis: int) -> Any:
    """The parts of x, in the opposite order."""
    return ops.concatenate(ops.split(x, split_size, axis)[::-1], axis)


@st.composite
def splits(draw: Any) -> Problem:
    point = draw(points(full_shapes))
    shape = point.inputs[0].shape
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    first = draw(st.integers(0, shape[axis]))
    sizes = draw(st.sampled_from([1, 2, 5, [first, shape[axis] - first], [shape[axis], 0]]))
    f = partial(regrouped, split_size=sizes, axis=axis)
    return Problem(f, point.inputs, point.seed)


def same_dtype(x: Any) -> Any:
    return ops.cast(x, x.dtype)


def casts() -> Problems:
    return points(shapes).map(lambda point: point.problem(same_dtype))
