"""Groups of parameters: what is set in them takes effect, or is refused."""

import copy

import numpy as np
import pytest

from minibn import Tensor, optim

KINDS = {
    "SGD": lambda params, lr=0.1: optim.SGD(params, lr),
    "momentum": lambda params, lr=0.1: optim.SGD(params, lr, momentum=0.9, nesterov=True),
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def two() -> list[Tensor]:
    return [Tensor(np.ones(3), requires_grad=True) for _ in range(2)]


def moved(optimizer, params) -> list[float]:
    """How far one step moves each parameter, whose gradients are 1."""
    before = [p.data.copy() for p in params]
    for p in params:
        p.grad = Tensor(np.ones(3))
    optimizer.step()
    return [float((b - p.data)[0]) for b, p in zip(before, params, strict=True)]


@each_kind
def test_a_rate_set_in_every_group_is_the_rate(make):
    for groups in (lambda p: p, lambda p: [{"params": p[:1]}, {"params": p[1:]}]):
        ours, theirs = two(), two()
        optimizer, expected = make(groups(ours)), make(groups(theirs), lr=0.03)
        assert optimizer.param_groups is optimizer.groups
        for group in optimizer.param_groups:
            group["lr"] = 0.03
            assert group["lr"] == pytest.approx(0.03)
        np.testing.assert_allclose(moved(optimizer, ours), moved(expected, theirs), rtol=1e-12)


@each_kind
def test_a_rate_of_one_group_leaves_the_other_and_both_follow_the_schedule(make):
    params, one = two(), two()[:1]
    optimizer = make([{"params": params[:1], "lr": 0.02}, {"params": params[1:]}], lr=0.1)
    first, second = optimizer.groups
    assert (first["lr"], second["lr"]) == (pytest.approx(0.02), 0.1)
    second["lr"] = 0.05
    assert optimizer.lr == 0.1 and first["lr_scale"] == pytest.approx(0.2)
    assert moved(optimizer, params)[1] == pytest.approx(moved(make(one, lr=0.05), one)[0])
    optimizer.lr = 0.2  # ratios stay
    assert (first["lr"], second["lr"]) == (pytest.approx(0.04), pytest.approx(0.1))


def test_the_rate_of_the_only_group_is_the_optimizers():
    optimizer = optim.SGD(two(), 0.0)
    optimizer.groups[0].update(lr=0.3, weight_decay=0.1)
    assert optimizer.lr == 0.3 and optimizer.groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("key", ["learning_rate", "momentun", "beta"])
def test_an_unknown_setting_is_refused(key):
    optimizer = optim.SGD(two(), 0.1)
    with pytest.raises(KeyError, match=f"no '{key}'"):
        optimizer.groups[0][key] = 0.5
    with pytest.raises(KeyError, match="another optimizer"):
        optimizer.groups[0]["params"] = []


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_a_rate_that_is_none_is_refused(rate):
    optimizer = optim.SGD(two(), 0.1)
    with pytest.raises(ValueError, match="finite and not negative"):
        optimizer.groups[0]["lr"] = rate
    with pytest.raises(ValueError, match="finite and not negative"):
        optim.SGD([{"params": two(), "lr": rate}], 0.1)


def test_a_rate_that_no_scale_gives_is_refused():
    params = two()
    optimizer = optim.SGD([{"params": params[:1]}, {"params": params[1:]}], 0.0)
    with pytest.raises(ValueError, match=r"lr is 0: set optimizer\.lr"):
        optimizer.groups[0]["lr"] = 0.1
    with pytest.raises(ValueError, match=r"lr and lr_scale\. Give one"):
        optim.SGD([{"params": params, "lr": 0.1, "lr_scale": 2.0}], 0.1)


def test_a_copy_of_an_optimizer_has_a_rate_of_its_own():
    optimizer = optim.SGD(two(), 0.1)
    other = copy.deepcopy(optimizer)
    other.groups[0]["lr"] = 0.2
    assert (optimizer.lr, other.lr, other.groups[0]["lr"]) == (0.1, 0.2, 0.2)
