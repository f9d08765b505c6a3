"""Problems of reductions, losses, matrix products and normalisations."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.testing.problem import Problem
from minibn.testing.strategies import (
    TEXTURES,
    Domain,
    axes_of,
    broadcast_shapes,
    full_shapes,
    nonzero,
    norm_problems,
    points,
    positive,
    real,
    seeds,
    textures,
    within,
)
from suite.registry.case import here

Problems = st.SearchStrategy[Problem]


@st.composite
def reduction_problems(
    draw: Any,
    op: Callable[..., Any],
    domain: Domain = real,
    at_least: int = 1,
    textures: Any = TEXTURES,
) -> Problem:
    """at_least: how many values the reduction needs to depend on them (a variance: 2)."""
    shape = draw(full_shapes)
    axis = draw(axes_of(len(shape)))
    point = draw(points(shape, domain, textures, axis=axis, keepdims=st.booleans()))
    axes = range(len(shape)) if axis is None else np.atleast_1d(np.array(axis, int))
    constant = math.prod(shape[a] for a in axes) < at_least  # a variance of one value, say
    problem = point.problem(op)
    return Problem(problem.f, problem.inputs, problem.seed, frozenset({0} if constant else ()))


@st.composite
def softmaxes(draw: Any, op: Callable[..., Any]) -> Problem:
    shape = draw(full_shapes)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    problem = draw(points(shape, within(2), (*TEXTURES, "offset"), axis=axis)).problem(op)
    alone = shape[axis] == 1  # the softmax of one value is 1
    return Problem(problem.f, problem.inputs, problem.seed, frozenset({0} if alone else ()))


@st.composite
def classifications(draw: Any) -> Problem:
    N, K = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(seed := draw(seeds))
    x, labels = within(2)(rng, (N, K), draw(textures)), rng.integers(0, K, N)
    flat = frozenset({0} if K == 1 else ())
    return Problem(lambda x: ops.softmax_cross_entropy(x, labels), (x,), seed, flat)


@st.composite
def pairs(draw: Any, f: Callable[..., Any]) -> Problem:
    """Two arrays of one shape, nowhere equal."""
    rng = np.random.default_rng(seed := draw(seeds))
    shape = draw(full_shapes)
    return Problem(f, (real(rng, shape, "normal"), real(rng, shape, "normal")), seed)


shapes_of_stacks = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)


@st.composite
def matrix_products(draw: Any) -> Problem:
    M, K, N = (draw(st.integers(1, 3)) for _ in range(3))
    kind = draw(st.sampled_from(["a layer", "stacks", "a vector", "two vectors"]))
    leads: list[Any] = [(), ()]
    if kind == "a layer":  # a stack of inputs and one matrix of weights, or the other way round
        leads[draw(st.integers(0, 1))] = draw(shapes_of_stacks)
    elif kind != "two vectors":
        leads = draw(broadcast_shapes(2, max_dims=2, min_side=1))
    first, second = ((*lead, *rest) for lead, rest in zip(leads, ((M, K), (K, N)), strict=True))
    if kind == "two vectors":
        first, second = (K,), (K,)
    elif kind == "a vector":
        first, second = draw(st.sampled_from([((K,), second), (first, (K,))]))
    rng = np.random.default_rng(seed := draw(seeds))
    texture = draw(textures)
    return Problem(ops.matmul, (nonzero(rng, first, texture), nonzero(rng, second, texture)), seed)


# -- normalisation


def normalisations(op: Callable[..., Any]) -> Problems:
    """Problems of op(x, gamma, beta, eps=...)."""
    return norm_problems().map(lambda point: point.problem(op))


def inference(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    rng = np.random.default_rng(x.shape[-1])
    mean, var = real(rng, x.shape[-1:]), positive(rng, x.shape[-1:])
    return ops.batch_norm_inference(x, gamma, beta, here(x, mean), here(x, var), eps=eps)


def both_moments(x: Any) -> Any:
    return ops.concatenate(ops.moments(x))


def batches(f: Callable[..., Any]) -> Problems:
    """Problems of a function of the batch alone."""
    return norm_problems().map(lambda point: Problem(f, point.inputs[:1], point.seed))
