"""`only_bn`: what is trained, its records, figure and table, kills, bad input."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import leftovers, run_here, runs, signalled

from experiments import only_bn
from experiments.only_bn import VARIANTS, Settings, count, network
from experiments.training.runner import Plan
from experiments.training.session import preset
from experiments.training.study import Study
from experiments.vgg import classifiers
from experiments.views import best_rates
from experiments.views import only_bn as only_bn_figures
from experiments.views.learning_rates_outcomes import AT_CHANCE, DIVERGED, LEARNS, Outcome

TINY = [
    *("--data", "shapes", "--train-size", "40", "--test-size", "20", "--model", "vgg11"),
    *("--width", "0.0625", "--batch-size", "16", "--threads", "1", "--checkpoint-every", "2"),
    *("--eval-every", "3", "--seed", "0"),
]
GRID = [*TINY, "--lr", "0.1", "--steps", "4"]

main = partial(run_here, only_bn, only_bn_figures, plot=True)
main_without_figures = partial(run_here, only_bn, only_bn_figures)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted study of GRID, with its figure."""
    folder = tmp_path_factory.mktemp("only_bn") / "study"
    assert main(*GRID, "--out", folder) == 0
    return folder


def test_only_batchnorm_and_random_weights_train_equally_many_numbers() -> None:
    s = Settings(model="vgg16", width=0.25)
    numbers = {v: count(s, Plan(v, 0.1, 0)) for v in VARIANTS}
    assert numbers["only-batchnorm"] == numbers["random-weights"] == 2 * (4224 // 4)
    assert numbers["output-layer"] == 128 * 10 + 10
    assert numbers["all"] > 400 * numbers["random-weights"]


def test_a_resnet_is_trained_in_the_same_parts() -> None:
    s = Settings(model="resnet20", width=0.25)
    numbers = {v: count(s, Plan(v, 0.1, 0)) for v in VARIANTS}
    gammas_and_betas = 2 * (7 * 4 + 6 * 8 + 6 * 16)
    assert numbers["only-batchnorm"] == numbers["random-weights"] == gammas_and_betas
    assert numbers["output-layer"] == 16 * 10 + 10


def test_the_variants_of_a_seed_see_the_same_network() -> None:
    s = Settings(model="vgg11", width=0.0625)
    x = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)
    outputs = [network(s, Plan(v, 0.1, 2))(x).data for v in VARIANTS]
    for other in outputs[1:]:
        np.testing.assert_allclose(outputs[0], other, rtol=1e-5, atol=1e-6)


def test_a_study_says_what_is_trained_and_ends_with_a_figure_a_table_and_a_summary(
    whole: Path,
) -> None:
    found = {run.config["variant"]: run for run in runs(whole)}
    assert set(found) == set(VARIANTS)
    gammas_and_betas = 2 * (64 + 128 + 2 * 256 + 4 * 512) // 16
    assert found["only-batchnorm"].config["trained"] == gammas_and_betas
    assert found["random-weights"].config["trained"] == gammas_and_betas
    assert found["all"].config["trained"] == found["all"].config["parameters"]
    for run in found.values():
        assert run.result == {"status": "done", "steps": 4}
        assert [r["updates"] for r in run.records("test")] == [3, 4]
        assert len(run.records("metrics")) == 4
        assert not run.checkpoint_path.exists()
    assert (whole / "figures" / "only_bn.png").stat().st_size > 10_000
    assert f"| random-weights | {gammas_and_betas} |" in (whole / "table.md").read_text()
    content = json.loads((whole / "summary.json").read_text())
    assert len(content["runs"]) == 4 and "data_dir" not in content["settings"]
    assert set(content["difference"]) == set(VARIANTS) - {"only-batchnorm"}


def outcomes(variant: str, lr: float, train: list[float], test: list[float]) -> list[Outcome]:
    return [
        Outcome(variant, lr, seed, LEARNS, 1.0, *both)
        for seed, both in enumerate(zip(train, test, strict=True))
    ]


def test_the_difference_is_taken_at_the_best_training_accuracy_of_each_by_seed() -> None:
    found = [
        *outcomes("only-batchnorm", 0.1, [0.5, 0.5], [0.40, 0.44]),
        *outcomes("only-batchnorm", 1.0, [0.3, 0.4], [0.90, 0.90]),  # not chosen by the test set
        *outcomes("random-weights", 0.1, [0.1, 0.1], [0.90, 0.90]),
        *outcomes("random-weights", 1.0, [0.3, 0.3], [0.30, 0.31]),
    ]
    by_seed = only_bn_figures.differences(found)["random-weights"]
    assert by_seed == pytest.approx({0: 0.10, 1: 0.13})


def test_a_variant_that_is_worse_than_a_constant_answer_keeps_its_accuracy() -> None:
    found = outcomes("only-batchnorm", 0.1, [0.5], [0.4])
    found.append(Outcome("random-weights", 0.1, 0, AT_CHANCE, 3.4, 0.2, 0.25))
    found.append(Outcome("random-weights", 1.0, 0, DIVERGED, step=3))
    assert only_bn_figures.differences(found) == {"random-weights": pytest.approx({0: 0.15})}


def test_without_only_batchnorm_nothing_is_compared() -> None:
    assert only_bn_figures.differences(outcomes("all", 0.1, [0.5], [0.4])) == {}


def test_the_margin_of_the_figure_is_that_of_the_rule() -> None:
    assert f"margin       {only_bn_figures.MARGIN:g}:" in str(only_bn.__doc__)


# Kill and resume


@pytest.mark.parametrize(
    ("at", "name", "code"),
    [(4, "SIGKILL", -signal.SIGKILL), (11, "SIGTERM", 130)],
)
def test_a_study_that_is_stopped_and_continued_equals_one_that_nobody_disturbed(
    at: int, name: str, code: int, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    stopped = signalled(only_bn, only_bn_figures, at, name, *GRID, "--out", folder)
    assert stopped.returncode == code, stopped.stderr
    assert sum(run.result is not None for run in runs(folder)) < 4
    assert main_without_figures("--resume", folder) == 0
    for ours, theirs in zip(runs(folder), runs(whole), strict=True):
        assert (ours.name, ours.result) == (theirs.name, theirs.result)
        for file in ("metrics.jsonl", "test.jsonl"):
            assert (ours.folder / file).read_text() == (theirs.folder / file).read_text(), file
    assert leftovers(folder) == []


def test_what_is_finished_is_not_trained_again(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(classifiers, "train", None)
    assert main_without_figures("--resume", whole) == 0
    assert "0 of 4 runs to do, 0 steps" in capsys.readouterr().out


def test_an_unfinished_study_says_how_to_go_on(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "study", "only_bn", {})
    with pytest.raises(Exception, match="has no run that ended"):
        best_rates.ended([study], only_bn_figures.COLOURS)


# Bad input

REFUSED = {
    "--variants batchnorm": "'batchnorm' is unknown. Did you mean 'only-batchnorm'?",
    "--lr 0.1 -0.2": "--lr -0.2 must be above 0",
    "--model vgg12": "'vgg12' is unknown",
    "--width 0.001": "leaves 64·0.001 < 1 channels",
    "--momentum 1": "--momentum 1.0 must lie in [0, 1)",
    "--batch-size 41": "--batch-size 41 is more than the 40 training images. Use a smaller",
    "--eval-every 0": "--eval-every 0 must be at least 1",
    "--probe-every 3": "unknown argument '--probe-every'",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_arguments_are_refused_in_one_line_and_nothing_is_written(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(*TINY, "--out", "study", *given.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.only_bn: ") and REFUSED[given] in line
    assert os.listdir(tmp_path) == []


def test_the_quick_preset_is_small_and_flags_go_before_it() -> None:
    quick: Any = preset(Settings, only_bn.QUICK, {"quick": True, "steps": 7})
    assert (quick.data, quick.width, quick.steps) == ("shapes", 0.125, 7)
    assert len(quick.variants) * len(quick.lr) * len(quick.seed) * 300 <= 5000, "steps in all"
