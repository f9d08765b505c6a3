"""How the distributions at a place moved: against sums and sorting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from untouched import images, lived, noisy_net, raises_on, untouched

from minibn import Tensor, kernels, nn, no_grad, to_numpy, use
from minibn.analysis import distribution_shift, snapshot
from minibn.analysis.internal_covariate_shift import SAMPLES

PLACES = ["relu1", "relu2", "linear"]
KEYS = ("mean_drift", "var_drift", "wasserstein", "std")


def updated(values, seed=5, by=0.1):
    """The parameters after some update."""
    rng = np.random.default_rng(seed)
    return {
        name: array + by * rng.standard_normal(array.shape) if array.ndim else array
        for name, array in values.items()
    }


def entering(values, x, places=PLACES):
    """What enters each place of the small net that has these values, as (values, units)."""
    model, seen = noisy_net(), {}
    model.load_state_dict(values)
    with no_grad():
        for name, part in model.children():
            seen[name] = to_numpy(x)
            x = part(x)
    return {name: seen[name].reshape(-1, seen[name].shape[-1]) for name in places}


def between_curves(a, b):
    """∫ |F - G| of the two samples' distribution functions, which is Wasserstein-1."""
    at = np.sort(np.concatenate([a, b]))
    F, G = ((sample <= at[:, None]).mean(axis=1) for sample in (a, b))
    return float((np.abs(F - G)[:-1] * np.diff(at)).sum())


def test_means_variances_and_distances_are_those_by_hand_for_images_and_vectors():
    x = images(6)[0]
    model = lived(noisy_net(), x)
    before = snapshot(model)
    after = updated(before)
    model(x)  # the noise has moved on; the snapshot's counts
    with untouched(model):
        found = distribution_shift(model, (x, None), before, after, PLACES)
    old, new = entering(before, x), entering({**after, **buffers_of(model, before)}, x)
    assert [unit.place for unit in found] == PLACES
    for unit in found:
        a, b = old[unit.place], new[unit.place]
        drift = np.abs(b.mean(axis=0) - a.mean(axis=0))
        assert unit.mean_drift == pytest.approx(drift.mean(), rel=1e-10)
        change = np.abs(((b - b.mean(0)) ** 2).mean(0) - ((a - a.mean(0)) ** 2).mean(0))
        assert unit.var_drift == pytest.approx(change.mean(), rel=1e-10)
        distances = [between_curves(*pair) for pair in zip(a.T, b.T, strict=True)]
        assert unit.wasserstein == pytest.approx(np.mean(distances), rel=1e-10)
        assert unit.wasserstein >= unit.mean_drift > 0
        assert unit.std == pytest.approx(np.sqrt(((a - a.mean(0)) ** 2).mean(0)).mean(), rel=1e-10)


def buffers_of(model, values):
    return {name: values[name] for name, _ in model.named_buffers()}


@pytest.mark.parametrize("mode", ["reference", "fast", "lean", "always"])
def test_without_an_update_nothing_moves(mode):
    x = images(dtype=np.float32)[0]
    model = lived(noisy_net(np.float32), x)
    before = snapshot(model)
    with kernels(mode):
        for unit in distribution_shift(model, (x, None), before, snapshot(model), PLACES):
            assert unit.mean_drift == unit.var_drift == unit.wasserstein == 0 < unit.std


class Scaled(nn.Module):
    """x times one weight: its update is known to every value."""

    def __init__(self):
        self.w = nn.Parameter((1, 1), lambda shape, rng: np.ones(shape))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x * self.w.reshape(()))


def scaling(x, by, samples=SAMPLES):
    """What `distribution_shift` says when all values are multiplied by `by`."""
    model = Scaled().initialize(0, dtype=np.float64)
    before, after = {"w": np.ones((1, 1))}, {"w": np.full((1, 1), float(by))}
    (unit,) = distribution_shift(model, (x, None), before, after, ["relu"], samples=samples)
    return unit


@given(st.integers(0, 10**6), st.floats(0.1, 3), st.integers(1, 40))
def test_a_scaled_unit_moves_as_its_moments_and_its_mean_magnitude(seed, by, N):
    x = np.random.default_rng(seed).standard_normal((N, 3)) ** 2  # no sign: the ranks stay
    unit = scaling(x, by)
    assert unit.mean_drift == pytest.approx(abs(by - 1) * x.mean(), rel=1e-9, abs=1e-12)
    assert unit.var_drift == pytest.approx(abs(by**2 - 1) * x.var(axis=0).mean(), abs=1e-12)
    assert unit.wasserstein == pytest.approx(abs(by - 1) * x.mean(), rel=1e-9, abs=1e-12)


def test_a_distance_compares_ranks_and_not_the_same_examples():
    unit = scaling(np.array([[-1.0], [1.0]]), -1)  # they change places: the distribution stays
    assert unit.wasserstein == unit.mean_drift == unit.var_drift == 0


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 3000),
    st.integers(0, 10**6),
)
def test_a_sample_is_from_all_columns_and_rows_of_the_images(shape, samples, seed):
    """Only one column of pixels moves; a sample sees about its share, wherever it is."""
    N, H, W = shape
    column = seed % W
    x = np.zeros((N, H, W, 1))
    x[:, :, column] = 1
    M = N * H * W
    seen = scaling(x, 3, samples).wasserstein / 2  # the share of the sample in that column
    count = -(-M // _stride(M, samples))
    assert abs(seen - 1 / W) <= 1 / count + 1e-12, "every W-th of the sample, give or take one"
    y = np.zeros((N, H, W, 1))
    y[:, seed % H] = 1
    share = scaling(y, 3, samples).wasserstein / 2
    if count >= 16 * H * N:  # rows are W values long: a sample that is dense enough sees each
        assert share == pytest.approx(1 / H, rel=0.3)


def _stride(M, samples):
    """The least stride that leaves at most `samples` and has no factor in common with M."""
    return next(s for s in range(-(-M // samples), 2 * M + 2) if math.gcd(s, M) == 1)


def test_a_sample_of_the_papers_images_is_near_to_all_values():
    """Batch 128 of 32×32: a stride of 32 would see one column, the one beside the padding."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(conv=nn.Conv2d(1, 2, 3, padding=1), relu=nn.ReLU()).initialize(0)
    x = 1 + rng.standard_normal((128, 32, 32, 1)).astype(np.float32)  # the padding stands out
    before = snapshot(model)
    after = {name: array * np.float32(1.2) for name, array in before.items()}
    sampled, whole = (
        distribution_shift(model, (x, None), before, after, ["relu"], samples=samples)[0]
        for samples in (SAMPLES, 10**9)
    )
    assert sampled.wasserstein == pytest.approx(whole.wasserstein, rel=0.05)
    assert [getattr(sampled, k) for k in KEYS if k != "wasserstein"] == [
        getattr(whole, k) for k in KEYS if k != "wasserstein"
    ]


def test_float32_and_float64_agree_also_far_from_zero():
    x = 1000 + np.random.default_rng(0).standard_normal((500, 2))
    model = Scaled().initialize(0)
    before, after = ({"w": np.full((1, 1), w, np.float32)} for w in (1, 1.5))
    (unit,) = distribution_shift(model, (x.astype("f"), None), before, after, ["relu"])
    exact = scaling(x, 1.5)
    for key in KEYS:
        assert getattr(unit, key) == pytest.approx(getattr(exact, key), rel=1e-3), key


def test_every_backend_sees_the_same(backend):
    found = []
    for name in ("numpy", backend.name):
        with use(name) as here:
            model = noisy_net()
            before = snapshot(model)
            values = updated({n: to_numpy(a) for n, a in before.items()})
            after = {n: here.asarray(a) if a.ndim else before[n] for n, a in values.items()}
            x = here.asarray(images()[0])
            with untouched(model):
                units = distribution_shift(model, (x, None), before, after, PLACES, samples=100)
            found.append([[getattr(unit, key) for key in KEYS] for unit in units])
    np.testing.assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_reported_and_no_error(bad):
    model = lived(noisy_net(), images()[0])
    before = snapshot(model)
    after = {name: array * bad if array.ndim > 1 else array for name, array in before.items()}
    with untouched(model):
        for unit in distribution_shift(model, images(), before, after, PLACES):
            assert not np.isfinite(unit.wasserstein) and np.isfinite(unit.std)


def test_the_model_is_left_as_it_was_also_when_a_layer_fails():
    x = images()[0]
    model = lived(noisy_net(), x)
    before, fail = snapshot(model), raises_on(2)
    model.linear.forward = lambda y: fail(Tensor(np.eye(3)), np.zeros(3, int))
    with untouched(model), pytest.raises(ZeroDivisionError):
        distribution_shift(model, (x, None), before, before, PLACES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"places": ["relu9", "relu1"]}, "the model has no relu9"),
        ({"places": "relu1"}, "places is one name; it takes a list"),
        ({"samples": 0}, "samples=0 must be 1 or more"),
        ({"samples": -3}, "samples=-3 must be 1 or more"),
        ({"before": {}}, r"distribution_shift: before lacks an array for conv1\.weight"),
        ({"after": {}}, r"distribution_shift: after lacks an array for conv1\.weight"),
        ({"batch": (images()[0][:0], None)}, "the batch is empty"),
        ({"places": ["unused"]}, "unused had no input in the forward pass"),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_one_line(change, said):
    model = noisy_net()
    values = snapshot(model)
    model.unused = nn.ReLU()
    model.forward = lambda x: model.linear(model.flatten(model.pool1(model.conv1(x))))
    model.linear = nn.Linear(27, 3).initialize(0, dtype=np.float64)
    values = snapshot(model)
    asked = {"batch": images(), "before": values, "after": values, "places": [], **change}
    with untouched(model), pytest.raises(ValueError, match=said) as caught:
        distribution_shift(model, **asked)
    assert "\n" not in str(caught.value)


def test_no_places_are_no_shifts():
    model = noisy_net()
    assert distribution_shift(model, images(), snapshot(model), snapshot(model), []) == []
