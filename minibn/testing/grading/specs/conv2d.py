"""Convolution (cross-correlation) of images with filters.

x (N, C, H, W), w (F, C, Kh, Kw), b (F,) -> (N, F, Ho, Wo)   Ho = (H + 2 padding - Kh) // stride + 1

Rows and columns that a stride leaves over at the end are not used. The layout is NCHW in every
style but minibn's, whose functions get (N, H, W, C) and filters (Kh, Kw, C, F).
"""

import numpy as np

from minibn.testing.grading import (
    Case,
    Gradient,
    Layout,
    Spec,
    Unmodified,
    Values,
    cs231n,
    minibn_function,
    minitorch_class,
    on_arrays,
    tinytorch_layer,
    torch_function,
    torch_layer,
)


def forward(x, w, b, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    Kh, Kw = w.shape[2:]
    Ho, Wo = ((size - k) // stride + 1 for size, k in zip(x.shape[2:], (Kh, Kw), strict=True))
    out = b[None, :, None, None] * np.ones((len(x), 1, Ho, Wo))
    for i in range(Kh):
        for j in range(Kw):
            rows, columns = (slice(k, k + stride * n, stride) for k, n in ((i, Ho), (j, Wo)))
            out = out + np.einsum(
                "nchw,fc->nfhw", x[:, :, rows, columns][..., :Ho, :Wo], w[:, :, i, j]
            )
    return out


def cases(rng):
    def case(kind, n, c, f, image, kernel, stride=1, padding=0):
        x, w = rng.standard_normal((n, c, *image)), rng.standard_normal((f, c, *kernel))
        inputs = {"x": x, "w": w, "b": rng.standard_normal(f)}
        return Case(kind, inputs, {"stride": stride, "padding": padding})

    remainder = "a stride that leaves a remainder"
    return [
        case("an image", 1, 1, 1, (3, 4), (2, 2)),
        case("an image", 2, 3, 2, (4, 5), (3, 3), padding=1),
        case("an image", 2, 2, 3, (5, 4), (3, 2), stride=1),
        case("a stride of two", 1, 2, 2, (5, 7), (3, 3), stride=2),
        case("a stride of two", 2, 1, 2, (5, 5), (3, 3), stride=2, padding=1),
        case(remainder, 1, 2, 2, (6, 5), (3, 2), stride=2),
        case(remainder, 2, 1, 1, (4, 6), (3, 3), stride=2, padding=1),
    ]


def conv_param(settings, mode):
    return [{"stride": settings["stride"], "pad": settings["padding"]}]


def construct(inputs, settings):
    F, C, Kh, Kw = inputs["w"].shape
    return [C, F, Kh if Kh == Kw else (Kh, Kw), settings["stride"], settings["padding"]]


LAYER = {"construct": construct, "parameters": {"w": ("weight",), "b": ("bias",)}}
NHWC = Layout({"x": (0, 2, 3, 1), "w": (2, 3, 1, 0), "out": (0, 2, 3, 1)})

SPEC = Spec(
    title="convolution",
    forward=forward,
    cases=cases,
    styles=[
        cs231n("conv_forward_naive", "conv_backward_naive", arguments=conv_param),
        on_arrays("conv2d", "stride", "padding"),
        minibn_function("conv2d", "stride", "padding", layout=NHWC),
        minitorch_class("Conv2d", "stride", "padding"),
        torch_function("Conv2d", "stride", "padding"),
        torch_function("conv2d", "stride", "padding"),
        torch_layer("Conv2d", **LAYER),
        tinytorch_layer("Conv2d", **LAYER),
    ],
    parts=[
        Values(15),
        Values(10, on="a stride of two"),
        Values(5, on="a stride that leaves a remainder"),
        Gradient(20, of="x"),
        Gradient(5, of="x", on="a stride of two"),
        Gradient(5, of="x", on="a stride that leaves a remainder"),
        Gradient(20, of="w"),
        Gradient(5, of="w", on="a stride of two"),
        Gradient(10, of="b"),
        Unmodified(5),
    ],
)  # fmt: skip
