"""The largest value of each window of an image.

x (N, C, H, W) -> (N, C, Ho, Wo), with Ho = (H - Kh) // stride + 1, without padding.

Of equal values in a window, their gradients are at most shared: a gradient that gives the whole of
it to each is the derivative of nothing. The layout is (N, C, H, W), in minibn's style (N, H, W, C).
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


def forward(x, size, stride):
    Kh, Kw = size
    Ho, Wo = ((n - k) // stride + 1 for n, k in zip(x.shape[2:], size, strict=True))
    windows = np.stack([
        x[:, :, i : i + stride * Ho : stride, j : j + stride * Wo : stride][:, :, :Ho, :Wo]
        for i in range(Kh)
        for j in range(Kw)
    ])  # (Kh Kw, N, C, Ho, Wo)  # fmt: skip
    largest = windows.real.argmax(0)
    return np.take_along_axis(windows, largest[None], 0)[0]


def cases(rng):
    def case(kind, shape, size, stride, values=rng.standard_normal):
        return Case(kind, {"x": values(shape)}, {"size": size, "stride": stride})

    def negative(shape):
        return -1.0 - rng.random(shape)

    def tied(shape):
        return rng.integers(0, 2, shape).astype(float)

    return [
        case("an image", (1, 1, 4, 4), (2, 2), 2),
        case("an image", (2, 3, 4, 6), (2, 3), 1),
        case("an image", (2, 2, 6, 4), (3, 2), 1),
        case("an image", (2, 2, 4, 6), (2, 2), 2),
        case("a negative image", (1, 2, 4, 4), (2, 2), 2, negative),
        case("windows that overlap", (1, 2, 5, 5), (3, 3), 2),
        case("windows that overlap", (1, 1, 4, 5), (3, 2), 1),
        case("a stride that leaves a remainder", (1, 2, 5, 7), (2, 2), 2),
        case("a stride that leaves a remainder", (2, 1, 5, 4), (2, 2), 3),
        case("ties", (1, 1, 2, 4), (2, 2), 2, tied),
        case("ties", (1, 2, 4, 4), (2, 2), 2, tied),
    ]


def pool_param(settings, mode):
    height, width = settings["size"]
    return [{"pool_height": height, "pool_width": width, "stride": settings["stride"]}]


def construct(inputs, settings):
    height, width = settings["size"]
    return [height if height == width else (height, width), settings["stride"]]


SPEC = Spec(
    title="max-pooling",
    forward=forward,
    cases=cases,
    styles=[
        cs231n("max_pool_forward_naive", "max_pool_backward_naive", arguments=pool_param),
        on_arrays("max_pool2d", "size", "stride"),
        minibn_function("max_pool2d", "size", "stride",
                        layout=Layout({"x": (0, 2, 3, 1), "out": (0, 2, 3, 1)})),
        minitorch_class("MaxPool2d", "size", "stride"),
        torch_function("MaxPool2d", "size", "stride"),
        torch_function("max_pool2d", "size", "stride"),
        torch_layer("MaxPool2d", construct=construct),
        tinytorch_layer("MaxPool2d", construct=construct),
    ],
    parts=[
        Values(20),
        Values(10, on="a negative image"),
        Values(5, on="a stride that leaves a remainder"),
        Gradient(25, of="x"),
        Gradient(10, of="x", on="a negative image"),
        Gradient(10, of="x", on="windows that overlap"),
        Gradient(5, of="x", on="a stride that leaves a remainder"),
        Gradient(10, of="x", on="ties"),
        Unmodified(5),
    ],
)  # fmt: skip
