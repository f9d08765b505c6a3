"""One row for each op: how to draw a point of its domain. `CASES` is the registry.

Hypothesis draws the structure (shapes, axes, settings), a seed and a texture; the values come from
the seed. So examples shrink to small shapes of small integers, and large arrays cost nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn import ops
from minibn.backend import backend_of
from minibn.tape import value
from minibn.testing.problem import Problem


@dataclass(frozen=True)
class Case:
    """How to draw problems of one op, and what to expect of them."""

    problems: st.SearchStrategy[Problem]
    analytic: bool = True  # the complex step can be used
    digits: float = 4.5  # that float32 keeps, of the largest gradient


seeds = st.integers(0, 2**32 - 1)
textures = st.sampled_from(["integers", "dyadic", "normal", "wide"])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4) | hnp.array_shapes(
    min_dims=1, max_dims=2, min_side=0, max_side=3
)
full_shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)
settings_of_images = st.integers(1, 3)


# -- values: (rng, shape, texture) -> float64 array


def real(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    if texture == "integers":
        return rng.integers(-3, 4, shape).astype(float)
    if texture == "dyadic":
        return rng.integers(-12, 13, shape) / 4
    x = np.asarray(rng.standard_normal(shape))
    return x * 10 ** rng.uniform(-2, 0.7, shape) if texture == "wide" else x


def positive(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    return 0.25 + np.abs(real(rng, shape, texture))


def nonzero(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    return positive(rng, shape, texture) * rng.choice([-1.0, 1.0], shape)


def not_one(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    """Positive, and with a logarithm that is not zero."""
    return positive(rng, shape, texture) + 0.1


def separated(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    """Values whose sizes are at least 0.2 apart, and from 0: away from every kink."""
    size = int(np.prod(shape, dtype=int))
    x = (rng.permutation(size) + 1) * 0.25 + rng.uniform(-0.02, 0.02, size)
    return (x * rng.choice([-1.0, 1.0], size)).reshape(shape)


def here(x: Any, constant: np.ndarray) -> Any:
    """A constant of the problem on x's backend, in x's precision."""
    found = backend_of(value(x)).asarray(constant)
    return found.astype(value(x).real.dtype) if found.dtype.kind == "f" else found


# -- problems


@st.composite
def unary(draw, f, domain=real):
    rng = np.random.default_rng(seed := draw(seeds))
    x = domain(rng, draw(shapes), draw(textures))
    return Problem(f, (x,), seed)


@st.composite
def binary(draw, f, first=real, second=real):
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    rng = np.random.default_rng(seed := draw(seeds))
    x = first(rng, both.input_shapes[0], draw(textures))
    return Problem(f, (x, second(rng, both.input_shapes[1], draw(textures))), seed)


@st.composite
def relus(draw):
    problem = draw(unary(ops.relu, separated))
    flat = frozenset() if (problem.inputs[0] > 0).any() else frozenset({0})
    return Problem(ops.relu, problem.inputs, problem.seed, flat)


@st.composite
def maxima(draw):
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    rng = np.random.default_rng(seed := draw(seeds))
    x, y = separated(rng, both.input_shapes[0]), separated(rng, both.input_shapes[1]) + 0.1
    flat = {i for i, wins in enumerate((x > y, y > x)) if not wins.any()}
    return Problem(ops.maximum, (x, y), seed, frozenset(flat))


@st.composite
def choices(draw):
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
    rng = np.random.default_rng(seed := draw(seeds))
    mask = rng.random(both.input_shapes[0]) < 0.5
    x, y = (real(rng, shape, draw(textures)) for shape in both.input_shapes[1:])
    flat = {i for i, taken in enumerate((mask, ~mask)) if not taken.any()}

    def f(x, y):
        return ops.where(here(x, mask), x, y)

    return Problem(f, (x, y), seed, frozenset(flat))


@st.composite
def powers(draw):
    p = draw(st.sampled_from([0, 1, 2, 3, -1, -2, 0.5, -1.5, 2.0]))
    domain = nonzero if p == int(p) else positive
    problem = draw(unary(lambda x: ops.power(x, p), domain))
    return Problem(problem.f, problem.inputs, problem.seed, frozenset({0} if p == 0 else ()))


@st.composite
def whole_powers(draw):
    problem = draw(unary(None, nonzero))
    x = problem.inputs[0]
    p = np.random.default_rng(problem.seed).integers(-2, 4, (2, *x.shape))
    flat = frozenset() if p.any() else frozenset({0})
    return Problem(lambda x: ops.power(x, here(x, p)), (x,), problem.seed, flat)


@st.composite
def dropouts(draw):
    rng = np.random.default_rng(seed := draw(seeds))
    x, p = real(rng, draw(full_shapes), draw(textures)), draw(st.sampled_from([0.0, 0.3, 0.75]))
    draws = rng.random(x.shape)
    flat = frozenset() if (draws >= p).any() else frozenset({0})
    return Problem(lambda x: ops.dropout(x, p, here(x, draws)), (x,), seed, flat)


@st.composite
def axes_of(draw, ndim):
    one = st.integers(-ndim, ndim - 1)
    some = st.lists(st.integers(0, ndim - 1), unique=True, max_size=ndim)
    signed = st.lists(st.booleans(), min_size=ndim, max_size=ndim)
    kind = draw(st.sampled_from(["all", "one", "some"]))
    if kind == "all":
        return None
    if kind == "one":
        return draw(one)
    return tuple(a - ndim * back for a, back in zip(draw(some), draw(signed), strict=False))


@st.composite
def reductions(draw, op, domain=real, at_least=1):
    shape = draw(full_shapes)
    axis, keepdims = draw(axes_of(len(shape))), draw(st.booleans())
    rng = np.random.default_rng(seed := draw(seeds))
    x = domain(rng, shape, draw(textures))
    axes = range(x.ndim) if axis is None else np.atleast_1d(np.array(axis, int))
    count = int(np.prod([shape[a] for a in axes], dtype=int))
    constant = count < at_least  # a variance of one value, say
    return Problem(
        lambda x: op(x, axis=axis, keepdims=keepdims),
        (x,),
        seed,
        frozenset({0} if constant else ()),
    )


@st.composite
def matrix_products(draw):
    M, K, N = (draw(st.integers(1, 3)) for _ in range(3))
    lead = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3))
    first, second = (
        (*shape, *rest) for shape, rest in zip(lead.input_shapes, ((M, K), (K, N)), strict=True)
    )
    if draw(st.booleans()):
        first, second = draw(st.sampled_from([((K,), second), (first, (K,)), ((K,), (K,))]))
    rng = np.random.default_rng(seed := draw(seeds))
    texture = draw(textures)
    return Problem(ops.matmul, (nonzero(rng, first, texture), nonzero(rng, second, texture)), seed)


@st.composite
def geometries(draw, channels=True):
    """(x shape, w shape, stride, padding): drawn from the output backwards, so that all fit."""
    N, C = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    F = draw(st.integers(1, 3).filter(lambda n: n != C))
    sides, kernel, stride, padding = [], [], [], []
    for _ in range(2):
        out, k, s = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        p, rest = draw(st.integers(0, 2)), draw(st.integers(0, s - 1))
        side = (out - 1) * s + k - 2 * p + rest
        p = p if side > 0 else 0
        sides.append(side if side > 0 else (out - 1) * s + k + rest)
        kernel.append(k)
        stride.append(s)
        padding.append(p)
    return (N, *sides, C), (*kernel, C, F), tuple(stride), tuple(padding)


@st.composite
def convolutions(draw):
    x_shape, w_shape, stride, padding = draw(geometries())
    rng = np.random.default_rng(seed := draw(seeds))
    texture = draw(textures)
    x, w = nonzero(rng, x_shape, texture), nonzero(rng, w_shape, texture)
    inputs = (x, w, real(rng, w_shape[3])) if draw(st.booleans()) else (x, w)

    def f(x, w, b=None):
        return ops.conv2d(x, w, b, stride=stride, padding=padding)

    seen = f(np.ones(x_shape), np.ones(w_shape)).any()  # some windows see nothing but padding
    return Problem(f, inputs, seed, frozenset() if seen else frozenset({0, 1}))


@st.composite
def poolings(draw, op, padded, domain):
    x_shape, w_shape, stride, padding = draw(geometries())
    size = w_shape[:2]
    settings: dict[str, Any] = {"size": size, "stride": stride}
    if padded:
        settings["padding"] = tuple(min(p, k // 2) for p, k in zip(padding, size, strict=True))
    shape = (x_shape[0], *(max(n, k) for n, k in zip(x_shape[1:3], size, strict=True)), x_shape[3])
    rng = np.random.default_rng(seed := draw(seeds))
    return Problem(lambda x: op(x, **settings), (domain(rng, shape, draw(textures)),), seed)


@st.composite
def images(draw, f):
    rng = np.random.default_rng(seed := draw(seeds))
    shape = tuple(draw(st.integers(1, 3)) for _ in range(4))
    return Problem(f, (real(rng, shape, draw(textures)),), seed)


@st.composite
def normalisations(draw, op):
    """From a variance of about eps up: there the eps in the formula is seen."""
    lead = draw(st.sampled_from([(3,), (5,), (2, 2), (2, 1, 3), (2, 2, 2)]))
    C = draw(st.integers(1, 3))
    rng = np.random.default_rng(seed := draw(seeds))
    spread = 10 ** rng.uniform(-1.5, 1, C)
    x = rng.standard_normal((*lead, C)) * spread + rng.standard_normal(C)
    eps = draw(st.sampled_from([1e-5, 1e-3, 1e-1]))
    inputs = (x, nonzero(rng, (C,)), real(rng, (C,)))
    return Problem(lambda x, gamma, beta: op(x, gamma, beta, eps=eps), inputs, seed)


def inference(x, gamma, beta, eps):
    rng = np.random.default_rng(x.shape[-1])
    mean, var = real(rng, x.shape[-1:]), positive(rng, x.shape[-1:])
    return ops.batch_norm_inference(x, gamma, beta, here(x, mean), here(x, var), eps=eps)


@st.composite
def classifications(draw):
    N, K = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(seed := draw(seeds))
    x, labels = real(rng, (N, K), draw(textures)), rng.integers(0, K, N)
    flat = frozenset({0} if K == 1 else ())
    return Problem(lambda x: ops.softmax_cross_entropy(x, labels), (x,), seed, flat)


@st.composite
def softmaxes(draw):
    problem = draw(reductions(None))
    x = problem.inputs[0]
    return Problem(ops.softmax, (x,), problem.seed, frozenset({0} if x.shape[-1] == 1 else ()))


@st.composite
def pairs(draw, f):
    rng = np.random.default_rng(seed := draw(seeds))
    shape = draw(full_shapes)
    return Problem(f, (real(rng, shape, "normal"), real(rng, shape, "normal")), seed)


@st.composite
def indexed(draw):
    """Slices, integers, None, Ellipsis; arrays of integers with repeats; masks; and mixtures."""
    rng = np.random.default_rng(seed := draw(seeds))
    x = real(rng, draw(full_shapes), draw(textures))
    n = x.shape[0]
    kind = draw(st.sampled_from(["basic", "integers", "mask", "first", "last", "two"]))
    index: Any = draw(hnp.basic_indices(x.shape, allow_newaxis=True))
    if kind == "integers":
        index = rng.integers(-n, n, draw(hnp.array_shapes(max_dims=2, max_side=4)))
    elif kind == "mask":
        index = rng.random(x.shape[: draw(st.integers(1, x.ndim))]) < 0.6
    elif kind == "first":
        index = (rng.integers(-n, n, 5), ..., None)
    elif kind == "last":
        index = (..., rng.integers(-x.shape[-1], x.shape[-1], (2, 2)))
    elif kind == "two" and x.ndim > 1:
        index = (rng.integers(0, n, 3), slice(None, None, -1), None)[: x.ndim]
    flat = frozenset() if np.size(x[index]) else frozenset({0})
    return Problem(lambda x: ops.getitem(x, index), (x,), seed, flat)


@st.composite
def gathers(draw, adjoint):
    rng = np.random.default_rng(seed := draw(seeds))
    shape, where = draw(full_shapes), draw(full_shapes)
    size = int(np.prod(shape))
    unique = draw(st.booleans()) and size >= int(np.prod(where))
    index = (
        rng.permutation(size)[: np.prod(where)].reshape(where)
        if unique
        else rng.integers(0, size, where)
    )
    if adjoint:

        def f(x):
            return ops.scatter(x, here(x, index), shape, unique)

        return Problem(f, (real(rng, where, draw(textures)),), seed)
    return Problem(
        lambda x: ops.gather(x, here(x, index), unique), (real(rng, shape, draw(textures)),), seed
    )


@st.composite
def broadcasts(draw):
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3), max_dims=3))
    rng = np.random.default_rng(seed := draw(seeds))
    x = real(rng, both.input_shapes[0], draw(textures))
    return Problem(lambda x: ops.broadcast_to(x, both.result_shape), (x,), seed)


@st.composite
def reshapes(draw):
    rng = np.random.default_rng(seed := draw(seeds))
    x = real(rng, draw(full_shapes), draw(textures))
    to = draw(st.sampled_from([(-1,), x.shape[::-1], (1, *x.shape), (x.size, 1), (x.size, -1)]))
    return Problem(lambda x: ops.reshape(x, to), (x,), seed)


@st.composite
def transposes(draw):
    rng = np.random.default_rng(seed := draw(seeds))
    x = real(rng, draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3)), draw(textures))
    around = np.roll(range(x.ndim), 1).tolist()  # from three axes on not its own inverse
    axes = draw(st.sampled_from([around, None]) | st.permutations(range(-x.ndim, 0)))
    return Problem(lambda x: ops.transpose(x, axes), (x,), seed)


@st.composite
def paddings(draw):
    rng = np.random.default_rng(seed := draw(seeds))
    x = real(rng, draw(full_shapes), draw(textures))
    widths = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in x.shape]
    return Problem(lambda x: ops.pad(x, widths), (x,), seed)


@st.composite
def concatenations(draw):
    shape = list(draw(full_shapes))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(seed := draw(seeds))
    inputs = []
    for _ in range(draw(st.integers(1, 3))):
        shape[axis] = draw(st.integers(0, 3))
        inputs.append(real(rng, tuple(shape), draw(textures)))
    return Problem(lambda *parts: ops.concatenate(parts, axis), tuple(inputs), seed)


def both_moments(x):
    return ops.concatenate(ops.moments(x))


def normal_matrix(f: Callable[..., Any]) -> st.SearchStrategy[Problem]:
    return normalisations(lambda x, gamma, beta, eps: f(x)).map(
        lambda p: Problem(lambda x: f(x), p.inputs[:1], p.seed)
    )


CASES: dict[str, Case] = {
    "abs": Case(unary(ops.abs, separated)),
    "add": Case(binary(ops.add)),
    "avg_pool2d": Case(poolings(ops.avg_pool2d, False, real)),
    "batch_norm": Case(normalisations(ops.batch_norm), digits=3),
    "batch_norm_composed": Case(normalisations(ops.batch_norm_composed), digits=3),
    "batch_norm_inference": Case(normalisations(inference)),
    "broadcast_to": Case(broadcasts()),
    "cast": Case(unary(lambda x: ops.cast(x, x.dtype)), analytic=False),
    "concatenate": Case(concatenations()),
    "conv2d": Case(convolutions()),
    "divide": Case(binary(ops.divide, nonzero, nonzero)),
    "dropout": Case(dropouts()),
    "exp": Case(unary(ops.exp)),
    "gather": Case(gathers(adjoint=False)),
    "getitem": Case(indexed()),
    "global_avg_pool2d": Case(images(ops.global_avg_pool2d)),
    "log": Case(unary(ops.log, positive)),
    "logsumexp": Case(reductions(ops.logsumexp)),
    "matmul": Case(matrix_products()),
    "max": Case(reductions(ops.max, separated)),
    "max_pool2d": Case(poolings(ops.max_pool2d, True, separated)),
    "maximum": Case(maxima()),
    "mean": Case(reductions(ops.mean)),
    "moments": Case(normal_matrix(both_moments)),
    "mse": Case(pairs(ops.mse)),
    "multiply": Case(binary(ops.multiply, nonzero, nonzero)),
    "negative": Case(unary(ops.negative)),
    "norm": Case(reductions(ops.norm, nonzero)),
    "norm, p=1": Case(reductions(lambda x, **k: ops.norm(x, 1, **k), nonzero)),
    "norm, p=inf": Case(reductions(lambda x, **k: ops.norm(x, np.inf, **k), separated)),
    "pad": Case(paddings()),
    "power": Case(powers()),
    "power, of whole numbers": Case(whole_powers()),
    "power, of two variables": Case(binary(ops.power, not_one, nonzero)),
    "relu": Case(relus()),
    "reshape": Case(reshapes()),
    "scatter": Case(gathers(adjoint=True)),
    "sigmoid": Case(unary(ops.sigmoid)),
    "softmax": Case(softmaxes()),
    "softmax_cross_entropy": Case(classifications()),
    "sqrt": Case(unary(ops.sqrt, positive)),
    "subtract": Case(binary(ops.subtract)),
    "sum": Case(reductions(ops.sum)),
    "tanh": Case(unary(ops.tanh)),
    "transpose": Case(transposes()),
    "var": Case(reductions(ops.var, separated, at_least=2)),
    "where": Case(choices()),
}

NO_GRADIENT = {
    "one_hot": "takes integer labels and gives a plain array",
    "sign": "is a constant of differentiation and gives a plain array",
}
