"""VGG: its layers and names, its size, and one whole step against an implementation of its own."""

import math
from itertools import pairwise

import numpy as np
import pytest

from minibn import kernels, nn, ops, use
from minibn.backend import to_numpy
from minibn.errors import ShapeError
from reference_models.vgg import NORMS, VGG, layer_count, vgg

NAMES = sorted(VGG)
CHANNELS = {
    "vgg11": [64, 128, 256, 256, 512, 512, 512, 512],
    "vgg13": [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    "vgg16": [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
    "vgg19": [64, 64, 128, 128] + [256] * 4 + [512] * 8,
}  # Simonyan & Zisserman 2015, table 1, columns A, B, D and E


def size(model, name):
    return sum(p.size for path, p in model.named_parameters() if path.startswith(name))


# -- structure


@pytest.mark.parametrize("model", NAMES)
def test_a_name_counts_the_layers_that_have_weights_with_two_hidden_ones_in_the_head(model):
    assert layer_count(vgg(model, head="512,512")) == int(model.removeprefix("vgg"))
    assert layer_count(vgg(model)) == int(model.removeprefix("vgg")) - 2


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("width", [1.0, 0.25])
def test_convolutions_have_the_channels_of_the_paper_times_the_width(model, width):
    net = vgg(model, width=width)
    filters = [m.weight.shape for _, m in net.children() if isinstance(m, nn.Conv2d)]
    expected = [int(c * width) for c in CHANNELS[model]]
    inputs = [3, *expected[:-1]]
    assert filters == [(3, 3, c, f) for c, f in zip(inputs, expected, strict=True)]
    assert sum(isinstance(m, nn.MaxPool2d) for _, m in net.children()) == 5


def test_layers_are_numbered_through_and_each_is_conv_norm_noise_relu():
    net = vgg("vgg11", norm="batch", noise=True, head="64", norm_head=True)
    names = [name for name, _ in net.children()]
    stages, expected = [1, 1, 2, 2, 2], []
    layer = 0
    for stage, convolutions in enumerate(stages, start=1):
        for _ in range(convolutions):
            layer += 1
            expected += [f"conv{layer}", f"norm{layer}", f"noise{layer}", f"relu{layer}"]
        expected.append(f"pool{stage}")
    expected += ["flatten", "linear9", "norm9", "noise9", "relu9", "linear10"]
    assert names == expected


def test_without_norm_and_noise_their_layers_are_left_out():
    names = [name for name, _ in vgg("vgg11", head="64").children()]
    assert not any(name.startswith(("norm", "noise")) for name in names)
    assert names[-4:] == ["flatten", "linear9", "relu9", "linear10"]
    noisy = [name for name, _ in vgg("vgg11", noise=True, head="64").children()]
    assert noisy[:3] == ["conv1", "noise1", "relu1"] and "noise9" not in noisy


def test_only_layers_whose_output_is_centred_go_without_bias():
    for norm, norm_head in [("none", False), ("batch", False), ("batch", True)]:
        net = vgg("vgg11", norm=norm, head="64", norm_head=norm_head)
        assert (net.conv1.bias is None) == (norm == "batch")
        assert (net.linear9.bias is None) == norm_head
        assert net.linear10.bias is not None
    assert vgg("vgg11", norm="none", head="64", norm_head=True).linear9.bias is not None


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_with_a_beta_takes_the_place_of_the_bias(norm):
    net = vgg("vgg11", width=1 / 16, norm=norm)
    parameters = dict(net.named_parameters())
    for k in range(1, 9):
        assert (f"norm{k}.beta" in parameters) != (f"conv{k}.bias" in parameters)
        assert (f"norm{k}" in dict(net.children())) == (norm not in ("none", "weight"))
    assert isinstance(net.conv1, nn.WSConv2d) == ("weight" in norm)


def test_the_readings_of_the_papers_norms_have_names():
    readings = {
        name: (norm.p, norm.center_first, norm.reduce)
        for name in NORMS
        if isinstance(norm := getattr(vgg("vgg11", norm=name), "norm1", None), nn.LpBatchNorm)
    }
    whole, inf = "norm_of_mean", math.inf
    assert readings == {
        "l1": (1, False, whole), "l2": (2, False, whole), "linf": (inf, False, whole),
        "l1-centred": (1, True, whole), "l2-centred": (2, True, whole),
        "linf-centred": (inf, True, whole), "l2-mean-of-norm": (2, False, "mean_of_norm"),
        "linf-mean-of-norm": (inf, False, "mean_of_norm"),
    }  # fmt: skip


def test_any_function_of_the_channels_may_make_the_norm():
    net = vgg("vgg11", norm=lambda channels: nn.LpBatchNorm(channels, p=1, momentum=0.01))
    assert (net.norm3.p, net.norm3.momentum, net.norm3.gamma.shape) == (1, 0.01, (256,))
    assert net.conv3.bias is None


def test_all_norms_of_the_paper_have_the_same_parameters():
    shapes = [
        {name: p.shape for name, p in vgg("vgg16", width=0.25, norm=norm).named_parameters()}
        for norm in NORMS
        if norm not in ("none", "rms", "weight", "group+weight")
    ]
    assert all(other == shapes[0] for other in shapes)


def test_the_last_norm_alone_stands_behind_the_last_layer_that_would_have_one():
    net = vgg("vgg11", norm="batch", noise=True, norm_layers="last")
    names = [name for name, _ in net.children()]
    assert [n for n in names if n.startswith("norm")] == ["norm8"]
    assert len([n for n in names if n.startswith("noise")]) == 8
    assert net.conv7.bias is not None and net.conv8.bias is None
    names = vgg("vgg11", norm="batch", head="64,32", norm_head=True, norm_layers="last").children()
    assert [name for name, _ in names if name.startswith("norm")] == ["norm10"]


def test_group_norm_has_groups_of_16_channels_or_as_many_as_divide_them():
    groups = [vgg("vgg11", width=w, norm="group").norm1.groups for w in (1.0, 0.25, 0.125, 0.3)]
    assert groups == [4, 1, 1, 19]  # of 64, 16, 8 and 19 channels


def test_filters_without_a_norm_behind_them_are_scaled():
    assert vgg("vgg11", norm="weight").conv1.gain is not None
    net = vgg("vgg11", norm="group+weight", norm_layers="last")
    assert net.conv7.gain is not None and net.conv8.gain is None


@pytest.mark.parametrize(("head", "hidden"), [("linear", []), ("32", [32]), ("64, 32", [64, 32])])
def test_the_head_has_its_hidden_widths_whatever_the_width_of_the_convolutions(head, hidden):
    net = vgg("vgg11", width=0.25, head=head, classes=7)
    shapes = [m.weight.shape for _, m in net.children() if isinstance(m, nn.Linear)]
    widths = [128, *hidden, 7]
    assert shapes == list(pairwise(widths))


def test_parameters_are_as_many_as_the_formula_says():
    for model in NAMES:
        c = CHANNELS[model]
        filters = sum(9 * a * b for a, b in zip([3, *c[:-1]], c, strict=True))
        head = 512 * 10 + 10
        assert size(vgg(model), "") == filters + sum(c) + head
        assert size(vgg(model, norm="batch"), "") == filters + 2 * sum(c) + head
    assert size(vgg("vgg16"), "") == 14_719_818
    assert size(vgg("vgg16", norm="batch"), "") == 14_724_042
    hidden = size(vgg("vgg16", head="4096,4096"), "linear")
    assert hidden == 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 40960 + 10


def test_summary_names_every_layer_of_vgg16_and_the_total():
    net = vgg("vgg16", norm="batch").initialize(0)
    with kernels("reference"):
        lines = net.summary(np.zeros((2, 32, 32, 3), np.float32)).splitlines()
    rows = [line.split() for line in lines[1:-1] if not line.startswith(" ")]
    assert [row[0] for row in rows] == [name for name, _ in net.children()]
    assert lines[-1].split() == ["total", "14,724,042"]
    table = {row[0]: row[1:] for row in rows}
    assert table["conv8"][:3] == ["Conv2d", "4×4×512", f"{9 * 256 * 512:,}"]
    assert table["pool5"][:2] == ["MaxPool2d", "1×1×512"]
    assert table["linear14"][:3] == ["Linear", "10", "5,130"]


def test_all_variants_start_from_the_same_convolutions():
    variants = [
        vgg("vgg11", width=0.125, norm=norm, noise=noise, head=head).initialize(3).state_dict()
        for norm in NORMS
        for noise in (False, True)
        for head in ("linear", "16")
    ]
    for k in range(1, 9):
        for other in variants[1:]:
            np.testing.assert_array_equal(variants[0][f"conv{k}.weight"], other[f"conv{k}.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "vgg12"}, r"model 'vgg12' is unknown\. Did you mean 'vgg1"),
        ({"model": "resnet"}, "model 'resnet' is unknown. There are vgg11, vgg13"),
        ({"norm": "bacth"}, r"norm 'bacth' is unknown\. Did you mean 'batch'\?"),
        ({"norm": "l3"}, "norm 'l3' is unknown. There are none, batch, l1, l2, linf, layer, group"),
        ({"norm_layers": "lst"}, r"norm_layers 'lst' is unknown\. Did you mean 'last'\?"),
        (
            {"norm": "instance", "head": "8", "norm_head": True},
            "norm='instance' needs pixels; norm_head=True puts it after linear layers",
        ),
        ({"width": 0.01}, r"leaves 64·0.01 < 1 channels in layer 1\. Use at least 0.0156"),
        ({"width": 0.0}, "width=0.0 must be a positive number"),
        ({"width": float("nan")}, "width=nan must be"),
        ({"width": float("inf")}, "width=inf must be"),
        ({"head": "512,"}, "head '512,' is neither 'linear' nor widths such as"),
        ({"head": "big"}, "head 'big' is neither"),
        ({"head": "0"}, "head '0' is neither"),
        ({"classes": 0}, "every size must be 1 or more"),
    ],
)
def test_unknown_names_and_impossible_sizes_raise_with_a_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        vgg(**settings)


def test_images_of_another_size_raise_in_the_layer_that_meets_them():
    net = vgg("vgg11", width=0.125).initialize(0)
    with pytest.raises(ShapeError, match="linear9: expects 64 inputs, x has 256"):
        net(np.zeros((1, 64, 64, 3), np.float32))
    with pytest.raises(ShapeError, match=r"(?s)fewer poolings.*In layer pool5"):
        net(np.zeros((1, 16, 16, 3), np.float32))


# -- one step, against loops


def tiny():
    """A VGG-11 of one to eight channels on a batch of three images, its weights drawn at random."""
    net = vgg("vgg11", width=1 / 64, norm="batch", head="5", classes=4)
    rng = np.random.default_rng(0)
    net.initialize(0, dtype=np.float64)
    state = net.state_dict()
    for name, array in state.items():
        if name.endswith("batches"):
            continue
        scale = array[..., 0].size ** -0.5 if "conv" in name else 0.5
        state[name] = rng.normal(scale=scale, size=array.shape) + name.endswith("gamma")
    for name, array in state.items():
        if name.endswith("running_var"):
            state[name] = 0.5 + array**2
    net.load_state_dict(state)
    return net, state, rng.normal(size=(3, 32, 32, 3)), np.array([3, 0, 2])


def vgg11_by_loops(state, x, labels, training):
    """The loss of VGG-11 with BatchNorm and one hidden layer: no code of the library's."""
    layer = 0
    for convolutions in (1, 1, 2, 2, 2):
        for _ in range(convolutions):
            layer += 1
            w = state[f"conv{layer}.weight"]
            N, H, W, _ = x.shape
            padded = np.zeros((N, H + 2, W + 2, x.shape[3]))
            padded[:, 1:-1, 1:-1] = x
            x = np.zeros((N, H, W, w.shape[3]))
            for i in range(H):
                for j in range(W):
                    x[:, i, j] = np.einsum("nklc,klcf->nf", padded[:, i : i + 3, j : j + 3], w)
            if training:
                mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            else:
                mean, var = state[f"norm{layer}.running_mean"], state[f"norm{layer}.running_var"]
            x = state[f"norm{layer}.gamma"] * (x - mean) / np.sqrt(var + 1e-5)
            x = np.maximum(x + state[f"norm{layer}.beta"], 0)
        N, H, W, C = x.shape
        pooled = np.zeros((N, H // 2, W // 2, C))
        for i in range(H // 2):
            for j in range(W // 2):
                pooled[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(1, 2))
        x = pooled
    x = x.reshape(len(x), -1)
    x = np.maximum(x @ state["linear9.weight"] + state["linear9.bias"], 0)
    x = x @ state["linear10.weight"] + state["linear10.bias"]
    total = 0.0
    for row, label in zip(x, labels, strict=True):
        total += np.log(np.exp(row).sum()) - row[label]
    return total / len(x)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_agrees_with_an_implementation_in_loops(backend, training):
    net, state, x, labels = tiny()
    net.train(training)
    loss = ops.softmax_cross_entropy(net(backend.asarray(x)), labels)
    expected = vgg11_by_loops(state, x, labels, training)
    assert float(loss.item()) == pytest.approx(expected, rel=1e-11)
    assert expected > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_agrees_with_differences_of_the_loops_along_a_direction(backend, training):
    net, state, x, labels = tiny()
    net.train(training)
    ops.softmax_cross_entropy(net(backend.asarray(x)), labels).backward()
    rng, slope = np.random.default_rng(1), 0.0
    direction = {name: rng.normal(size=p.shape) for name, p in net.named_parameters()}
    for name, p in net.named_parameters():
        assert p.grad is not None and abs(to_numpy(p.grad.data)).max() > 1e-6, name
        slope += (to_numpy(p.grad.data) * direction[name]).sum()
    h = 1e-7
    losses = []
    for sign in (1, -1):
        moved = {name: a + sign * h * direction.get(name, 0) for name, a in state.items()}
        losses.append(vgg11_by_loops(moved, x, labels, training))
    expected = (losses[0] - losses[1]) / (2 * h)
    assert abs(expected) > 0.01
    assert slope == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("noise", [False, True])
def test_every_parameter_gets_a_finite_gradient_in_every_variant(backend, norm, noise):
    net = vgg("vgg11", width=1 / 16, norm=norm, noise=noise, head="8", norm_head=norm != "instance")
    net.initialize(0)
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    ops.softmax_cross_entropy(net(backend.asarray(x)), [0, 1, 2, 3]).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.dtype == np.float32, name
        gradient = to_numpy(p.grad.data)
        assert np.isfinite(gradient).all() and abs(gradient).max() > 0, name


def test_a_training_step_is_the_same_on_numpy_and_on_other_backends(backend):
    def loss_and_state(on):
        net = vgg("vgg11", width=1 / 16, norm="batch", noise=True).initialize(0, dtype=np.float64)
        x = np.random.default_rng(0).normal(size=(3, 32, 32, 3))
        loss = ops.softmax_cross_entropy(net(on.asarray(x)), [0, 1, 2])
        loss.backward()
        return loss.item(), [to_numpy(p.grad.data) for p in net.parameters()]

    loss, grads = loss_and_state(backend)
    with use("numpy") as numpy:
        expected_loss, expected_grads = loss_and_state(numpy)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-10)
    for a, b in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("model", VGG)
def test_the_least_width_that_the_error_names_works(model):
    with pytest.raises(ValueError, match="Use at least") as error:
        vgg(model, width=0.001)
    vgg(model, width=float(str(error.value).split()[-1].rstrip(".")))


def test_images_of_another_size_are_named_as_the_reason():
    net = vgg("vgg11", width=0.1).initialize(0)
    with pytest.raises(ShapeError, match="another size"):
        net(np.zeros((1, 64, 64, 3), np.float32))
