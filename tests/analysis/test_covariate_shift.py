"""Definition 2.1 against the definition itself, with a copy of the model for each layer."""

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from untouched import images, lived, noisy_net, raises_on, untouched

from minibn import Tensor, grad, kernels, nn, no_grad, ops, to_numpy, use
from minibn.analysis import covariate_shift, layers_of, snapshot
from reference_models.deep_linear import deep_linear
from reference_models.vgg import vgg

MODES = ("reference", "fast", "lean", "always")


def squares(y, targets):
    return ((y - targets) ** 2).sum() * 0.5


def cross_entropy_case(model, x, classes):
    return model, (x, np.random.default_rng(2).integers(0, classes, len(x))), {}


def small_net():
    return cross_entropy_case(noisy_net(), images(6)[0], 3)


def small_vgg():
    x = np.random.default_rng(0).standard_normal((6, 32, 32, 3))
    model = vgg("vgg11", width=1 / 32, norm="batch", noise=True)
    return cross_entropy_case(model.initialize(0, dtype=np.float64), x, 10)


def mlp():
    sizes = [4, 6, 5, 3]
    parts = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    model = nn.Sequential(parts[0], nn.ReLU(), parts[1], nn.ReLU(), parts[2])
    x = np.random.default_rng(0).standard_normal((7, 4))
    return cross_entropy_case(model.initialize(0, dtype=np.float64), x, 3)


def deep_linear_net():
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((2, 20, 10))
    model = deep_linear(6, norm="batch").initialize(0, dtype=np.float64)
    return model, (x, targets), {"loss": squares}


CASES = [small_net, small_vgg, mlp, deep_linear_net]


def updated(values, seed=5, by=0.1):
    """The parameters after some update."""
    rng = np.random.default_rng(seed)
    return {
        name: array + by * rng.standard_normal(array.shape) if array.ndim else array
        for name, array in values.items()
    }


def definition(model, batch, before, after, i, loss=ops.softmax_cross_entropy):
    """(G, G') of layer i (from 0), each from a copy that has exactly the weights it should."""
    found, layers = [], layers_of(model)
    for earlier in (before, after):
        twin = copy.deepcopy(model).train()
        twin.load_state_dict(before)  # its noise and its statistics, too
        named = dict(twin.named_parameters())
        for names in layers[:i]:
            for name in names:
                named[name].assign(earlier[name])
        g = grad(loss(twin(batch[0]), batch[1]), [named[name] for name in layers[i]])
        found.append(np.concatenate([to_numpy(part).ravel() for part in g]))
    return found


@pytest.mark.parametrize("make", CASES)
def test_every_layers_shift_is_that_of_the_definition(make):
    model, batch, settings = make()
    model(batch[0])  # statistics and noise of a later step than the first
    before = snapshot(model)
    after = updated(before)
    model(batch[0])  # as after the step: the noise has moved on, and the running statistics
    with untouched(model):
        shifts = covariate_shift(model, batch, before, after, **settings)
    assert [s.layer for s in shifts] == list(range(1, len(layers_of(model)) + 1))
    assert [list(s.names) for s in shifts] == layers_of(model)
    for i, shift in enumerate(shifts):
        G, other = definition(model, batch, before, after, i, **settings)
        length, scale = np.linalg.norm(G), np.linalg.norm(other)
        assert shift.l2 == pytest.approx(np.linalg.norm(G - other), rel=1e-12, abs=1e-12 * length)
        assert shift.gradient_norm == pytest.approx(length, rel=1e-12)
        assert shift.relative == pytest.approx(shift.l2 / length, rel=1e-12)
        assert shift.cosine == pytest.approx(G @ other / length / scale, rel=1e-12, abs=1e-12)
    assert shifts[0].l2 == 0 and min(s.l2 for s in shifts[1:]) > 0


@pytest.mark.parametrize("make", CASES)
def test_layer_1_has_none_also_if_it_were_computed(make):
    model, batch, settings = make()
    before = snapshot(model)
    G, other = definition(model, batch, before, updated(before), 0, **settings)
    np.testing.assert_array_equal(G, other)
    first = covariate_shift(model, batch, before, updated(before), **settings)[0]
    assert (first.l2, first.relative) == (0, 0) and first.cosine == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [small_net, small_vgg])
def test_without_an_update_there_is_no_shift_to_the_last_bit(make, mode):
    model, batch, settings = make()
    before = snapshot(model)
    with kernels(mode):
        shifts = covariate_shift(model, batch, before, snapshot(model), **settings)
    for shift in shifts:
        assert shift.l2 == shift.relative == 0 and shift.cosine == pytest.approx(1, abs=1e-15)


def test_two_linear_layers_by_hand():
    """y = w₂ w₁ x with x = 1, w₁ = 2, w₂ = 3, t = 5: y - t = 1. For w₁ = 1.7: 3·1.7 - 5 = .1."""
    model = nn.Sequential(a=nn.Linear(1, 1, bias=False), b=nn.Linear(1, 1, bias=False))
    model.initialize(0, dtype=np.float64)
    one = np.ones((1, 1))
    before = {"a.weight": 2 * one, "b.weight": 3 * one}
    after = {"a.weight": 1.7 * one, "b.weight": 99 * one}  # what layer 2 does itself plays no part
    first, second = covariate_shift(model, (one, 5 * one), before, after, loss=squares)
    assert (first.l2, first.gradient_norm) == (0, pytest.approx(3 * 1))  # w₂ x (y - t)
    assert second.gradient_norm == pytest.approx(2 * 1)  # w₁ x (y - t)
    assert second.l2 == pytest.approx(2 * 1 - 1.7 * 0.1)
    assert second.relative == pytest.approx(0.915) and second.cosine == pytest.approx(1)
    after["a.weight"] = 1 * one  # 3·1 - 5 = -2: the gradient turns round
    second = covariate_shift(model, (one, 5 * one), before, after, loss=squares)[1]
    assert second.l2 == pytest.approx(2 + 2) and second.cosine == pytest.approx(-1)


def test_a_later_layers_update_has_no_effect_and_an_earlier_ones_has():
    model, batch, _ = mlp()
    before = snapshot(model)
    middle = layers_of(model)[1]
    after = {**before, **{name: before[name] + 0.3 for name in middle}}
    first, second, third = covariate_shift(model, batch, before, after)
    assert first.l2 == second.l2 == 0 < third.l2


def test_the_noise_is_that_of_the_snapshots_step_or_else_the_present_one():
    model, batch, _ = small_net()
    before = snapshot(model)
    after = updated(before)
    then = covariate_shift(model, batch, before, after)
    model(batch[0])  # the step goes on
    assert covariate_shift(model, batch, before, after) == then
    parameters = {name: before[name] for name, _ in model.named_parameters()}
    now = covariate_shift(model, batch, parameters, after)
    assert now[0].gradient_norm != then[0].gradient_norm
    model.load_state_dict({**model.state_dict(), **before})
    assert covariate_shift(model, batch, parameters, after) == then


def test_weight_decay_is_in_both_gradients_so_it_changes_their_length_but_not_the_shift():
    model, batch, _ = small_net()
    before = snapshot(model)
    after, decay = updated(before), 0.7

    def penalised(outputs, labels):
        weights = [p for p in model.parameters() if p.ndim > 1]
        penalty = sum((p * p).sum() for p in weights) * (decay / 2)
        return ops.softmax_cross_entropy(outputs, labels) + penalty

    plain = covariate_shift(model, batch, before, after)
    decayed = covariate_shift(model, batch, before, after, weight_decay=decay)
    expected = covariate_shift(model, batch, before, after, loss=penalised)
    for ours, theirs, without in zip(decayed, expected, plain, strict=True):
        for key in ("l2", "relative", "cosine", "gradient_norm"):
            assert getattr(ours, key) == pytest.approx(getattr(theirs, key), rel=1e-10)
        assert ours.l2 == pytest.approx(without.l2, rel=1e-10)
        assert ours.gradient_norm > without.gradient_norm and ours.cosine > without.cosine - 1e-12


def test_layers_may_be_chosen_and_what_is_in_none_of_them_does_not_move():
    model, batch, _ = mlp()
    before = snapshot(model)
    after = updated(before)
    chosen = [["0.weight"], ["2.weight", "2.bias"]]
    first, second = covariate_shift(model, batch, before, after, layers=chosen)
    assert (first.names, second.names) == (("0.weight",), ("2.weight", "2.bias"))
    stayed = {**after, "0.bias": before["0.bias"]}
    expected = covariate_shift(model, batch, before, stayed)[1]
    assert (second.l2, second.cosine) == (expected.l2, expected.cosine)
    assert covariate_shift(model, batch, before, after, layers=[]) == []


@pytest.mark.parametrize("norm", ["batch", "l1", "layer", "group", "rms", "weight", "none"])
def test_a_layer_is_a_weight_and_the_vectors_of_its_bias_and_norm(norm):
    layers = layers_of(vgg("vgg11", width=1 / 16, norm=norm))
    assert len(layers) == 9  # eight convolutions and the classifier
    for k, names in enumerate(layers[:-1], start=1):
        assert names[0] == f"conv{k}.weight" and len(names) > 1
        assert all(name.startswith((f"conv{k}.", f"norm{k}.")) for name in names)
    assert layers[-1] == ["linear9.weight", "linear9.bias"]


@given(st.integers(0, 10**6), st.integers(-30, 25))
def test_the_unit_of_the_loss_is_that_of_the_shift_and_leaves_relative_and_cosine(seed, power):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).initialize(seed)
    x = np.random.default_rng(seed).standard_normal((7, 4)).astype(np.float32)
    before, labels = snapshot(model), np.arange(7) % 3
    after = {name: array * np.float32(1.3) for name, array in before.items()}
    plain, scaled = (
        covariate_shift(model, (x, labels), before, after, loss=lambda y, t, u=unit:
                        ops.softmax_cross_entropy(y, t) * u)[1]
        for unit in (1.0, 10.0**power)
    )  # fmt: skip
    assert scaled.l2 == pytest.approx(plain.l2 * 10.0**power, rel=1e-4)
    assert (scaled.relative, scaled.cosine) == pytest.approx(
        (plain.relative, plain.cosine), rel=1e-4
    )


def test_where_a_gradient_is_zero_relative_and_cosine_are_undefined():
    model, (x, _), _ = mlp()
    before = snapshot(model)
    before["4.weight"] = 0 * before["4.weight"]  # nothing reaches what lies before
    first, second, third = covariate_shift(model, (x, np.zeros(7, int)), before, updated(before))
    assert first.gradient_norm == second.gradient_norm == 0
    assert math.isnan(second.relative) and math.isnan(second.cosine) and second.l2 == 0
    assert third.l2 > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_give_shifts_that_are_not_and_no_error(bad):
    model, batch, _ = small_net()
    before = snapshot(model)
    after = {name: array * bad if array.ndim > 1 else array for name, array in before.items()}
    with untouched(model):
        shifts = covariate_shift(model, batch, before, after)
    assert shifts[0].l2 == 0 and not any(np.isfinite(s.l2) for s in shifts[1:])


# -- without a trace, and what cannot be asked


@pytest.mark.parametrize("mode", MODES)
def test_the_model_is_left_as_it_was_also_when_the_loss_fails_in_the_middle(mode):
    _, batch, _ = small_net()
    model = lived(noisy_net(), batch[0])
    before = snapshot(model)
    kept = {name: array.copy() for name, array in before.items()}
    with kernels(mode), untouched(model):
        covariate_shift(model, batch, before, updated(before), weight_decay=0.1)
        for call in (1, 2, 3):
            with pytest.raises(ZeroDivisionError):
                covariate_shift(model, batch, before, before, loss=raises_on(call))
    for name, array in before.items():
        np.testing.assert_array_equal(array, kept[name])


def test_a_graph_between_forward_and_backward_is_not_disturbed():
    model, batch, _ = small_net()
    loss = ops.softmax_cross_entropy(model(batch[0]), batch[1])
    expected = grad(loss, model.parameters(), retain_graph=True)
    before = snapshot(model)
    covariate_shift(model, batch, before, updated(before))
    for ours, theirs in zip(grad(loss, model.parameters()), expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_it_says_the_same_on_every_backend_and_without_recording(backend):
    found = []
    for name in ("numpy", backend.name):
        with use(name) as here, no_grad():
            model, (x, labels), _ = small_net()
            before = snapshot(model)
            batch = here.asarray(x), here.asarray(labels)
            after = {
                name: here.asarray(array) if array.ndim else before[name]
                for name, array in updated({n: to_numpy(a) for n, a in before.items()}).items()
            }
            shifts = covariate_shift(model, batch, before, after)
            found.append([(s.l2, s.relative, s.cosine, s.gradient_norm) for s in shifts])
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_parameters_that_require_no_gradient_belong_to_no_layer():
    model, batch, _ = mlp()
    before = snapshot(model)
    dict(model.named_parameters())["0.weight"].requires_grad = False
    first, *rest = covariate_shift(model, batch, before, updated(before))
    assert first.names == ("0.bias",) and first.l2 == 0 and len(rest) == 2
    with pytest.raises(ValueError, match=r"layers=.*0\.weight") as caught:
        covariate_shift(model, batch, before, before, layers=[["0.weight"]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"before": {}}, r"before lacks an array for 0\.weight \(4, 6\), 0\.bias \(6,\)"),
        ({"after": {}}, r"after lacks an array for 0\.weight"),
        ({"after": {"2.bias": np.zeros(1)}}, r"after lacks an array for 2\.bias \(5,\)"),
        ({"before": {"2.bias": Tensor(np.zeros(5))}}, r"before lacks an array for 2\.bias"),
        ({"layers": [["nope"]]}, "layers=.*nope.*lists of parameters' names.*There are 0.weight"),
        ({"layers": [[]]}, "layers="),
        ({"layers": [["0.weight"], ["0.weight"]]}, "each name once"),
        ({"layers": "weight"}, "layers='weight'"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 must be"),
        ({"loss": lambda y, t: y}, r"covariate_shift: the loss is a Tensor of shape \(7, 3\)"),
        ({"loss": lambda y, t: 1.0}, "covariate_shift: the loss is float"),
        ({"batch": np.zeros((7, 4))}, r"covariate_shift: batch is a ndarray.*\(x, targets\)"),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_one_line(change, said):
    model, batch, _ = mlp()
    values = snapshot(model)
    for which in ("before", "after"):
        if change.get(which):
            change = {which: {**values, **change[which]}}
    asked = {"batch": batch, "before": values, "after": values, **change}
    with untouched(model), pytest.raises(ValueError, match=said) as caught:
        covariate_shift(model, **asked)
    assert "\n" not in str(caught.value)
