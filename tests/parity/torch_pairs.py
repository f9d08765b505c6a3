"""Every op of minibn with the function of PyTorch that means the same: `PAIRS`, a strategy each.

Where the op has no settings the points come from `suite.registry`; elsewhere they are
drawn here, together with the settings, which both functions take.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from parity.torch_adapter import Pair, channels_first, filters_first, tensor, torch
from parity.torch_moves import (
    broadcast,
    concatenated,
    gathered,
    indexed,
    moves,
    padded,
    reshaped,
    scattered,
    seeds,
    shapes,
    split,
    stacked,
    transposed,
)
from parity.torch_norms import NORM_PAIRS
from suite.registry import CASES
from suite.registry.fused_blocks import call_fused_block, fused_block_points

from minibn import ops

F, vector_norm = torch.nn.functional, torch.linalg.vector_norm


def apart(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values whose sizes differ by at least 0.2, from 0 too: neither ties nor kinks."""
    size = int(np.prod(shape))
    x = (rng.permutation(size) + 1) * 0.25 + rng.uniform(-0.02, 0.02, size)
    return (x * rng.choice([-1.0, 1.0], size)).reshape(shape)


def same(name: str, theirs: Callable[..., Any]) -> st.SearchStrategy[Pair]:
    """The points of the registry's row `name`."""
    return CASES[name].problems.map(lambda p: Pair(p.f, theirs, p.inputs, p.seed))


@st.composite
def reductions(draw, ours, theirs):
    """Over all axes, one, or some; theirs takes a tuple of them."""
    shape = draw(shapes)
    axes = tuple(draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1)))
    one, every = axes[0], tuple(range(len(shape)))
    both = [(None, every), (one, (one,)), (one - len(shape), (one,)), (axes, axes)]
    axis, their_axes = draw(st.sampled_from(both))
    keepdims = draw(st.booleans())
    x = apart(np.random.default_rng(seed := draw(seeds)), shape)
    return Pair(
        lambda x: ours(x, axis, keepdims), lambda x: theirs(x, their_axes, keepdims), (x,), seed
    )


@st.composite
def variances(draw, ours, theirs):
    shape = (draw(st.integers(2, 4)), *draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)))
    correction, keepdims = draw(st.sampled_from([0, 1])), draw(st.booleans())
    x = np.random.default_rng(seed := draw(seeds)).standard_normal(shape)
    return Pair(
        lambda x: ours(x, 0, keepdims, correction),
        lambda x: theirs(x, 0, correction=correction, keepdim=keepdims),
        (x,),
        seed,
    )


@st.composite
def softmaxes(draw, ours, theirs):
    x = np.random.default_rng(seed := draw(seeds)).standard_normal(draw(shapes)) * 5
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    return Pair(lambda x: ours(x, axis), lambda x: theirs(x, axis), (x,), seed)


@st.composite
def clips(draw):
    """Whole numbers, so that many lie on a bound."""
    x = np.random.default_rng(seed := draw(seeds)).integers(-3, 4, draw(shapes)).astype(float)
    low, high = draw(st.sampled_from([(-1, 2), (None, 1), (-1.5, None), (1, -1)]))
    return Pair(lambda x: ops.clip(x, low, high), lambda x: torch.clamp(x, low, high), (x,), seed)


@st.composite
def powers(draw):
    p = draw(st.sampled_from([0, 1, 2, 3, -1, -2, 0.5, -1.5, 2.0]))
    x = apart(np.random.default_rng(seed := draw(seeds)), draw(shapes))
    x = x if p == int(p) else abs(x)
    return Pair(lambda x: ops.power(x, p), lambda x: torch.pow(x, p), (x,), seed)


@st.composite
def precisions(draw):
    x = np.random.default_rng(seed := draw(seeds)).standard_normal(draw(shapes))
    return Pair(lambda x: ops.cast(x, np.float32), lambda x: x.to(torch.float32), (x,), seed)


@st.composite
def choices(draw, ours, theirs):
    """ours and theirs take a boolean mask of x's shape first; x and y broadcast."""
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    rng = np.random.default_rng(seed := draw(seeds))
    mask = rng.random(both.result_shape) < 0.5
    x, y = (rng.standard_normal(shape) for shape in both.input_shapes)
    return Pair(
        lambda x, y: ours(mask, x, y), lambda x, y: theirs(tensor(mask), x, y), (x, y), seed
    )


@st.composite
def dropouts(draw):
    p = draw(st.sampled_from([0.0, 0.3, 0.75]))
    rng = np.random.default_rng(seed := draw(seeds))
    x = rng.standard_normal(draw(shapes))
    draws = rng.random(x.shape)
    return Pair(
        lambda x: ops.dropout(x, p, draws), lambda x: x * tensor(draws >= p) / (1 - p), (x,), seed
    )


@st.composite
def windows(draw, most_padding=None):
    """(N, H, W, C), the sizes, strides and paddings of windows that fit."""
    sizes, strides, paddings, sides = [], [], [], []
    for _ in range(2):
        k, s, out = (draw(st.integers(1, 3)) for _ in range(3))
        p = draw(st.integers(0, k // 2 if most_padding is None else most_padding))
        rest = draw(st.integers(0, s - 1))
        sides.append(max((out - 1) * s + k - 2 * p + rest, 1))
        sizes.append(k), strides.append(s), paddings.append(p)
    x_shape = (draw(st.integers(1, 2)), *sides, draw(st.integers(1, 3)))
    return x_shape, tuple(sizes), tuple(strides), tuple(paddings)


@st.composite
def max_poolings(draw):
    shape, size, stride, padding = draw(windows())
    x = apart(np.random.default_rng(seed := draw(seeds)), shape)
    theirs = channels_first(lambda x: F.max_pool2d(x, size, stride, padding))
    return Pair(lambda x: ops.max_pool2d(x, size, stride, padding), theirs, (x,), seed)


@st.composite
def avg_poolings(draw):
    shape, size, stride, _ = draw(windows(most_padding=0))
    x = np.random.default_rng(seed := draw(seeds)).standard_normal(shape)
    theirs = channels_first(lambda x: F.avg_pool2d(x, size, stride))
    return Pair(lambda x: ops.avg_pool2d(x, size, stride), theirs, (x,), seed)


@st.composite
def convolutions(draw):
    shape, size, stride, padding = draw(windows(most_padding=2))
    filters, biased = draw(st.integers(1, 3)), draw(st.booleans())
    rng = np.random.default_rng(seed := draw(seeds))
    x, w = rng.standard_normal(shape), rng.standard_normal((*size, shape[3], filters))
    b = (rng.standard_normal(filters),) if biased else ()

    def ours(x, w, b=None):
        return ops.conv2d(x, w, b, stride=stride, padding=padding)

    def theirs(x, w, b=None):
        f = channels_first(lambda x: F.conv2d(x, filters_first(w), b, stride, padding))
        return f(x)

    return Pair(ours, theirs, (x, w, *b), seed)


@st.composite
def normalisations(draw, op, training=True):
    """Spreads from 0.03 to 10, so that eps counts in some; two axes or four."""
    lead = draw(st.sampled_from([(3,), (5,), (2, 2, 3), (3, 1, 2)]))
    C, eps = draw(st.integers(1, 3)), draw(st.sampled_from([1e-5, 1e-3, 1e-1]))
    rng = np.random.default_rng(seed := draw(seeds))
    x = rng.standard_normal((*lead, C)) * 10 ** rng.uniform(-1.5, 1, C) + rng.standard_normal(C)
    gamma, beta, mean = rng.standard_normal((3, C))
    var = rng.uniform(0.25, 2, C)
    fixed = () if training else (mean, var)

    def theirs(x, gamma, beta):
        statistics = (None, None) if training else (tensor(mean), tensor(var))
        f = channels_first(lambda x: F.batch_norm(x, *statistics, gamma, beta, training, 0, eps))
        return f(x)

    def ours(x, gamma, beta):
        return op(x, gamma, beta, *fixed, eps=eps)

    return Pair(ours, theirs, (x, gamma, beta), seed)


@st.composite
def all_moments(draw):
    x = np.random.default_rng(seed := draw(seeds)).standard_normal((4, *draw(shapes)))

    def theirs(x):
        axes = tuple(range(x.ndim - 1))
        return torch.cat([x.mean(axes), x.var(axes, correction=0)])

    return Pair(lambda x: ops.concatenate(ops.moments(x)), theirs, (x,), seed)


@st.composite
def classifications(draw):
    N, K = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    rng = np.random.default_rng(seed := draw(seeds))
    labels, x = rng.integers(0, K, N), rng.standard_normal((N, K)) * 3
    return Pair(
        lambda x: ops.softmax_cross_entropy(x, labels),
        lambda x: F.cross_entropy(x, tensor(labels)),
        (x,),
        seed,
    )


def fused_blocks():
    """The registry's points: convolution, norm or bias, noise, ReLU, pooling, or some of them."""

    def pair(point):
        eps, noise, relu, pool = (point.settings[k] for k in ("eps", "noise", "relu", "pool"))

        def theirs(y, *affine):
            if point.settings["convolved"]:
                w, *affine = affine
                y = channels_first(F.conv2d)(y, filters_first(w), None, 1, w.shape[0] // 2)
            *scale, shift = affine or (0.0,)
            if eps is None:
                y = y * scale[0] + shift if scale else y + shift
            else:
                y = channels_first(lambda y: F.batch_norm(y, None, None, *affine, True, 0, eps))(y)
            if noise is not None:
                y = y * tensor(noise[0]) + tensor(noise[1])
            y = torch.relu(y) if relu else y
            return channels_first(lambda y: F.max_pool2d(y, pool))(y) if pool else y

        return Pair(point.bind(call_fused_block), theirs, point.inputs, point.seed)

    return fused_block_points().map(pair)


PAIRS: dict[str, st.SearchStrategy[Pair]] = {
    **{
        name: same(name, attrgetter(case.torch)(torch))
        for name, case in CASES.items()
        if case.torch
    },
    "avg_pool2d": avg_poolings(),
    "batch_norm": normalisations(ops.batch_norm),
    "batch_norm_composed": normalisations(ops.batch_norm_composed),
    "batch_norm_inference": normalisations(ops.batch_norm_inference, training=False),
    "broadcast_to": moves(broadcast),
    "cast": precisions(),
    "clip": clips(),
    "clip, to variables": same("clip, to variables", lambda x, y: torch.clamp(x, max=y)),
    "concatenate": moves(concatenated),
    "conv2d": convolutions(),
    "dropout": dropouts(),
    "fused_block": fused_blocks(),
    "gather": moves(gathered),
    "getitem": moves(indexed),
    "global_avg_pool2d": same(
        "global_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x.movedim(-1, 1), 1).flatten(1)
    ),
    "log_softmax": softmaxes(ops.log_softmax, torch.log_softmax),
    "logsumexp": reductions(ops.logsumexp, torch.logsumexp),
    "max": reductions(ops.max, torch.amax),
    "max_pool2d": max_poolings(),
    "mean": reductions(ops.mean, torch.mean),
    "min": reductions(ops.min, torch.amin),
    "moments": all_moments(),
    "norm": reductions(lambda x, *a: ops.norm(x, 2, *a), lambda x, *a: vector_norm(x, 2, *a)),
    "norm, p=1": reductions(lambda x, *a: ops.norm(x, 1, *a), lambda x, *a: vector_norm(x, 1, *a)),
    "norm, p=inf": reductions(
        lambda x, *a: ops.norm(x, np.inf, *a), lambda x, *a: vector_norm(x, np.inf, *a)
    ),
    "pad": moves(padded),
    "power": powers(),
    "reshape": moves(reshaped),
    "scatter": moves(scattered),
    "softmax": softmaxes(ops.softmax, torch.softmax),
    "softmax_cross_entropy": classifications(),
    "split": moves(split),
    "stack": moves(stacked),
    "std": variances(ops.std, torch.std),
    "sum": reductions(ops.sum, torch.sum),
    "transpose": moves(transposed),
    "var": variances(ops.var, torch.var),
    "where": choices(ops.where, torch.where),
    **NORM_PAIRS,
}
