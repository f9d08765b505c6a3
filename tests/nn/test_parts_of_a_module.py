"""Modules in lists, names that hide methods, copies, keywords, and the containers of modules."""

import copy
import pickle
from collections import OrderedDict, deque

import numpy as np
import pytest

from minibn import Tensor, nn, optim
from minibn.errors import GraphError
from minibn.nn.module import Module
from minibn.nn.state import Parameter, ones

CONTAINERS = {
    "list": lambda *parts: list(parts),
    "tuple": lambda *parts: parts,
    "set": lambda *parts: set(parts),
    "deque": lambda *parts: deque(parts),
    "dict": lambda *parts: dict(enumerate(parts)),
    "OrderedDict": lambda *parts: OrderedDict(enumerate(parts)),
    "list of pairs": lambda *parts: [(str(i), part) for i, part in enumerate(parts)],
    "dict of lists": lambda *parts: {"a": [[part] for part in parts]},
}
WALKS = {
    "initialize": lambda net: net.initialize(seed=0),
    "parameters": lambda net: net.parameters(),
    "named_parameters": lambda net: list(net.named_parameters()),
    "train": lambda net: net.train(),
    "eval": lambda net: net.eval(),
    "state_dict": lambda net: net.state_dict(),
    "load_state_dict": lambda net: net.load_state_dict({}),
    "zero_grad": lambda net: net.zero_grad(),
}


class Hiding(Module):
    def __init__(self, held):
        self.layers = held


# -- modules in plain containers


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_a_layer_in_a_plain_container_is_refused_where_it_would_be_forgotten(container, walk):
    for part in (nn.Linear(3, 2), nn.ReLU(), Parameter((2,))):
        with pytest.raises(TypeError, match=r"Hiding.layers is a plain.*ModuleList.*ModuleDict"):
            walk(Hiding(container(part)))
        with pytest.raises(TypeError, match=r"0\.layers is a plain container"):
            walk(nn.Sequential(Hiding(container(part))))


def test_a_list_of_layers_that_are_attributes_as_well_is_allowed():
    class Net(Module):
        def __init__(self):
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
            self.layers = [self.first, self.second]
            self.tied = [self.first.weight]

    assert len(Net().initialize(seed=0).parameters()) == 4


def test_a_list_that_holds_itself_and_plain_data_are_no_obstacle():
    loop = [1, "two", np.ones(3)]
    loop.append(loop)
    assert Hiding(loop).initialize(seed=0).parameters() == []


def test_a_layer_that_joins_a_list_after_initialize_says_what_to_do_at_its_call():
    net = Hiding([])
    net.initialize(seed=0)
    net.layers.append(nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match=r"nn\.ModuleList"):
        net.layers[0](np.ones((1, 3)))


def test_a_layer_as_an_attribute_of_the_class_is_refused_where_it_is_defined():
    for held in (nn.Linear(2, 2), Parameter((2,)), [nn.Linear(2, 2)]):
        with pytest.raises(TypeError, match=r"Net: fc is an attribute of the class.*self\.fc = "):
            type("Net", (Module,), {"fc": held})


# -- attributes


@pytest.mark.parametrize(
    "name", [k for k in vars(Module) if callable(getattr(Module, k)) and k[0] != "_"]
)
def test_an_attribute_that_hides_a_method_is_refused(name):
    for value in (True, nn.ReLU(), [1], None, Parameter((2,))):
        with pytest.raises(AttributeError, match=rf"ReLU\.{name} = .*hide the method"):
            setattr(nn.ReLU(), name, value)
    layer = nn.ReLU()
    layer.forward = lambda x: x  # replacing a method is allowed
    assert layer(3) == 3


def test_the_error_for_train_names_training():
    with pytest.raises(AttributeError, match=r"attribute `training`.*\.train\(\)"):
        nn.ReLU().train = True


@pytest.mark.parametrize("value", [np.ones((3, 2), "f4"), Tensor(np.ones((3, 2))), 1.0])
def test_an_array_in_the_place_of_a_parameter_is_refused(value):
    layer = nn.Linear(3, 2).initialize(seed=0)
    with pytest.raises(TypeError, match=r"weight is a Parameter.*\.weight\.assign\(values\)"):
        layer.weight = value
    layer.weight, layer.bias = Parameter((3, 2), ones), None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


@pytest.mark.parametrize("shape", [np.ones(3), np.ones(2, int), Tensor([1.0]), 3, None])
def test_a_parameter_takes_a_shape_and_says_so(shape):
    with pytest.raises(TypeError, match=r"Parameter: .* is no shape.*init=lambda shape, rng"):
        Parameter(shape)


def test_keywords_reach_forward():
    class Masked(Module):
        def forward(self, x, *, mask=None):
            return x if mask is None else x * mask

    seen, layer = [], Masked()
    with layer.watch(lambda module, inputs, output: seen.append((inputs, output))):
        assert layer(3, mask=2) == 6
    assert seen == [((3,), 6)]
    with pytest.raises(TypeError, match="unexpected keyword"):
        nn.ReLU()(np.ones(2), mask=1)


# -- copies


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Dropout(0.5), head=nn.Linear(4, 2))


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_model_without_values_is_a_model_without_values(copied):
    net = network()
    other = copied(net)
    assert all(not p.is_initialized for p in other.parameters())
    a, b = net.initialize(seed=1).state_dict(), other.initialize(seed=1).state_dict()
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_trained_model_and_its_optimizer_goes_on_alike_and_apart(copied):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3)).astype("f4")
    net = network().initialize(seed=0)

    def step(net, optimizer):
        optimizer.zero_grad()
        (net(x) ** 2).sum().backward()
        optimizer.step()

    for kind in (optim.SGD(net.parameters(), 0.1, momentum=0.9), optim.Adam(net.parameters())):
        step(net, kind)
        other, optimizer = copied((net, kind))
        assert all(p is q for p, q in zip(optimizer.params, other.parameters(), strict=True))
        before = net.state_dict()
        step(other, optimizer)
        assert all(np.array_equal(net.state_dict()[k], before[k]) for k in before)
        step(net, kind)
        theirs = other.state_dict()
        assert all(np.array_equal(v, theirs[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("copied", [*COPIES.values(), copy.copy], ids=[*COPIES, "copy"])
def test_a_copy_of_a_tensor_has_its_values_and_gradient(copied):
    x = Tensor(np.arange(3.0), requires_grad=True)
    (x * x).sum().backward()
    y = copied(x)
    assert type(y) is Tensor and y.requires_grad and y.is_leaf
    assert y.data.tolist() == [0, 1, 2] and y.grad.data.tolist() == [0, 2, 4]
    assert (y.data is x.data) == (copied is copy.copy)
    with pytest.raises(GraphError, match=r"Multiply.*\.detach\(\)"):
        copied(x * 2)


def test_tensors_that_share_memory_share_it_in_the_copy():
    x = Tensor(np.ones(3))
    a, b = copy.deepcopy((x, x.detach()))
    assert a.data is b.data and a.version is b.version and a.version is not x.version


# -- containers


def test_a_slice_of_a_sequential_is_a_sequential_of_the_same_layers():
    net = network().initialize(seed=0).eval()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("f4")
    features, head = net[:-1], net[-1:]
    assert type(features) is nn.Sequential and not features.training
    assert [name for name, _ in features.children()] == ["0", "1", "2"]
    assert features[1] is net[1] and head.head is net.head
    np.testing.assert_array_equal(head(features(x)).data, net(x).data)
    assert len(net[::-1]) == 4 and len(net[9:]) == 0
    assert list(net) == [module for _, module in net.children()]


def test_append_extends_a_sequential_under_the_next_free_number():
    net = nn.Sequential(nn.ReLU(), **{"2": nn.ReLU()})
    assert net.append(nn.Linear(2, 2)) is net
    assert [name for name, _ in net.children()] == ["0", "2", "3"]


@pytest.mark.parametrize(
    "given, remedy",
    [([nn.ReLU()], r"Sequential\(\*layers\)"), ({"a": nn.ReLU()}, r"Sequential\(\*\*layers\)"),
     (nn.ReLU, "Call it")],
)  # fmt: skip
def test_sequential_of_a_container_names_the_remedy(given, remedy):
    with pytest.raises(TypeError, match=remedy):
        nn.Sequential(given)


def test_a_module_list_behaves_as_a_list_whose_modules_are_parts():
    class Net(Module):
        def __init__(self):
            self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Dropout(0.5)])

    net = Net()
    layers, (a, b) = net.layers, net.layers
    assert len(layers) == 2 and layers[0] is a and layers[-1] is b and b in layers
    c = nn.Linear(3, 3)
    layers.append(c)
    assert [name for name, _ in net.named_parameters()] == [
        "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
    ]  # fmt: skip
    layers.insert(0, d := nn.ReLU())
    assert list(layers) == [d, a, b, c]
    assert (
        type(layers[1:3]) is nn.ModuleList and list(layers[1:3]) == [a, b] and a.name == "layers.1"
    )
    del layers[0]
    layers[0] = c
    assert layers.pop() is c and list(layers) == [c, b]
    layers.extend([d]).append(a)
    assert list(layers) == [c, b, d, a]
    net.initialize(seed=0).eval()
    assert not b.training and len(net.parameters()) == 4
    with pytest.raises(IndexError):
        layers[4]
    with pytest.raises(TypeError, match="ModuleList: 4 is a int, not a Module"):
        layers.append(3)
    assert list(layers) == [c, b, d, a]
    with pytest.raises(NotImplementedError, match="call its modules"):
        layers(1)


def test_a_module_dict_behaves_as_a_dictionary_whose_modules_are_parts():
    parts = nn.ModuleDict({"conv": nn.Linear(3, 3), "act": nn.ReLU()})
    net = nn.Sequential(parts=parts)
    assert [name for name, _ in net.named_parameters()] == ["parts.conv.weight", "parts.conv.bias"]
    assert parts["act"] is parts.act and "act" in parts and "x" not in parts
    assert list(parts) == parts.keys() == ["conv", "act"] and len(parts) == 2
    assert [k for k, _ in parts.items()] == parts.keys() and parts.values()[1] is parts.act
    parts.update([("act", new := nn.Dropout(0.1))])
    assert parts.pop("act") is new and parts.keys() == ["conv"]
    with pytest.raises(KeyError):
        parts["act"]
    with pytest.raises(ValueError, match="'train' is taken"):
        parts["train"] = nn.ReLU()
    with pytest.raises(TypeError, match="not a Module"):
        parts["x"] = 3
    with pytest.raises(TypeError, match="key 3 is no name"):
        parts[3] = nn.ReLU()


def test_a_deep_copy_stays_on_its_backend(backend):
    net = network().initialize(seed=0)
    other = copy.deepcopy(net)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert type(q.data) is type(p.data) and q.data is not p.data
        assert p.tolist() == q.tolist()


def test_lists_and_dicts_of_modules_are_summarised_and_shown():
    class Net(Module):
        def __init__(self):
            self.layers = nn.ModuleList([nn.Linear(3, 4), nn.ReLU()])
            self.heads = nn.ModuleDict({"one": nn.Linear(4, 2)})

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.heads["one"](x)

    net = Net().initialize(seed=0)
    assert "layers: ModuleList(" in repr(net) and "one: Linear" in repr(net)
    text = net.summary((3,))
    assert "layers.0" in text and "heads.one" in text
