"""Helpers for tests of experiments: a tiny study, running it, comparing two of them.

A tiny study has everything that a resumed run must get right: momentum, weight decay, noise,
running statistics, several recorders, several runs, and intervals that don't divide each other.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from few_products import few_products

from experiments import vgg_cifar
from experiments.training.command_line import parse
from experiments.training.session import preset
from experiments.training.study import Run, Study
from experiments.vgg import runs as vgg_runs
from experiments.vgg.settings import Settings
from experiments.views import vgg as vgg_figures
from minibn import checkpoint

KILLED = Path(__file__).with_name("killed.py")
STEPS = 8

SMALL = [
    *("--data", "shapes", "--train-size", "40", "--test-size", "20"),
    *("--model", "vgg11", "--width", "0.03125", "--batch-size", "8", "--augment"),
    *("--lr", "0.05", "--momentum", "0.9", "--weight-decay", "0.001", "--threads", "1"),
    *("--eval-every", "3", "--record-every", "3", "--checkpoint-every", "3"),
    *("--probe-every", "4", "--probe-directions", "gradient", "random"),
    *("--probe-sizes", "0.5", "2", "--shift-every", "5", "--curvature-every", "6"),
]
ONE = [*SMALL, "--variants", "noisy-batchnorm"]
TWO = [*SMALL, "--variants", "noisy-batchnorm", "standard"]


def settings(*arguments: str) -> Settings:
    """The settings that a command line gives."""
    given = parse(Settings, arguments, program="test", description="")
    return preset(Settings, vgg_cifar.QUICK, given)


def run_here(experiment: Any, figures: Any, *arguments: object, plot: bool = False) -> int:
    """`python -m experiments.NAME` in this process, without its figures: they take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg_runs, "Curvature", few_products)
        if not plot:
            patch.setattr(figures, "plot", lambda studies: None)
        return experiment.main([str(a) for a in arguments])


main = partial(run_here, vgg_cifar, vgg_figures)


def killed(moment: str, *arguments: object) -> subprocess.CompletedProcess:
    """`main` in a process of its own, which is killed at `moment` (see killed.py)."""
    command = [sys.executable, "-W", "error", KILLED, moment, *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)


SIGNALLED = """
import importlib, os, signal, sys
from experiments.training import loop
experiment, figures = map(importlib.import_module, sys.argv[1:3])
real, left = loop.one_step, int(sys.argv[3])
def one_step(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))
    return real(*arguments)
loop.one_step = one_step
figures.plot = lambda studies: None
sys.exit(experiment.main(sys.argv[5:]))
"""


def signalled(
    experiment: Any, figures: Any, at: int, name: str, *arguments: object
) -> subprocess.CompletedProcess:
    """`experiment.main` in a process of its own, without its figures, which gets the signal of this
    name at its `at`-th training step."""
    words = [experiment.__name__, figures.__name__, at, name, *arguments]
    command = [sys.executable, "-W", "error", "-c", SIGNALLED, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def runs(folder: Path) -> list[Run]:
    return Study(folder).runs()


def assert_same_study(one: Path, other: Path) -> None:
    """Every run of both has the same metrics, measurements, result, weights and optimizer state,
    bit for bit. Only the clock's file, and what is said of it, may differ."""
    assert [r.name for r in runs(one)] == [r.name for r in runs(other)]
    assert runs(one)
    for a, b in zip(runs(one), runs(other), strict=True):
        assert a.result == b.result, a.name
        assert a.result
        for stream in ("metrics", "test", "distributions", "landscape", "shift", "curvature"):
            file = f"{stream}.jsonl"
            ours, theirs = ((r.folder / file) for r in (a, b))
            assert ours.exists() == theirs.exists(), (a.name, file)
            if ours.exists():
                assert ours.read_text() == theirs.read_text(), (a.name, file)
        assert a.checkpoint_path.exists() == b.checkpoint_path.exists()
        if a.checkpoint_path.exists():
            assert_same_checkpoint(a.checkpoint_path, b.checkpoint_path)
            ours, theirs = (checkpoint.load(r.checkpoint_path)[0]["streams"] for r in (a, b))
            for name in ours.keys() - {"timings"}:
                if (a.folder / f"{name}.jsonl").exists():
                    assert ours[name] == theirs[name], (a.name, name)


def assert_same_checkpoint(one: Path, other: Path) -> None:
    (manifest, states), (expected, others) = checkpoint.load(one), checkpoint.load(other)
    for streams in (manifest, expected):
        streams.pop("streams")  # which differ in the clock's, and by what is measured
    assert manifest == expected
    assert set(states) == {"model", "optimizer"} == set(others)
    for part, state in states.items():
        assert list(state) == list(others[part])
        for name, array in state.items():
            assert array.tobytes() == others[part][name].tobytes(), (one, part, name)
            assert array.dtype == others[part][name].dtype
    assert any(np.any(a) for name, a in states["optimizer"].items() if name != "steps")


def leftovers(folder: Path) -> list[str]:
    """The files that a killed writer left."""
    return sorted(p.name for p in folder.rglob(".*"))
