"""Captured steps: bit for bit what the steps would be that nobody captured, whatever happens."""

import gc
import weakref
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from support.cuda import on_cuda
from support.waiting import nothing_waits

from experiments.running.captured import RESTLESS, WARM_UP
from experiments.running.command_line import UsageError
from experiments.running.on_device import StepOnDevice, graphs, on_device
from experiments.running.step import CLASSIFY, Task, one_step
from minibn import detect_anomaly, kernels, nn, optim, precision, profile, to_numpy
from minibn.backend.cuda.graph import Graph
from minibn.data import Batches, pad_crop_flip

LAYERS = {
    "conv1": lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False),
    "norm1": lambda: nn.BatchNorm(4),
    "noise1": lambda: nn.Noise(),
    "relu1": lambda: nn.ReLU(),
    "pool1": lambda: nn.MaxPool2d(2),
    "flatten": lambda: nn.Flatten(),
    "linear2": lambda: nn.Linear(4 * 3 * 3, 10),
}


def network(**other):
    """A small network; `other` replaces layers, or leaves them out (None)."""
    makers = {**LAYERS, **other}
    layers = {name: make() for name, make in makers.items() if make is not None}
    return nn.Sequential(**layers).initialize(0).train()


def batches_of(augment=pad_crop_flip):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 6, 6, 3), np.uint8)
    return Batches(images, rng.integers(0, 10, 13), 4, seed=1, augment=augment)


def optimizer_of(model, **settings):
    groups = optim.decay_groups(model, 0.01)
    return optim.SGD(groups, lr=0.1, **{"momentum": 0.9, **settings})


class Training:
    """A model with its steps: captured ("auto") or not ("off"); a rate that changes."""

    def __init__(self, graph, model=None, optimizer=None, **settings):
        self.model = network() if model is None else model
        self.optimizer = optimizer_of(self.model, **settings) if optimizer is None else optimizer
        self.step = StepOnDevice(self.model, self.optimizer, batches_of(), graph)
        self.number, self.seen = 0, []

    def run(self, steps):
        for _ in range(steps):
            self.optimizer.lr = 0.1 / (1 + self.number % 5)
            self.seen.append(self.step(self.number))
            self.number += 1
        return self

    @property
    def replays(self):
        return self.captured.captured

    @property
    def captured(self) -> Any:
        return self.step.step

    @property
    def result(self):
        """Everything there is afterwards, as bytes."""
        results = [to_numpy(r) for step in self.seen for r in step]
        state = {**self.model.state_dict(), **self.optimizer.state_dict()}
        return [r.tobytes() for r in results] + [(k, v.tobytes()) for k, v in state.items()]


BEFORE = WARM_UP + 2  # steps after which a training with momentum replays


def both(change=lambda training: None, steps=4, **settings):
    """(captured, not captured) after `change` in the middle of a training, and `steps` more."""
    found = []
    for graph in ("auto", "off"):
        training = Training(graph, **settings).run(BEFORE + 1)
        change(training)
        found.append(training.run(steps))
    assert found[0].result == found[1].result
    return found[0]


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.0}, {"nesterov": True}])
@on_cuda
def test_ten_replays_are_ten_steps_bit_for_bit(backend, settings):
    launched: list[None] = []
    real = Graph.launch
    with patch.object(Graph, "launch", lambda graph: launched.append(real(graph))):
        training = both(steps=10, **settings)
    assert training.replays and len(launched) >= 10
    assert len({to_numpy(loss).item() for loss, _ in training.seen}) > 10, "no two are alike"


@on_cuda
def test_the_first_steps_are_those_of_one_step_from_the_host(backend):
    training, model = Training("auto").run(6), network()
    optimizer, batches = optimizer_of(model), batches_of()
    for number, (loss, score) in enumerate(training.seen):
        optimizer.lr = 0.1 / (1 + number % 5)
        expected = one_step(model, optimizer, *batches.batch(number))
        assert [to_numpy(r).item() for r in expected] == [to_numpy(r).item() for r in (loss, score)]


@on_cuda
def test_a_replay_waits_for_nothing(backend):
    training = Training("auto").run(BEFORE + 1)
    with nothing_waits(backend) as waited:
        training.run(3)
    assert training.replays and waited == []


@on_cuda
def test_what_the_host_counts_moves_along(backend):
    training = Training("auto").run(BEFORE + 3)
    model = training.model
    assert int(model.norm1.batches.data) == int(model.noise1.step.data) == BEFORE + 3
    assert training.optimizer.steps == BEFORE + 3
    for state in (model.conv1.weight, model.norm1.running_mean):
        before = state.version.count
        training.run(1)
        assert state.version.count == before + 1
    assert all(p.grad is None for p in model.parameters())


@on_cuda
def test_results_are_not_overwritten_by_the_next_replay(backend):
    training = Training("auto").run(BEFORE + 4)
    one = [to_numpy(loss).item() for loss, _ in training.seen]
    training.run(3)
    assert [to_numpy(loss).item() for loss, _ in training.seen[: len(one)]] == one


@on_cuda
def test_a_graph_and_its_memory_go_with_the_training(backend):
    training = Training("auto").run(BEFORE + 1)
    graph, images = weakref.ref(training.captured._replay), weakref.ref(training.step.data)
    gc.disable()
    try:
        del training
        assert graph() is None and images() is None, "without waiting for a collection"
    finally:
        gc.enable()


# What changes what a step does: it is captured anew, or made as it comes


def load_states(training):
    """A checkpoint of another moment: other weights, counters, velocities."""
    other = Training("off").run(3)
    training.model.load_state_dict(other.model.state_dict())
    training.optimizer.load_state_dict(other.optimizer.state_dict())


def forget_velocities(training):
    training.optimizer.load_state_dict({"steps": np.array(5)})


def new_arrays(training):
    for p in training.model.parameters():
        p.data = p.data.copy() * 2


def draw_anew(training):
    training.model.initialize(1)


def another_layer(training):
    training.model.relu1 = nn.Sequential(nn.ReLU(), nn.Noise()).initialize(3)


def frozen(training):
    training.model.conv1.weight.requires_grad = False


def another_decay(training):
    training.optimizer.groups[0]["weight_decay"] = 0.5


def another_scale(training):
    training.optimizer.groups[1]["lr_scale"] = 3.0


def norm_in_eval_mode(training):
    training.model.norm1.eval()


def all_in_eval_mode(training):
    training.model.eval()


def not_tracking(training):
    training.model.norm1.tracking = False


def another_eps(training):
    training.model.norm1.eps = 0.1


def another_momentum_of_the_norm(training):
    training.model.norm1.momentum = 0.5


def counters_elsewhere(training):
    training.model.noise1.step.data[...] = 100
    training.model.norm1.batches.data[...] = 3


def counters_back(training):
    for counter in (training.model.noise1.step, training.model.norm1.batches):
        counter.data[...] = 1


def steps_elsewhere(training):
    training.number = 40


CHANGES = [
    load_states, forget_velocities, new_arrays, draw_anew, another_layer, frozen, another_decay,
    another_scale, norm_in_eval_mode, all_in_eval_mode, not_tracking, another_eps,
    another_momentum_of_the_norm, counters_elsewhere, counters_back, steps_elsewhere,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@on_cuda
def test_no_change_makes_a_graph_stale(backend, change):
    assert both(change, steps=BEFORE + 2).replays, "and afterwards it is captured again"


@on_cuda
def test_the_parts_of_a_new_layer_are_seen_too(backend):
    def change(training):
        another_layer(training)
        training.run(BEFORE + 1)
        training.model.relu1[1].eval()

    both(change)


@on_cuda
def test_counters_that_moved_together_need_no_new_graph(backend):
    training = Training("auto").run(BEFORE + 1)
    graph = training.captured._replay
    counters_back(training)
    training.run(2)
    assert training.captured._replay is graph


@pytest.mark.parametrize(
    "around", [lambda: kernels("lean"), lambda: kernels("reference"), lambda: precision("bf16")]
)
@on_cuda
def test_other_kernels_or_another_precision_do_not_replay_what_was_captured(backend, around):
    def change(training):
        with around():
            training.run(2)

    both(change)


@pytest.mark.parametrize("look", [detect_anomaly, profile])
@on_cuda
def test_who_looks_at_ops_sees_a_step_as_it_comes_and_the_graph_stays(backend, look):
    training = Training("auto").run(BEFORE + 1)
    graph = training.captured._replay
    with look(), patch.object(Graph, "launch", side_effect=AssertionError("replayed")):
        training.run(2)
    training.run(1)
    assert training.captured._replay is graph


@on_cuda
def test_a_watched_step_is_made_as_it_comes_and_the_graph_stays(backend):
    seen = []

    def change(training):
        with training.model.relu1.watch(lambda module, inputs, output: seen.append(output)):
            training.run(2)

    training = both(change)
    assert len(seen) == 4, "two steps of either training"
    graph = training.captured._replay
    change(training)
    assert training.run(1).captured._replay is graph


@on_cuda
def test_measurements_between_steps_leave_no_trace(backend):
    from minibn.analysis import probe

    def change(training):
        images, labels = batches_of().batch(0)
        probe(training.model, CLASSIFY.prepare(images, labels), [0.1])

    graph = both(change).captured._replay
    assert graph is not None


@on_cuda
def test_frozen_statistics_are_estimated_again_when_they_are_forgotten(backend):
    def change(training):
        training.model.norm1.batches.data[...] = 0

    def once(graph):
        model = network(norm1=lambda: nn.FrozenBatchNorm(4))
        training = Training(graph, model=model).run(BEFORE + 1)
        change(training)
        return training.run(BEFORE + 1)

    captured = once("auto")
    assert captured.replays
    assert captured.result == once("off").result


# What can't be captured


def refusals(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith("Steps are made one launch after another")]


class Twice(nn.Module):
    """A layer that is called twice in a step."""

    def __init__(self):
        self.noise = nn.Noise()

    def forward(self, x):
        return self.noise(self.noise(x))


class Looking(nn.Module):
    def forward(self, x):
        assert np.isfinite(to_numpy(x.data)).all()
        return x


class Bringing(nn.Module):
    def __init__(self, backend):
        self._asarray = backend.asarray

    def forward(self, x):
        return x * self._asarray(np.full(x.shape[-1], 2.0, np.float32))


class Growing(nn.Module):
    """A layer that has another part after each step."""

    def forward(self, x):
        self.last = x
        return x


class Multiplying(nn.Module):
    def forward(self, x):
        x.data @ x.data.swapaxes(2, 3)
        return x


def adam(model):
    return optim.Adam(model.parameters(), 0.01)


CASES: dict[str, Any] = {
    "momentum=None": ({"norm1": lambda: nn.BatchNorm(4, momentum=None)}, None, "norm1 averages"),
    "draws twice": ({"noise1": Twice}, None, "noise1.noise moves its draws by 2"),
    "draws never move": (
        {"noise1": lambda: nn.Noise(in_eval=True).eval()}, None, "noise1 moves its draws by 0"
    ),
    "waits": ({"relu1": Looking}, None, "to_numpy waits for the device"),
    "cuBLAS": ({"relu1": Multiplying}, None, "matmul goes through cuBLAS"),
    "Adam": ({}, adam, "the rate of Adam"),
    "not all are trained": (
        {}, lambda model: optim.SGD(model.conv1.parameters(), 0.1), "norm1.gamma adds up"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@on_cuda
def test_what_can_not_be_captured_is_told_once_and_made_as_it_comes(backend, case, capsys):
    other, make, why = CASES[case]

    def once(graph):
        model = network(**other)
        if case == "draws never move":
            model.noise1.eval()
        return Training(graph, model, (make or optimizer_of)(model)).run(BEFORE + 4)

    captured = once("auto")
    (line,) = refusals(capsys)
    assert why in line or backend.name == "cupy"
    assert not captured.replays
    assert captured.result == once("off").result


@on_cuda
def test_what_is_brought_to_the_device_in_a_step_can_not_be_captured(backend, capsys):
    if backend.name == "cupy":
        pytest.skip("CuPy captures a copy from the host: kernels and layers must not bring any")
    model = network(relu1=lambda: Bringing(backend))
    assert not Training("auto", model).run(BEFORE + 2).replays
    assert "was brought to the device" in refusals(capsys)[0]


@on_cuda
def test_a_model_that_is_another_at_each_step_is_never_captured_and_told_once(backend, capsys):
    model = network(relu1=Growing)
    assert not Training("auto", model).run(2 * RESTLESS).replays
    (line,) = refusals(capsys)
    assert "other objects at each step" in line


class Late(nn.Module):
    """A scale that is used from the step on that is captured."""

    def __init__(self):
        self.scale = nn.Parameter((4,), nn.init.ones)
        self._calls = []

    def forward(self, x):
        self._calls.append(1)
        return x * self.scale if len(self._calls) >= BEFORE else x


@on_cuda
def test_a_velocity_that_begins_in_the_captured_step_is_not_captured(backend, capsys):
    """It would be zero again in every replay."""

    def once(graph):
        return Training(graph, network(relu1=Late)).run(2 * BEFORE)

    captured = once("auto")
    assert "arrays of its own that last" in refusals(capsys)[0]
    assert captured.replays, "it was captured later"
    assert captured.result == once("off").result


@on_cuda
def test_a_failure_in_the_middle_of_a_capture_leaves_everything_as_it_was(backend, capsys):
    calls = []

    class Failing(nn.Module):
        def forward(self, x):
            calls.append(1)
            if len(calls) == BEFORE:  # the one that is captured
                raise RuntimeError("no capture, please.\nMore lines.")
            return x

    model = network(relu1=Failing)
    captured = Training("auto", model).run(BEFORE + 3)
    assert not captured.replays
    assert refusals(capsys)[0].endswith("without a CUDA graph: no capture, please")
    calls.clear()
    calls += [1] * 100
    assert captured.result == Training("off", network(relu1=Failing)).run(BEFORE + 3).result


@on_cuda
def test_an_interruption_in_a_capture_leaves_everything_as_it_was(backend):
    training = Training("auto").run(BEFORE - 1)
    before = training.result
    stopped = patch.object(nn.Flatten, "forward", side_effect=KeyboardInterrupt)
    with stopped, pytest.raises(KeyboardInterrupt):
        training.run(1)
    assert training.result == before and training.optimizer.lr != 1.0
    assert all(p.grad is None for p in training.model.parameters())
    assert training.run(4).replays
    assert training.result == Training("off").run(BEFORE + 3).result


# The choice


@on_cuda
def test_graph_on_makes_a_refusal_an_error(backend):
    model = network(norm1=lambda: nn.BatchNorm(4, momentum=None))
    with pytest.raises(UsageError, match=r"--graph on: .*norm1 averages.*--graph auto"):
        Training("on", model).run(BEFORE + 1)
    assert Training("on").run(BEFORE + 1).replays


@on_cuda
def test_only_steps_on_batches_of_images_are_made_on_the_device(backend):
    model = network()
    optimizer, batches = optimizer_of(model), batches_of()
    there = on_device(model, optimizer, batches, CLASSIFY)
    assert there and there.graph == "auto"
    other = Task(CLASSIFY.prepare, CLASSIFY.loss)
    shaken = batches_of(lambda images, rng: images)
    with graphs("off"):
        there = on_device(model, optimizer, batches, CLASSIFY)
        assert there and there.graph == "off"
        assert on_device(model, optimizer, batches, other) is None
        assert on_device(model, optimizer, shaken, CLASSIFY) is None
        with kernels("reference"):
            assert on_device(model, optimizer, batches, CLASSIFY) is None
    with graphs("on"), pytest.raises(UsageError, match="--graph on: only"):
        on_device(model, optimizer, batches, other)


def test_on_numpy_nothing_is_captured():
    model = network()
    assert on_device(model, optimizer_of(model), batches_of(), CLASSIFY) is None


@on_cuda
def test_a_label_that_the_network_has_no_output_for_is_an_error(backend):
    model = network(linear2=lambda: nn.Linear(4 * 3 * 3, 5))
    with pytest.raises(ValueError, match="labels run from"):
        Training("auto", model).run(3)
