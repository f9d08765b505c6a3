"""Laws of batch normalisation, alone and after a convolution.

The op under test is `op(x, gamma, beta, *, eps)` with channels last. v is the biased variance of a
channel, σ² = v + eps, x̂ = (x - mean) / σ, M the values per channel, g the cotangent of the output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import Tensor, apply, grad, ops
from minibn.backend import Backend, to_numpy
from minibn.fast.fused_ops import fused_block
from minibn.ops.batch_normalization import BatchNorm
from minibn.testing.laws.agreement import agree, each, leaves_of, pull, value
from minibn.testing.strategies import Point, conv2d_problems, norm_problems
from suite import loops
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import law

TRAINING = ("batch_norm", "batch_norm_composed", "fused_block")  # the last with its norm alone


def named(name: str) -> Any:
    return fused_block if name == "fused_block" else getattr(ops, name)


def cotangent(point: Point) -> np.ndarray:
    """Of an output of x's shape."""
    return np.random.default_rng((point.seed, 1)).standard_normal(point.inputs[0].shape)


def normalised(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x̂, v, σ) with sums over all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    centred = x - x.mean(axes)
    v = (centred**2).mean(axes)
    return centred / np.sqrt(v + eps), v, np.sqrt(v + eps)


def per_channel(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1]).sum(0)


def about_batch_norm(sentence: str, **settings: Any) -> Any:
    draw = norm_problems()
    return law("batch_norm", sentence, over=TRAINING, draw=draw, subject=named, **settings)


@about_batch_norm("It equals loops over single numbers, in value and gradient.")
def batch_norm_equals_loops(op: Any, point: Point, backend: Backend) -> None:
    (x, gamma, beta), eps, g = point.inputs, point.settings["eps"], cotangent(point)
    y = value(point.bind(op), point.inputs, backend)
    agree(y, loops.batch_norm(x, gamma, beta, eps), "the value", digits=10)
    actual = pull(point.bind(op), point.inputs, g, backend)
    sizes = [np.abs(g).sum() * s for s in (np.abs(gamma / normalised(x, eps)[2]), 1.0, 1.0)]
    expected = loops.batch_norm_vjp(g, x, gamma, eps)
    for i, (a, b, size) in enumerate(zip(actual, expected, sizes, strict=True)):
        agree(a, b, f"the gradient, input {i}", digits=10, scale=size)


def twice(f: Any, inputs: Any, g: np.ndarray, backend: Backend) -> list[np.ndarray]:
    """The gradient of the squared gradients: a second derivative."""
    leaves = leaves_of(inputs, backend)
    slopes = grad(f(*leaves), leaves, backend.asarray(g), create_graph=True)
    total = sum((s * s).sum() for s in slopes)
    return [to_numpy(s) for s in grad(total, leaves, unused="zeros")]


def equal_to_second_order(ours: Any, other: Any, point: Point, backend: Backend) -> None:
    """Two functions of the point's inputs agree in value and two derivatives."""
    g = cotangent(point)
    y = value(other, point.inputs, backend)
    agree(value(ours, point.inputs, backend), y, "the value", digits=10)
    for what, of in (("first", pull), ("second", twice)):
        expected = of(other, point.inputs, g, backend)
        actual = of(ours, point.inputs, g, backend)
        each(actual, expected, f"the {what} derivative", digits=8.5)


@law(
    "batch_norm",
    "The fused op equals its definition of primitive ops, in value and two derivatives.",
    over=("batch_norm",),
    draw=norm_problems(),
    subject=named,
)
def fused_equals_composed(op: Any, point: Point, backend: Backend) -> None:
    equal_to_second_order(point.bind(op), point.bind(ops.batch_norm_composed), point, backend)


@about_batch_norm("f(a·x + b; a²·eps) = f(x; eps), and x̄ shrinks by a: scale and shift cancel.")
def scale_and_shift_cancel(op: Any, point: Point, backend: Backend) -> None:
    (x, gamma, beta), eps, g = point.inputs, point.settings["eps"], cotangent(point)
    rng = np.random.default_rng((point.seed, 2))
    a, b = 2.0 ** int(rng.integers(-4, 5)), rng.integers(-2, 3, x.shape[-1]) * np.abs(x).max()
    moved = (a * (x + b), gamma, beta)

    def scaled(*inputs: Any) -> Any:
        return op(*inputs, eps=a * a * eps)

    y = value(point.bind(op), point.inputs, backend)
    agree(value(scaled, moved, backend), y, "f(a·x + b)", digits=9.5)
    there = pull(scaled, moved, g, backend)
    here = pull(point.bind(op), point.inputs, g, backend)
    each([a * there[0], *there[1:]], here, "the gradient", digits=9)


@about_batch_norm("Σ x̄ = 0 in each channel.")
def input_gradients_sum_to_zero(op: Any, point: Point, backend: Backend) -> None:
    g_x = pull(point.bind(op), point.inputs, g := cotangent(point), backend)[0]
    sigma = normalised(point.inputs[0], point.settings["eps"])[2]
    sizes = np.abs(point.inputs[1]) / sigma * per_channel(np.abs(g))
    agree(per_channel(g_x), 0 * sizes, "Σ x̄", scale=sizes)


@about_batch_norm("⟨x̄, x̂⟩ = γ/σ · Σ(g x̂) · eps/(v + eps) in each channel: 0 up to eps.")
def orthogonal_to_x_hat_up_to_eps(op: Any, point: Point, backend: Backend) -> None:
    (x, gamma, _), eps, g = point.inputs, point.settings["eps"], cotangent(point)
    x_hat, v, sigma = normalised(x, eps)
    g_x = pull(point.bind(op), point.inputs, g, backend)[0]
    expected = gamma / sigma * per_channel(g * x_hat) * eps / (v + eps)
    sizes = np.abs(gamma) / sigma * per_channel(np.abs(g))
    agree(per_channel(g_x * x_hat), expected, "⟨x̄, x̂⟩", digits=10, scale=sizes)


@about_batch_norm("The gradient of gamma is Σ g x̂, that of beta Σ g.")
def gamma_and_beta_in_closed_form(op: Any, point: Point, backend: Backend) -> None:
    x_hat = normalised(point.inputs[0], point.settings["eps"])[0]
    _, g_gamma, g_beta = pull(point.bind(op), point.inputs, g := cotangent(point), backend)
    sizes = per_channel(np.abs(g))
    agree(g_gamma, per_channel(g * x_hat), "gamma", digits=10, scale=sizes)
    agree(g_beta, per_channel(g), "beta", scale=sizes)


@about_batch_norm("x̄ is linear in gamma and independent of beta.")
def linear_in_gamma(op: Any, point: Point, backend: Backend) -> None:
    x, gamma, beta = point.inputs
    g, f = cotangent(point), point.bind(op)
    once = pull(f, (x, np.ones_like(gamma), 0 * beta), g, backend)[0]
    actual = pull(f, point.inputs, g, backend)[0]
    sizes = np.abs(gamma) / normalised(x, point.settings["eps"])[2] * np.abs(g).max()
    agree(actual, gamma * once, "x̄", scale=sizes)


@about_batch_norm("Permuting the batch permutes value and x̄, and leaves gamma's and beta's alone.")
def equivariant_under_permutations(op: Any, point: Point, backend: Backend) -> None:
    x, gamma, beta = point.inputs
    g, f = cotangent(point), point.bind(op)
    rng = np.random.default_rng((point.seed, 2))
    order = rng.permutation(x.size // x.shape[-1])

    def mixed(a: np.ndarray) -> np.ndarray:
        return a.reshape(-1, a.shape[-1])[order].reshape(a.shape)

    permuted = (mixed(x), gamma, beta)
    y = value(f, point.inputs, backend)
    agree(value(f, permuted, backend), mixed(y), "the value", digits=10)
    g_x, *rest = pull(f, point.inputs, g, backend)
    sigma = normalised(x, point.settings["eps"])[2]
    sizes = [np.abs(gamma) / sigma * np.abs(g).sum(), np.abs(g).sum(), np.abs(g).sum()]
    actual, expected = pull(f, permuted, mixed(g), backend), [mixed(g_x), *rest]
    for i, (a, b, size) in enumerate(zip(actual, expected, sizes, strict=True)):
        agree(a, b, f"the gradient, input {i}", digits=10, scale=size)


@about_batch_norm("A channel's value and gradients are the same without the other channels.")
def channels_are_independent(op: Any, point: Point, backend: Backend) -> None:
    f, g = point.bind(op), cotangent(point)
    whole = [value(f, point.inputs, backend), *pull(f, point.inputs, g, backend)]
    for c in range(point.inputs[0].shape[-1]):
        alone = [a[..., c : c + 1] for a in point.inputs]
        actual = [value(f, alone, backend), *pull(f, alone, g[..., c : c + 1], backend)]
        each(actual, [a[..., c : c + 1] for a in whole], f"channel {c}", digits=9.5)


@law(
    "batch_norm",
    "Inference is affine: y = x·s + β - mean·s with s = γ/√(var + eps), so x̄ = g·s.",
    over=("batch_norm_inference",),
    draw=norm_problems(),
    subject=named,
)
def inference_is_affine(op: Any, point: Point, backend: Backend) -> None:
    (x, gamma, beta), eps, g = point.inputs, point.settings["eps"], cotangent(point)
    rng = np.random.default_rng((point.seed, 2))
    mean, var = rng.standard_normal(gamma.shape), eps * 10 ** rng.uniform(-1, 4, gamma.shape)
    running = backend.asarray(mean), backend.asarray(var)

    def f(*inputs: Any) -> Any:
        return op(*inputs, *running, eps=eps)

    s = 1 / np.sqrt(var + eps)
    sizes = np.abs(gamma * s) * (np.abs(x) + np.abs(mean)) + np.abs(beta)
    expected = (x - mean) * s * gamma + beta
    agree(value(f, point.inputs, backend), expected, "the value", scale=sizes)
    g_x, g_gamma, g_beta = pull(f, point.inputs, g, backend)
    agree(g_x, g * gamma * s, "x̄")
    sizes = per_channel(np.abs(g * s) * (np.abs(x) + np.abs(mean)))
    agree(g_gamma, per_channel(g * (x - mean) * s), "gamma", scale=sizes)
    agree(g_beta, per_channel(g), "beta", scale=per_channel(np.abs(g)))


# -- a convolution, then batch normalisation

CONV_BN = ("conv2d, batch_norm",)
after_a_convolution = st.tuples(
    conv2d_problems(most_padding="half"),
    st.sampled_from([1e-1, 1e-3, 1e-5]),
)


def conv_bn(name: str) -> Any:
    """(x, w, gamma, beta, settings, eps) -> batch_norm(conv2d(x, w)): the ops by these names."""
    first, second = name.split(", ")

    def f(x: Any, w: Any, gamma: Any, beta: Any, settings: Any, eps: float) -> Any:
        return named(second)(named(first)(x, w, **settings), gamma, beta, eps=eps)

    return f


def a_batch_for(point: Point) -> tuple[np.ndarray, np.ndarray]:
    """The point's images with other values and three more of them: a batch with a variance."""
    (N, *rest), rng = point.inputs[0].shape, np.random.default_rng((point.seed, 3))
    return rng.standard_normal((N + 3, *rest)), point.inputs[1]


@law(
    "convolution, then batch_norm",
    "The scale of a filter is normalised away: f(c·W; c²·eps) = f(W; eps), exactly.",
    over=CONV_BN,
    draw=after_a_convolution,
    subject=conv_bn,
)
def filters_have_no_scale(f: Any, drawn: tuple[Point, float], backend: Backend) -> None:
    (point, eps), (x, w) = drawn, a_batch_for(drawn[0])
    F, c = w.shape[3], 2.0 ** int(np.random.default_rng(point.seed).integers(-4, 5))
    rest = backend.asarray(np.linspace(-1, 2, F)), backend.asarray(np.linspace(0, 1, F))
    ours, scaled = (
        to_numpy(f(*map(backend.asarray, (x, k * w)), *rest, point.settings, k * k * eps))
        for k in (1, c)
    )
    agree(scaled, ours, "f(c·W)", digits=10)


@law(
    "convolution, then batch_norm",
    "⟨∂L/∂W, W⟩ = γ · Σ(g x̂) · eps/(v + eps) for each filter, g being the cotangent of the output.",
    over=CONV_BN,
    draw=after_a_convolution,
    subject=conv_bn,
)
def filter_gradients_are_orthogonal_up_to_eps(
    f: Any, drawn: tuple[Point, float], backend: Backend
) -> None:
    (point, eps), (x, w) = drawn, a_batch_for(drawn[0])
    F, rng = w.shape[3], np.random.default_rng((point.seed, 4))
    gamma, beta = rng.standard_normal((2, F))
    # Filters whose outputs vary by about √eps: where the relation isn't 0 = 0.
    z = value(lambda x, w: ops.conv2d(x, w, **point.settings), (x, w), backend)
    w = w * np.sqrt(eps * rng.uniform(0.3, 10, F) / (z.reshape(-1, F).var(0) + 1e-30))
    z = value(lambda x, w: ops.conv2d(x, w, **point.settings), (x, w), backend)
    x_hat, v, _ = normalised(z, eps)
    g = rng.standard_normal(z.shape)
    there = [backend.asarray(a) for a in (x, gamma, beta)]
    leaf = Tensor(backend.asarray(w), requires_grad=True)
    y = f(there[0], leaf, *there[1:], point.settings, eps)
    g_w = to_numpy(grad(y, leaf, backend.asarray(g)))
    expected = gamma * per_channel(g * x_hat) * eps / (v + eps)
    sizes = np.abs(gamma) * per_channel(np.abs(g * x_hat)) + per_channel(np.abs(g_w * w))
    agree(per_channel(g_w * w), expected, "⟨∂L/∂W, W⟩", digits=9, scale=sizes)


# -- faults


def batch_norm_with(edit):
    """batch_norm whose gradients pass through `edit(g_x, g_gamma, g_beta, g, x_hat, scale)`."""

    class Edited(BatchNorm):
        def vjp(self, g, out, x, gamma, beta):
            axes = tuple(range(x.ndim - 1))
            inv_std = 1 / ops.sqrt(ops.var(x, axes) + self.eps)
            x_hat = (x - ops.mean(x, axes)) * inv_std
            return edit(*super().vjp(g, out, x, gamma, beta), g, x_hat, gamma * inv_std)

    return lambda x, gamma, beta, *, eps: apply(Edited(eps), x, gamma, beta)


def slightly_large(g_x, g_gamma, g_beta, *_):
    return g_x * (1 + 1e-6), g_gamma, g_beta


def without_variance_term(g_x, g_gamma, g_beta, g, x_hat, scale):
    axes = tuple(range(g.ndim - 1))
    return scale * (g - ops.mean(g, axes)), g_gamma, g_beta


def without_mean_term(g_x, g_gamma, g_beta, g, x_hat, scale):
    return g_x + scale * ops.mean(g, tuple(range(g.ndim - 1))), g_gamma, g_beta


def gamma_by_x(g_x, g_gamma, g_beta, g, x_hat, scale):
    return g_x, ops.sum(g * (x_hat + 1), tuple(range(g.ndim - 1))), g_beta


def without_gamma(g_x, g_gamma, g_beta, g, x_hat, scale):
    return g_x * (1 / (1 + abs(scale))), g_gamma, g_beta


def the_first_larger(g_x, g_gamma, g_beta, *_):
    weight = np.ones(g_x.shape)
    weight[0] = 2
    return g_x * weight, g_gamma, g_beta


def over_all_channels(x, gamma, beta, *, eps):
    return (x - ops.mean(x)) / ops.sqrt(ops.var(x) + eps) * gamma + beta


def deaf_to_eps(x, gamma, beta, *, eps):
    return ops.batch_norm(x, gamma, beta, eps=1e-3)


def conv_bn_deaf_to_eps(x, w, gamma, beta, settings, eps):
    return ops.batch_norm(ops.conv2d(x, w, **settings), gamma, beta, eps=1e-3)


def variance_forgotten(self, g, out, x, gamma, beta):
    axes = tuple(range(x.ndim - 1))
    inv_std = 1 / ops.sqrt(ops.var(x, axes) + self.eps)
    return (g - ops.mean(g, axes)) * (gamma * inv_std), None, None


def inference_deaf_to_eps(x, gamma, beta, mean, var, *, eps):
    return ops.batch_norm_inference(x, gamma, beta, mean, var, eps=0.0)


add_faults(
    batch_norm_equals_loops=Fault("batch_norm", batch_norm_with(slightly_large)),
    fused_equals_composed=Fault("batch_norm", batch_norm_with(slightly_large)),
    scale_and_shift_cancel=Fault("batch_norm", deaf_to_eps),
    input_gradients_sum_to_zero=Fault("batch_norm", batch_norm_with(without_mean_term)),
    orthogonal_to_x_hat_up_to_eps=Fault("batch_norm", batch_norm_with(without_variance_term)),
    gamma_and_beta_in_closed_form=Fault("batch_norm", batch_norm_with(gamma_by_x)),
    linear_in_gamma=Fault("batch_norm", batch_norm_with(without_gamma)),
    equivariant_under_permutations=Fault("batch_norm", batch_norm_with(the_first_larger)),
    channels_are_independent=Fault("batch_norm", over_all_channels),
    inference_is_affine=Fault("batch_norm_inference", inference_deaf_to_eps),
    filters_have_no_scale=Fault("conv2d, batch_norm", conv_bn_deaf_to_eps),
    filter_gradients_are_orthogonal_up_to_eps=Fault(
        "conv2d, batch_norm", patch=(BatchNorm, "vjp", variance_forgotten)
    ),
)
