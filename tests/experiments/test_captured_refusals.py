"""Steps that can't be captured run eagerly, and the reason is printed."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from captured_trainings import BEFORE, Training, network, optimizer_of
from support.cuda import on_cuda

from minibn import nn, optim, to_numpy
from minibn.fast.cuda.captured_step import RESTLESS
from minibn.fast.cuda.sgd import FusedSGD


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
    """A layer with another attribute after each step."""

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
    """A scale that is first used in the step that is captured."""

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
    stopped = patch.object(FusedSGD, "update_all", side_effect=KeyboardInterrupt)
    with stopped, pytest.raises(KeyboardInterrupt):
        training.run(1)
    assert training.result == before and training.optimizer.lr != 1.0
    assert all(p.grad is None for p in training.model.parameters())
    assert training.run(4).replays
    assert training.result == Training("off").run(BEFORE + 3).result
