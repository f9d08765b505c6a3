"""A change that affects a captured step: it is captured anew, or runs eagerly."""

from unittest.mock import patch

import numpy as np
import pytest
from captured_trainings import BEFORE, Training, batches_of, both, network
from support.cuda import on_cuda

from experiments.training.step import CLASSIFY
from minibn import detect_anomaly, kernels, nn, precision, profile
from minibn.fast.cuda.graph import Graph


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


@on_cuda
def test_a_replaced_forward_is_captured_anew(backend):
    """The graph holds the old layer; the new one must run."""
    calls, results = [], []
    original = nn.ReLU.forward

    def forward(self, x):
        calls.append(1)
        return original(self, x)

    for graph in ("auto", "off"):
        training = Training(graph).run(BEFORE + 1)
        with patch.object(nn.ReLU, "forward", forward):
            training.run(1)
        results.append(training.run(1).result)
    assert len(calls) > 0 and len(calls) % 2 == 0, "both ran it"
    assert results[0] == results[1]
