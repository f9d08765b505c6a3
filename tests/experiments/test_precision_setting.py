"""`--precision` of experiments: what it does, where it is stored, what it must not mix with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_studies import add_run, study
from studies import ONE, SMALL, STEPS, assert_same_study, main, runs

from experiments import compare, deep_linear, predict, theorems
from experiments.training import loop
from experiments.training.comparability import require_comparable
from experiments.training.study import Study
from experiments.views.vgg_tables import make_table
from minibn.errors import DataError
from minibn.fast.precision import current


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that must be refused, and returns the one line of its error."""

    def run(*arguments: object, main: Callable[..., int] = main) -> str:
        capsys.readouterr()
        assert main(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line.partition(": ")[2]

    return run


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_a_step_runs_in_the_precision_of_its_settings_which_the_study_keeps(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], loop.one_step

    def one_step(*arguments: Any) -> Any:
        seen.append(current())
        return real(*arguments)

    monkeypatch.setattr(loop, "one_step", one_step)
    folder = tmp_path / "study"
    assert main(*ONE, "--steps", 1, "--precision", precision, "--out", folder) == 0
    assert main("--resume", folder, "--steps", 3) == 0
    assert seen == [precision] * 3 and current() == "fp32"
    (run,) = runs(folder)
    assert run.config["settings"]["precision"] == precision == Study(folder).settings["precision"]


def test_fewer_digits_change_losses_but_little_at_first(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "tf32", "bf16"):
        folder = tmp_path / precision
        words = (*SMALL, "--variants", "standard", "--steps", 2, "--precision", precision)
        assert main(*words, "--out", folder) == 0
        losses[precision] = np.array([m["loss"] for m in runs(folder)[0].records("metrics")])
    off = {p: np.abs(losses[p] - losses["fp32"]).max() for p in ("tf32", "bf16")}
    assert 0 < off["tf32"] < off["bf16"] < 0.01


def test_a_run_in_bf16_goes_on_bit_for_bit(tmp_path: Path) -> None:
    words = (*ONE, "--precision", "bf16")
    assert main(*words, "--steps", STEPS, "--out", tmp_path / "whole") == 0
    assert main(*words, "--steps", 4, "--out", tmp_path / "parts") == 0
    assert main("--resume", tmp_path / "parts", "--steps", STEPS) == 0
    assert_same_study(tmp_path / "parts", tmp_path / "whole")


def test_a_study_goes_on_in_its_precision_whatever_is_forced(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = tmp_path / "study"
    assert main(*ONE, "--steps", 2, "--precision", "tf32", "--out", folder) == 0
    for force in ((), ("--force",)):
        line = refused("--resume", folder, "--steps", 4, "--precision", "fp32", *force)
        assert "--precision fp32 (the study: tf32)" in line
    (run,) = runs(folder)
    config = run.config
    config["settings"]["precision"] = "bf16"
    (run.folder / "config.json").write_text(json.dumps(config))
    line = refused("--resume", folder, "--steps", 4, "--force")
    assert "began in precision bf16, its study says tf32" in line


def test_a_run_predicts_in_the_precision_it_was_trained_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(*ONE, "--steps", 1, "--precision", "bf16", "--out", tmp_path) == 0
    seen, real = [], predict.predictions

    def predictions(*arguments: Any) -> Any:
        seen.append(current())
        return real(*arguments)

    monkeypatch.setattr(predict, "predictions", predictions)
    monkeypatch.setattr(predict, "picture", lambda *_: "")
    assert predict.main([str(runs(tmp_path)[0].folder)]) == 0
    assert seen == ["bf16"]


def test_a_precision_that_there_is_not_or_that_would_round_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Did you mean 'bf16'" in refused("--precision", "bf61")
    assert "would round nothing" in refused("--precision", "bf16", "--kernels", "reference")
    for experiment in (deep_linear, theorems):
        line = refused(["--precision", "tf32"], main=experiment.main)
        assert "--precision tf32 rounds float32 alone" in line and "in float64" in line
    assert list(tmp_path.iterdir()) == []


def test_runs_of_different_precision_never_stand_in_one_table(tmp_path: Path) -> None:
    usual = study(tmp_path / "usual")
    for other in ("tf32", "bf16"):
        another = study(tmp_path / other, precision=other)
        for studies in ([usual, another], [another, usual]):
            with pytest.raises(DataError, match=f"has precision .*{other}.*like with like"):
                require_comparable(studies)


def test_two_precisions_are_compared_where_that_is_the_question(tmp_path: Path) -> None:
    one, other = study(tmp_path / "1"), study(tmp_path / "2", precision="bf16")
    for each in (one, other):
        add_run(each, "l1")
    assert compare.labels_of(one, other) == ("precision fp32", "precision bf16")
    assert "A: precision fp32; B: precision bf16." in compare.make_table(one, other)


def test_tables_say_the_precision_unless_it_is_the_usual_one(tmp_path: Path) -> None:
    usual = add_run(study(tmp_path / "1"), "l1")
    other = add_run(study(tmp_path / "2", precision="bf16"), "l1")
    assert "products in" not in make_table([usual])
    assert "products in bf16" in make_table([other])
