"""The grid of learning rates, trained: what is run, what is measured, kills, bad input."""

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import leftovers, run_here, runs, signalled

from experiments import learning_rates
from experiments.learning_rates import Moments, Settings, ascending
from experiments.training.session import preset
from experiments.training.step import Step
from experiments.training.study import Run
from experiments.vgg import runs as vgg_runs
from experiments.views import learning_rates as learning_rates_figures
from minibn import optim
from minibn.autograd.tensor import value
from reference_models.vgg import vgg

TINY = [
    *("--data", "shapes", "--train-size", "40", "--test-size", "20", "--model", "vgg11"),
    *("--width", "0.03125", "--batch-size", "16", "--threads", "1", "--checkpoint-every", "2"),
    *("--moments-steps", "3", "--seed", "0"),
]
GRID = [*TINY, "--variants", "standard", "batchnorm", "--lr", "0.1", "0.05", "--steps", "5"]


main = partial(run_here, learning_rates, learning_rates_figures, plot=True)
main_without_figures = partial(run_here, learning_rates, learning_rates_figures)


# What is run


def fake_runs(fate: Callable[[Any], bool], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace training: a plan diverges if `fate` says so. Returns where the names will stand."""
    called: list[str] = []

    def run(s: Settings, folder: Run, plan: Any, *others: Any) -> dict[str, Any]:
        called.append(plan.name)
        result = {"status": "diverged", "step": 1} if fate(plan) else {"status": "done", "steps": 5}
        folder.finish(result)
        return result

    monkeypatch.setattr(vgg_runs, "run", run)
    return called


def test_above_a_rate_at_which_every_seed_diverged_a_variant_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fate(plan: Any) -> bool:
        return plan.variant == "standard" and (plan.lr >= 2 or (plan.lr == 1 and plan.seed == 0))

    called = fake_runs(fate, monkeypatch)
    rates = ("--lr", 4, 1, 2, 8, "--seed", 0, 1, "--variants", "standard", "batchnorm")
    assert main_without_figures(*TINY, *rates, "--out", tmp_path / "study") == 0
    mine = [name for name in called if name.startswith("standard")]
    assert mine == [f"standard-lr{lr}-seed{seed}" for lr in (1, 2) for seed in (0, 1)]
    assert sum(name.startswith("batchnorm") for name in called) == 8
    shown = capsys.readouterr().out
    assert "standard: not run above 2, where every seed diverged" in shown
    assert "batchnorm: not run" not in shown


def test_rates_are_run_from_the_smallest_up(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Settings(variants=("standard", "l1"), lr=(0.4, 0.1, 0.2), seed=(0, 1))
    rates = [plan.lr for plan in ascending(s)]
    assert rates == sorted(rates) and len(rates) == 12


def test_a_tiny_study_ends_with_figures_tables_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "study"
    arguments = [*TINY, "--variants", "standard", "--lr", 1e10, 0.05, 1e9, "--steps", 4]
    assert main(*arguments, "--out", folder) == 0
    tame, wild = runs(folder)
    assert (tame.name, wild.name) == ("standard-lr0.05-seed0", "standard-lr1e+09-seed0")
    assert tame.config["experiment"] == "learning_rates"
    step = (wild.result or {})["step"]
    assert [r["step"] for r in tame.records("moments")] == [0, 1, 2], "the first three steps"
    assert [r["step"] for r in wild.records("moments")] == list(range(min(step, 3)))
    assert [r["updates"] for r in tame.records("test")] == [4]
    assert not any(run.checkpoint_path.exists() for run in (tame, wild))
    assert not (tame.folder / "distributions.jsonl").exists()
    table = (folder / "table.md").read_text()
    assert f"diverged at step {step} | not run |" in table
    assert table.strip() in capsys.readouterr().out
    for name in ("learning_rates", "divergence"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    content = json.loads((folder / "summary.json").read_text())
    assert content["grid"] == [0.05, 1e9, 1e10]
    assert content["largest_without_divergence"] == {"standard": {"0": 0.05}}
    assert [r["status"] for r in content["runs"]][1:] == ["diverged"]
    assert content["runs"][1]["loss"] is None and content["runs"][1]["step"] == step
    assert content["seconds"] >= 0 and "data_dir" not in content["settings"]


def test_more_steps_begin_again_and_repeat_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    arguments = [*TINY, "--variants", "batchnorm", "--lr", 0.05]
    assert main_without_figures(*arguments, "--steps", 3, "--out", folder) == 0
    (run,) = runs(folder)
    before = run.records("metrics")
    assert main_without_figures("--resume", folder, "--steps", 5) == 0
    assert run.result == {"status": "done", "steps": 5}
    assert run.records("metrics")[:3] == before and len(run.records("metrics")) == 5


# Moments


def seen_by(recorder: Moments, run: Run, number: int = 0, scale: float = 1.0) -> Any:
    """Let the recorder watch one forward pass of a small VGG; returns (model, x)."""
    model = vgg("vgg11", width=1 / 32, norm="batch").initialize(0)
    first = dict(model.named_parameters())["conv1.weight"]
    first.data[...] *= scale
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    run.folder.mkdir(parents=True, exist_ok=True)
    step = Step(run, model, optim.SGD(model.parameters(), 0.1), number, images, np.arange(4))
    with recorder.during(step):
        model(step.batch[0])
    run.stream("moments").flush()
    return model, step.batch[0]


def test_moments_are_those_of_what_each_layer_puts_out_before_its_norm(tmp_path: Path) -> None:
    model, x = seen_by(Moments(1), Run(tmp_path / "run"))
    (record,) = Run(tmp_path / "run").records("moments")
    assert len(record["mean"]) == len(record["var"]) == 9, "eight convolutions, one linear layer"
    children = dict(model.children())
    y = value(children["conv1"](x)).astype(np.float64).reshape(-1, 2)
    assert record["mean"][0] == pytest.approx(np.abs(y.mean(0)).mean(), rel=1e-5)
    assert record["var"][0] == pytest.approx(y.var(0).mean(), rel=1e-5)


def test_moments_are_finite_where_their_squares_are_not_in_float32(tmp_path: Path) -> None:
    with np.errstate(all="ignore"):  # as in training
        seen_by(Moments(1), Run(tmp_path / "run"), scale=1e25)
    (record,) = Run(tmp_path / "run").records("moments")
    assert record["var"][0] > 1e40


def test_moments_are_not_looked_at_after_the_first_steps(tmp_path: Path) -> None:
    seen_by(Moments(3), Run(tmp_path / "run"), number=3)
    assert Run(tmp_path / "run").records("moments") == []


# Kill and resume


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted study of GRID."""
    folder = tmp_path_factory.mktemp("rates") / "study"
    assert main_without_figures(*GRID, "--out", folder) == 0
    return folder


@pytest.mark.parametrize(
    ("at", "name", "code"),
    [(4, "SIGKILL", -signal.SIGKILL), (6, "SIGKILL", -signal.SIGKILL), (13, "SIGTERM", 130)],
)
def test_a_study_that_is_stopped_and_continued_equals_one_that_nobody_disturbed(
    at: int, name: str, code: int, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    stopped = signalled(learning_rates, learning_rates_figures, at, name, *GRID, "--out", folder)
    assert stopped.returncode == code, stopped.stderr
    assert sum(run.result is not None for run in runs(folder)) < 4
    assert main_without_figures("--resume", folder) == 0
    assert [r.name for r in runs(folder)] == [r.name for r in runs(whole)]
    for ours, theirs in zip(runs(folder), runs(whole), strict=True):
        assert ours.result == theirs.result == {"status": "done", "steps": 5}
        for stream in ("metrics", "moments", "test"):
            file = f"{stream}.jsonl"
            assert (ours.folder / file).read_text() == (theirs.folder / file).read_text(), file
    assert leftovers(folder) == []


def test_what_is_finished_is_not_trained_again(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(vgg_runs, "train", None)
    assert main_without_figures("--resume", whole) == 0
    assert "0 of 4 runs to do, 0 steps" in capsys.readouterr().out


# Bad input

REFUSED = {
    "--moments-steps -1": "--moments-steps -1 must be at least 0",
    "--record-every 3": "unknown argument '--record-every'",
    "--lr 0.1 -0.2": "--lr -0.2 must be above 0",
    "--lr 0.1 0.10": "--lr names something twice",
    "--variants l3": "'l3' is unknown. There are standard",
    "--steps 0": "--steps 0 must be at least 1",
    "--batch-size 41": "--batch-size 41 is more than the 40 training images. Use a smaller",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_arguments_are_refused_in_one_line_and_nothing_is_written(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(*TINY, "--out", "study", *given.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.learning_rates: ") and REFUSED[given] in line
    assert os.listdir(tmp_path) == []


def test_the_quick_preset_is_small_and_flags_go_before_it() -> None:
    quick = preset(Settings, learning_rates.QUICK, {"quick": True, "steps": 7})
    assert (quick.data, quick.width, quick.steps) == ("shapes", 0.125, 7)
    assert len(quick.variants) * len(quick.lr) * len(quick.seed) * 300 <= 5000, "steps in all"
