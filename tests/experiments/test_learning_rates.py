"""The grid of learning rates: definitions on written records, tiny studies, kills, bad input."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import leftovers, runs

from experiments import learning_rates, learning_rates_figures, vgg_runs
from experiments.learning_rates import Moments, Settings, ascending, largest_stable
from experiments.learning_rates_figures import divergence_figure, draw
from experiments.learning_rates_tables import (
    Outcome,
    barrier,
    best_rate,
    gains,
    gains_table,
    grid_table,
    largest,
    outcome,
    outcomes,
    smallest_common_rate,
    stable_table,
)
from experiments.step import Step
from experiments.study import Run, Study, write_json
from minibn import optim
from minibn.tape import value
from reference_models.vgg import vgg

TINY = [
    *("--data", "shapes", "--train-size", "40", "--test-size", "20", "--model", "vgg11"),
    *("--width", "0.03125", "--batch-size", "16", "--threads", "1", "--checkpoint-every", "2"),
    *("--moments-steps", "3", "--seed", "0"),
]
GRID = [*TINY, "--variants", "standard", "batchnorm", "--lr", "0.1", "0.05", "--steps", "5"]
STEPS, NAN = 20, math.nan


def main(*arguments: object) -> int:
    return learning_rates.main([str(a) for a in arguments])


def main_without_figures(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_rates_figures, "draw", lambda studies: None)
        return main(*arguments)


def written(
    folder: Path,
    name: tuple[str, float, int],
    losses: Iterable[float] = (1.0,) * STEPS,
    diverged: int | None = None,
    accuracy: float = 0.4,
) -> Run:
    """A run that nobody trained."""
    variant, lr, seed = name
    run = Run(folder / "runs" / f"{variant}-lr{lr:g}-seed{seed}")
    run.folder.mkdir(parents=True)
    config = {
        "variant": variant, "lr": lr, "seed": seed, "settings": {}, "data_fingerprint": "0",
        "environment": {"threads": 1},
    }  # fmt: skip
    write_json(run.folder / "config.json", config)
    losses = list(losses)[:diverged]
    for step, loss in enumerate(losses):
        record = {"step": step, "loss": loss, "accuracy": accuracy, "lr": lr}
        run.stream("metrics").append(record)
    run.stream("timings").append({"step": 0, "seconds": 1.5})
    if diverged is None:
        run.stream("test").append({"step": STEPS - 1, "updates": STEPS, "accuracy": accuracy / 2})
    run.finish(
        {"status": "done", "steps": STEPS}
        if diverged is None
        else {"status": "diverged", "step": diverged}
    )
    return run


def of(variant: str, lr: float, seed: int, status: str, train: float = 0.1) -> Outcome:
    return Outcome(variant, lr, seed, status, 1.0, train, train / 2, 7)


def a_study(
    folder: Path, *, steps: int = STEPS, grid: tuple[float, ...] = (0.1, 0.2, 0.4)
) -> Study:
    settings = {
        "model": "vgg11", "width": 0.25, "head": "linear", "data": "cifar10", "batch_size": 128,
        "steps": steps, "lr": list(grid), "data_dir": "/somewhere",
    }  # fmt: skip
    write_json(folder / "study.json", {"experiment": "learning_rates", "settings": settings})
    return Study(folder)


# The definitions


@pytest.mark.parametrize(
    ("loss", "status"),
    [(1.0, "learns"), (2.25, "learns"), (2.26, "chance"), (2.3026, "chance"), (50.0, "chance")],
)
def test_a_run_learns_if_its_loss_ends_by_a_margin_below_that_of_a_constant_answer(
    loss: float, status: str, tmp_path: Path
) -> None:
    found = outcome(written(tmp_path, ("standard", 0.1, 3), [loss] * STEPS))
    assert found == Outcome("standard", 0.1, 3, status, pytest.approx(loss), 0.4, 0.2)


def test_only_the_last_tenth_of_the_steps_decides(tmp_path: Path) -> None:
    late = outcome(written(tmp_path / "late", ("standard", 0.1, 0), [9.0] * 18 + [2.0, 1.0]))
    lost = outcome(written(tmp_path / "lost", ("standard", 0.1, 0), [1.0] * 18 + [2.3, 2.4]))
    assert late is not None and lost is not None
    assert (late.status, late.loss) == ("learns", 1.5)
    assert (lost.status, lost.loss) == ("chance", pytest.approx(2.35))


def test_a_diverged_run_counts_as_chance_and_tells_its_step(tmp_path: Path) -> None:
    found = outcome(written(tmp_path, ("standard", 6.4, 0), diverged=12))
    assert found == Outcome("standard", 6.4, 0, "diverged", math.inf, 0.1, 0.1, 12)


def test_a_run_without_an_end_has_no_outcome(tmp_path: Path) -> None:
    run = written(tmp_path, ("standard", 0.1, 0))
    (run.folder / "result.json").unlink()
    assert outcome(run) is None and outcomes([run]) == [] and largest_stable([run]) == {}


def test_the_largest_rate_that_learns_does_not_ask_what_smaller_rates_do() -> None:
    found = [
        of("standard", 0.1, 0, "chance"), of("standard", 0.2, 0, "learns"),
        of("standard", 0.4, 0, "diverged"), of("standard", 0.8, 0, "learns"),
        of("standard", 1.6, 0, "chance"), of("standard", 0.1, 1, "chance"),
    ]  # fmt: skip
    assert largest(found) == {"standard": {0: 0.8, 1: 0.0}}


def test_behind_a_rate_that_diverged_no_rate_counts_as_without_divergence() -> None:
    found = [
        of("standard", 0.1, 0, "learns"), of("standard", 0.2, 0, "chance"),
        of("standard", 0.4, 0, "diverged"), of("standard", 0.8, 0, "chance"),
        of("standard", 0.1, 1, "diverged"), of("batchnorm", 0.8, 0, "chance"),
    ]  # fmt: skip
    expected = {"standard": {0: 0.2, 1: 0.0}, "batchnorm": {0: 0.8}}
    assert largest(found, learns=False) == expected


def test_largest_stable_reads_runs(tmp_path: Path) -> None:
    found = [
        written(tmp_path, ("standard", 0.1, 0)),
        written(tmp_path, ("standard", 0.2, 0), [2.3] * STEPS),
        written(tmp_path, ("standard", 0.4, 0), diverged=2),
        written(tmp_path, ("batchnorm", 0.4, 0)),
    ]
    assert largest_stable(found) == {"standard": {0: 0.1}, "batchnorm": {0: 0.4}}
    assert largest_stable(found, learns=False) == {"standard": {0: 0.2}, "batchnorm": {0: 0.4}}


def test_the_barrier_is_the_smallest_rate_at_which_every_run_diverged() -> None:
    assert barrier([]) == math.inf
    assert barrier([(0.1, False), (0.2, True), (0.2, False)]) == math.inf
    assert barrier([(0.8, True), (0.1, False), (0.4, True), (0.2, True), (0.2, False)]) == 0.4


def test_the_best_rate_is_chosen_by_training_accuracy_over_all_seeds() -> None:
    found = [
        Outcome("l1", 0.1, 0, "learns", 1.0, 0.5, 0.9), Outcome("l1", 0.1, 1, "learns", 1.0, 0.5),
        Outcome("l1", 0.2, 0, "learns", 1.0, 0.8, 0.1), Outcome("l1", 0.2, 1, "learns", 1.0, 0.3),
        Outcome("l1", 0.4, 0, "diverged", train=0.7),
    ]  # fmt: skip
    assert best_rate(found, "l1") == 0.2
    assert best_rate(found[:2] + found[4:], "l1") == 0.1
    assert best_rate(found[4:], "l1") is None, "no run learns"


def test_the_small_common_rate_needs_every_run_of_both_to_learn() -> None:
    found = [
        of("standard", 0.1, 0, "learns"), of("standard", 0.1, 1, "chance"),
        of("standard", 0.2, 0, "learns"), of("batchnorm", 0.1, 0, "learns"),
        of("batchnorm", 0.2, 0, "learns"), of("batchnorm", 0.05, 0, "learns"),
    ]  # fmt: skip
    assert smallest_common_rate(found, ("standard", "batchnorm")) == 0.2
    assert smallest_common_rate(found[:3] + found[5:], ("standard", "batchnorm")) is None


def both() -> list[Outcome]:
    """standard is best at 0.2, batchnorm at 0.8."""
    table = {
        "standard": {0.1: 0.3, 0.2: 0.4, 0.8: None},
        "batchnorm": {0.1: 0.35, 0.2: 0.5, 0.8: 0.7},
    }
    return [
        of(v, lr, seed, "diverged" if train is None else "learns", (train or 0.1) + seed / 100)
        for v, row in table.items()
        for lr, train in row.items()
        for seed in (0, 1)
    ]


def test_the_gain_at_equal_rate_and_by_the_own_rate_add_up_to_best_against_best() -> None:
    gain = gains(both(), "batchnorm")
    assert gain is not None
    assert (gain["small_rate"], gain["base_rate"], gain["rate"]) == (0.1, 0.2, 0.8)
    assert gain["at_small_rate"] == {0: pytest.approx(0.05), 1: pytest.approx(0.05)}
    assert gain["equal_rate"] == {0: pytest.approx(0.1), 1: pytest.approx(0.1)}
    assert gain["own_rate"] == {0: pytest.approx(0.2), 1: pytest.approx(0.2)}
    text = gains_table(both())
    assert "| batchnorm | +0.050 at 0.1 | +0.100 at 0.2 | +0.200 at 0.8 |" in text
    assert "| standard |" not in text


def test_there_is_no_gain_over_a_network_that_never_learns_or_was_not_trained() -> None:
    dead = [of("standard", 0.1, 0, "chance"), of("l1", 0.1, 0, "learns", 0.4)]
    assert gains(dead, "l1") is None and gains(dead[1:], "l1") is None
    assert gains_table(dead) == gains_table(dead[1:]) == ""


def test_a_variant_that_never_learns_has_only_what_it_loses_at_equal_rate() -> None:
    found = [*both(), of("noisy-standard", 0.2, 0, "chance", 0.1)]
    assert "| noisy-standard | none | -0.300 at 0.2 | none |" in gains_table(found)


def test_the_tables_tell_edges_of_the_grid_failures_and_what_was_not_run() -> None:
    grid = (0.1, 0.2, 0.8, 1.6)
    found = [*both(), of("batchnorm", 1.6, 0, "learns", 0.2), of("batchnorm", 1.6, 1, "chance")]
    found += [of("l1", 0.1, 0, "chance")]
    stable = stable_table(found, grid)
    assert "| standard | 0.2 | 0.2 | 0.2 | 0.405 (0.400 to 0.410) | 0.203" in stable
    assert "| batchnorm | ≥ 1.6 | 0.8 (0.8 to ≥ 1.6) | 0.8 | 0.705" in stable
    assert "| l1 | 0.1 | none | none |  |  |" in stable
    rows = grid_table(found, grid).splitlines()
    assert rows[0] == "| variant | 0.1 | 0.2 | 0.8 | 1.6 |"
    assert rows[2] == "| standard | 0.305 | 0.405 | diverged at step 7 | not run |"
    assert rows[3] == "| batchnorm | 0.355 | 0.505 | 0.705 | 0.150 (1 chance) |"
    assert rows[4] == "| l1 | 0.100 (1 chance) |  |  |  |", "not yet"


# What is run


def fake_runs(fate: Callable[[Any], bool], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace training: a plan diverges if `fate` says so. Returns where the names will stand."""
    called: list[str] = []

    def run(s: Settings, study: Study, plan: Any, data: Any) -> dict[str, Any]:
        called.append(plan.name)
        study.run(plan.name).begin(learning_rates.configuration(s, plan, data))
        result = {"status": "diverged", "step": 1} if fate(plan) else {"status": "done", "steps": 5}
        study.run(plan.name).finish(result)
        return result

    monkeypatch.setattr(learning_rates, "run", run)
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

KILL = """
import os, signal, sys
from experiments import learning_rates, learning_rates_figures, training
real, left = training.one_step, int(sys.argv[1])
def one_step(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    return real(*arguments)
training.one_step = one_step
learning_rates_figures.draw = lambda studies: None
sys.exit(learning_rates.main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of GRID that nothing disturbed."""
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
    command = [sys.executable, "-W", "error", "-c", KILL, str(at), name, *GRID, "--out", folder]
    stopped = subprocess.run([str(c) for c in command], capture_output=True, timeout=300)
    assert stopped.returncode == code, stopped.stderr.decode()
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
    monkeypatch.setattr(learning_rates, "train", None)
    assert main_without_figures("--resume", whole) == 0
    assert "at most 0 of 4 runs to do, 0 steps" in capsys.readouterr().out


# Bad input

REFUSED = {
    "--moments-steps -1": "--moments-steps -1 must be at least 0",
    "--record-every 3": "unknown argument '--record-every'",
    "--lr 0.1 -0.2": "--lr -0.2 must be above 0",
    "--lr 0.1 0.10": "--lr names something twice",
    "--variants l3": "'l3' is unknown. Did you mean 'l",
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


def test_a_study_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a_study(tmp_path)
    write_json(tmp_path / "study.json", {"experiment": "vgg_cifar", "settings": {}})
    for refuse in (lambda: main("--resume", tmp_path),
                   lambda: learning_rates_figures.main([str(tmp_path)])):  # fmt: skip
        assert refuse() == 2
        assert "is a study of vgg_cifar" in capsys.readouterr().err


def test_figures_need_a_study_with_a_run_that_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    a_study(tmp_path / "empty")
    assert learning_rates_figures.main([str(tmp_path / "empty")]) == 2
    assert "has no run that ended. Continue it with --resume" in capsys.readouterr().err
    assert learning_rates_figures.main([]) == 2
    assert "which study?" in capsys.readouterr().err


# Figures


def test_studies_are_drawn_together_and_runs_in_both_count_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one, two = a_study(tmp_path / "one"), a_study(tmp_path / "two", grid=(0.1, 0.8))
    written(one.folder, ("standard", 0.1, 0))
    written(one.folder, ("standard", 0.2, 0), diverged=3)
    written(two.folder, ("standard", 0.1, 0))
    written(two.folder, ("noisy-batchnorm", 0.8, 0))
    command = [str(one.folder), str(two.folder), "--out", str(tmp_path / "out")]
    assert learning_rates_figures.main(command) == 0
    content = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(content["runs"]) == 3 and content["grid"] == [0.1, 0.2, 0.4, 0.8]
    assert content["seconds"] == 4.5
    assert (
        "| standard | 0.400 | diverged at step 3 | not run | not run |" in capsys.readouterr().out
    )
    assert not (one.folder / "table.md").exists()


def test_studies_of_different_lengths_are_not_drawn_together(tmp_path: Path) -> None:
    one, two = a_study(tmp_path / "one"), a_study(tmp_path / "two", steps=STEPS + 1)
    written(one.folder, ("standard", 0.1, 0))
    with pytest.raises(Exception, match="figures compare like with like"):
        draw([one, two])


def with_moments(run: Run, steps: Iterable[int]) -> Run:
    for step in steps:
        run.stream("moments").append({"step": step, "mean": [1.0, None], "var": [2.0**step, 1e30]})
    run.stream("moments").flush()
    return run


def test_divergence_is_drawn_only_where_the_step_before_it_was_recorded(tmp_path: Path) -> None:
    late = with_moments(written(tmp_path, ("standard", 0.4, 0), diverged=9), range(3))
    assert divergence_figure([late], outcomes([late]), tmp_path) == []
    early = with_moments(written(tmp_path, ("l1", 0.8, 0), diverged=3), range(3))
    other = with_moments(written(tmp_path, ("batchnorm", 0.8, 0)), range(3))
    found = [late, other, early]
    (path,) = divergence_figure(found, outcomes(found), tmp_path)
    assert path.name == "divergence.png"
    chosen = learning_rates_figures.diverged_and_other(found, outcomes(found))
    assert chosen == (early, [other], 3)


def test_the_quick_preset_is_small_and_flags_go_before_it() -> None:
    quick = vgg_runs.preset(Settings, learning_rates.QUICK, {"quick": True, "steps": 7})
    assert (quick.data, quick.width, quick.steps) == ("shapes", 0.125, 7)
    assert len(quick.variants) * len(quick.lr) * len(quick.seed) * 300 <= 5000, "steps in all"
