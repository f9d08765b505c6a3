"""What is typed by habit or by mistake into layers and modules: refused at the call, in words."""

import collections
import copy
import types

import numpy as np
import pytest

from minibn import Tensor, nn
from minibn.errors import ShapeError

X = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
NORMS = {
    "BatchNorm": nn.BatchNorm, "LayerNorm": nn.LayerNorm, "RMSNorm": nn.RMSNorm,
    "InstanceNorm": nn.InstanceNorm, "FrozenBatchNorm": nn.FrozenBatchNorm,
    "LpBatchNorm": lambda C, **s: nn.LpBatchNorm(C, p=2, **s),
    "GroupNorm": lambda C, **s: nn.GroupNorm(1, C, **s),
    "WSConv2d": lambda C, **s: nn.WSConv2d(C, 2, 3, **s),
    "WSLinear": lambda C, **s: nn.WSLinear(C, 2, **s),
}  # fmt: skip
each_norm = pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)


@each_norm
@pytest.mark.parametrize("eps", ["1e-5", None, True, 1j, np.ones(2), [1e-5], X])
def test_eps_is_a_number(make, eps):
    with pytest.raises(TypeError, match=r"eps=.* must be a real number"):
        make(2, eps=eps)


@each_norm
@pytest.mark.parametrize("size", ["2", 2.0, True, None, 0, -1])
def test_a_number_of_channels_is_an_integer_from_1(make, size):
    with pytest.raises((TypeError, ValueError), match=r"must be (an integer|1 or more)|equal ones"):
        make(size)


SETTINGS = [
    (lambda v: nn.BatchNorm(2, momentum=v), ["0.1", True, 1j, [0.1], np.ones(2), -0.1, np.nan]),
    (lambda v: nn.Dropout(v), ["0.5", None, True, [0.5], 1.0, -0.1, np.nan]),
    (lambda v: nn.Noise(n_mu=v), ["1", None, True, -1.0, np.nan, np.inf]),
    (lambda v: nn.Noise(r_sigma=v, r_is_variance=True), [-1.0, np.nan, 1j]),
    (lambda v: nn.Noise(in_eval=v), ["no", 1, None]),
    (lambda v: nn.WSConv2d(3, 8, 3, scaled=True, factor=v), ["2", None, np.nan, np.inf]),
    (lambda v: nn.WSLinear(3, 8, scaled=v), ["no", 1, None]),
    (lambda v: nn.Linear(3, 2, bias=v), ["no", 1.0]),
    (lambda v: nn.Linear(3, 2, init=v), ["he_normal", 0, None]),
    (lambda v: nn.Conv2d(3, 8, 3, stride=v), [0, "a", 1.5, (1, 1, 1), True, None]),
    (lambda v: nn.Conv2d(3, 8, 3, padding=v), [-1, "same", 0.5, (1,), None]),
    (lambda v: nn.MaxPool2d(v), [0, "a", 2.0, (2, 2, 2), None]),
    (lambda v: nn.MaxPool2d(2, stride=v), [0, "a", 1.5]),
    (lambda v: nn.MaxPool2d(2, padding=v), [-1, 2, "a"]),
    (lambda v: nn.AvgPool2d(v), [0, 2.0, "a"]),
    (lambda v: nn.GroupNorm(v, 4), ["2", 2.0, True, 3, 0, None]),
    (lambda v: nn.LayerNorm(2, axes=v), ["exmaple"]),
    (lambda v: nn.RMSNorm(2, axes=v), ["channels"]),
    (lambda v: nn.LpBatchNorm(2, p=v), ["2", True, 3, [1], np.ones(2), None]),
    (lambda v: nn.LpBatchNorm(2, p=1, center_first=v), ["no", 1]),
]


@pytest.mark.parametrize(
    "make, setting", [(make, setting) for make, bad in SETTINGS for setting in bad]
)
def test_a_setting_out_of_place_is_refused_when_the_layer_is_made(make, setting):
    with pytest.raises((TypeError, ValueError)) as caught:
        make(setting)
    text = str(caught.value)
    assert "supported between" not in text and ("=" in text or "padding" in text)


@pytest.mark.parametrize("setting", ["n_mu", "n_sigma", "r_mu", "r_sigma"])
def test_numpy_s_numbers_set_later_keep_the_dtype_of_the_network(setting):
    layer = nn.Noise().initialize(seed=0)
    setattr(layer, setting, np.float64(0.3))
    assert layer(X).dtype == np.float32


@pytest.mark.parametrize(
    "make, keyword",
    [
        (lambda: nn.Linear(in_features=3, out_features=2), "inputs=, not in_features="),
        (lambda: nn.Conv2d(3, 8, kernel_size=3), "size=, not kernel_size="),
        (lambda: nn.Conv2d(in_channels=3, filters=2, size=3), "channels=, not in_channels="),
        (lambda: nn.MaxPool2d(kernel_size=2), "size=, not kernel_size="),
        (lambda: nn.BatchNorm(num_features=3), "channels=, not num_features="),
        (lambda: nn.GroupNorm(num_groups=1, num_channels=3), "groups=, not num_groups="),
        (lambda: nn.LayerNorm(normalized_shape=3), "shape=, not normalized_shape="),
    ],
)
def test_keywords_of_pytorch_are_answered_with_ours(make, keyword):
    with pytest.raises(TypeError, match=f"the keyword is {keyword}"):
        make()


# -- values of parameters


INITIALISERS = {
    "another shape": (lambda shape, rng: np.ones(5), ShapeError),
    "a number": (lambda shape, rng: 1.0, ShapeError),
    "complex": (lambda shape, rng: np.ones(shape) * 1j, TypeError),
    "text": (lambda shape, rng: np.full(shape, "a"), (TypeError, ValueError)),
}


@pytest.mark.parametrize("init, error", INITIALISERS.values(), ids=INITIALISERS)
def test_an_initialiser_gives_numbers_of_the_shape(init, error):
    layer = nn.Linear(3, 2, init=init)
    with pytest.raises(error):
        layer.initialize(seed=0)
    assert not layer.weight.is_initialized
    nested = nn.Linear(3, 2, init=lambda shape, rng: [[1, 2]] * 3).initialize(seed=0)
    assert nested.weight.tolist() == [[1, 2]] * 3


VALUES = [np.ones(2), np.ones((2, 2)) * 1j, [[1, 2]], "ab", np.ones((2, 2), str), None]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("initialized", [True, False])
def test_a_parameter_takes_values_of_its_shape_and_kind(values, initialized):
    if not initialized and np.iscomplexobj(values):
        pytest.skip("without values yet it may be complex")
    layer = nn.Linear(2, 2)
    if initialized:
        layer.initialize(seed=0)
    before = copy.deepcopy(layer.weight._data)
    for take in (layer.weight.place, layer.weight.assign if initialized else layer.weight.place):
        with pytest.raises((TypeError, ShapeError)):
            take(values)
    np.testing.assert_array_equal(layer.weight._data, before)


@pytest.mark.parametrize("array", [np.ones((5, 5)), [[1, 2], [3, 4]], Tensor(np.ones((2, 2))), 3])
def test_the_data_of_a_parameter_is_an_array_of_its_shape(array):
    weight = nn.Linear(2, 2).initialize(seed=0).weight
    with pytest.raises(ShapeError, match=r"weight\.data: .* Use \.assign"):
        weight.data = array
    assert weight.data.shape == (2, 2)


@pytest.mark.parametrize("seed", [1.5, "0", None, True, np.float64, np.random.default_rng(0)])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match=r"seed=.* must be an integer"):
        nn.Linear(2, 2).initialize(seed)


def test_weights_are_not_float64_for_a_dtype_of_none():
    with pytest.raises(TypeError, match="initialize: dtype None"):
        nn.Linear(2, 2).initialize(0, dtype=None)


def test_two_layers_can_exchange_their_weights():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).initialize(seed=0)
    first, second = (layer.weight.numpy().copy() for layer in net)
    net.load_state_dict({"0.weight": net[1].weight, "1.weight": net[0].weight}, strict=False)
    np.testing.assert_array_equal(net[0].weight.numpy(), second)
    np.testing.assert_array_equal(net[1].weight.numpy(), first)


@pytest.mark.parametrize(
    "entry", ["abc", {"a": 1}, np.ma.ones((2, 3)), np.ones((2, 3), str), np.ones((2, 3), object)]
)
def test_an_entry_of_a_state_that_does_not_fit_is_named(entry):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)).initialize(seed=0)
    before = net.state_dict()
    with pytest.raises((KeyError, TypeError), match=r"load_state_dict: .*1\.weight"):
        net.load_state_dict({name: a + 1 for name, a in before.items()} | {"1.weight": entry})
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("count", [-1, 2.0, np.uint64(2**63), [3]])
def test_a_count_of_batches_is_a_count(count):
    norm = nn.BatchNorm(2).initialize(seed=0)
    with pytest.raises(KeyError, match="batches"):
        norm.load_state_dict(norm.state_dict() | {"batches": count})
    with pytest.raises((TypeError, ShapeError)):
        norm.batches.assign(2.5)


@pytest.mark.parametrize("state", [None, [1], nn.Linear(2, 2), "model.npz"])
def test_a_state_is_a_dictionary(state):
    with pytest.raises(TypeError, match=r"load_state_dict: state is a"):
        nn.Linear(2, 2).load_state_dict(state)


# -- attributes


def module():
    return type("Net", (nn.Module,), {"forward": lambda self, x: x})()


@pytest.mark.parametrize("name", ["name", "training", "parameters", "forward", "children"])
@pytest.mark.parametrize("part", [nn.Linear(2, 2), nn.Parameter((2,))])
def test_a_part_does_not_hide_what_module_needs(name, part):
    with pytest.raises((AttributeError, TypeError), match=name):
        setattr(module(), name, part)


@pytest.mark.parametrize("mode", ["no", 0, 1, None, np.ones(2)])
def test_a_mode_is_true_or_false(mode):
    net = nn.Sequential(nn.BatchNorm(2))
    with pytest.raises(TypeError, match="must be True or False"):
        net.training = mode
    with pytest.raises(TypeError, match="must be True or False"):
        net.train(mode)
    assert net.training and net[0].training


HOLDERS = {
    "UserList": lambda x: collections.UserList([x]),
    "a view": lambda x: {"a": x}.values(), "items": lambda x: {"a": x}.items(),
    "MappingProxyType": lambda x: types.MappingProxyType({"a": x}),
    "ChainMap": lambda x: collections.ChainMap({"a": x}),
    "an array of objects": lambda x: np.fromiter([None, x], object),
    "a list in a dict": lambda x: {"a": [x]},
}  # fmt: skip


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(2, 2), lambda: Tensor(np.ones(2), requires_grad=True)]
)
def test_a_layer_in_any_container_is_found(hold, make):
    net = module()
    net.held = hold(make())
    for walk in (net.parameters, net.eval, net.state_dict, lambda: net.initialize(seed=0)):
        with pytest.raises(TypeError, match=r"Net\.held is a plain container"):
            walk()


def test_what_holds_no_layer_is_left_alone():
    net = module()
    net.names, net.array, net.range, net.cache = ["a"], np.ones(3), range(3), [Tensor([1.0]) * 2]
    net.last = Tensor([1.0], requires_grad=True) * 2
    assert net.parameters() == []


def test_a_trained_tensor_is_a_parameter():
    with pytest.raises(TypeError, match=r"Net\.scale is a Tensor .*nn\.Parameter"):
        module().scale = Tensor(np.ones(2), requires_grad=True)


def test_a_module_is_no_part_of_itself():
    net, part = module(), module()
    with pytest.raises(TypeError, match="its own part"):
        net.me = net
    net.part, part.parent = part, net
    for walk in (net.parameters, net.eval, part.state_dict):
        with pytest.raises(TypeError, match=r"part\.parent|parent\.part"):
            walk()


def test_a_part_in_a_slot_is_refused():
    net = type("Net", (nn.Module,), {"__slots__": ("layer",)})()
    with pytest.raises(TypeError, match="slot"):
        net.layer = nn.Linear(2, 2)


def test_a_missing_attribute_names_what_to_use():
    net = nn.Sequential(head=nn.Linear(2, 2))
    for name, remedy in (("to", r"minibn\.use"), ("modules", "named_modules"), ("haed", "'head'")):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'.*{remedy}"):
            getattr(net, name)

    class Net(nn.Module):
        @property
        def width(self):
            return self.head.wieght

    net = Net()
    net.head = nn.Linear(2, 2)
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"):
        _ = net.width
    assert not hasattr(net, "_private") and copy.deepcopy(net).head is not net.head


# -- containers


def test_a_layer_of_a_sequential_can_be_replaced_and_removed():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), head=nn.Linear(2, 3)).initialize(seed=0)
    before = net(X)
    net[-1] = nn.Linear(2, 5)
    assert [name for name, _ in net.children()] == ["0", "1", "head"]
    assert net.initialize(seed=0)(X).shape == (4, 5) != before.shape
    del net[1]
    assert [name for name, _ in net.children()] == ["0", "head"] and net(X).shape == (4, 5)
    for error, act in (
        (IndexError, lambda: net[7]), (TypeError, lambda: net["head"]),
        (TypeError, lambda: net[0.0]),
        (TypeError, lambda: net.__setitem__(0, None)), (IndexError, lambda: net.__delitem__(2)),
    ):  # fmt: skip
        with pytest.raises(error, match="Sequential"):
            act()


@pytest.mark.parametrize("key", ["a.b", "", "_watchers", "train", "name"])
def test_a_name_that_can_not_be_a_layer_s_is_refused(key):
    for act in (
        lambda: nn.Sequential(**{key: nn.ReLU()}), lambda: nn.ModuleDict({key: nn.ReLU()})
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match="name"):
            act()


def test_lists_and_dictionaries_of_modules_have_the_habits_of_lists_and_dictionaries():
    layers = nn.ModuleList([nn.ReLU()])
    layers += [nn.Flatten()]
    longer = layers + [nn.ReLU()]  # noqa: RUF005  # it is no list
    assert (len(layers), len(longer), type(longer)) == (2, 3, nn.ModuleList)
    table = nn.ModuleDict({"a": nn.ReLU()})
    assert table.get("b") is None and table.get("a") is table["a"]
    with pytest.raises(KeyError, match="no module 'b'"):
        table["b"]
    for wrong in (None, nn.ReLU(), 3):
        with pytest.raises(TypeError, match="ModuleList"):
            nn.ModuleList(wrong)
    for wrong in (lambda x: x, collections.OrderedDict(a=nn.ReLU()), (x for x in [nn.ReLU()])):
        with pytest.raises(TypeError, match=r"Unpack it|Make it a Module"):
            nn.Sequential(wrong)


def test_inputs_that_are_no_arrays_are_answered_in_words():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3)).initialize(seed=0)
    for x in (None, 3.0, "a", X.tolist(), X.astype(str), X.astype(object), {"x": X}):
        with pytest.raises(TypeError, match=r"an input|is not computed on"):
            net(x)
    for layer in (nn.Flatten(), nn.Linear(2, 3).initialize(seed=0)):
        with pytest.raises(ShapeError, match="axis"):
            layer(np.float32(1).reshape(()))
    with pytest.raises(TypeError, match="watch"):
        net.watch(3).__enter__()


# -- PyTorch's states


def test_a_misspelt_layer_in_flattened_is_refused():
    state = nn.Linear(12, 2).initialize(seed=0).state_dict()
    named = {f"fc.{name}": array for name, array in state.items()}
    for convert in (nn.to_pytorch, nn.from_pytorch):
        with pytest.raises(KeyError, match=r"flattened has 'cf'.*'fc'"):
            convert(named, flattened={"cf": (2, 2, 3)})
        for shape in ((2, 2, 4), 12, (3, 4)):
            with pytest.raises(ShapeError, match=r"'fc' has 12 inputs"):
                convert(nn.to_pytorch(named) if convert is nn.from_pytorch else named,
                        flattened={"fc": shape})  # fmt: skip
        with pytest.raises(TypeError, match=r"Use model\.state_dict\(\)"):
            convert(nn.Linear(2, 2))
    both = {f"{path}.weight": np.ones((2, 2)) for path in "ab"}
    with pytest.raises(KeyError, match="renamed to one"):
        nn.to_pytorch(both, modules={"a": "b"})
