"""Settings of optimizers and schedules: checked when they are given or set."""

import copy
import math
import pickle

import numpy as np
import pytest

from minibn import Tensor, nn, optim


def params(values=(1.0, 1.0, 1.0), dtype=float):
    return [Tensor(np.array(values, dtype), requires_grad=True)]


KINDS = {"SGD": optim.SGD, "Adam": optim.Adam, "AdamW": optim.AdamW}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
NO_NUMBERS = ["0.1", None, True, 1j, [0.1], np.ones(2), optim.cosine(0.1, 10)]


@each_kind
@pytest.mark.parametrize("rate", NO_NUMBERS)
def test_a_rate_is_a_number_wherever_it_is_set(kind, rate):
    optimizer = kind(params(), lr=0.1)
    for act in (
        lambda: kind(params(), lr=rate),
        lambda: kind([{"params": params(), "lr_scale": rate}], 1.0),
        lambda: setattr(optimizer, "lr", rate),
        lambda: optimizer.groups[0].__setitem__("lr", rate),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"lr.*must be a real number"):
            act()
    assert optimizer.lr == 0.1


@each_kind
@pytest.mark.parametrize("rate", [-1, math.nan, math.inf])
def test_a_rate_is_finite_and_not_negative_wherever_it_is_set(kind, rate):
    optimizer = kind(params(), lr=0.1)
    with pytest.raises(ValueError, match="finite and not negative"):
        optimizer.lr = rate
    for key in ("lr", "lr_scale", "weight_decay"):
        with pytest.raises(ValueError, match="finite and not negative"):
            optimizer.groups[0][key] = rate
    with pytest.raises(ValueError, match="finite and not negative"):
        kind([{"params": params(), "weight_decay": rate}], lr=0.1)


@pytest.mark.parametrize("rate", [np.float32(0.5), np.array(0.5), Tensor(0.5)])
def test_a_rate_of_any_library_is_python_s_number(rate):
    optimizer = optim.SGD(params(dtype=np.float32), lr=rate)
    assert type(optimizer.lr) is float
    optimizer.groups[0]["lr"] = optimizer.lr = rate
    assert type(optimizer.lr) is float and optimizer.lr == 0.5


BAD = [
    (optim.SGD, "momentum", [*NO_NUMBERS, 1.0, -0.1, math.nan, 5]),
    (optim.SGD, "weight_decay", [*NO_NUMBERS, -1, math.nan, math.inf]),
    (optim.SGD, "nesterov", ["no", 1, None]),
    (optim.Adam, "betas", [0.9, (0.9,), (0.9, 0.99, 0.999), ("a", "b"), None]),
    (optim.Adam, "betas", [(0.9, 1.0), (0.9, 5), (-0.1, 0.9), (0.9, math.nan), "ab"]),
    (optim.Adam, "eps", [*NO_NUMBERS, -1, math.nan, math.inf]),
    (optim.Adam, "decoupled", ["no", 1, None]),
]  # fmt: skip


@pytest.mark.parametrize(
    "kind, name, setting", [(kind, name, s) for kind, name, bad in BAD for s in bad]
)
def test_a_setting_that_is_none_is_refused_for_all_in_a_group_and_later(kind, name, setting):
    optimizer = kind(params(), lr=0.1)
    before = optimizer.groups[0][name]
    for act in (
        lambda: kind(params(), lr=0.1, **{name: setting}),
        lambda: kind([{"params": params(), name: setting}], lr=0.1),
        lambda: optimizer.groups[0].__setitem__(name, setting),
    ):
        with pytest.raises((TypeError, ValueError), match=name):
            act()
    assert optimizer.groups[0][name] == before


@pytest.mark.parametrize(
    "kind, name", [(kind, name) for kind, name, _ in BAD] + [(optim.SGD, "lr_scale")]
)
def test_a_setting_of_the_groups_is_no_attribute_of_the_optimizer(kind, name):
    optimizer = kind(params(), lr=0.1)
    with pytest.raises(AttributeError, match=rf"param_groups\[0\]\['{name}'\] = "):
        setattr(optimizer, name, 0.5)
    with pytest.raises(AttributeError, match=rf"group\['{name}'\] = "):
        setattr(optimizer.groups[0], name, 0.5)


def test_what_would_have_no_effect_is_refused():
    optimizer = optim.SGD(params(), lr=0.1)
    for name in ("learning_rate", "params", "groups", "param_groups"):
        with pytest.raises(AttributeError):
            setattr(optimizer, name, 0.5)
    with pytest.raises(AttributeError, match="append"):
        optimizer.param_groups.append({"params": params()})
    with pytest.raises(TypeError, match="item assignment"):
        optimizer.params[0] = params()[0]
    for act in (
        lambda: optimizer.groups[0].__delitem__("momentum"), lambda: optimizer.groups[0].clear(),
        lambda: optimizer.groups[0].pop("weight_decay"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="can't be removed"):
            act()
    assert "lr" in optimizer.groups[0] and "momentun" not in optimizer.groups[0]


PARAMS = {
    "a module": nn.Linear(2, 2).initialize(seed=0), "a Sequential": nn.Sequential(nn.ReLU()),
    "a Tensor": params()[0], "a method": nn.Linear(2, 2).parameters, "None": None,
    "a state": nn.Linear(2, 2).initialize(seed=0).state_dict(), "a group": {"params": params()},
    "arrays": [np.ones(3)], "pairs": list(nn.Linear(2, 2).named_parameters()), "nothing": [],
    "integers": [Tensor(np.ones(3, int))], "results": [params()[0] * 2],
    "a group without params": [{"weight_decay": 1.0}], "groups and Tensors": [{}, *params()],
    "Tensors and groups": [*params(), {"params": params()}],
}  # fmt: skip


@each_kind
@pytest.mark.parametrize("given", PARAMS.values(), ids=PARAMS)
def test_what_is_no_list_of_parameters_is_refused(kind, given):
    with pytest.raises((TypeError, ValueError), match=r"params|parameter of int64"):
        kind(given, lr=0.1)


@each_kind
def test_read_only_values_are_refused_before_any_parameter_moves(kind):
    fixed = Tensor(np.broadcast_to(1.0, (3,)), requires_grad=True)
    moving = params()[0]
    optimizer = kind([moving, fixed], lr=0.1)
    for p in (moving, fixed):
        p.grad = Tensor(np.ones(3))
    with pytest.raises(ValueError, match=r"read-only memory.*array\.copy\(\)"):
        optimizer.step()
    assert moving.tolist() == [1, 1, 1]


@each_kind
@pytest.mark.parametrize("do", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_checks_its_settings_too(kind, do):
    optimizer = do(kind(params(), lr=0.1))
    optimizer.lr = optimizer.groups[0]["lr"] * 2
    assert optimizer.lr == 0.2
    with pytest.raises(AttributeError, match="param_groups"):
        optimizer.weight_decay = 0.5


@pytest.mark.parametrize("size", [1e-4, 0.0, 1.0, 1000.0])
def test_adam_moves_float16_as_far_as_float32(size):
    moved = []
    for dtype in (np.float16, np.float32):
        (p,) = params(dtype=dtype)
        optimizer = optim.Adam([p], lr=0.1)
        for _ in range(3):
            p.grad = Tensor(np.full(3, size, dtype))
            optimizer.step()
        assert p.dtype == dtype
        again = optim.Adam(params(dtype=dtype), lr=0.1)
        again.load_state_dict(optimizer.state_dict())
        assert again.state[0]["second"].dtype == np.float32
        np.testing.assert_array_equal(again.state[0]["second"], optimizer.state[0]["second"])
        moved.append(p.numpy().astype(float))
    np.testing.assert_allclose(moved[0], moved[1], atol=2e-3)


# -- the norm of gradients


@pytest.mark.parametrize("dtype, size", [("f2", 1000), ("f4", 1e25), ("f4", 1e-25), ("f8", 1e200)])
def test_the_norm_of_gradients_overflows_only_where_it_is_too_large(dtype, size):
    (p,) = params(dtype=dtype)
    p.grad = Tensor(np.full(3, size, dtype))
    norm = optim.clip_grad_norm([p], 1.0)
    assert norm == pytest.approx(3**0.5 * size, rel=1e-3)
    right = min(size, 3**-0.5)
    np.testing.assert_allclose(p.grad.numpy().astype(float), right, rtol=2e-3)


def test_a_parameter_given_twice_counts_once():
    (p,) = params()
    p.grad = Tensor(np.ones(3))
    assert optim.clip_grad_norm([p, p], 0.5) == pytest.approx(3**0.5)
    assert np.linalg.norm(p.grad.numpy()) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("given", [nn.Linear(2, 2).initialize(seed=0), [np.ones(3)], ["a"]])
def test_a_norm_is_of_tensors(given):
    with pytest.raises(TypeError, match="params must be Tensors"):
        optim.clip_grad_norm(given, 1.0)
    (p,) = params()
    p.grad = Tensor(np.ones(3))
    for limit in ("1", None, True):
        with pytest.raises(TypeError, match="max_norm"):
            optim.clip_grad_norm([p], limit)
    assert optim.clip_grad_norm(p, 1.0) == pytest.approx(3**0.5)


# -- schedules


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.step_decay(0.1, 0), lambda: optim.step_decay(0.1, -1),
        lambda: optim.step_decay(0.1, 2.5), lambda: optim.step_decay("a", 2),
        lambda: optim.step_decay(0.1, 2, factor=-1), lambda: optim.step_decay(0.1, 2, math.nan),
        lambda: optim.cosine(0.1, -5), lambda: optim.cosine(0.1, "a"), lambda: optim.cosine("a", 5),
        lambda: optim.cosine(0.1, 5, end=None), lambda: optim.warm_up(0.1, 5),
        lambda: optim.warm_up(optim.constant(0.1), -5), lambda: optim.constant("a"),
        lambda: optim.warm_up(optim.constant(0.1), 2.5), lambda: optim.constant(optim.constant),
    ],
)  # fmt: skip
def test_a_schedule_that_fails_later_is_refused_when_it_is_made(make):
    with pytest.raises((TypeError, ValueError), match=r"must be|no function|must not"):
        make()


# -- states


@pytest.mark.parametrize("state", [None, [], 3])
def test_a_state_is_a_dictionary(state):
    with pytest.raises(TypeError, match="no dict"):
        optim.SGD(params(), lr=0.1).load_state_dict(state)


@pytest.mark.parametrize("name", ["٠.velocity", "²", 0, "velocity"])
def test_an_entry_belongs_to_a_parameter_by_its_number(name):
    with pytest.raises(KeyError, match="belongs to another optimizer"):
        optim.SGD(params(), 0.1, 0.9).load_state_dict({"steps": 1, name: np.ones(3)})


def test_a_state_of_lists_or_tensors_is_taken():
    for values in ([1.0, 2.0, 3.0], Tensor([1.0, 2.0, 3.0])):
        optimizer = optim.SGD(params(), 0.1, momentum=0.9)
        optimizer.load_state_dict({"steps": 1, "0.velocity": values})
        assert optimizer.state[0]["velocity"].tolist() == [1, 2, 3]
