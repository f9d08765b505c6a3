"""The deep linear network: its layers, and its loss and gradient against the formula by hand."""

import math

import numpy as np
import pytest

from minibn import nn, use
from minibn.backend import to_numpy
from minibn.nn.init import glorot_normal
from reference_models.deep_linear import NORMS, deep_linear

NORMED = (
    "batch", "l1", "l2", "linf", "l1-centred", "l2-centred", "linf-centred", "l2-mean-of-norm",
    "linf-mean-of-norm",
)  # fmt: skip


def started(*arguments, **settings):
    return deep_linear(*arguments, **settings).initialize(0, dtype=np.float64)


def drawn(samples=7, width=10):
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, width)), rng.normal(size=(samples, width))


# -- structure


def test_the_papers_network_is_25_matrices_of_10_by_10_and_nothing_else():
    parameters = dict(deep_linear().named_parameters())
    assert list(parameters) == [f"linear{k}.weight" for k in range(1, 26)]
    assert {p.shape for p in parameters.values()} == {(10, 10)}


@pytest.mark.parametrize("norm", NORMED)
def test_a_norm_stands_behind_every_layer_but_the_last(norm):
    names = [name for name, _ in deep_linear(3, norm=norm).children()]
    assert names == ["linear1", "norm1", "linear2", "norm2", "linear3"]
    names = [name for name, _ in deep_linear(3, norm=norm, norm_output=True).children()]
    assert names[-2:] == ["linear3", "norm3"]


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_works_behind_vectors(norm, backend):
    net = started(4, 6, norm=norm)
    x, _ = drawn(width=6)
    y = net(backend.asarray(x))
    (y * y).sum().backward()
    assert y.shape == x.shape and y.dtype == np.float64
    for name, p in net.named_parameters():
        assert p.grad is not None and np.isfinite(to_numpy(p.grad.data)).all(), name


def test_all_variants_start_from_the_same_weights():
    plain = started(5).state_dict()
    for norm in NORMED:
        for output in (False, True):
            state = started(5, norm=norm, norm_output=output).state_dict()
            for name, array in plain.items():
                np.testing.assert_array_equal(state[name], array, err_msg=f"{norm} {name}")


def test_weights_are_drawn_by_glorots_rule():
    weights = np.stack([p.numpy() for p in started(200).parameters()])
    limit = math.sqrt(6 / 20)
    assert 0.99 * limit < abs(weights).max() <= limit
    assert weights.var() == pytest.approx(2 / 20, rel=0.03)
    normal = np.stack([p.numpy() for p in started(200, init=glorot_normal).parameters()])
    assert normal.var() == pytest.approx(2 / 20, rel=0.03)
    assert abs(normal).max() > limit


@pytest.mark.parametrize("norm", NORMED)
def test_without_affine_only_weights_are_trained_and_the_start_is_the_same(norm):
    fixed, free = (started(4, norm=norm, affine=affine) for affine in (False, True))
    assert all(name.endswith("weight") for name, _ in fixed.named_parameters())
    assert sum(name.endswith("gamma") for name, _ in free.named_parameters()) == 3
    x, _ = drawn()
    np.testing.assert_array_equal(fixed(x).numpy(), free(x).numpy())
    assert sorted(fixed.state_dict()) == sorted(free.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "bacth"}, r"deep_linear: norm 'bacth' is unknown\. Did you mean 'batch'\?"),
        ({"norm": "?"}, "norm '\\?' is unknown. There are none, batch"),
        ({"norm": "instance"}, "norm 'instance' is unknown"),
        ({"depth": 0}, "depth=0 must be 1 layer or more"),
        ({"width": 0}, "width=0 must be 1 unit or more"),
    ],
)
def test_unknown_norms_and_impossible_sizes_raise_with_a_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        deep_linear(**settings)


# -- mathematics


def test_the_network_is_the_product_of_its_matrices(backend):
    net = started(6)
    x, _ = drawn()
    product = np.linalg.multi_dot([p.numpy() for p in started(6).parameters()])
    np.testing.assert_allclose(to_numpy(net(backend.asarray(x)).data), x @ product, rtol=1e-12)


def test_loss_and_gradient_of_two_layers_are_those_of_the_formula(backend):
    """L = ‖X W₁ W₂ - Y‖²,  R = X W₁ W₂ - Y:   ∂L/∂W₂ = 2 (X W₁)ᵀ R,   ∂L/∂W₁ = 2 Xᵀ R W₂ᵀ"""
    net = started(2, 3)
    x, y = drawn(width=3)
    error = net(backend.asarray(x)) - backend.asarray(y)
    loss = (error * error).sum()
    loss.backward()
    w1, w2 = (to_numpy(p.data) for p in net.parameters())
    R = x @ w1 @ w2 - y
    assert float(loss.item()) == pytest.approx((R**2).sum(), rel=1e-13)
    g1, g2 = (to_numpy(p.grad.data) for p in net.parameters())
    np.testing.assert_allclose(g2, 2 * (x @ w1).T @ R, rtol=1e-12)
    np.testing.assert_allclose(g1, 2 * x.T @ R @ w2.T, rtol=1e-12)


DIVISORS = {
    "batch": lambda z: np.sqrt(z.var(axis=0) + 1e-5),
    "l1": lambda z: abs(z).mean(axis=0) + 1e-5,
    "l2": lambda z: np.sqrt((z**2).mean(axis=0) + 1e-5),
    "linf": lambda z: abs(z).max(axis=0) + 1e-5,
    "l1-centred": lambda z: abs(z - z.mean(axis=0)).mean(axis=0) + 1e-5,
    "l2-centred": lambda z: np.sqrt(z.var(axis=0) + 1e-5),
    "linf-centred": lambda z: abs(z - z.mean(axis=0)).max(axis=0) + 1e-5,
    "l2-mean-of-norm": lambda z: np.sqrt((z**2).sum(axis=0) / len(z) ** 2 + 1e-5),
    "linf-mean-of-norm": lambda z: abs(z).max(axis=0) / len(z) + 1e-5,
}


@pytest.mark.parametrize("norm", NORMED)
@pytest.mark.parametrize("output", [False, True])
def test_with_norms_each_layer_is_centred_and_divided(norm, output):
    net = started(3, norm=norm, norm_output=output)
    x, _ = drawn()
    z = x
    for k in range(1, 4):
        z = z @ net.state_dict()[f"linear{k}.weight"]
        if k < 3 or output:
            z = (z - z.mean(axis=0)) / DIVISORS[norm](z)
    np.testing.assert_allclose(net(x).numpy(), z, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["weight", "group+weight"])
@pytest.mark.parametrize("output", [False, True])
def test_the_matrices_of_layers_that_would_have_a_norm_are_standardised(norm, output):
    net = started(3, norm=norm, norm_output=output)
    x, _ = drawn()
    z = x
    for k in range(1, 4):
        w = net.state_dict()[f"linear{k}.weight"]
        if k < 3 or output:
            w = (w - w.mean(axis=0)) / np.sqrt(w.var(axis=0) + 1e-5)
            z = z @ w / (math.sqrt(10) if norm == "weight" else 1)
            if norm == "group+weight":
                halves = z.reshape(-1, 2, 5)
                centred = halves - halves.mean(axis=2, keepdims=True)
                z = centred / np.sqrt(halves.var(axis=2, keepdims=True) + 1e-5)
                z = z.reshape(-1, 10)
        else:
            z = z @ w
    np.testing.assert_allclose(net(x).numpy(), z, rtol=1e-9, atol=1e-12)


def test_standardised_matrices_without_a_norm_keep_the_variance_and_have_a_gain_each():
    net = started(25, 100, norm="weight")
    x, _ = drawn(1000, 100)
    for k in range(1, 25):
        x = getattr(net, f"linear{k}")(x)
        assert getattr(net, f"linear{k}").gain.shape == (100,)
    assert np.std(x.numpy()) == pytest.approx(1, rel=0.3)
    assert started(3, norm="group+weight").linear1.gain is None
    fixed = started(3, norm="weight", affine=False)
    assert all(name.endswith("weight") for name, _ in fixed.named_parameters())


def test_any_function_of_the_width_may_make_the_norm():
    net = started(3, norm=lambda width: nn.LpBatchNorm(width, p=1, center_first=True))
    x, _ = drawn()
    np.testing.assert_array_equal(net(x).numpy(), started(3, norm="l1-centred")(x).numpy())


def test_groups_of_ten_units_are_two_of_five():
    norm = deep_linear(2, norm="group").norm1
    assert (norm.groups, norm.gamma.shape) == (2, (10,))


def test_what_is_given_back_is_a_sequential_that_other_backends_run_alike(backend):
    def loss_of(on):
        net = started(5, norm="batch")
        x, y = drawn()
        error = net(on.asarray(x)) - on.asarray(y)
        loss = (error * error).sum()
        loss.backward()
        return float(loss.item()), [to_numpy(p.grad.data) for p in net.parameters()]

    assert isinstance(deep_linear(), nn.Sequential)
    loss, grads = loss_of(backend)
    with use("numpy") as numpy:
        expected, others = loss_of(numpy)
    assert loss == pytest.approx(expected, rel=1e-12)
    for a, b in zip(grads, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
