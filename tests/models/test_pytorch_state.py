"""State dicts to PyTorch's names and layout and back, without PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import nn
from minibn.nn import from_pytorch, to_pytorch
from reference_models.vgg import vgg


def network(norm, head, side=1):
    """A small VGG, or one whose last pooling is missing, so that Flatten sees (side, side, C)."""
    net = vgg("vgg11", width=1 / 32, norm=norm, noise=True, head=head, norm_head=True)
    parts = dict(net.children())
    if side > 1:
        C = parts["conv8"].weight.shape[3]
        first = next(name for name in parts if name.startswith("linear"))
        outputs = parts[first].weight.shape[1]
        parts[first] = nn.Linear(side * side * C, outputs)
        del parts["pool5"]
    net = nn.Sequential(**parts).initialize(0)
    rng = np.random.default_rng(1)
    state = net.state_dict()
    for name, array in state.items():
        if array.dtype != np.int64:
            state[name] = rng.normal(size=array.shape).astype(array.dtype)
    net.load_state_dict(state | {n: np.array(5) for n in state if n.endswith("batches")})
    return net


@given(
    norm=st.sampled_from(["none", "batch"]),
    head=st.sampled_from(["linear", "6", "6,5"]),
    side=st.sampled_from([1, 2]),
    renamed=st.booleans(),
)
def test_there_and_back_is_the_identity(norm, head, side, renamed):
    net = network(norm, head, side)
    names = [name for name, _ in net.children()]
    modules = {name: f"features.{i}" for i, name in enumerate(names)} if renamed else None
    first = next(name for name in names if name.startswith("linear"))
    flattened = {first: (side, side, net.conv8.weight.shape[3])}
    state = net.state_dict()
    back = from_pytorch(to_pytorch(state, modules, flattened), modules, flattened)
    assert set(back) == {name for name in state if not name.endswith(".step")}
    for name, array in back.items():
        assert array.dtype == state[name].dtype and array.shape == state[name].shape, name
        np.testing.assert_array_equal(array, state[name])
    net.load_state_dict(back | {n: a for n, a in state.items() if n.endswith(".step")})


def test_filters_are_transposed_to_the_layout_of_pytorch():
    w = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    theirs = to_pytorch({"conv.weight": w, "conv.bias": np.arange(5.0)})
    assert theirs["conv.weight"].shape == (5, 4, 2, 3)
    for k, m, c, f in np.ndindex(w.shape):
        assert theirs["conv.weight"][f, c, k, m] == w[k, m, c, f]
    np.testing.assert_array_equal(theirs["conv.bias"], np.arange(5.0))


def test_a_linear_layer_is_transposed_and_reads_the_flattened_image_channels_first():
    H, W, C, F = 2, 3, 4, 5
    w = np.random.default_rng(0).normal(size=(H * W * C, F))
    plain = to_pytorch({"linear.weight": w})["linear.weight"]
    np.testing.assert_array_equal(plain, w.T)
    theirs = to_pytorch({"linear.weight": w}, flattened={"linear": (H, W, C)})["linear.weight"]
    assert theirs.shape == (F, C * H * W)
    for h, x, c, f in np.ndindex(H, W, C, F):
        assert theirs[f, (c * H + h) * W + x] == w[(h * W + x) * C + c, f]
    image = np.random.default_rng(1).normal(size=(H, W, C))
    np.testing.assert_allclose(image.ravel() @ w, theirs @ image.transpose(2, 0, 1).ravel())


def test_normalisation_takes_pytorchs_names_and_back():
    norm = nn.BatchNorm(3).initialize(0)
    ours = {f"norm1.{name}": array for name, array in norm.state_dict().items()}
    theirs = to_pytorch(ours)
    assert set(theirs) == {
        "norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_var",
        "norm1.num_batches_tracked",
    }  # fmt: skip
    assert theirs["norm1.num_batches_tracked"].shape == ()
    assert theirs["norm1.num_batches_tracked"].dtype == np.int64
    assert set(from_pytorch(theirs)) == set(ours)


def test_the_gammas_of_a_layer_norm_over_images_are_transposed_and_come_back():
    norm = nn.Sequential(norm=nn.LayerNorm((2, 3, 4))).initialize(0)
    norm.norm.gamma.place(np.random.default_rng(0).normal(size=(2, 3, 4)))
    theirs = to_pytorch(norm.state_dict())
    assert theirs["norm.weight"].shape == theirs["norm.bias"].shape == (4, 2, 3)
    assert theirs["norm.weight"][3, 1, 2] == norm.norm.gamma.numpy()[1, 2, 3]
    back = from_pytorch(theirs)
    for name, array in norm.state_dict().items():
        np.testing.assert_array_equal(back[name], array)


def test_the_gain_of_standardised_filters_keeps_its_name():
    conv = nn.Sequential(conv=nn.WSConv2d(2, 3, 3, scaled=True)).initialize(0)
    theirs = to_pytorch(conv.state_dict())
    assert {name: a.shape for name, a in theirs.items()} == {
        "conv.weight": (3, 2, 3, 3), "conv.bias": (3,), "conv.gain": (3,),
    }  # fmt: skip
    assert set(from_pytorch(theirs)) == set(conv.state_dict())


def test_a_single_layers_names_have_no_path():
    ours = nn.BatchNorm(3).initialize(0).state_dict()
    assert set(to_pytorch(ours)) >= {"weight", "bias", "running_mean"}
    assert set(from_pytorch(to_pytorch(ours))) == set(ours)


def test_counters_of_noise_layers_are_left_out():
    net = vgg("vgg11", width=1 / 32, norm="batch", noise=True).initialize(0)
    assert not any("noise" in name for name in to_pytorch(net.state_dict()))


@pytest.mark.parametrize("convert", [to_pytorch, from_pytorch])
def test_the_result_is_a_copy(convert):
    state = {"a.weight": np.ones((2, 3)), "a.bias": np.ones(3), "b.weight": np.ones((3, 3, 1, 2))}
    for array in convert(state).values():
        array += 1
    assert all((array == 1).all() for array in state.values())
