"""Modules: names, initialisation, state, modes, observation."""

import contextlib

import numpy as np
import pytest

from minibn import Tensor, nn, no_grad, ops, use
from minibn.backend import backend_of, to_numpy
from minibn.errors import ShapeError
from minibn.nn.module import Module
from minibn.nn.state import Buffer, Counter, Parameter, ones


class Block(Module):
    def __init__(self):
        self.linear = nn.Linear(3, 2)
        self.scale = Parameter((2,), ones)
        self.seen = Buffer((2,))

    def forward(self, x):
        return self.linear(x) * self.scale


def network() -> nn.Sequential:
    return nn.Sequential(first=Block(), norm=nn.BatchNorm(2), last=nn.Linear(2, 2, bias=False))


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# -- names


def test_parameters_buffers_and_modules_are_named_by_their_path():
    net = network()
    assert [name for name, _ in net.named_parameters()] == [
        "first.scale", "first.linear.weight", "first.linear.bias",
        "norm.gamma", "norm.beta", "last.weight",
    ]  # fmt: skip
    assert [name for name, _ in net.named_buffers()] == [
        "first.seen", "norm.running_mean", "norm.running_var", "norm.batches",
    ]  # fmt: skip
    paths = [path for path, _ in net.named_modules()]
    assert paths == ["", "first", "first.linear", "norm", "last"]


def test_parameters_require_a_gradient_and_buffers_do_not():
    net = network().initialize(0)
    assert all(p.requires_grad for p in net.parameters())
    assert not any(b.requires_grad for _, b in net.named_buffers())


def test_a_part_that_is_replaced_or_none_is_no_part():
    linear = nn.Linear(3, 2)
    linear.bias = None
    assert [name for name, _ in linear.named_parameters()] == ["weight"]


# -- initialisation


def test_the_same_seed_draws_the_same_weights_on_every_backend(backend):
    state = network().initialize(seed=7).state_dict()
    with use("numpy"):
        assert equal(state, network().initialize(seed=7).state_dict())


def test_initialize_puts_values_on_the_current_backend(backend):
    assert all(backend_of(p.data) is backend for p in network().initialize(0).parameters())


def test_another_seed_draws_other_weights():
    a, b = (network().initialize(seed).state_dict() for seed in (0, 1))
    assert not np.array_equal(a["last.weight"], b["last.weight"])


def test_weights_are_keyed_by_name_so_that_other_layers_change_nothing():
    small = nn.Sequential(one=nn.Linear(4, 4), two=nn.Linear(4, 4)).initialize(0).state_dict()
    large = nn.Sequential(
        one=nn.Linear(4, 4), extra=nn.Linear(4, 4), norm=nn.BatchNorm(4), two=nn.Linear(4, 4)
    )
    large = large.initialize(0).state_dict()
    assert all(np.array_equal(small[name], large[name]) for name in small)
    assert not np.array_equal(small["one.weight"], small["two.weight"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initialize_gives_the_dtype_that_is_asked_for(backend, dtype):
    net = network().initialize(0, dtype=dtype)
    for name, array in net.state_dict().items():
        assert array.dtype == (np.int64 if name.endswith("batches") else dtype), name
    x = backend.asarray(np.ones((4, 3)), dtype=dtype)
    assert net(x).dtype == dtype


def test_the_same_weights_are_drawn_in_either_precision_up_to_rounding():
    single, double = (network().initialize(0, dtype=d).state_dict() for d in ("f4", "f8"))
    assert all(np.array_equal(single[n], double[n].astype(single[n].dtype)) for n in single)


def test_initialize_again_starts_anew():
    net = network().initialize(0)
    before = net.state_dict()
    net(Tensor(np.random.default_rng(0).normal(size=(5, 3)).astype("f4"))).sum().backward()
    net.parameters()[0].assign(3.0)
    net.initialize(0)
    assert equal(before, net.state_dict())
    assert all(p.grad is None for p in net.parameters())


def test_using_an_uninitialised_parameter_raises_with_advice():
    with pytest.raises(RuntimeError, match=r"'weight' of shape \(3, 2\).*initialize\(seed=0\)"):
        nn.Linear(3, 2)(np.ones((1, 3)))
    with pytest.raises(RuntimeError, match="state_dict"):
        network().state_dict()


def test_an_uninitialised_parameter_knows_its_shape_and_can_be_shown():
    weight = nn.Linear(3, 2).weight
    assert (weight.shape, weight.ndim, weight.size) == ((3, 2), 2, 6)
    assert repr(weight) == "Parameter(shape=(3, 2), no values yet)"
    assert "Parameter([[" in repr(nn.Linear(3, 2).initialize(0).weight)


@pytest.mark.parametrize("shape", [(0,), (3, -1), (2.5,)])
def test_a_parameter_without_elements_is_refused(shape):
    with pytest.raises(ValueError, match="every size must be 1 or more"):
        Parameter(shape)


@pytest.mark.parametrize("shape", [(50, 70), (3, 3, 16, 24)])
def test_initialisers_have_the_variance_and_the_range_of_their_papers(shape):
    field = int(np.prod(shape[:-2]))
    fan_in, fan_out = field * shape[-2], field * shape[-1]
    expected = {
        nn.init.glorot_uniform: 2 / (fan_in + fan_out),
        nn.init.glorot_normal: 2 / (fan_in + fan_out),
        nn.init.he_uniform: 2 / fan_in,
        nn.init.he_normal: 2 / fan_in,
    }
    for init, variance in expected.items():
        w = init(shape, np.random.default_rng(0))
        assert w.shape == shape
        assert abs(w.var() / variance - 1) < 0.1, init.__name__
        assert abs(w.mean()) < 5 * np.sqrt(variance / w.size), init.__name__
        limit = np.sqrt(3 * variance)  # a uniform fills its range and does not leave it
        if "uniform" in init.__name__:
            assert 0.99 * limit < abs(w).max() <= limit
        else:
            assert abs(w).max() > limit


# -- state


def test_a_state_dict_is_a_copy_on_the_host(backend):
    net = network().initialize(0)
    state = net.state_dict()
    assert all(type(array) is np.ndarray for array in state.values())
    kept = {name: array.copy() for name, array in state.items()}
    for array in state.values():
        array += 1
    assert equal(net.state_dict(), kept)


def test_loading_copies_what_is_loaded(backend):
    net, state = network().initialize(0), network().initialize(1).state_dict()
    net.load_state_dict(state)
    state["last.weight"] += 1
    assert equal(net.state_dict(), network().initialize(1).state_dict())
    fresh = network()
    fresh.load_state_dict(state)
    kept = fresh.state_dict()
    state["last.weight"] += 1
    assert equal(fresh.state_dict(), kept)


def test_loading_gives_back_what_was_saved_on_any_backend(backend):
    with use("numpy"):
        trained = network().initialize(0, dtype=np.float64)
        trained(Tensor(np.random.default_rng(0).normal(size=(5, 3))))
    state = trained.state_dict()
    assert state["norm.batches"] == 1
    for target in (network(), network().initialize(3, dtype=np.float64)):
        target.load_state_dict(state)
        assert equal(target.state_dict(), state)
        assert all(backend_of(p.data) is backend for p in target.parameters())


def test_loading_keeps_the_dtype_and_the_memory_of_an_initialised_model(backend):
    net = network().initialize(0, dtype=np.float32)
    memory = net.last.weight.data
    net.load_state_dict(network().initialize(1, dtype=np.float64).state_dict())
    assert net.last.weight.dtype == np.float32
    assert net.last.weight.data is memory


def test_loading_takes_arrays_of_the_device_and_tensors(backend):
    net = network().initialize(0)
    state = {name: backend.asarray(array) for name, array in net.state_dict().items()}
    state["last.weight"] = Tensor(backend.asarray(np.full((2, 2), 3.0)))
    net.load_state_dict(state)
    assert (to_numpy(net.last.weight.data) == 3).all()


def test_a_load_that_does_not_fit_lists_all_of_it_and_changes_nothing(backend):
    net = network().initialize(0)
    before = net.state_dict()
    wrong = network().initialize(1).state_dict()
    del wrong["first.scale"], wrong["norm.beta"]
    wrong["stranger"] = wrong["other.stranger"] = np.ones(3)
    wrong["last.weight"] = np.ones((2, 5))
    with pytest.raises(KeyError) as raised:
        net.load_state_dict(wrong)
    message = str(raised.value)
    for part in (
        "missing: first.scale, norm.beta",
        "unexpected: stranger, other.stranger",
        "misshapen: last.weight (2, 5) for (2, 2)",
    ):
        assert part in message
    assert equal(net.state_dict(), before)


@pytest.mark.parametrize(
    "name, value",
    [
        ("last.weight", np.ones((2, 2), complex)),
        ("last.weight", np.full((2, 2), "a")),
        ("norm.batches", np.array(2.7)),
        ("norm.batches", np.array(2 + 0j)),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("initialized", [True, False])
def test_values_of_another_kind_change_nothing(name, value, strict, initialized):
    net = network()
    state = network().initialize(1).state_dict() | {name: value}
    if initialized:
        before = net.initialize(0).state_dict()
    elif value.dtype == complex and name == "last.weight":
        return  # it decides the dtype
    with pytest.raises(KeyError, match=f"of another kind: {name} {value.dtype}"):
        net.load_state_dict(state, strict)
    if initialized:
        assert equal(net.state_dict(), before)
    else:
        assert not any(p.is_initialized for p in net.parameters())


@pytest.mark.parametrize("dtype", [int, bool, np.uint8, "S4"])
def test_weights_are_floating_point(dtype):
    net = network().initialize(0)
    before = net.state_dict()
    with pytest.raises(TypeError, match=r"initialize: dtype .* Use a floating-point dtype"):
        net.initialize(0, dtype=dtype)
    assert equal(net.state_dict(), before)


def test_a_load_that_is_not_strict_takes_what_is_there_but_no_wrong_shape():
    net, other = network().initialize(0), network().initialize(1).state_dict()
    before = net.state_dict()
    net.load_state_dict({"last.weight": other["last.weight"], "stranger": 1.0}, strict=False)
    after = net.state_dict()
    assert np.array_equal(after.pop("last.weight"), other["last.weight"])
    del before["last.weight"]
    assert equal(before, after)
    with pytest.raises(KeyError, match=r"misshapen: last.weight \(4,\)"):
        net.load_state_dict({"last.weight": np.ones(4)}, strict=False)


def test_loading_tells_the_tape_that_the_values_changed():
    net = nn.Linear(3, 2).initialize(0)
    loss = (net(Tensor(np.ones((1, 3), "f4"), requires_grad=True)) ** 2).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_counter_stays_on_the_host_and_counts(backend):
    counter = Counter()
    assert [counter.advance(), counter.advance()] == [0, 1]
    assert type(counter.data) is np.ndarray and counter.data.shape == ()


def test_zero_grad_forgets_every_gradient(backend):
    net = network().initialize(0)
    net(backend.asarray(np.random.default_rng(0).normal(size=(5, 3)), "f4")).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


# -- modes and recording


def modes(net) -> list[bool]:
    return [module.training for _, module in net.named_modules()]


def test_train_and_eval_reach_every_module_and_return_the_model():
    net = network()
    assert net.eval() is net and modes(net) == [False] * 5
    assert net.train() is net and modes(net) == [True] * 5
    assert modes(net.train(False)) == [False] * 5


@pytest.mark.parametrize("training", [True, False])
def test_a_mode_block_restores_every_modules_own_mode_after_an_exception(training):
    net = network().eval()
    net.norm.train()
    before = modes(net)
    with pytest.raises(ZeroDivisionError), net.mode(training):
        assert modes(net) == [training] * 5
        raise ZeroDivisionError
    assert modes(net) == before and len(set(before)) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_preserved_state_brings_back_values_gradients_modes_attributes_and_parts(fails):
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm(3), nn.Noise(), nn.Linear(3, 2))
    net.initialize(0)
    x = np.ones((4, 3), "f4") * np.arange(4, dtype="f4")[:, None]
    net(x).sum().backward()
    parts = dict(net.named_modules())
    states = [*net.named_parameters(), *net.named_buffers()]
    slots = ("data", "grad", "version", "requires_grad", "name")
    before = [[getattr(state, slot) for slot in slots] for _, state in states]
    values = [state.data.copy() for _, state in states]
    attributes = {name: dict(vars(part)) for name, part in parts.items()}
    with contextlib.suppress(ZeroDivisionError), net.preserved_state() as same:
        assert same is net
        net.eval().initialize(5).zero_grad()  # other values, another key of the noise
        parts["0"].weight.requires_grad = False
        parts["1"].momentum = None
        setattr(net, "3", nn.Linear(3, 1).initialize(0))
        net.train()(x)
        if fails:
            raise ZeroDivisionError
    for (name, state), slot_values, value in zip(states, before, values, strict=True):
        assert all(a is getattr(state, k) for a, k in zip(slot_values, slots, strict=True)), name
        np.testing.assert_array_equal(state.data, value)
    assert {name: dict(vars(part)) for name, part in net.named_modules()} == attributes


def test_modes_and_recording_do_not_touch_each_other():
    net = network().initialize(0)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("f4")
    with net.mode(False):
        assert net(x).requires_grad
    assert net.eval()(x).requires_grad
    net.train()
    with no_grad():
        assert modes(net) == [True] * 5
        net.eval()
        assert not net(x).requires_grad
    assert modes(net) == [False] * 5
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert net(x).requires_grad


# -- observation


def test_a_watcher_sees_inputs_and_outputs_inside_its_block_only():
    net, calls = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).initialize(0), []
    x = np.ones((4, 3), "f4")
    with net[1].watch(lambda *call: calls.append(call)) as watched:
        assert watched is net[1]
        y = net(x)
    net(x)
    ((module, inputs, output),) = calls
    assert module is net[1] and output is y
    assert np.array_equal(ops.relu(inputs[0]).numpy(), y.numpy())


def test_a_watcher_is_removed_after_an_exception_and_leaves_others_in_place():
    layer, calls = nn.ReLU(), []
    with layer.watch(lambda *call: calls.append("outer")):
        with pytest.raises(ZeroDivisionError), layer.watch(lambda *call: calls.append("inner")):
            raise ZeroDivisionError
        layer(np.ones(3))
    assert calls == ["outer"]


def test_a_shape_error_names_every_layer_on_its_way():
    net = nn.Sequential(body=nn.Sequential(conv1=nn.Conv2d(3, 4, 3))).initialize(0)
    with pytest.raises(ShapeError, match="expects 3 input channels, x has 1") as raised:
        net(np.ones((2, 8, 8, 1), "f4"))
    assert raised.value.__notes__ == ["In layer conv1 (Conv2d).", "In layer body (Sequential)."]


# -- Sequential, repr


def test_sequential_numbers_or_names_its_parts_and_applies_them_in_order(backend):
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), head=nn.Linear(3, 1)).initialize(0)
    assert [name for name, _ in net.children()] == ["0", "1", "head"]
    assert len(net) == 3 and net[0] is getattr(net, "0") and net[-1] is net.head
    x = backend.asarray(np.random.default_rng(0).normal(size=(4, 3)), "f4")
    expected = net.head(net[1](net[0](x)))
    assert np.array_equal(to_numpy(net(x)), to_numpy(expected))


def test_sequential_refuses_what_is_no_module():
    with pytest.raises(TypeError, match="Sequential: act is a function, not a Module"):
        nn.Sequential(act=lambda x: x)
    with pytest.raises(TypeError, match="Sequential: 1 is a type"):
        nn.Sequential(nn.ReLU(), nn.ReLU)


@pytest.mark.parametrize("name", ["forward", "training", "name", "watch", "0"])
def test_sequential_refuses_a_name_that_is_taken(name):
    with pytest.raises(ValueError, match=f"Sequential: '{name}' is taken.*another name"):
        nn.Sequential(nn.ReLU(), **{name: nn.ReLU()})


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        Module()(1)


def test_repr_shows_settings_and_the_tree():
    net = nn.Sequential(norm=nn.BatchNorm(2, momentum=0.3), drop=nn.Dropout(0.25)).initialize(0)
    assert repr(net) == (
        "Sequential(\n"
        "  norm: BatchNorm(eps=1e-05, momentum=0.3, tracking=True)\n"
        "  drop: Dropout(in_eval=False, p=0.25)\n"
        ")"
    )
    assert repr(nn.MaxPool2d(3)) == "MaxPool2d(size=3, padding=0)"


def test_a_parameter_with_two_names_is_trained_once():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    assert len(net.parameters()) == 1
    assert len(list(net.named_parameters())) == 2
