"""A probe leaves no trace wherever it runs, and says what is wrong with what it is given."""

import math
import threading

import numpy as np
import pytest
from untouched import images, lived, noisy_net, raises_on, untouched

from minibn import Tensor, detect_anomaly, kernels, nn, no_grad, ops, optim, use
from minibn.analysis import Probe, probe
from minibn.analysis.gradient_probe import DIRECTIONS
from minibn.errors import AnomalyError, ShapeError


def assert_same(one: Probe, other: Probe, rtol: float = 0) -> None:
    for name, seen in vars(one).items():
        np.testing.assert_allclose(seen, getattr(other, name), rtol=rtol, err_msg=name)


# -- without a trace


@pytest.mark.parametrize("mode", ["reference", "fast", "lean", "always"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_model_is_left_as_it_was_to_the_last_bit(direction, mode):
    batch, model = images(), lived(noisy_net(), images()[0])
    with kernels(mode), untouched(model):
        probe(model, batch, [0.1, 10.0], direction=direction, weight_decay=0.1)
        probe(model, batch, [0.1], direction=direction, frozen_noise=False, probe_batch=images(3))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_the_model_is_left_as_it_was_when_the_loss_fails_in_the_middle(call):
    model = lived(noisy_net(), images()[0])
    with untouched(model), pytest.raises(ZeroDivisionError):
        probe(model, images(), [0.1, 0.2], loss=raises_on(call))


def test_a_probe_between_forward_and_backward_changes_neither_gradients_nor_the_step():
    x, labels = images(dtype=np.float32)
    found = []
    for probed in (False, True):
        model = noisy_net(np.float32)
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            loss = ops.softmax_cross_entropy(model(x), labels)
            optimizer.zero_grad()
            if probed:
                probe(model, (x, labels), [0.1, 10.0])
            loss.backward()
            if probed:
                probe(model, (x, labels), [0.1, 10.0], direction="random")
            optimizer.step()
        found.append([a.tobytes() for a in (*model.state_dict().values(),
                                            *optimizer.state_dict().values())])  # fmt: skip
    assert found[0] == found[1]


def test_a_watcher_may_probe_and_sees_the_probes_own_passes():
    model, batch, calls = noisy_net(), images(), []

    def see(*_):
        calls.append(1)
        if len(calls) == 1:
            probe(model, batch, [0.1, 0.2])

    with model.watch(see):
        ops.softmax_cross_entropy(model(batch[0]), batch[1]).backward()
    assert len(calls) == 1 + 3  # one pass where it stands, one a step size
    alone = noisy_net()
    ops.softmax_cross_entropy(alone(batch[0]), batch[1]).backward()
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        np.testing.assert_array_equal(ours.grad.numpy(), theirs.grad.numpy())


def test_it_costs_one_pass_more_than_there_are_sizes_and_two_with_a_probe_batch():
    model, calls = noisy_net(), []
    with model.watch(lambda *_: calls.append(1)):
        for direction in DIRECTIONS:
            probe(model, images(), [0.1, 0.2, 0.3], direction=direction)
        assert len(calls) == 3 * 4
        probe(model, images(), [0.1], probe_batch=images(4))
        assert len(calls) == 3 * 4 + 3


def test_it_says_the_same_twice_in_a_row_without_recording_in_a_thread_and_watched_for_anomalies():
    model, batch, found = lived(noisy_net(), images()[0]), images(), []

    def act():
        found.append(probe(model, batch, [0.1, 0.4], direction="random"))

    act(), act()
    with no_grad():
        act()
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    with kernels("reference"):
        act()
        with detect_anomaly():
            act()
    for other in found[1:4]:
        assert_same(found[0], other)
    assert_same(found[4], found[5])
    assert_same(found[0], found[4], rtol=1e-9)


def test_every_backend_sees_the_same(backend):
    x, labels = images()
    seen = []
    for name in ("numpy", backend.name):
        with use(name) as here:
            model = noisy_net()
            batch = here.asarray(x), here.asarray(labels)
            with untouched(model):
                seen += [
                    probe(model, batch, [0.1, 0.4], direction=d, weight_decay=0.1)
                    for d in DIRECTIONS
                ]
    for ours, theirs in zip(seen[:3], seen[3:], strict=True):
        assert_same(ours, theirs, rtol=1e-9)


def test_a_shared_parameter_moves_once():
    model = nn.Sequential(a=nn.Linear(3, 3, bias=False), b=nn.Linear(3, 3, bias=False))
    model.b.weight = model.a.weight
    model.initialize(0, dtype=np.float64)
    x = np.eye(3)
    W = model.a.weight.data.copy()
    with untouched(model):
        seen = probe(model, (x, None), [0.1], loss=lambda y, _: y.sum(), weight_decay=0.2)
    g = (W.sum(axis=1)[None, :] + W.sum(axis=0)[:, None]) + 0.2 * W  # of 1ᵀWW1 + 0.1 ‖W‖²
    assert seen.gradient_norm == pytest.approx(np.linalg.norm(g), rel=1e-12)
    V = W - 0.1 * g
    assert seen.losses[0] == pytest.approx((V @ V).sum() + 0.1 * (V**2).sum(), rel=1e-12)


def test_parameters_that_require_no_gradient_stay_where_they_are():
    batch, at = images(), []

    def seeing(outputs, labels):
        at.append((model.conv1.weight.data.copy(), model.conv2.weight.data.copy()))
        return ops.softmax_cross_entropy(outputs, labels)

    model = noisy_net()
    whole = probe(model, batch, [1.0])
    model.conv1.weight.requires_grad = False
    for direction in DIRECTIONS:
        with untouched(model):
            seen = probe(model, batch, [1.0], loss=seeing, direction=direction)
        assert seen.gradient_norm < whole.gradient_norm
    assert all((a[0] == at[0][0]).all() for a in at)
    assert not (at[0][1] == at[1][1]).all()


def test_a_parameter_that_the_loss_does_not_use_feels_only_weight_decay():
    model = noisy_net()
    without = probe(model, images(), [0.1])
    model.unused = nn.Linear(2, 2)
    model.unused.initialize(0, dtype=np.float64)
    model.forward = lambda x: nn.Sequential.forward(noisy_net_of(model), x)
    assert_same(probe(model, images(), [0.1]), without)
    decayed = probe(model, images(), [0.1], weight_decay=2.0)
    assert decayed.loss == pytest.approx(
        without.loss + sum((p.data**2).sum() for p in model.parameters() if p.ndim > 1)
    )


def noisy_net_of(model):
    """The same network without its last part."""
    return nn.Sequential(**dict(list(model.children())[:-1]))


# -- what is not finite, and what cannot be asked


@pytest.mark.parametrize("mode", ["reference", "fast"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_reported_and_no_error(bad, mode):
    model = lived(noisy_net(np.float32), images(dtype=np.float32)[0])
    model.conv1.weight.data[0, 0, 0, 0] = bad
    with kernels(mode), untouched(model):
        for direction in DIRECTIONS:
            seen = probe(model, images(dtype=np.float32), [0.0, 0.1], direction=direction)
            assert not np.isfinite([seen.loss, *seen.losses]).any()
            assert math.isnan(seen.effective_beta) and not (seen.saturated or seen.at_ceiling)


def test_a_step_that_leaves_the_numbers_behind_spoils_only_its_own_entry():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).initialize(0)
    x, labels = np.ones((2, 4), np.float32), np.array([0, 1])
    seen = probe(model, (x, labels), [0.1, 1e30, 1e300, 0.1])
    assert np.isfinite(seen.losses[[0, 3]]).all() and not np.isfinite(seen.losses[2])
    assert seen.losses[0] == seen.losses[3] and seen.beta[0] == seen.beta[3]
    with untouched(model), detect_anomaly(), pytest.raises(AnomalyError):
        probe(model, (x, labels), [1e300])


def test_an_empty_batch_and_one_example_with_batchnorm_are_the_layers_errors():
    x, labels = images()
    model = lived(noisy_net(), x)
    mlp = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm(2)).initialize(0)
    with untouched(model), pytest.raises(ShapeError, match=r"\(0, 6, 6, 3\) has fewer"):
        probe(model, (x[:0], labels[:0]), [0.1])
    with untouched(mlp), pytest.raises(ShapeError, match=r"\(1, 2\) has fewer than two values"):
        probe(mlp, (np.ones((1, 2), np.float32), labels[:1]), [0.1])
    alone = nn.Sequential(nn.Linear(2, 2)).initialize(0)
    assert probe(alone, (np.ones((1, 2), np.float32), np.array([0])), [0.1]).losses.size == 1


@pytest.mark.parametrize("etas", [
    [], [-0.1], [math.nan], [math.inf], ["a"], [None], [1j], None, 0.5, [[0.1, 0.2]], "ab",
])  # fmt: skip
def test_step_sizes_that_are_none_are_an_error_of_one_line(etas):
    with pytest.raises(ValueError, match=r"probe: step_sizes=.* must be finite numbers") as caught:
        probe(noisy_net(), images(), etas)
    assert "\n" not in str(caught.value)


def test_step_sizes_may_come_from_a_generator_and_as_an_array():
    seen = probe(noisy_net(), images(), (0.1 * k for k in range(3)))
    assert_same(probe(noisy_net(), images(), 0.1 * np.arange(3)), seen)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"direction": "downhill"}, "direction='downhill' is none of gradient, random, filter"),
        ({"direction": None}, "direction=None"),
        ({"loss": lambda y, t: y}, r"loss is a Tensor of shape \(5, 3\).*scalar"),
        ({"loss": lambda y, t: 1.0}, "loss is float; it must be a scalar Tensor"),
        ({"loss": lambda y, t: np.float64(1)}, "loss is float64; it must be a scalar Tensor"),
        ({"batch": images()[0]}, r"batch is a ndarray; it must be \(x, targets\)"),
        ({"batch": (*images(), 1)}, r"must be \(x, targets\)"),
        ({"probe_batch": images()[0]}, r"must be \(x, targets\)"),
        ({"weight_decay": -1}, "weight_decay=-1 must be"),
        ({"weight_decay": math.nan}, "weight_decay=nan must be"),
        ({"model": nn.Sequential(nn.ReLU())}, "Sequential has no parameter that"),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_one_line(change, said):
    model = lived(noisy_net(), images()[0])
    asked = {"model": model, "batch": images(), "step_sizes": [0.1], **change}
    with untouched(model), pytest.raises(ValueError, match=said) as caught:
        probe(**asked)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_drawn_yet_are_an_error_that_says_how_to_draw_them():
    with pytest.raises(RuntimeError, match=r"has no values yet\. Call model"):
        probe(nn.Sequential(nn.Linear(2, 3)), (np.eye(2), np.array([0, 1])), [0.1])


def test_tensors_may_be_the_batch_and_get_no_gradient():
    x, labels = images()
    given_x = Tensor(x, requires_grad=True)
    assert_same(
        probe(noisy_net(), (given_x, labels), [0.1]), probe(noisy_net(), (x, labels), [0.1])
    )
    assert given_x.grad is None
