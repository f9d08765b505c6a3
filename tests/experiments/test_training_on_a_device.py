"""A run on a GPU: captured or not, interrupted and continued, watched or not, the same files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from studies import ONE, assert_same_study, main
from support.cuda import on_cuda

from experiments import deep_linear
from experiments.training.device_steps import graphs
from experiments.training.loop import train
from experiments.training.recorders import Recorder
from experiments.training.step import Step
from experiments.training.study import Run, Study
from minibn import nn, optim
from minibn.autograd.tensor import value
from minibn.data import Batches, pad_crop_flip
from minibn.fast.cuda.graph import Graph

STEPS = 12


class Watching(Recorder):
    """Looks into a step now and then, and at the host's copy of its batch."""

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        if step.number % 7:
            yield
            return
        seen: list[Any] = []
        with step.model[2].watch(lambda module, inputs, output: seen.append(value(output))):
            yield
        (y,) = seen
        step.run.stream("seen").append(
            {"step": step.number, "mean": float(y.mean().item()), "bytes": int(step.inputs.sum())}
        )


def trained(folder: Path, graph: str, steps: int = STEPS) -> dict[str, bytes]:
    """The files of a run of a small noisy network, up to `steps`."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm(4),
        nn.Noise(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 10),
    ).initialize(0)
    optimizer = optim.SGD(optim.decay_groups(model, 0.01), lr=0.1, momentum=0.9)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 4, 4, 3), np.uint8)
    batches = Batches(images, rng.integers(0, 10, 13), 4, seed=1, augment=pad_crop_flip)
    run = Run(folder)
    run.begin({})
    with graphs(graph):
        train(run, model, optimizer, batches, steps=steps, recorders=[Watching()])
    files = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    del files["timings.jsonl"]
    state = {**model.state_dict(), **optimizer.state_dict()}
    return files | {name: array.tobytes() for name, array in state.items()}


@on_cuda
def test_a_captured_run_writes_the_same_files(backend, tmp_path):
    with patch.object(Graph, "launch", autospec=True, side_effect=Graph.launch) as launch:
        captured = trained(tmp_path / "on", "on")
    assert launch.call_count >= STEPS - 6, "all but the first steps, and the watched ones"
    assert captured == trained(tmp_path / "off", "off")
    assert len(captured["metrics.jsonl"].splitlines()) == STEPS
    assert len(captured["seen.jsonl"].splitlines()) == 2


@pytest.mark.parametrize("at", [1, 6, 9])  # before a capture, after it, and after a watched step
@on_cuda
def test_a_run_that_is_continued_goes_on_bit_for_bit_whatever_was_captured(backend, at, tmp_path):
    whole = trained(tmp_path / "whole", "auto")
    trained(tmp_path / "parts", "auto", steps=at)
    assert trained(tmp_path / "parts", "auto") == whole
    trained(tmp_path / "mixed", "off", steps=at)
    assert trained(tmp_path / "mixed", "auto") == whole


@on_cuda
def test_no_batch_is_made_on_the_host_unless_somebody_looks(backend, tmp_path):
    with patch.object(Batches, "batch", autospec=True, side_effect=Batches.batch) as batch:
        trained(tmp_path / "run", "auto")
    assert batch.call_count == 2, "for the two steps that were watched"


def test_graph_is_no_part_of_a_study(tmp_path):
    """All three give the same numbers: a study goes on with any."""
    study = tmp_path / "study"
    assert main(*ONE, "--steps", 2, "--graph", "off", "--out", study) == 0
    assert "graph" not in Study(study).settings
    assert main("--resume", study, "--steps", 4, "--graph", "auto") == 0
    assert main(*ONE, "--steps", 4, "--out", tmp_path / "whole") == 0
    assert_same_study(study, tmp_path / "whole")


@pytest.mark.parametrize(
    "given, why",
    [
        ("on", "needs a GPU: --backend cupy"),
        ("on --backend strict", "needs a GPU: --backend cupy"),
        ("of", "Did you mean 'off'?"),
    ],
)
def test_a_graph_that_there_can_not_be_is_refused(given, why, tmp_path, capsys):
    assert main(*ONE, "--steps", 2, "--graph", *given.split(), "--out", tmp_path / "study") == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@on_cuda
def test_definitions_alone_are_refused_a_graph(backend, tmp_path, capsys):
    given = ("--graph", "on", "--kernels", "reference", "--backend", backend.name)
    assert main(*ONE, "--steps", 2, *given, "--out", tmp_path / "study") == 2
    assert "only kernels are captured" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@on_cuda
def test_what_is_trained_in_float64_is_refused_a_graph(backend, tmp_path, capsys):
    given = ["--graph", "on", "--quick", "--backend", backend.name]
    assert deep_linear.main([*given, "--out", str(tmp_path / "study")]) == 2
    assert "--graph on: the deep linear network trains in float64" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
