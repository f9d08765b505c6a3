"""check_model: what it finds in a network, and that it leaves the network as it was."""

import numpy as np
import pytest

from minibn import Op, apply, nn, ops
from minibn.backend import backend_of, to_numpy, use
from minibn.nn.module import Module
from minibn.nn.state import Parameter, ones
from minibn.testing import GradientError, Vacuous, check_model

rng = np.random.default_rng(0)
X = rng.standard_normal((6, 3))
LABELS = np.array([0, 1, 1, 0, 1, 0])
BATCH = (X, LABELS)


def network(**parts):
    """Everything that moves during training: statistics, noise, dropout."""
    layers = {
        "first": nn.Linear(3, 4, bias=False),
        "norm": nn.BatchNorm(4, eps=0.1),
        "noise": nn.Noise(),
        "act": nn.ReLU(),
        "drop": nn.Dropout(0.3),
        "last": nn.Linear(4, 2),
    }
    return nn.Sequential(**(layers | parts)).initialize(0, np.float64)


def wrong(report):
    return [x.name for x in report.inputs if not x.passed]


# -- what it finds


class HalfOfIt(Op):
    """x @ w, of whose gradient by w half is missing."""

    def forward(self, x, w):
        return x @ w

    def vjp(self, g, out, x, w):
        return g @ w.T, x.T @ g * 0.5


class WrongLinear(nn.Linear):
    def forward(self, x):
        return apply(HalfOfIt(), x, self.weight) + self.bias


class WrongNorm(Op):
    """Batch normalisation that forgets, in its gradient, that the mean depends on x."""

    def forward(self, x):
        return (x - x.mean(0)) * 2.0

    def vjp(self, g, out, x):
        return g * 2.0


class WrongCentre(Module):
    def forward(self, x):
        return apply(WrongNorm(), x)


def test_a_right_network_has_a_line_of_digits_for_each_parameter_and_for_x():
    report = check_model(network(), ops.softmax_cross_entropy, BATCH)
    assert [x.name for x in report.inputs] == [
        "first.weight", "norm.gamma", "norm.beta", "last.weight", "last.bias", "x",
    ]  # fmt: skip
    assert report.digits > 8
    assert "Sequential, 6 parameters and inputs: the gradient agrees" in str(report)
    assert report.line_of("norm.gamma").startswith("norm.gamma  (4,) float64:")


def test_a_layer_with_a_wrong_gradient_is_found_and_named():
    net = network(last=WrongLinear(4, 2))
    with pytest.raises(GradientError, match=r"last\.weight  \(4, 2\) float64: WRONG") as found:
        check_model(net, ops.softmax_cross_entropy, BATCH)
    assert wrong(found.value.report) == ["last.weight"]


def test_a_layer_that_passes_a_wrong_gradient_on_makes_everything_before_it_wrong():
    net = network(act=WrongCentre())
    report = check_model(net, ops.softmax_cross_entropy, BATCH, raises=False)
    assert set(wrong(report)) >= {"first.weight", "norm.gamma", "x"}
    assert not {"last.weight", "last.bias"} & set(wrong(report))


def test_a_bias_before_batch_norm_has_no_gradient_and_must_be_declared():
    net = network(first=nn.Linear(3, 4))
    with pytest.raises(Vacuous, match=r"first\.bias  \(4,\) float64: VACUOUS"):
        check_model(net, ops.softmax_cross_entropy, BATCH)
    report = check_model(net, ops.softmax_cross_entropy, BATCH, zero_gradient=["first.bias"])
    assert "zero, as declared" in report.line_of("first.bias")


def test_a_name_that_no_parameter_has_is_an_error_with_the_near_miss():
    with pytest.raises(ValueError, match=r"'first.bais'. Did you mean 'first.bias'\?"):
        check_model(network(first=nn.Linear(3, 4)), ops.mse, BATCH, zero_gradient=["first.bais"])
    with pytest.raises(ValueError, match=r"'q'. There are first\.weight, norm\.gamma"):
        check_model(network(), ops.mse, BATCH, zero_gradient=["q"])


# -- what it leaves


class Jitter(Module):
    """Somebody's layer: draws from a generator of its own, and from the global one."""

    def __init__(self):
        self.rng = np.random.default_rng(3)
        self.scale = Parameter((1,), ones)

    def forward(self, x):
        legacy = np.random.standard_normal()  # noqa: NPY002  somebody's layer may use it
        xp_draws = self.rng.standard_normal(x.shape) + legacy
        return x * self.scale + backend_of(x.data).asarray(xp_draws)


def everything(net):
    """All that a check could have moved, as bytes and objects."""
    legacy = np.random.get_state()  # noqa: NPY002  as above
    return {
        "values": {name: array.tobytes() for name, array in net.state_dict().items()},
        "dtypes": {name: array.dtype for name, array in net.state_dict().items()},
        "memory": [id(p.data) for p in (*net.parameters(), *(b for _, b in net.named_buffers()))],
        "grads": [id(p.grad) for p in net.parameters()],
        "modes": [module.training for _, module in net.named_modules()],
        "generator": str(net.jitter.rng.bit_generator.state),
        "legacy": (legacy[1].tobytes(), legacy[2:]),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_and_all_randomness_are_afterwards_as_they_were(training, dtype):
    net = network(jitter=Jitter()).train(training)
    net.norm.train()
    ops.softmax_cross_entropy(net(X), LABELS).backward()
    gradient = net.last.weight.grad.numpy().copy()
    before = everything(net)
    assert before["values"]["norm.batches"] == np.int64(1).tobytes()
    assert check_model(net, ops.softmax_cross_entropy, BATCH, dtype=dtype).passed
    assert everything(net) == before
    np.testing.assert_array_equal(net.last.weight.grad.numpy(), gradient)


@pytest.mark.parametrize("calls", [1, 2, 5, 20, 100])
def test_they_are_so_after_an_exception_too_wherever_it_comes_from(calls):
    """Not an Exception: a function that raises one on complex numbers has no complex step."""
    net = network(jitter=Jitter())
    before, seen = everything(net), []

    def loss(y, labels):
        seen.append(y)
        if len(seen) == calls:
            raise KeyboardInterrupt
        return ops.softmax_cross_entropy(y, labels)

    with pytest.raises(KeyboardInterrupt):
        check_model(net, loss, BATCH)
    assert everything(net) == before


# -- which networks it takes


def test_evaluation_is_checked_with_the_running_statistics():
    net = network(first=nn.Linear(3, 4)).eval()  # here a bias before BatchNorm has a gradient
    net.norm.running_mean.place(np.array([0.5, -1.0, 2.0, 0.1]))
    assert check_model(net, ops.softmax_cross_entropy, BATCH).passed


def test_float32_is_judged_against_float64_at_the_same_numbers():
    net = network()
    report = check_model(net, ops.softmax_cross_entropy, BATCH, dtype=np.float32)
    assert {x.dtype for x in report.inputs} == {"float32"}
    assert 3 < report.digits < 9
    assert net.last.weight.dtype == np.float64
    single = network().initialize(0, np.float32)
    assert check_model(single, ops.softmax_cross_entropy, (X.astype("f4"), LABELS)).digits > 8
    assert single.last.weight.dtype == np.float32


class Embedding(Module):
    def __init__(self):
        self.table = Parameter((5, 3), nn.init.glorot_normal)

    def forward(self, x):
        return self.table[x.data]


def test_integers_that_are_looked_up_are_not_differentiated():
    net = nn.Sequential(words=Embedding(), out=nn.Linear(3, 2)).initialize(0, np.float64)
    report = check_model(net, ops.softmax_cross_entropy, (np.array([0, 4, 4, 2]), [0, 1, 0, 1]))
    assert [x.name for x in report.inputs] == ["words.table", "out.weight", "out.bias"]


def test_a_shared_parameter_is_checked_once_with_the_gradients_of_both_places():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    net[2].weight = net[0].weight
    net.initialize(0, np.float64)
    report = check_model(net, ops.mse, (X, np.ones((6, 3))))
    assert [x.name for x in report.inputs] == ["0.weight", "x"]


def test_a_network_on_another_backend_stays_there(backend):
    net = network()
    report = check_model(net, ops.softmax_cross_entropy, (backend.asarray(X), LABELS))
    assert report.digits > 8
    assert all(backend_of(p.data) is backend for p in net.parameters())
    with use("numpy"):
        same = check_model(network(), ops.softmax_cross_entropy, BATCH)
    assert [x.name for x in report.inputs] == [x.name for x in same.inputs]


def test_a_batch_of_x_alone_and_a_network_without_parameters_will_do():
    report = check_model(nn.Sequential(nn.Flatten()), lambda y: (y * y).sum(), X)
    assert [x.name for x in report.inputs] == ["x"]
    assert to_numpy(X) is X


# -- what is hard


def test_a_row_of_zeros_puts_every_relu_at_its_kink_and_is_judged_beside_it():
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2)).initialize(0, np.float64)
    x = np.random.default_rng(1).standard_normal((8, 5))
    x[0] = 0
    report = check_model(model, ops.softmax_cross_entropy, (x, np.arange(8) % 2))
    assert {f.name for f in report.inputs if f.kinks} == {"0.bias", "x"}
    with pytest.raises(GradientError, match=r"0\.bias"):
        model[1].forward = lambda x: apply(Leaky(), x)
        check_model(model, ops.softmax_cross_entropy, (x, np.arange(8) % 2))


class Leaky(ops.elementwise.Relu):
    """A ReLU with another gradient for what is negative."""

    def vjp(self, g, out, x):
        return g * (0.01 + (out > 0))


def test_counters_and_generators_that_a_layer_keeps_for_itself_are_held_still():
    class Jittered(Module):
        def __init__(self):
            self.calls, self.generators = 0, [np.random.default_rng(3)]

        def forward(self, x):
            self.calls += 1
            return x * (1 + self.calls + self.generators[0].random())

    model = nn.Sequential(first=nn.Linear(3, 2), jitter=Jittered()).initialize(0, np.float64)
    state = model.jitter.generators[0].bit_generator.state
    assert check_model(model, ops.softmax_cross_entropy, BATCH).passed
    assert model.jitter.calls == 0
    assert model.jitter.generators[0].bit_generator.state == state


def test_a_loss_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="loss gives a float"):
        check_model(network(), lambda y, t: float(ops.mse(y, t).numpy()), (X, np.zeros((6, 2))))
