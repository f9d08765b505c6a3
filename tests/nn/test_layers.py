"""Linear, convolution, pooling and Flatten against loops; summary.

The loops are those of `tests/suite/loops.py`; that ops obey laws is tested there, that
layers hand over their parameters and settings is tested here.
"""

import re

import numpy as np
import pytest
from suite import loops

import minibn
from minibn import nn
from minibn.backend import to_numpy
from minibn.errors import ShapeError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def run(layer, x, backend):
    """The layer's output for x, as a NumPy array, with all its parameters drawn from N(0, 1)."""
    layer.initialize(0, dtype=np.float64)
    for i, p in enumerate(layer.parameters()):
        p.place(normal(*p.shape, seed=i + 1))
    return to_numpy(layer(backend.asarray(x)))


def pair(setting):
    return setting if isinstance(setting, tuple) else (setting, setting)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_a_weighted_sum_for_each_output(backend, bias):
    layer, x = nn.Linear(4, 3, bias=bias), normal(5, 4)
    y = run(layer, x, backend)
    w, b = to_numpy(layer.weight.data), to_numpy(layer.bias.data) if bias else np.zeros(3)
    for n in range(5):
        for j in range(3):
            expected = b[j] + sum(x[n, i] * w[i, j] for i in range(4))
            assert y[n, j] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "bias"),
    [(3, 1, 1, False), (3, 2, 0, True), ((2, 3), (1, 2), (1, 0), True), (1, 1, 0, True)],
)
def test_conv2d_is_a_sum_over_each_window(backend, size, stride, padding, bias):
    layer = nn.Conv2d(2, 3, size, stride, padding, bias=bias)
    x = normal(2, 5, 6, 2)
    y = run(layer, x, backend)
    w, b = to_numpy(layer.weight.data), to_numpy(layer.bias.data) if bias else np.zeros(3)
    np.testing.assert_allclose(y, loops.conv2d(x, w, pair(stride), pair(padding)) + b, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [nn.MaxPool2d(2), nn.MaxPool2d((1, 2)), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2),
     nn.AvgPool2d(3, stride=1)],
    ids=repr,
)  # fmt: skip
def test_pooling_reduces_each_window(backend, layer):
    x = normal(2, 5, 6, 3) - 3  # mostly negative: a maximum with padding or zeros would show
    size = pair(layer.size)
    stride = size if layer.stride is None else pair(layer.stride)
    if isinstance(layer, nn.MaxPool2d):
        expected, _ = loops.max_pool(x, np.ones, size, stride, pair(layer.padding))
    else:
        expected, _ = loops.avg_pool(x, np.ones, size, stride)
    np.testing.assert_allclose(run(layer, x, backend), expected, rtol=1e-12)


def test_global_average_pooling_is_the_mean_of_each_channel(backend):
    x = normal(2, 3, 4, 5)
    y = run(nn.GlobalAvgPool2d(), x, backend)
    assert y.shape == (2, 5)
    for n, c in np.ndindex(y.shape):
        expected = sum(x[n, i, j, c] for i, j in np.ndindex(3, 4)) / 12
        assert y[n, c] == pytest.approx(expected, rel=1e-11)


def test_flatten_keeps_the_batch_and_runs_channels_fastest(backend):
    x = normal(2, 3, 4, 5)
    y = run(nn.Flatten(), x, backend)
    assert y.shape == (2, 60)
    for n, i, j, c in np.ndindex(x.shape):
        assert y[n, (i * 4 + j) * 5 + c] == x[n, i, j, c]
    assert run(nn.Flatten(), np.zeros((0, 3)), backend).shape[0] == 0


def test_relu_is_the_positive_part(backend):
    assert run(nn.ReLU(), np.array([-1.0, 0.0, 2.0]), backend).tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Linear(4, 3), (2, 5), r"layer: expects 4 inputs, x has 5 .*another size"),
        (nn.Linear(4, 3), (2, 2, 2, 1), r"layer: expects 4 inputs, x has 1 .*Flatten"),
        (
            nn.Conv2d(3, 4, 3),
            (2, 8, 8, 1),
            r"(?s)expects 3 input channels, x has 1.*In layer layer",
        ),
        (nn.Conv2d(3, 4, 3), (8, 8, 3), r"(?s)single image.*In layer layer \(Conv2d\)"),
        (nn.MaxPool2d(4), (2, 3, 8, 3), r"(?s)fewer poolings.*In layer layer \(MaxPool2d\)"),
        (nn.AvgPool2d(4), (2, 8, 8), r"(?s)\(N, H, W, C\).*In layer layer \(AvgPool2d\)"),
        (nn.BatchNorm(3), (2, 4), r"(?s)gamma has shape \(3,\), x has 4.*In layer layer \(Batch"),
    ],
)
def test_a_shape_that_does_not_fit_raises_and_names_the_layer(backend, layer, shape, message):
    net = nn.Sequential(layer=layer).initialize(0)
    with pytest.raises(ShapeError, match=message):
        net(backend.asarray(np.zeros(shape, np.float32)))


# -- summary


def small():
    return nn.Sequential(
        conv1=nn.Conv2d(3, 4, 3, padding=1, bias=False),
        norm1=nn.BatchNorm(4),
        noise1=nn.Noise(),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear2=nn.Linear(64, 10),
    )


def test_summary_lists_names_kinds_shapes_and_parameters_in_the_order_of_calls(backend):
    net = small().initialize(0)
    with minibn.kernels("reference"):
        table = net.summary((8, 8, 3))
    here = "definition, minibn/ops/"
    assert [re.split("  +", line.strip()) for line in table.splitlines()] == [
        ["layer", "kind", "output", "parameters", "op", "run by"],
        ["conv1", "Conv2d", "8×8×4", "108", "Conv2d", f"{here}conv.py"],
        ["norm1", "BatchNorm", "8×8×4", "8", "BatchNorm", f"{here}batch_normalization.py"],
        ["noise1", "Noise", "8×8×4", "Multiply", f"{here}arithmetic.py"],
        ["Add", f"{here}arithmetic.py"],
        ["relu1", "ReLU", "8×8×4", "Relu", f"{here}elementwise.py"],
        ["pool1", "MaxPool2d", "4×4×4", "MaxPool2d", f"{here}pool.py"],
        ["flatten", "Flatten", "64", "Reshape", f"{here}shape.py"],
        ["linear2", "Linear", "10", "650", "MatMul", f"{here}linalg.py"],
        ["Add", f"{here}arithmetic.py"],
        ["total", "766"],
    ]


def test_summary_names_the_kernel_that_runs_a_block_and_its_file():
    net = nn.Sequential(
        body=nn.Sequential(conv=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm(4)),
        flatten=nn.Flatten(),
    ).initialize(0)
    with minibn.kernels("always"):
        rows = [re.split("  +", line.strip()) for line in net.summary((8, 8, 3)).splitlines()]
    assert rows[1:] == [
        [
            "body.conv + norm", "Conv2d + BatchNorm", "6×6×4", "116", "FusedConvBlock",
            "FusedConvBlockKernel, minibn/fast/cpu/fused_conv_block.py",
        ],
        ["flatten", "Flatten", "144", "Reshape", "definition, minibn/ops/shape.py"],
        ["total", "116"],
    ]  # fmt: skip


def test_summary_of_a_batch_says_what_runs_on_it_in_the_models_mode():
    net = small().initialize(0).eval()
    table = net.summary(np.zeros((1, 8, 8, 3), np.float32))
    assert "noise1" in table and "BatchNorm, " not in table


def test_summary_leaves_the_model_as_it_was():
    net = small().initialize(0)
    before = net.state_dict()
    nn.summary(net, (8, 8, 3))
    with pytest.raises(ShapeError):
        nn.summary(net, (8, 8, 1))
    after = net.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(module.training for _, module in net.named_modules())
    assert not any(vars(module).get("_watchers") for _, module in net.named_modules())


@pytest.mark.parametrize("make", [list, tuple])
def test_a_list_as_input_names_the_remedy(make):
    layer = nn.Linear(2, 2).initialize(0)
    with pytest.raises(
        TypeError, match=rf"Linear: an input is a {make.__name__}\. Make it an array"
    ):
        layer(make([[1.0, 2.0]]))
