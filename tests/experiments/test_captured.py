"""Captured steps are bit for bit the same as eager steps."""

import gc
import weakref
from unittest.mock import patch

import pytest
from captured_trainings import BEFORE, Training, batches_of, both, network, optimizer_of
from support.cuda import on_cuda
from support.waiting import nothing_waits

from experiments.training.command_line import UsageError
from experiments.training.device_steps import device_step, graphs
from experiments.training.step import CLASSIFY, Task, one_step
from minibn import kernels, nn, to_numpy
from minibn.fast.cuda.graph import Graph


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
    there = device_step(model, optimizer, batches, CLASSIFY)
    assert there and there.graph == "auto"
    other = Task(CLASSIFY.prepare, CLASSIFY.loss)
    shaken = batches_of(lambda images, rng: images)
    with graphs("off"):
        there = device_step(model, optimizer, batches, CLASSIFY)
        assert there and there.graph == "off"
        assert device_step(model, optimizer, batches, other) is None
        assert device_step(model, optimizer, shaken, CLASSIFY) is None
        with kernels("reference"):
            assert device_step(model, optimizer, batches, CLASSIFY) is None
    with graphs("on"), pytest.raises(UsageError, match="--graph on: only"):
        device_step(model, optimizer, batches, other)


def test_on_numpy_nothing_is_captured():
    model = network()
    assert device_step(model, optimizer_of(model), batches_of(), CLASSIFY) is None


@on_cuda
def test_a_label_that_the_network_has_no_output_for_is_an_error(backend):
    model = network(linear2=lambda: nn.Linear(4 * 3 * 3, 5))
    with pytest.raises(ValueError, match="labels run from"):
        Training("auto", model).run(3)
