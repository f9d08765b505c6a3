"""Optimizers: groups, state, clipping, errors. Laws: tests/suite/laws/optimizers.py."""

import math

import numpy as np
import pytest
from suite.laws.optimizers import momentum_path

from minibn import Tensor, nn
from minibn.backend import to_numpy
from minibn.errors import GraphError
from minibn.optim import (
    SGD,
    Adam,
    AdamW,
    clip_grad_norm,
    constant,
    cosine,
    decay_groups,
    warm_up,
)

STEPS = 10
W0 = np.random.default_rng(0).normal(size=(3, 2))
GRADS = np.random.default_rng(1).normal(size=(STEPS, 3, 2))


def leaf(backend, values=W0, dtype=np.float64):
    return Tensor(backend.asarray(values.copy(), dtype=dtype), requires_grad=True)


def give(p, g, backend):
    p.grad = Tensor(backend.asarray(np.asarray(g), dtype=p.dtype))


def path(optimizer, p, backend, grads=GRADS):
    """The weights after each step."""
    weights = []
    for g in grads:
        give(p, g, backend)
        optimizer.step()
        weights.append(to_numpy(p.data).copy())
    return np.array(weights)


def test_adamw_is_adam_with_decoupled_decay(backend):
    a, b = leaf(backend), leaf(backend)
    one = path(AdamW([a], 0.1, weight_decay=0.3), a, backend)
    two = path(Adam([b], 0.1, weight_decay=0.3, decoupled=True), b, backend)
    np.testing.assert_array_equal(one, two)
    assert AdamW([a]).groups[0]["weight_decay"] == 0.01
    assert Adam([a]).groups[0]["weight_decay"] == 0


def test_adams_first_step_is_the_learning_rate_in_every_direction(backend):
    p = leaf(backend)
    (first,) = path(Adam([p], 0.1, eps=0), p, backend, GRADS[:1])
    np.testing.assert_allclose(first, W0 - 0.1 * np.sign(GRADS[0]), rtol=1e-12)


MAKERS = {
    "sgd": lambda params, **k: SGD(params, 0.1, **k),
    "momentum": lambda params, **k: SGD(params, 0.1, momentum=0.9, **k),
    "nesterov": lambda params, **k: SGD(params, 0.1, momentum=0.9, nesterov=True, **k),
    "adam": lambda params, **k: Adam(params, 0.1, **k),
    "adamw": lambda params, **k: AdamW(params, 0.1, **{"weight_decay": 0.0, **k}),
}
each_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@each_kind
def test_a_parameter_without_a_gradient_is_left_alone(backend, make):
    p, frozen = leaf(backend), leaf(backend)
    optimizer = make([frozen, p], weight_decay=0.1)
    path(optimizer, p, backend)
    assert (to_numpy(frozen.data) == W0).all() and frozen.version.count == 0


@each_kind
def test_a_parameter_whose_first_gradient_comes_late_moves_as_a_new_one(backend, make):
    late, other, new = leaf(backend), leaf(backend), leaf(backend)
    optimizer = make([other, late])
    path(optimizer, other, backend)  # PyTorch's Adam counts the steps of each parameter, too
    other.grad = None
    moved = path(optimizer, late, backend)
    np.testing.assert_array_equal(moved, path(make([new]), new, backend))
    copy = make([leaf(backend, to_numpy(other.data)), leaf(backend, to_numpy(late.data))])
    copy.load_state_dict(optimizer.state_dict())
    for which in (0, 1):
        optimizer.zero_grad()
        copy.zero_grad()
        found = [path(o, o.params[which], backend) for o in (optimizer, copy)]
        np.testing.assert_array_equal(*found)


@each_kind
@pytest.mark.parametrize("scalar", [np.float64, np.float32])
def test_a_numpy_scalar_as_a_setting_changes_no_bit(backend, make, scalar):
    paths = []
    for number in (float, scalar):
        p = leaf(backend, dtype=np.float32)
        optimizer = make([p], weight_decay=number(0.25))
        optimizer.lr = number(0.125)
        paths.append(path(optimizer, p, backend))
    np.testing.assert_array_equal(*paths)


@each_kind
def test_float32_parameters_stay_float32_in_their_memory_even_under_a_numpy_rate(backend, make):
    p = leaf(backend, dtype=np.float32)
    memory, optimizer = p.data, make([p])
    optimizer.lr = np.float64(0.1)
    path(optimizer, p, backend)
    assert p.data is memory and p.dtype == np.float32
    assert all(array.dtype == np.float32 for array in optimizer.state[0].values())


def test_zero_grad_forgets_the_gradients(backend):
    p = leaf(backend)
    give(p, GRADS[0], backend)
    SGD([p], 0.1).zero_grad()
    assert p.grad is None


def test_a_step_makes_backward_through_the_old_graph_raise(backend):
    p = leaf(backend)
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    SGD([p], 0.1).step()
    with pytest.raises(GraphError, match="changed in place since"):
        loss.backward()


def test_gradient_descent_on_a_quadratic_shrinks_the_error_at_its_known_rate(backend):
    p = leaf(backend)
    optimizer = SGD([p], 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (p * p).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(to_numpy(p.data), W0 * 0.8**20, rtol=1e-12)


# -- groups


def test_groups_have_their_own_rate_decay_and_momentum(backend):
    a, b = leaf(backend), leaf(backend)
    optimizer = SGD(
        [{"params": [a], "lr_scale": 0.1}, {"params": [b], "weight_decay": 0.0, "momentum": 0.5}],
        lr=0.1, momentum=0.9, weight_decay=0.05,
    )  # fmt: skip
    weights = []
    for g in GRADS:
        give(a, g, backend), give(b, g, backend)
        optimizer.step()
        weights.append([to_numpy(a.data).copy(), to_numpy(b.data).copy()])
    found = np.array(weights)
    np.testing.assert_allclose(
        found[:, 0], momentum_path(0.9, False)(W0, GRADS, 0.01, 0.05), rtol=1e-11
    )
    np.testing.assert_allclose(
        found[:, 1], momentum_path(0.5, False)(W0, GRADS, 0.1, 0.0), rtol=1e-11
    )


def test_decay_groups_leave_gammas_betas_and_biases_without_decay():
    net = nn.Sequential(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm(4), linear=nn.Linear(4, 2))
    net.initialize(0)
    names = {id(p): name for name, p in net.named_parameters()}
    decayed, rest = decay_groups(net, 0.3)
    assert [names[id(p)] for p in decayed["params"]] == ["conv.weight", "linear.weight"]
    assert {names[id(p)] for p in rest["params"]} == {
        "conv.bias", "norm.gamma", "norm.beta", "linear.bias",
    }  # fmt: skip
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    before = net.state_dict()
    for p in net.parameters():
        p.grad = Tensor(np.zeros(p.shape, np.float32))
    SGD(decay_groups(net, 0.3), lr=1.0).step()
    for name, array in net.state_dict().items():
        shrunk = 0.7 if name in ("conv.weight", "linear.weight") else 1
        np.testing.assert_allclose(array, before[name] * np.float32(shrunk), rtol=1e-6)


def test_an_unknown_group_key_is_an_error_that_lists_the_known_ones(backend):
    with pytest.raises(
        ValueError, match=r"SGD: a group has rate; known are params, lr, weight_decay, lr_s"
    ):
        SGD([{"params": [leaf(backend)], "rate": 0.5}], lr=0.1)


def test_parameters_that_are_none_or_twice_there_are_refused(backend):
    p = leaf(backend)
    for params in ([], [1.0], [p * 2], [{"params": []}]):
        with pytest.raises(ValueError, match="must be leaf Tensors, at least one"):
            SGD(params, 0.1)
    with pytest.raises(ValueError, match="stands in two places"):
        SGD([{"params": [p]}, {"params": [p]}], 0.1)


@pytest.mark.parametrize("lr", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_a_rate_that_is_negative_or_not_finite_raises(kind, lr):
    with pytest.raises(ValueError, match=f"lr={lr} must be finite and not negative"):
        kind([Tensor([1.0], requires_grad=True)], lr)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SGD, {"momentum": 1.0}, "momentum=1.0 must lie in"),
        (SGD, {"momentum": -0.1}, "momentum=-0.1 must lie in"),
        (SGD, {"nesterov": True}, "nesterov=True needs a momentum"),
        (SGD, {"weight_decay": -1.0}, "weight_decay=-1.0 must be finite and not negative"),
        (SGD, {"weight_decay": math.nan}, "weight_decay=nan"),
        (Adam, {"betas": (0.9, 1.0)}, "betas=.* must lie in"),
        (Adam, {"betas": (-0.1, 0.9)}, "betas=.* must lie in"),
    ],
)
def test_settings_out_of_range_raise(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind([Tensor([1.0], requires_grad=True)], lr=0.1, **settings)


# -- state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.first": np.zeros((2, 3))}, r"Adam: 0.first is \(2, 3\), not \(3, 2\)"),
        ({"0.velocity": np.zeros((3, 2))}, "Adam: 0.velocity belongs to another optimizer"),
        ({"1.first": np.zeros((3, 2))}, "Adam: 1.first belongs to another optimizer"),
        ({"0.second": None}, "Adam: 0.second is missing"),
        ({"steps": None}, "Adam: steps is missing"),
        ({"steps": np.array(2.7)}, "Adam: steps is .*, not a number of steps"),
        ({"updates": None}, r"Adam: updates has shape \(0,\), not \(1,\)"),
        ({"updates": np.array([-1])}, "Adam: updates is .*, not a number of steps"),
        ({"0.first": np.zeros((3, 2), complex)}, "Adam: 0.first is complex128, not float64"),
        ({"0.first": np.full((3, 2), "a")}, "Adam: 0.first is <U1, not float64"),
    ],
)
def test_state_of_other_parameters_is_refused_and_changes_nothing(backend, change, message):
    p = leaf(backend)
    optimizer = Adam([p], 0.1)
    path(optimizer, p, backend, GRADS[:2])
    before = optimizer.state_dict()
    state = {k: v for k, v in {**before, "steps": np.array(9), **change}.items() if v is not None}
    with pytest.raises(KeyError, match=message):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


# -- clipping


def test_clipping_scales_all_gradients_to_the_joint_norm_and_returns_the_old_one(backend):
    a, b, none = leaf(backend), leaf(backend), leaf(backend)
    give(a, GRADS[0], backend), give(b, GRADS[1], backend)
    norm = math.sqrt(sum(float(g) ** 2 for g in GRADS[:2].ravel()))
    found = clip_grad_norm([a, b, none], norm / 4)
    assert float(to_numpy(found)) == pytest.approx(norm, rel=1e-12)
    for p, g in ((a, GRADS[0]), (b, GRADS[1])):
        np.testing.assert_allclose(to_numpy(p.grad.data), g / 4, rtol=1e-6)
    assert none.grad is None


def test_clipping_leaves_small_gradients_exactly_as_they_are(backend):
    p = leaf(backend, dtype=np.float32)
    give(p, GRADS[0], backend)
    before = to_numpy(p.grad.data).copy()
    clip_grad_norm([p], 1e3)
    np.testing.assert_array_equal(to_numpy(p.grad.data), before)
    clip_grad_norm([p], 0.5)
    assert p.grad.dtype == np.float32


def test_clipping_needs_gradients_and_a_norm_that_is_not_negative(backend):
    p = leaf(backend)
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        clip_grad_norm([p], 1.0)
    give(p, GRADS[0], backend)
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm="):
            clip_grad_norm([p], bad)


# -- schedules


def test_schedules_start_and_end_where_they_say():
    assert cosine(0.3, 20)(0) == 0.3 and cosine(0.3, 20)(20) == 0
    assert warm_up(constant(0.3), 1)(0) == 0.3
