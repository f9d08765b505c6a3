"""A run that is killed at any moment and continued equals an uninterrupted one."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from studies import (
    KILLED,
    ONE,
    SMALL,
    STEPS,
    TWO,
    assert_same_study,
    killed,
    leftovers,
    main,
    runs,
)

SIGKILLED = -signal.SIGKILL

# What one run passes, in order. Its checkpoints come after 3, 6 and 8 steps.
MOMENTS = [
    "before 2nd step",  # nothing is saved yet
    "before 8th step",
    "amid checkpoint",  # the first: there is none to go back to
    "amid 2nd checkpoint",
    "before rename of latest.npz",
    "before 2nd rename of latest.npz",
    "after 2nd rename of latest.npz",
    "before rename of previous.npz",
    "after rename of previous.npz",  # latest.npz is not there
    "after 2nd rename of previous.npz",
    "amid 2nd metrics",
    "amid 2nd distributions",
    "amid test",
    "after 2nd flush of metrics.jsonl",  # one stream is ahead of the others
    "before rename of config.json",
    "after rename of config.json",
    "before rename of result.json",  # between the last metrics and the result
    "after rename of result.json",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's study will be."""
    return tmp_path / "study"


def assert_goes_on(folder: Path, whole: Path) -> None:
    """Continued, the study equals the uninterrupted one."""
    assert main("--resume", folder) == 0
    assert_same_study(folder, whole)


def assert_one_line(ended: subprocess.CompletedProcess, *words: str) -> None:
    """It ended with one line that has these words, as for bad input."""
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    for word in words:
        assert word in ended.stderr


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_continues_bit_for_bit(moment: str, whole: Path, folder: Path) -> None:
    assert killed(moment, *ONE, "--steps", STEPS, "--out", folder).returncode == SIGKILLED
    assert_goes_on(folder, whole)
    assert leftovers(folder) == []


def test_a_run_killed_at_its_syncs_continues_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    for nth in (3, 6, 9, 12, 15):
        folder = tmp_path / f"sync{nth}"
        assert killed(f"before {nth}th sync", *ONE, "--steps", STEPS, "--out", folder).returncode
        assert_goes_on(folder, whole)


def test_a_run_killed_again_and_again_continues_bit_for_bit(whole: Path, folder: Path) -> None:
    resume = ("--resume", folder)
    assert killed("amid 2nd metrics", *ONE, "--steps", STEPS, "--out", folder).returncode < 0
    assert killed("before cut of metrics.jsonl", *resume).returncode == SIGKILLED
    assert killed("after cut of distributions.jsonl", *resume).returncode == SIGKILLED
    assert killed("before 2nd step", *resume).returncode == SIGKILLED
    assert killed("amid checkpoint", *resume).returncode == SIGKILLED
    assert leftovers(folder) != []
    assert_goes_on(folder, whole)
    assert leftovers(folder) == []


@pytest.mark.parametrize("moment", ["before 2nd run", "after 2nd run", "before plotting"])
def test_a_study_killed_between_its_runs_continues(
    moment: str, whole_of_two: Path, folder: Path
) -> None:
    assert killed(moment, *TWO, "--steps", STEPS, "--out", folder).returncode == SIGKILLED
    untouched = runs(folder)[0].folder / "metrics.jsonl"
    before = untouched.stat().st_mtime_ns
    assert_goes_on(folder, whole_of_two)
    assert untouched.stat().st_mtime_ns == before, "a finished run was touched"


def test_a_second_process_is_refused_as_long_as_the_first_lives(
    whole: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ("SIGSTOP: before 5th step", *ONE, "--steps", STEPS, "--out", folder)
    first = subprocess.Popen([sys.executable, *map(str, (KILLED, *arguments))])
    try:
        _, status = os.waitpid(first.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert main("--resume", folder) == 2
    finally:
        first.kill()
        first.wait()
    line = f"{folder} is being trained by process {first.pid}. Wait for it, or end it.\n"
    assert capsys.readouterr().err.endswith(line)
    assert_goes_on(folder, whole)
    assert leftovers(folder) == []


def test_a_run_whose_checkpoint_is_gone_says_so_and_begins_again(
    whole: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(*ONE, "--steps", 4, "--out", folder) == 0
    (run,) = runs(folder)
    run.checkpoints.delete()
    assert main("--resume", folder, "--steps", STEPS) == 0
    said = capsys.readouterr().out
    assert f"{run.name}: its checkpoint is missing, so it begins again from step 0" in said
    assert f"1 of 1 runs to do, {STEPS} steps" in said
    assert_same_study(folder, whole)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_polite_signal_saves_says_how_to_go_on_and_exits_with_130(
    name: str, whole_of_two: Path, folder: Path
) -> None:
    stopped = killed(f"{name}: before 5th step", *TWO, "--steps", STEPS, "--out", folder)
    assert stopped.returncode == 130
    assert f"--resume {folder}" in stopped.stdout
    assert stopped.stderr == ""
    assert len(runs(folder)) == 1
    (run,) = runs(folder)
    assert len(run.records("metrics")) == 5, "the step that was under way is finished and saved"
    assert_goes_on(folder, whole_of_two)


def test_ctrl_c_in_the_last_step_of_a_run_stops_before_the_next(
    whole_of_two: Path, folder: Path
) -> None:
    stopped = killed(f"SIGINT: before {STEPS}th step", *TWO, "--steps", STEPS, "--out", folder)
    assert stopped.returncode == 130
    assert [run.result is not None for run in runs(folder)] == [True]
    assert_goes_on(folder, whole_of_two)


def test_a_second_ctrl_c_stops_at_once_and_loses_only_what_followed_the_checkpoint(
    whole: Path, folder: Path
) -> None:
    stopped = killed("SIGINT+SIGINT: before 5th step", *ONE, "--steps", STEPS, "--out", folder)
    assert stopped.returncode == 130
    assert "last checkpoint" in stopped.stdout and f"--resume {folder}" in stopped.stdout
    assert stopped.stderr == ""
    assert len(runs(folder)[0].records("metrics")) == 3
    assert_goes_on(folder, whole)


def test_ctrl_c_before_the_first_run_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "study"
    stopped = killed("SIGINT: before data", *ONE, "--out", folder)
    assert stopped.returncode == 130
    assert stopped.stderr == ""
    assert "--resume" not in stopped.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("few", [6, 7])
def test_raising_the_steps_equals_having_asked_for_more(
    few: int, whole_of_two: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"  # 7 is no multiple of --eval-every: its last test goes away
    assert main(*TWO, "--steps", few, "--out", folder) == 0
    assert [len(run.records("metrics")) for run in runs(folder)] == [few, few]
    assert main("--resume", folder, "--steps", STEPS) == 0
    assert_same_study(folder, whole_of_two)
    assert main("--resume", folder) == 0, "the new number of steps is the study's"
    assert_same_study(folder, whole_of_two)


def test_a_killed_raise_continues_to_the_raised_number_without_being_told(
    whole: Path, folder: Path
) -> None:
    assert main(*ONE, "--steps", 4, "--out", folder) == 0
    raised = killed("before 3rd step", "--resume", folder, "--steps", STEPS)
    assert raised.returncode == SIGKILLED
    assert runs(folder)[0].result is None, "a run that goes on is not finished"
    assert_goes_on(folder, whole)


def test_a_finished_study_can_be_resumed_and_nothing_changes(whole: Path, folder: Path) -> None:
    shutil.copytree(whole, folder)
    assert_goes_on(folder, whole)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diverged") / "study"
    assert main(*DIVERGING, "--out", folder) == 0
    assert runs(folder)[0].result["status"] == "diverged"
    return folder


DIVERGING = [*SMALL, "--variants", "standard", "--lr", "1e9", "--steps", "8"]


@pytest.mark.parametrize(
    "moment", ["before rename of result.json", "after flush of metrics.jsonl", "before 2nd step"]
)
def test_a_diverging_run_that_is_killed_ends_as_it_would_have(
    moment: str, diverged: Path, folder: Path
) -> None:
    assert killed(moment, *DIVERGING, "--out", folder).returncode == SIGKILLED
    assert_goes_on(folder, diverged)


def test_a_full_disk_is_one_line_and_the_study_continues_afterwards(
    whole: Path, folder: Path
) -> None:
    full = killed("files of 60000", *ONE, "--steps", STEPS, "--out", folder)
    assert_one_line(full, "File too large", f"--resume {folder}")
    assert leftovers(folder) == []
    assert_goes_on(folder, whole)


def test_a_disk_too_full_for_the_study_itself_leaves_nothing(tmp_path: Path) -> None:
    full = killed("files of 100", *ONE, "--steps", STEPS, "--out", tmp_path / "study")
    assert_one_line(full, "can't be written")
    assert os.listdir(tmp_path) == []
