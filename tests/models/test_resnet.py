"""ResNet: its layers and names, its sizes, its blocks by their formula, SkipInit, kernels."""

from pathlib import Path

import numpy as np
import pytest

import reference_models
from experiments.training.step import one_step
from minibn import kernels, nn, ops, optim, use
from minibn.backend import to_numpy
from reference_models.resnet import NORMS, RESNET, Shortcut, blocks_of, resnet

X = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)
IMAGES = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)
LABELS = np.arange(8)
SMALL = {"stages": ((1, 4), (2, 8))}  # three blocks, one of which halves the image


def numbers(net):
    return sum(p.size for p in net.parameters())


# -- structure


@pytest.mark.parametrize(
    ("model", "expected", "of_paper"),
    [
        ("resnet20", 269_722, "0.27"), ("resnet32", 464_154, "0.46"), ("resnet44", 658_586, "0.66"),
        ("resnet56", 853_018, "0.85"), ("resnet110", 1_727_962, "1.7"),
    ],
)  # fmt: skip
def test_there_are_as_many_parameters_as_in_the_paper(model, expected, of_paper):
    """He et al. 2016, table 6."""
    assert numbers(resnet(model)) == expected
    digits = len(of_paper.partition(".")[2])
    assert f"{expected / 1e6:.{digits}f}" == of_paper
    assert numbers(resnet(model, preactivation=True)) == expected


def test_the_readme_has_their_parameters():
    text = Path(reference_models.__file__).with_name("README.md").read_text(encoding="utf-8")
    for model in RESNET:
        assert f"| `{model}` | {numbers(resnet(model)):,} |" in text


@pytest.mark.parametrize("model", RESNET)
def test_a_name_counts_the_layers_that_have_weights(model):
    net = resnet(model)
    layers = [m for _, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(model.removeprefix("resnet"))
    assert len(blocks_of(net)) == 3 * RESNET[model] == (len(layers) - 2) / 2


def test_layers_are_numbered_through_and_have_the_names_of_vgg():
    net = resnet(**SMALL)
    assert [name for name, _ in net.children()] == [
        "conv1", "norm1", "relu1", "block1", "block2", "block3", "pool", "linear8",
    ]  # fmt: skip
    block = net.block2
    names = [name for name, _ in block.branch.children()]
    assert names == ["conv4", "norm4", "relu4", "conv5", "norm5"]
    assert [name for name, _ in block.children()] == ["branch", "skip", "relu5"]


def test_with_preactivation_a_norm_and_its_relu_stand_before_their_convolution():
    net = resnet(**SMALL, preactivation=True, skip_init=True)
    assert [name for name, _ in net.children()] == [
        "conv1", "block1", "block2", "block3", "norm8", "relu8", "pool", "linear8",
    ]  # fmt: skip
    names = [name for name, _ in net.block2.branch.children()]
    assert names == ["norm4", "relu4", "conv4", "norm5", "relu5", "conv5", "scale5"]
    assert [name for name, _ in net.block2.children()] == ["branch", "skip"]


@pytest.mark.parametrize("preactivation", [False, True])
def test_each_stage_halves_the_image_and_doubles_the_channels(preactivation):
    net = resnet("resnet20", preactivation=preactivation).initialize(0)
    x, shapes = X, []
    for name, part in net.children():
        x = part(x)
        if name.startswith("block"):
            shapes.append(x.shape[1:])
    assert shapes == 3 * [(32, 32, 16)] + 3 * [(16, 16, 32)] + 3 * [(8, 8, 64)]
    assert x.shape == (4, 10)


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_with_a_beta_takes_the_place_of_the_bias(norm):
    for preactivation in (False, True):
        net = resnet(**SMALL, norm=norm, preactivation=preactivation).initialize(0)
        names = dict(net.named_parameters())
        norms = [m for _, m in net.named_modules() if hasattr(m, "beta")]
        for k, place in enumerate(("", *2 * ("block1.branch.",), *2 * ("block2.branch.",)), 1):
            assert (f"{place}conv{k}.bias" in names) != bool(norms), (norm, k)
        assert isinstance(net.conv1, nn.WSConv2d) == ("weight" in norm)
        assert np.isfinite(to_numpy(net(X))).all()


def test_without_a_norm_there_is_none():
    names = [path for path, _ in resnet(norm="none").named_modules()]
    assert not any("norm" in name for name in names)


def test_any_function_of_the_channels_may_make_the_norm():
    net = resnet(**SMALL, norm=lambda channels: nn.LpBatchNorm(channels, p=1))
    assert net.block3.branch.norm7.gamma.shape == (8,)


def test_variants_start_from_the_same_weights():
    ours, theirs = (
        resnet(**SMALL, **kw).initialize(3).state_dict()
        for kw in ({"norm": "batch"}, {"norm": "none", "skip_init": True, "preactivation": True})
    )
    weights = [name for name in ours if name.endswith("weight")]
    assert len(weights) == 8
    for name in weights:
        np.testing.assert_array_equal(ours[name], theirs[name], name)


def test_weights_are_those_of_he():
    net = resnet("resnet20").initialize(0)
    for path, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d) and path != "conv1":
            w = to_numpy(layer.weight.data)
            fan_in = w[..., 0].size
            assert w.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.06), path


# -- blocks


def test_the_shortcut_takes_each_second_pixel_and_adds_channels_of_zeros():
    x = X.astype(np.float64)
    y = to_numpy(Shortcut(3, 5, stride=2)(x))
    assert y.shape == (4, 16, 16, 5)
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    assert not y[..., 3:].any()
    assert Shortcut(3, 3)(x) is x
    assert Shortcut(3, 5).parameters() == []


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_block_is_the_sum_of_its_paths(norm):
    for preactivation in (False, True):
        net = resnet(**SMALL, norm=norm, preactivation=preactivation).initialize(0, np.float64)
        block = net.block2  # from (32, 32, 4) to (16, 16, 8)
        x = np.random.default_rng(2).standard_normal((2, 32, 32, 4))
        parts = dict(block.branch.children())

        def conv(k, y, stride=1, parts=parts):
            layer = parts[f"conv{k}"]
            return ops.conv2d(y, layer.weight, layer.bias, stride=stride, padding=1)

        def normed(k, y, parts=parts):
            return parts[f"norm{k}"](y) if norm == "batch" else y

        if preactivation:
            branch = conv(5, ops.relu(normed(5, conv(4, ops.relu(normed(4, x)), 2))))
        else:
            branch = normed(5, conv(5, ops.relu(normed(4, conv(4, x, 2)))))
        skip = np.zeros((2, 16, 16, 8))
        skip[..., :4] = x[:, ::2, ::2]
        expected = to_numpy(branch) + skip
        if not preactivation:
            expected = np.maximum(expected, 0)
        with kernels("reference"):
            np.testing.assert_allclose(to_numpy(block(x)), expected, rtol=1e-9, atol=1e-9)


def test_with_skip_init_a_block_is_its_skip_path_at_first_and_the_scales_learn():
    net = resnet(stages=((2, 4),), norm="none", skip_init=True, preactivation=True).initialize(0)
    x = np.random.default_rng(2).standard_normal((2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(to_numpy(net.block2(x)), x)
    scales = [p for name, p in net.named_parameters() if name.endswith("alpha")]
    assert [p.size for p in scales] == [1, 1]
    assert [to_numpy(p.data).item() for p in scales] == [0, 0]
    optimizer = optim.SGD(net.parameters(), 0.05)
    one_step(net, optimizer, IMAGES, LABELS)
    assert all(to_numpy(p.data).item() != 0 for p in scales)
    before = to_numpy(net.block1.branch.conv2.weight.data).copy()
    one_step(net, optimizer, IMAGES, LABELS)
    assert (to_numpy(net.block1.branch.conv2.weight.data) != before).any()


def test_without_a_norm_and_skip_init_the_variance_doubles_at_each_block():
    net = resnet(stages=((6, 64),), norm="none", preactivation=True).initialize(0)
    x = np.random.default_rng(2).standard_normal((4, 16, 16, 64)).astype(np.float32)
    start = (x**2).mean()
    for block in blocks_of(net):
        x = to_numpy(block(x))
    assert 0.5 < (x**2).mean() / (start * 2**6) < 1.6


# -- kernels, backends, states


def step_of(**settings):
    net = resnet(**SMALL, **settings).initialize(0)
    loss, _ = one_step(net, optim.SGD(net.parameters(), 0.05), IMAGES, LABELS)
    return float(loss.item()), net.state_dict()


KINDS = [
    {}, {"preactivation": True}, {"norm": "none", "skip_init": True},
    {"norm": "none", "skip_init": True, "preactivation": True},
]  # fmt: skip


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_kernels_and_the_strict_backend_make_the_same_step(settings):
    with kernels("reference"):
        loss, state = step_of(**settings)
        with use("strict"):
            strict = step_of(**settings)
    for other_loss, other in (strict, step_of(**settings)):
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, array in state.items():
            np.testing.assert_allclose(array, other[name], rtol=2e-3, atol=2e-5, err_msg=name)


def test_a_state_dict_brings_the_network_back():
    net = resnet(**SMALL, skip_init=True).initialize(0)
    one_step(net, optim.SGD(net.parameters(), 0.05), IMAGES, LABELS)
    again = resnet(**SMALL, skip_init=True).initialize(1)
    again.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(to_numpy(net.eval()(X)), to_numpy(again.eval()(X)))


def test_a_few_steps_learn_a_batch():
    net = resnet(**SMALL).initialize(0)
    optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.9)
    losses = [float(one_step(net, optimizer, IMAGES, LABELS)[0].item()) for _ in range(25)]
    assert losses[-1] < 0.3 * losses[0]


# -- bad input


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "resnet18"}, "model 'resnet18' is unknown"),
        ({"norm": "bach"}, "norm 'bach' is unknown"),
        ({"width": 0}, "width=0 must be a positive number"),
        ({"width": 0.01}, "a stage of 3 blocks with 0 channels"),
        ({"stages": ()}, "stages is empty"),
        ({"stages": ((0, 8),)}, "a stage of 0 blocks"),
        ({"stages": ((1, 8), (1, 4))}, "8 channels or more"),
    ],
)
def test_what_makes_no_network_is_an_error_that_says_so(settings, words):
    with pytest.raises(ValueError, match=words):
        resnet(**settings)
