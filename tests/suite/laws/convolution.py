"""Laws of convolution: `op(x, w, bias, *, stride, padding)`, x (N, H, W, C), w (Kh, Kw, C, F)."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.backend import Backend, to_numpy
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.testing.laws.agreement import agree, each, pull, value
from minibn.testing.strategies import Point, conv2d_problems
from suite import loops
from suite.laws.faults import Fault, add_faults, scaled
from suite.laws.row_law import law


def named(name: str) -> Any:
    return getattr(ops, name)


def about_conv2d(sentence: str, **settings: Any) -> Any:
    draw = conv2d_problems(most_padding="beyond")
    return law("convolution", sentence, over=("conv2d",), draw=draw, subject=named, **settings)


def like(point: Point, *shapes: Any) -> list[np.ndarray]:
    """Normal numbers of these shapes, from the point's seed."""
    rng = np.random.default_rng((point.seed, 1))
    return [rng.standard_normal(shape) for shape in shapes]


def without_bias(op: Any, point: Point, backend: Backend) -> tuple[Any, list[np.ndarray], Any]:
    """(f, [x, w], a cotangent of f's value)"""
    f, inputs = point.bind(op), list(point.inputs[:2])
    return f, inputs, like(point, value(f, inputs, backend).shape)[0]


@about_conv2d("It equals loops over single numbers, in value and both gradients.")
def conv2d_equals_loops(op: Any, point: Point, backend: Backend) -> None:
    f, (x, w), g = without_bias(op, point, backend)
    where = point.settings["stride"], point.settings["padding"]
    size = np.abs(x).max() * np.abs(w).sum()
    agree(value(f, (x, w), backend), loops.conv2d(x, w, *where), "the value", scale=size)
    expected = loops.conv2d_vjp(g, x, w, *where)
    sizes = np.abs(g).max() * np.abs(w).sum(), np.abs(x).max() * np.abs(g).sum()
    actual = pull(f, (x, w), g, backend)
    for i, (a, b, size) in enumerate(zip(actual, expected, sizes, strict=True)):
        agree(a, b, f"the gradient, input {i}", scale=size)


@about_conv2d("It is linear in x and linear in w.")
def linear_in_images_and_in_filters(op: Any, point: Point, backend: Backend) -> None:
    f, (x, w), _ = without_bias(op, point, backend)
    other_x, other_w = like(point, x.shape, w.shape)
    for first, second, mixed in (
        ((x, w), (other_x, w), (2 * x - 3 * other_x, w)),
        ((x, w), (x, other_w), (x, 2 * w - 3 * other_w)),
    ):
        sizes = [np.abs(a).max() * np.abs(b).sum() for a, b in (first, second)]
        expected = 2 * value(f, first, backend) - 3 * value(f, second, backend)
        agree(value(f, mixed, backend), expected, "the value", scale=5 * sum(sizes))


@about_conv2d("Its two gradients and it are each other's adjoints: ⟨g, y⟩ = ⟨x̄, x⟩ = ⟨w̄, w⟩.")
def three_adjoints(op: Any, point: Point, backend: Backend) -> None:
    f, inputs, g = without_bias(op, point, backend)
    terms = g * value(f, inputs, backend)
    size = np.abs(inputs[0]).max() * np.abs(inputs[1]).sum() * np.abs(g).sum()
    for i, slope in enumerate(pull(f, inputs, g, backend)):
        back = (slope * inputs[i]).sum()
        agree(back, terms.sum(), f"⟨gradient, input {i}⟩", scale=size)


@law(
    "convolution",
    "conv2d, conv2d_input_grad and conv2d_weight_grad are one trilinear form, read three ways.",
    over=("the three convolutions",),
    draw=conv2d_problems(most_padding="beyond"),
)
def one_trilinear_form(point: Point, backend: Backend) -> None:
    (x, w), (stride, padding) = point.inputs[:2], (point.settings[k] for k in ("stride", "padding"))
    settings = (stride, padding, x.shape, w.shape)
    (c,) = like(point, Conv2d(*settings).y_shape)
    images, filters, pixels = map(backend.asarray, (x, w, c))
    through_y = to_numpy(Conv2d(*settings).forward(images, filters)) * c
    through_x = to_numpy(Conv2dInputGrad(*settings).forward(pixels, filters)) * x
    through_w = to_numpy(Conv2dWeightGrad(*settings).forward(images, pixels)) * w
    size = np.abs(x).max() * np.abs(w).sum() * np.abs(c).sum()
    agree(through_x.sum(), through_y.sum(), "⟨x, input_grad(c, w)⟩", scale=size)
    agree(through_w.sum(), through_y.sum(), "⟨w, weight_grad(x, c)⟩", scale=size)


@about_conv2d("The output for an image with a single 1 is the kernel, rotated by 180°.")
def an_impulse_returns_the_kernel(op: Any, point: Point, backend: Backend) -> None:
    w = point.inputs[1]
    Kh, Kw, C, _ = w.shape
    for c in range(C):
        x = np.zeros((1, 2 * Kh - 1, 2 * Kw - 1, C))
        x[0, Kh - 1, Kw - 1, c] = 1
        y = value(lambda x, w: op(x, w), (x, w), backend)
        agree(y, w[None, ::-1, ::-1, c], f"an impulse in channel {c}", digits=14)


@about_conv2d("Away from the borders it commutes with translations.")
def commutes_with_translations(op: Any, point: Point, backend: Backend) -> None:
    w, stride, padding = point.inputs[1], *point.settings.values()
    N, _, _, C = point.inputs[0].shape
    H, W = (k + 4 * s for k, s in zip(w.shape, stride, strict=False))
    (x,) = like(point, (N, H, W, C))
    y, moved = (
        value(point.bind(op), (images, w), backend) for images in (x, np.roll(x, stride, (1, 2)))
    )
    here, there = [], []
    for side, k, s, p in zip((H, W), w.shape, stride, padding, strict=False):
        first, end = -(-(p + s) // s), (side + p - k) // s + 1  # windows of old pixels only
        assert first < end, "there is no window inside: this would check nothing"
        there.append(slice(first, end))
        here.append(slice(first - 1, end - 1))
    size = np.abs(x).max() * np.abs(w).sum()
    agree(moved[:, *there], y[:, *here], "the value, one step on", scale=size)


@about_conv2d("A bias adds to each filter's plane, and gets that plane's cotangent summed.")
def biases_are_added(op: Any, point: Point, backend: Backend) -> None:
    f, inputs, g = without_bias(op, point, backend)
    (bias,) = like(point, inputs[1].shape[3:])
    y = value(f, inputs, backend)
    agree(value(f, [*inputs, bias], backend), y + bias, "the value")
    *first, g_bias = pull(f, [*inputs, bias], g, backend)
    agree(g_bias, g.sum((0, 1, 2)), "the gradient of the bias", scale=np.abs(g).sum())
    each(first, pull(f, inputs, g, backend), "the other gradients")


@law(
    "convolution",
    "A stride that does not divide leaves pixels unseen: they change nothing and get gradient 0.",
    over=("conv2d",),
    draw=st.tuples(conv2d_problems(most_padding="none"), st.integers(1, 2), st.integers(1, 2)),
    subject=named,
)
def unseen_pixels_do_nothing(op: Any, drawn: tuple[Point, int, int], backend: Backend) -> None:
    point, below, beside = drawn
    (x, w), (sh, sw) = point.inputs[:2], point.settings["stride"]
    (Kh, Kw), (H, W) = w.shape[:2], x.shape[1:3]
    end = (H - Kh) // sh * sh + Kh, (W - Kw) // sw * sw + Kw  # the last window's end
    below, beside = min(below, sh - 1), min(beside, sw - 1)
    x = x[:, : end[0], : end[1]]
    larger = np.pad(x, ((0, 0), (0, below), (0, beside), (0, 0)), constant_values=7.0)
    f = point.bind(op)
    y = value(f, (x, w), backend)
    agree(value(f, (larger, w), backend), y, "the value", digits=13)
    (g,) = like(point, y.shape)
    g_x = pull(f, (larger, w), g, backend)[0]
    assert not g_x[:, end[0] :].any() and not g_x[:, :, end[1] :].any(), (
        "pixels that no window sees get a gradient"
    )
    agree(g_x[:, : end[0], : end[1]], pull(f, (x, w), g, backend)[0], "the gradient")


# -- faults


def flipped(x, w, bias=None, **settings):
    return ops.conv2d(x, w[::-1], bias, **settings)


def with_its_bias_doubled(x, w, bias=None, **settings):
    y = ops.conv2d(x, w, bias, **settings)
    return y if bias is None else y + bias


def fading(x, w, bias=None, **settings):
    y = ops.conv2d(x, w, bias, **settings)
    return y * np.linspace(1, 2, y.shape[1]).reshape(-1, 1, 1) if y.shape[1] > 1 else y


def rectified(*inputs, **settings):
    return ops.relu(ops.conv2d(*inputs, **settings))


add_faults(
    conv2d_equals_loops=Fault("conv2d", flipped),
    linear_in_images_and_in_filters=Fault("conv2d", rectified),
    an_impulse_returns_the_kernel=Fault("conv2d", flipped),
    commutes_with_translations=Fault("conv2d", fading),
    biases_are_added=Fault("conv2d", with_its_bias_doubled),
    three_adjoints=Fault(
        "conv2d", patch=(Conv2dInputGrad, "forward", scaled(Conv2dInputGrad.forward))
    ),
    one_trilinear_form=Fault(
        "the three convolutions",
        patch=(Conv2dWeightGrad, "forward", scaled(Conv2dWeightGrad.forward)),
    ),
    unseen_pixels_do_nothing=Fault(
        "conv2d", patch=(Conv2dInputGrad, "forward", lambda self, c, w: np.ones(self.x_shape))
    ),
)
