"""Inside `working_state` everything may be moved; afterwards nothing was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from untouched import images, lived, noisy_net, untouched

from minibn import kernels, nn, ops, use
from minibn.analysis import snapshot, working_state
from minibn.analysis.state import inner, norm
from minibn.backend import to_numpy


def trample(model, state):
    """Everything that a measurement could do, and more."""
    x, labels = images()
    state.replace({name: p.data + 1 for name, p in model.named_parameters()})
    ops.softmax_cross_entropy(model(x), labels).backward()
    for p in model.parameters():
        p.data[...] = np.nan
    state.reset_buffers()
    model(x)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_afterwards_every_array_gradient_version_and_mode_is_as_before(training, fails):
    model = lived(noisy_net(), images()[0]).train(training)
    model.norm1.training = not training  # modes are mixed
    with untouched(model):
        try:
            with working_state(model) as state:
                trample(model, state)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert fails


def test_inside_all_of_the_model_is_in_training_mode_on_copies_of_its_values():
    model = lived(noisy_net(), images()[0])
    model.norm1.eval()
    states = dict([*model.named_parameters(), *model.named_buffers()])
    before = {name: state.data for name, state in states.items()}
    with working_state(model):
        assert all(module.training for _, module in model.named_modules())
        for name, state in states.items():
            assert not np.shares_memory(state.data, before[name])
            np.testing.assert_array_equal(state.data, before[name])


def test_one_inside_another_gives_back_what_each_found():
    model = lived(noisy_net(), images()[0])
    weight = model.linear.weight
    with untouched(model), working_state(model) as outer:
        outer.replace({"linear.weight": np.ones((36, 3))})
        with working_state(model) as state:
            trample(model, state)
        np.testing.assert_array_equal(weight.data, np.ones((36, 3)))


def test_rewind_takes_statistics_and_counters_back_but_not_weights():
    model = lived(noisy_net(), images()[0])
    buffers = {name: b.data.copy() for name, b in model.named_buffers()}
    with working_state(model) as state:
        state.replace({"linear.weight": model.linear.weight.data + 1})
        first = model(images()[0]).numpy()
        assert any(np.any(b.data != buffers[name]) for name, b in model.named_buffers())
        for _ in range(2):  # also what was taken back once may move and be taken back again
            state.reset_buffers()
            for name, b in model.named_buffers():
                np.testing.assert_array_equal(b.data, buffers[name])
            np.testing.assert_array_equal(model(images()[0]).numpy(), first)


def test_rewind_to_a_snapshot_brings_back_its_noise_and_leaves_the_snapshot_alone():
    model = noisy_net()
    then = snapshot(model)
    kept = {name: array.copy() for name, array in then.items()}
    expected = model(images()[0]).numpy()
    model(images()[0])
    with untouched(model), working_state(model) as state:
        for _ in range(2):
            state.reset_buffers(then)
            np.testing.assert_array_equal(model(images()[0]).numpy(), expected)
        assert model(images()[0]).numpy().tobytes() != expected.tobytes()
    for name, array in then.items():
        np.testing.assert_array_equal(array, kept[name])


@pytest.mark.parametrize("mode", ["reference", "fast", "lean", "always"])
@pytest.mark.parametrize("training", [False, True])
def test_a_graph_that_was_recorded_before_can_still_be_walked_back(training, mode):
    x, labels = images()
    found = []
    with kernels(mode):
        for interrupted in (False, True):
            model = noisy_net().train(training)
            loss = ops.softmax_cross_entropy(model(x), labels)
            loss = loss + (model.norm1.gamma * model.norm1.running_mean).sum()  # a buffer is read
            if interrupted:
                with working_state(model) as state:
                    trample(model, state)
            loss.backward()
            found.append([p.grad.numpy() for p in model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_shared_parameter_moves_under_all_its_names_and_comes_back_once():
    model = nn.Sequential(a=nn.Linear(3, 3), b=nn.Linear(3, 3)).initialize(0)
    model.b.weight = model.a.weight
    with untouched(model), working_state(model) as state:
        state.replace({"a.weight": np.ones((3, 3), np.float32)})
        assert model.b.weight.data.sum() == 9


def test_a_snapshot_has_a_copy_of_all_there_is_on_the_models_backend(backend):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3), nn.Noise()).initialize(0)
    model(backend.asarray(np.eye(2, dtype=np.float32)))
    taken, state = snapshot(model), model.state_dict()
    assert set(taken) == set(state) and {"1.batches", "2.step"} < set(taken)
    kinds = {type(p.data) for p in model.parameters()}
    for name, array in taken.items():
        np.testing.assert_array_equal(to_numpy(array), state[name])
        assert type(array) in kinds or array.ndim == 0  # counters stay on the host
    model(backend.asarray(np.eye(2, dtype=np.float32)))
    for p in model.parameters():
        p.assign(p.data * 2)
    for name, array in taken.items():
        np.testing.assert_array_equal(to_numpy(array), state[name])


@given(st.integers(0, 10**6), st.integers(-30, 30), st.sampled_from([np.float32, np.float64]))
def test_norms_and_inner_products_reach_as_far_as_the_numbers_themselves(seed, power, dtype):
    rng = np.random.default_rng(seed)
    a, b = ([rng.standard_normal(shape) for shape in ((3,), (2, 4), ())] for _ in range(2))
    scaled = [np.asarray(x * 10.0**power, dtype) for x in a]
    length = 10.0**power * sum((x * x).sum() for x in a) ** 0.5
    assert norm(scaled) == pytest.approx(length, rel=1e-6)
    other = [np.asarray(x, dtype) for x in b]
    products = sum(float((x.astype(float) * y).sum()) for x, y in zip(scaled, other, strict=True))
    assert inner(scaled, other) == pytest.approx(products, rel=1e-6, abs=1e-12 * 10.0**power)


def test_a_million_equal_terms_are_added_in_float64():
    a = [np.full(10**6, 0.1, np.float32)]
    assert inner(a, a) == pytest.approx(10**6 * float(np.float32(0.1)) ** 2, rel=1e-8)


def test_nothing_has_length_zero():
    assert norm([]) == 0 == inner([], [])


@pytest.mark.parametrize("act", [snapshot, lambda model: working_state(model).__enter__()])
def test_weights_that_are_not_drawn_yet_are_an_error_that_says_how_to_draw_them(act):
    with pytest.raises(RuntimeError, match=r"\(2, 3\) has no values yet. Call model.initialize"):
        act(nn.Sequential(nn.Linear(2, 3)))


def test_a_model_without_parameters_is_an_error():
    with pytest.raises(ValueError, match="ReLU has no parameter that requires a gradient"):
        working_state(nn.ReLU()).__enter__()


def test_the_strict_backend_holds_as_well():
    with use("strict") as backend:
        model = nn.Sequential(nn.Linear(2, 3), norm=nn.BatchNorm(3)).initialize(0)
        x = backend.asarray(np.eye(2, dtype=np.float32))
        with untouched(model), working_state(model) as state:
            state.replace({"norm.gamma": model.norm.gamma.data + 1})
            model(x).sum().backward()
            state.reset_buffers()
