"""Damages of a study that are no other bytes in a file: other kinds of files, other copies.

See `test_damaged_studies`, whose promise this is.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from studies import ONE, STEPS, killed, main

from experiments import claims, compare, plot
from experiments.training.run import Run
from experiments.training.study import Study

FILES = (
    "study.json", "config.json", "result.json", "metrics.jsonl", "checkpoint/latest.npz",
    "checkpoint/previous.npz", ".lease",
)  # fmt: skip


def folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").touch()


KINDS: dict[str, Callable[[Path], object]] = {
    "a folder": folder,
    "a pipe": os.mkfifo if hasattr(os, "mkfifo") else folder,
    "a device that never ends": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was killed after its second checkpoint."""
    study = tmp_path_factory.mktemp("begun") / "study"
    killed("before 2nd rename of previous.npz", *ONE, "--steps", STEPS, "--out", study)
    return study


@pytest.fixture
def study(begun: Path, tmp_path: Path) -> Path:
    return shutil.copytree(begun, tmp_path / "study")


def only_run(study: Path) -> Run:
    return Study(study).runs()[0]


def contents(study: Path) -> dict[str, bytes]:
    paths = [path for path in study.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file_is_named_and_not_waited_for(
    file: str, kind: str, study: Path, capsys: pytest.CaptureFixture
) -> None:
    path = (study if file == "study.json" else only_run(study).folder) / file
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    device = path.is_symlink() or not path.is_dir()
    before = {} if device else contents(study)
    code = main("--resume", study)
    out, err = capsys.readouterr()
    if file.startswith("checkpoint") and device:
        assert code == 0 and (path.name in out or "previous" in file)  # the other one stands in
        return
    assert code == 2
    (line,) = err.splitlines()
    assert path.name in line, line
    assert device or contents(study) == before


@pytest.mark.parametrize("steps", [STEPS + 1, STEPS - 1])
def test_other_steps_in_study_json_are_not_trained(
    steps: int, study: Path, capsys: pytest.CaptureFixture
) -> None:
    path = study / "study.json"
    path.write_text(path.read_text().replace(f'"steps": {STEPS}', f'"steps": {steps}'))
    before = contents(study)
    assert main("--resume", study) == 2
    assert "study.json can't be read: it was changed: its SHA-256" in capsys.readouterr().err
    assert contents(study) == before


def test_lines_after_the_last_checkpoint_are_not_read(study: Path) -> None:
    run = only_run(study)
    before = run.records("shift")
    with (run.folder / "shift.jsonl").open("a") as file:
        file.write('{"step": 6, "mine": 1}\nno JSON\n')
    assert only_run(study).records("shift") == before != []


@pytest.mark.parametrize("finished", [True, False])
def test_what_reads_a_study_names_a_run_whose_config_is_lost(
    finished: bool, whole: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    study = shutil.copytree(whole if finished else begun, tmp_path / "study")
    folder = only_run(study).folder
    (folder / "config.json").unlink()
    if finished:
        shutil.rmtree(folder / "checkpoint")  # as of learning_rates
    for program, words in ((plot, [study]), (claims, [study]), (compare, [study, study])):
        assert program.main([*map(str, words), "--out", str(tmp_path / "out")]) == 2
        assert "config.json is missing" in capsys.readouterr().err


def test_a_finished_run_says_that_its_checkpoint_is_an_older_one(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    study = shutil.copytree(whole, tmp_path / "study")
    checkpoints = only_run(study).checkpoints
    shutil.copy(checkpoints.previous, checkpoints.latest)
    assert main("--resume", study) == 0
    assert f"latest.npz is an older one, after 6 of {STEPS} steps" in capsys.readouterr().out
