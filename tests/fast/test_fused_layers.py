"""A Sequential that calls runs of layers as one op computes what its layers compute one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minibn
from minibn import Tensor, grad, nn, no_grad
from minibn.autograd.anomaly import AnomalyError
from minibn.autograd.dispatch import find_kernel, kernels
from minibn.errors import ShapeError
from minibn.fast.cpu.fused_block import FusedBlockKernel
from minibn.fast.cpu.fused_conv_block import FusedConvBlockKernel
from minibn.fast.fused_layers import LayerBlock, plan_blocks
from minibn.testing.commands.profiles import share


def vgg(bias=False, noise=True, norm=True, pool=None, last=True):
    """Two stages as VGG has them, and a head."""
    layers = {}
    for i, (C, F) in enumerate(((2, 3), (3, 4)), start=1):
        layers[f"conv{i}"] = nn.Conv2d(C, F, 3, padding=1, bias=bias)
        if norm:
            layers[f"norm{i}"] = nn.BatchNorm(F)
        if noise:
            layers[f"noise{i}"] = nn.Noise()
        layers[f"relu{i}"] = nn.ReLU()
        if last or i == 1:
            layers[f"pool{i}"] = pool or nn.MaxPool2d(2)
    return nn.Sequential(**layers)


NETS = {
    "conv, norm, noise, relu, pool": vgg(),
    "with biases before the norms": vgg(bias=True),
    "without noise": vgg(noise=False),
    "without norms": vgg(bias=True, norm=False, noise=False),
    "noise without norms": vgg(bias=True, norm=False),
    "nothing between convolution and relu": vgg(norm=False, noise=False),
    "pools of size 3": vgg(pool=nn.MaxPool2d(3, 2, 1)),
    "overlapping pools": vgg(pool=nn.MaxPool2d(2, stride=1)),
    "pools of pairs": vgg(pool=nn.MaxPool2d((2, 2), stride=(2, 2), padding=(0, 0))),
    "convolutions without padding": nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.BatchNorm(3),
        nn.ReLU(),
        nn.MaxPool2d(),
        nn.Conv2d(3, 4, (2, 3)),
        nn.ReLU(),
    ),
    "another order": nn.Sequential(
        nn.ReLU(), nn.BatchNorm(2), nn.Noise(), nn.Noise(), nn.MaxPool2d(), nn.ReLU(), nn.ReLU()
    ),
    "noise that stays in evaluation": nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm(3), nn.Noise(in_eval=True), nn.ReLU()
    ),
    "nested": nn.Sequential(
        first=nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm(3), nn.ReLU()),
        second=nn.Sequential(nn.Sequential(nn.BatchNorm(3), nn.NoisyBatchNorm(3)), nn.ReLU()),
        pool=nn.MaxPool2d(),
    ),
    "vectors": nn.Sequential(
        nn.Flatten(), nn.Linear(2 * 6 * 8, 5), nn.BatchNorm(5), nn.Noise(), nn.ReLU()
    ),
    "a norm that has no momentum and one that does not track": nn.Sequential(
        nn.BatchNorm(2, momentum=None), nn.ReLU(), frozen=nn.BatchNorm(2, eps=0.1)
    ),
}
NETS["a norm that has no momentum and one that does not track"].frozen.tracking = False


def drawn(net, seed=0, dtype=np.float64):
    """With random values in every parameter and running statistic."""
    net.initialize(seed, dtype)
    rng = np.random.default_rng(seed)
    for name, p in net.named_parameters():
        p.place(
            (rng.standard_normal(p.shape) + (0.5 if name.endswith("gamma") else 0)).astype(dtype)
        )
    for name, b in net.named_buffers():
        if name.endswith("var"):
            b.place(0.5 + rng.random(b.shape))
        elif name.endswith("mean"):
            b.place(rng.standard_normal(b.shape))
    return net


def run(net, mode, x, training=True, calls=2):
    """Values, gradients in the input and every parameter, and the state afterwards."""
    drawn(net).train(training)
    found = []
    with kernels(mode):
        for k in range(calls):
            leaf = Tensor(x + 0.1 * k, requires_grad=True)
            y = net(leaf)
            g = np.cos(np.arange(y.size)).reshape(y.shape)
            found += [
                y.data,
                *(s.data for s in grad(y, [leaf, *net.parameters()], g, unused="zeros")),
            ]
    return found, net.state_dict()


def images(shape=(3, 6, 8, 2), seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def agree(ours, theirs):
    (found, state), (expected, expected_state) = ours, theirs
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * max(1, np.abs(b).max(initial=0)))
    assert list(state) == list(expected_state)
    for name, values in state.items():
        np.testing.assert_allclose(values, expected_state[name], rtol=1e-12, err_msg=name)


def kinds(net):
    """What is called, in order: the names of layers' classes, for a run joined by +."""
    with kernels("always"):
        return [
            "+".join(type(layer).__name__ for layer in step.layers)
            if isinstance(step, LayerBlock)
            else type(step).__name__
            for step in plan_blocks([module for _, module in net.children()])
        ]


# -- agreement


@pytest.mark.parametrize("mode", ["always", "fast", "lean"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_values_gradients_statistics_and_counters_are_those_of_layer_by_layer(
    name, training, mode, monkeypatch
):
    if mode == "lean":  # noise is drawn again for the gradient, also of small arrays
        monkeypatch.setattr(FusedBlockKernel, "pays", lambda *_: True)
        monkeypatch.setattr(FusedConvBlockKernel, "pays", lambda *_: True)
    net, x = NETS[name], images()
    agree(run(net, mode, x, training), run(net, "reference", x, training))


@settings(max_examples=share(25))
@given(
    st.tuples(st.integers(2, 3), st.integers(4, 9), st.integers(4, 9)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_odd_images_agree_too(lead, training, bias, noise, norm):
    net, x = vgg(bias, noise, norm), images((*lead, 2))
    agree(run(net, "always", x, training, calls=1), run(net, "reference", x, training, calls=1))


def test_parts_of_a_network_may_be_in_different_modes():
    def mixed():
        net = drawn(vgg())
        net.norm1.train(False)
        net.noise2.train(False)
        return net

    found = []
    for mode in ("always", "reference"):
        with kernels(mode):
            net = mixed()
            found.append(([net(images()).data], net.state_dict()))
    agree(*found)


def test_under_no_grad_and_on_arrays_the_values_are_the_same():
    values = []
    for mode in ("always", "reference"):
        net = drawn(vgg())
        with kernels(mode), no_grad():
            values += [net(images()).data, net.eval()(Tensor(images())).data]
    np.testing.assert_allclose(values[0], values[2], atol=1e-12)
    np.testing.assert_allclose(values[1], values[3], atol=1e-12)


def test_second_derivatives_see_the_same_noise():
    results = []
    for mode in ("always", "reference"):
        net = drawn(vgg(last=False))
        with kernels(mode):
            x = Tensor(images(), requires_grad=True)
            slope = grad((net(x) ** 2).sum(), x, create_graph=True)
            results.append(grad((slope**2).sum(), x).data)
    np.testing.assert_allclose(*results, rtol=0, atol=1e-9 * np.abs(results[1]).max())


def test_float32_networks_stay_float32():
    for mode in ("always", "fast", "reference"):
        net = drawn(vgg(), dtype=np.float32)
        with kernels(mode):
            y = net(images().astype(np.float32))
            y.sum().backward()
        assert y.dtype == np.float32
        assert all(p.grad.dtype == np.float32 for p in net.parameters())


def test_a_network_of_one_dtype_on_images_of_another_is_promoted_as_layer_by_layer():
    results = []
    for mode in ("always", "reference"):
        net = drawn(vgg(), dtype=np.float32)
        with kernels(mode):
            results.append(net(images()))
    assert results[0].dtype == results[1].dtype == np.float64
    np.testing.assert_allclose(results[0].data, results[1].data, rtol=1e-4, atol=1e-4)


# -- what is fused


def test_runs_begin_with_a_convolution_or_with_what_follows_one():
    for bias in (False, True):
        assert kinds(vgg(bias, last=False)) == [
            "Conv2d+BatchNorm+Noise+ReLU+MaxPool2d", "Conv2d+BatchNorm+Noise+ReLU",
        ]  # fmt: skip
        assert kinds(vgg(bias, norm=False, noise=False)) == 2 * ["Conv2d+ReLU+MaxPool2d"]
    assert kinds(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 3), nn.Noise())) == [
        "Conv2d", "Conv2d+Noise",
    ]  # fmt: skip
    assert kinds(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten())) == ["Conv2d", "Flatten"]
    assert kinds(nn.Sequential(nn.ReLU(), nn.BatchNorm(2), nn.ReLU(), nn.ReLU())) == [
        "ReLU", "BatchNorm+ReLU", "ReLU",
    ]  # fmt: skip
    assert kinds(nn.Sequential()) == []


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3),
        nn.MaxPool2d(2, 1),
        nn.MaxPool2d(2, 2, 1),
        nn.MaxPool2d((2, 3)),
        nn.AvgPool2d(),
    ],
)
def test_other_pools_stand_alone(pool):
    assert kinds(nn.Sequential(nn.BatchNorm(2), nn.ReLU(), pool)) == [
        "BatchNorm+ReLU", type(pool).__name__,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.BatchNorm, nn.Noise, nn.ReLU, nn.MaxPool2d])
def test_a_subclass_is_called_as_it_is(kind):
    class Own(kind):
        def forward(self, x):
            calls.append(1)
            return super().forward(x)

    settings = {nn.Conv2d: (2, 2, 3), nn.BatchNorm: (2,)}
    layers = [nn.Conv2d(2, 2, 3), nn.BatchNorm(2), nn.Noise(), nn.ReLU(), nn.MaxPool2d()]
    layers = [Own(*settings.get(kind, ())) if type(a) is kind else a for a in layers]
    calls = []
    net = drawn(nn.Sequential(*layers))
    assert "Own" in kinds(net)
    with kernels("always"):
        net(images())
    assert calls == [1]


def test_in_reference_mode_each_layer_is_called():
    with kernels("reference"):
        assert find_kernel(nn.Sequential, [images()]) is None
    assert find_kernel(nn.Sequential, [images()]) is not None


def test_a_layer_may_stand_in_two_places():
    results = []
    for mode in ("always", "reference"):
        relu, norm = nn.ReLU(), nn.BatchNorm(2)
        net = drawn(nn.Sequential(norm, relu, again=norm, more=relu))
        with kernels(mode):
            results.append((([net(images()).data]), net.state_dict()))
    agree(*results)
    assert results[0][1]["0.batches"] == 2


def test_state_and_names_do_not_know_of_it():
    net = drawn(vgg())
    before = list(net.state_dict()), [name for name, _ in net.named_modules()], repr(net)
    with kernels("always"):
        net(images()).sum().backward()
    assert before == (
        list(net.state_dict()), [name for name, _ in net.named_modules()], repr(net)
    )  # fmt: skip
    assert all(p.grad is not None for p in net.parameters())
    other = vgg().initialize(3, np.float64)
    other.load_state_dict(net.state_dict())
    with kernels("always"):
        np.testing.assert_array_equal(other.eval()(images()).data, net.eval()(images()).data)


# -- watching


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.BatchNorm, nn.Noise, nn.ReLU, nn.MaxPool2d])
def test_a_watcher_sees_what_it_would_see_layer_by_layer(kind):
    seen = {}
    for mode in ("always", "reference"):
        net = drawn(vgg(bias=True))
        layer = next(a for a in net if type(a) is kind)
        found = seen[mode] = []

        def watcher(module, inputs, output, found=found, layer=layer):
            assert module is layer
            found += [np.array(minibn.autograd.tape.value(a)) for a in (*inputs, output)]

        with kernels(mode), layer.watch(watcher):
            found.append(net(images()).data)
        assert len(found) == 3, "the watcher is called once"
    for ours, right in zip(seen["always"], seen["reference"], strict=True):
        np.testing.assert_allclose(ours, right, atol=1e-12)


def test_watching_one_layer_opens_its_run_only():
    net = vgg()
    with net.relu1.watch(lambda *_: None):
        assert kinds(net) == [
            "Conv2d+BatchNorm+Noise", "ReLU", "MaxPool2d", "Conv2d+BatchNorm+Noise+ReLU+MaxPool2d",
        ]  # fmt: skip
    with net.conv1.watch(lambda *_: None):
        assert kinds(net)[:2] == ["Conv2d", "BatchNorm+Noise+ReLU+MaxPool2d"]
    assert kinds(net) == 2 * ["Conv2d+BatchNorm+Noise+ReLU+MaxPool2d"]


def test_a_watcher_of_the_whole_network_opens_nothing():
    net, seen = drawn(vgg()), []
    with kernels("always"), net.watch(lambda module, inputs, output: seen.append(output.shape)):
        assert kinds(net) == 2 * ["Conv2d+BatchNorm+Noise+ReLU+MaxPool2d"]
        net(images())
    assert seen == [(3, 1, 2, 4)]


# -- errors


def wrong(kind):
    """A network whose first layer of this kind does not fit, and images for it."""
    layers = {
        "conv": nn.Conv2d(5 if kind == "conv" else 2, 2, 3, padding=1, bias=True),
        "norm": nn.BatchNorm(7 if kind == "norm" else 2),
        "noise": nn.Noise(),
        "relu": nn.ReLU(),
        "pool": nn.MaxPool2d(),
    }
    return nn.Sequential(**layers), images((2, 1, 1, 2) if kind == "pool" else (2, 4, 4, 2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["conv", "norm", "pool"])
def test_a_shape_error_names_the_layer_and_leaves_the_state_of_layer_by_layer(kind, training):
    told, states = [], []
    for mode in ("always", "fast", "reference"):
        net, x = wrong(kind)
        drawn(net).train(training)
        with kernels(mode), pytest.raises(ShapeError) as caught:
            net(x)
        notes = getattr(caught.value, "__notes__", [])
        assert any(f"In layer {kind} " in note for note in notes), mode
        told.append((str(caught.value), notes))
        states.append(net.state_dict())
    assert told[0] == told[1] == told[2]
    for state in states[:2]:
        for name, values in state.items():
            np.testing.assert_allclose(values, states[2][name], err_msg=name, rtol=1e-12)


def test_a_single_value_in_training_is_told_by_the_norm():
    net = drawn(nn.Sequential(norm=nn.BatchNorm(2), relu=nn.ReLU()))
    with kernels("always"), pytest.raises(ShapeError, match="fewer than two values") as caught:
        net(np.ones((1, 2)))
    assert any("In layer norm" in note for note in caught.value.__notes__)


def test_detect_anomaly_names_the_op_and_the_layer():
    net = drawn(nn.Sequential(norm=nn.BatchNorm(2), relu=nn.ReLU(), flat=nn.Flatten()))
    net.norm.gamma.place(np.array([1e308, 1.0]))
    with (
        kernels("always"),
        minibn.detect_anomaly(),
        np.errstate(all="ignore"),
        pytest.raises(AnomalyError, match="BatchNorm") as caught,
    ):
        net(1e3 * images())
    assert "norm" in str(caught.value)


def test_layers_without_values_say_so():
    with kernels("always"), pytest.raises(RuntimeError, match="has no values yet"):
        vgg()(images())


def test_noise_without_a_key_says_so():
    net = nn.Sequential(norm=nn.BatchNorm(2), noise=nn.Noise(), relu=nn.ReLU())
    net.norm.initialize(0, np.float64)
    with kernels("always"), pytest.raises(RuntimeError, match="has no key for its draws"):
        net(images())
