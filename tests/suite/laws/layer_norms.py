"""Laws of the norms of each example by itself, of standardised filters, and of frozen BatchNorm.

An op under test is `op(*inputs, **settings)`, the inputs being x, gamma and beta (w and gamma for
filters). Values that share a mean and a variance are a *set*.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import Tensor, grad, nn, ops
from minibn.backend import Backend, to_numpy
from minibn.testing.laws.agreement import agree, each, pull, value
from minibn.testing.strategies import Point, norm_problems, seeds
from suite.laws.batch_norm import cotangent, named
from suite.laws.faults import Fault, add_faults
from suite.laws.layers import layer, unchanged
from suite.laws.row_law import law
from suite.registry import norms

DRAWN = {
    "group_norm": norms.group_norm_points(),
    "instance_norm": norms.instance_norm_points(),
    "layer_norm": norms.layer_norm_points(),
    "rms_norm": norms.layer_norm_points().map(norms.without_beta),
    "weight_standardisation": norms.filter_points(),
}
OF_AN_EXAMPLE = tuple(name for name in DRAWN if name != "weight_standardisation")
CENTRED = tuple(name for name in DRAWN if name != "rms_norm")


def about_norms(sentence: str, over: Any, **settings: Any) -> Any:
    def drawn(case: str) -> st.SearchStrategy[tuple[str, Point]]:
        return DRAWN[case].map(lambda point: (case, point))

    return law("norms of an example", sentence, over=over, draw=drawn, subject=named, **settings)


def sets(case: str, point: Point) -> np.ndarray:
    """For each value of x, the number of the set it belongs to."""
    shape = point.inputs[0].shape
    k, number = len(shape), np.indices(shape)
    axes, groups = point.settings.get("axes"), point.settings.get("groups")
    if case == "weight_standardisation":
        return number[-1]
    example, channel = number[0], number[-1]
    if case == "instance_norm":
        return example * shape[-1] + channel
    if case == "group_norm":
        return example * groups + channel // (shape[-1] // groups)
    if axes in (None, -1):  # each pixel
        return np.ravel_multi_index(tuple(number[:-1]), shape[:-1])
    assert axes in ("example", tuple(range(1, k)))
    return example


def by_sets(x: np.ndarray, of: np.ndarray, eps: float, centred: bool) -> np.ndarray:
    """x̂ from the sums over each set of the values, and of their squares (np.bincount)."""
    flat, of = x.ravel(), of.ravel()
    count = np.bincount(of)
    z = flat - (np.bincount(of, flat) / count)[of] * centred
    return (z / np.sqrt(np.bincount(of, z * z) / count + eps)[of]).reshape(x.shape)


def vectors(point: Point) -> tuple[Any, Any]:
    """gamma and beta, which may be missing."""
    return point.inputs[1], point.inputs[2] if len(point.inputs) == 3 else 0.0


@about_norms(
    "It is x̂ = (x - mean)/√(var + eps) over sets that are counted one by one.", tuple(DRAWN)
)
def norms_equal_counting(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    case, point = drawn
    x, (gamma, beta) = point.inputs[0], vectors(point)
    x_hat = by_sets(x, sets(case, point), point.settings["eps"], case in CENTRED)
    agree(value(point.bind(op), point.inputs, backend), gamma * x_hat + beta, "y", digits=10)


@about_norms("An example's value and gradient are the same without the others.", OF_AN_EXAMPLE)
def examples_are_independent(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    point, f = drawn[1], drawn[1].bind(op)
    (x, *rest), g = point.inputs, cotangent(point)
    y, g_x = value(f, point.inputs, backend), pull(f, point.inputs, g, backend)[0]
    for n in range(len(x)):
        alone = (x[n : n + 1], *rest)
        agree(value(f, alone, backend), y[n : n + 1], f"example {n}", digits=10)
        actual = pull(f, alone, g[n : n + 1], backend)[0]
        agree(actual, g_x[n : n + 1], f"x̄ of example {n}", digits=9.5)


@about_norms("f(a·x; a²·eps) = f(x; eps), and x̄ shrinks by a: the scale cancels.", tuple(DRAWN))
def the_scale_cancels(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    point, g = drawn[1], cotangent(drawn[1])
    a = 2.0 ** int(np.random.default_rng((point.seed, 2)).integers(-4, 5))
    (x, *rest), settings = point.inputs, {**point.settings, "eps": a * a * point.settings["eps"]}
    f, scaled = point.bind(op), Point((a * x, *rest), settings).bind(op)
    y = value(f, point.inputs, backend)
    agree(value(scaled, (a * x, *rest), backend), y, "f(a·x)", digits=10)
    there, here = pull(scaled, (a * x, *rest), g, backend), pull(f, point.inputs, g, backend)
    each([a * there[0], *there[1:]], here, "the gradient", digits=10)


@about_norms("A shift of all values of a set cancels, and its x̄ sum to zero.", CENTRED)
def the_shift_cancels(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    point, of = drawn[1], sets(*drawn)
    f, g = point.bind(op), cotangent(point)
    (x, *rest), rng = point.inputs, np.random.default_rng((point.seed, 2))
    moved = x + (rng.integers(-2, 3, of.max() + 1) * np.abs(x).max())[of]
    y = value(f, point.inputs, backend)
    agree(value(f, (moved, *rest), backend), y, "f(x + b)", digits=9)
    g_x = pull(f, point.inputs, g, backend)[0]
    total, sizes = (np.bincount(of.ravel(), a.ravel()) for a in (g_x, np.abs(g_x)))
    agree(total, 0 * total, "Σ x̄", digits=9, scale=sizes + np.abs(g_x).max())


# -- one by another


def both(one: Any, other: Any, inputs: Any, point: Point, backend: Backend, what: str) -> None:
    """Two functions agree in value and gradient."""
    g = np.random.default_rng((point.seed, 1)).standard_normal(inputs[0].shape)
    agree(value(one, inputs, backend), value(other, inputs, backend), what, digits=10)
    actual, expected = (pull(f, inputs, g, backend) for f in (one, other))
    each(actual, expected, f"the gradient: {what}", digits=9)


@about_norms("One group is layer norm over the whole example.", ("group_norm",))
def one_group_is_layer_norm(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    point, eps = drawn[1], drawn[1].settings["eps"]
    both(
        lambda *inputs: op(*inputs, groups=1, eps=eps),
        lambda *inputs: ops.layer_norm(*inputs, axes="example", eps=eps),
        point.inputs, point, backend, "one group",
    )  # fmt: skip


@about_norms("As many groups as channels are instance norm.", ("instance_norm",))
def groups_of_one_are_instance_norm(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    point, eps = drawn[1], drawn[1].settings["eps"]
    C = point.inputs[0].shape[-1]
    both(
        point.bind(op),
        lambda *inputs: ops.group_norm(*inputs, groups=C, eps=eps),
        point.inputs, point, backend, "instance norm",
    )  # fmt: skip


@about_norms("Instance norm of one example is batch norm over its pixels.", ("instance_norm",))
def one_instance_is_a_batch(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    point, eps = drawn[1], drawn[1].settings["eps"]
    (x, *rest) = point.inputs
    both(
        point.bind(op),
        lambda *inputs: ops.batch_norm(*inputs, eps=eps),
        (x[:1], *rest), point, backend, "one example",
    )  # fmt: skip


@about_norms("Of centred values, rms norm is layer norm without beta.", ("rms_norm",))
def centred_rms_norm_is_layer_norm(op: Any, drawn: tuple[str, Point], backend: Backend) -> None:
    point = drawn[1]
    axes, gamma = point.settings["axes"], point.inputs[1]
    every = tuple(range(1, point.inputs[0].ndim))
    over = every if axes == "example" else tuple(range(-gamma.ndim, 0)) if axes is None else axes

    def rms_of_centred(x: Any, gamma: Any) -> Any:
        return point.bind(op)(x - ops.mean(x, over, keepdims=True), gamma)

    def layer_norm(x: Any, gamma: Any) -> Any:
        return ops.layer_norm(x, gamma, gamma * 0.0, **point.settings)

    both(rms_of_centred, layer_norm, point.inputs, point, backend, "centred rms norm")


@about_norms(
    "A constant added to the image changes nothing after standardised filters, nor do the filters' "
    "own shift and scale.",
    ("weight_standardisation",),
)
def standardised_filters_see_no_constant(
    op: Any, drawn: tuple[str, Point], backend: Backend
) -> None:
    w, gamma = drawn[1].inputs
    eps, rng = drawn[1].settings["eps"], np.random.default_rng((drawn[1].seed, 2))
    w = w.reshape(*(1,) * (4 - w.ndim), *w.shape)  # (Kh, Kw, C, F)
    image = rng.standard_normal((2, w.shape[0] + 1, w.shape[1] + 2, w.shape[2]))
    a, b = 2.0 ** int(rng.integers(-4, 5)), rng.standard_normal(w.shape[-1])

    def at(eps: float) -> Any:
        return lambda x, w, gamma: ops.conv2d(x, op(w, gamma, eps=eps))

    f = at(eps)
    y = value(f, (image, w, gamma), backend)
    size = np.abs(gamma) * np.abs(image).max() * w[..., 0].size
    agree(value(f, (image + 3, w, gamma), backend), y, "f(x + 3)", digits=10, scale=5 * size)
    scaled = value(at(a * a * eps), (image, a * (w + b), gamma), backend)
    agree(scaled, y, "f(a·w + b)", digits=9, scale=size)


@st.composite
def standardised_layers(draw: Any, case: str) -> tuple[tuple[Any, ...], dict[str, Any], Point]:
    """The layer's sizes and settings; x, weights, bias and gain."""
    F, images = draw(st.integers(1, 3)), case == "nn.WSConv2d"
    w_shape, x_shape = ((1, 2, 2, F), (3, 2, 3, 2)) if images else ((4, F), (3, 4))
    rng = np.random.default_rng(seed := draw(seeds))
    inputs = (*(rng.standard_normal(s) for s in (x_shape, w_shape)), *rng.standard_normal((2, F)))
    arguments = (2, F, (1, 2)) if images else (4, F)
    settings = {"scaled": draw(st.booleans()), "factor": draw(st.sampled_from([1.0, 2.0]))}
    return arguments, settings, Point(inputs, {"eps": draw(st.sampled_from(norms.EPS))}, seed)


@law(
    "norms of an example",
    "A layer of standardised filters does not depend on their shift and scale, f(a·W + b; a²·eps) "
    "= f(W; eps), and its output for a constant input is its bias.",
    over=("nn.WSConv2d", "nn.WSLinear"),
    draw=standardised_layers,
    subject=lambda case: getattr(nn, case.removeprefix("nn.")),
)
def filters_have_no_shift_and_no_scale(cls: Any, drawn: Any, backend: Backend) -> None:
    arguments, settings, point = drawn
    (x, w, bias, gain), eps = point.inputs, point.settings["eps"]
    rng = np.random.default_rng((point.seed, 2))
    a, b = 2.0 ** int(rng.integers(-4, 5)), rng.standard_normal(len(bias))

    def f(w: np.ndarray, x: np.ndarray, eps: float) -> np.ndarray:
        one = cls(*arguments, **settings, eps=eps).initialize(0, dtype=np.float64)
        for name, array in {"weight": w, "bias": bias, "gain": gain}.items():
            if getattr(one, name) is not None:
                getattr(one, name).place(array)
        return to_numpy(one(backend.asarray(x)))

    y = f(w, x, eps)
    agree(f(a * (w + b), x, a * a * eps), y, "f(a·W + b)", digits=9, scale=np.abs(y).max() + 1)
    agree(f(w, 0 * x + 3, eps), 0 * y + bias, "f of a constant", digits=9, scale=10.0)


# -- BatchNorm with frozen statistics


@law(
    "BatchNorm layer",
    "Frozen at the first batch: there its output is BatchNorm's, and then it stays affine: "
    "x̄ = g·γ/√(var + eps) with that batch's variance.",
    over=("nn.FrozenBatchNorm",),
    draw=norm_problems(),
    subject=lambda name: nn.FrozenBatchNorm,
)
def frozen_statistics_are_the_first_batchs(cls: Any, point: Point, backend: Backend) -> None:
    (x, gamma, beta), eps = point.inputs, point.settings["eps"]
    norm = cls(len(gamma), eps=eps).initialize(0, dtype=np.float64)
    norm.gamma.place(gamma)
    norm.beta.place(beta)
    leaf = Tensor(backend.asarray(x), requires_grad=True)
    y, expected = norm(leaf), layer(nn.BatchNorm, point)(backend.asarray(x))
    agree(y.numpy(), to_numpy(expected), "the first batch", digits=9)
    slope, g = gamma / np.sqrt(x.var(tuple(range(x.ndim - 1))) + eps), cotangent(point)
    agree(to_numpy(grad(y, leaf, backend.asarray(g))), g * slope, "x̄", digits=9)
    state = norm.state_dict()
    for training in (True, False):
        moved = to_numpy(norm.train(training)(backend.asarray(x + 1)))
        agree(moved, y.numpy() + slope, "f(x + 1)", digits=8, scale=np.abs(y.numpy()) + 1)
    unchanged(state, norm, "after other batches")


# -- faults


def over_the_batch_too(x, gamma, beta, **settings):
    return ops.layer_norm(x - ops.mean(x, 0) * 0.1, gamma, beta, **settings)


def deaf_to_eps(op):
    return lambda *inputs, **settings: op(*inputs, **{**settings, "eps": 1e-2})


def slightly_large(op):
    return lambda *inputs, **settings: op(*inputs, **settings) * (1 + 1e-7)


def not_centred(x, gamma, beta, *, axes, eps):
    return ops.rms_norm(x, gamma, axes=axes, eps=eps) + beta


def always_single_channels(x, gamma, beta, *, groups, eps):
    return ops.group_norm(x, gamma, beta, groups=x.shape[-1], eps=eps)


def over_channels_too(x, gamma, beta, *, eps):
    return ops.layer_norm(x, gamma, beta, axes="example", eps=eps)


def filters_not_centred(w, gamma, *, eps):
    axes = tuple(range(w.ndim - 1))
    return w * (gamma / ops.sqrt(ops.var(w, axes) + eps))


class NotCentred(nn.WSLinear):
    def filters(self):
        return filters_not_centred(self.weight, 1.0, eps=self.eps)


class Thaws(nn.FrozenBatchNorm):
    def forward(self, x):
        self.batches.data[...] = 0
        return super().forward(x)


add_faults(
    norms_equal_counting=Fault("layer_norm", slightly_large(ops.layer_norm)),
    examples_are_independent=Fault("layer_norm", over_the_batch_too),
    the_scale_cancels=Fault("rms_norm", deaf_to_eps(ops.rms_norm)),
    the_shift_cancels=Fault("layer_norm", not_centred),
    one_group_is_layer_norm=Fault("group_norm", always_single_channels),
    groups_of_one_are_instance_norm=Fault("instance_norm", over_channels_too),
    one_instance_is_a_batch=Fault("instance_norm", deaf_to_eps(ops.instance_norm)),
    centred_rms_norm_is_layer_norm=Fault("rms_norm", slightly_large(ops.rms_norm)),
    standardised_filters_see_no_constant=Fault("weight_standardisation", filters_not_centred),
    filters_have_no_shift_and_no_scale=Fault("nn.WSLinear", NotCentred),
    frozen_statistics_are_the_first_batchs=Fault("nn.FrozenBatchNorm", Thaws),
)
