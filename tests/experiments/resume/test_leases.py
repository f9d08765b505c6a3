"""One process at a time writes to a run, also where nothing can be locked."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import KILLED, ONE, STEPS, assert_same_study, leftovers, main, runs
from test_damaged_studies import snapshot

from experiments.training import lease, study_lock
from experiments.training.command_line import UsageError
from experiments.training.lease import Lease, require_free
from experiments.training.run import Run

HOST = socket.gethostname()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, and on some network file systems."""
    monkeypatch.setattr(study_lock, "fcntl", None)


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A process that trains tmp_path/study, and was stopped in its fifth step."""
    arguments = ("SIGSTOP: before 5th step", *ONE, "--steps", STEPS, "--out", tmp_path / "study")
    process = subprocess.Popen(
        [sys.executable, *map(str, (KILLED, *arguments))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield process
    finally:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen) -> str:
    """SIGCONT. Asserts that the process ends in one line with code 2, and returns that."""
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    (line,) = err.splitlines()
    return line


def test_who_paused_too_long_and_lost_the_run_writes_nothing_and_says_so(
    no_locks: None,
    paused: subprocess.Popen,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "study"
    monkeypatch.setattr(lease, "TIMEOUT", 0.0)
    assert main("--resume", folder) == 0
    after = snapshot(folder)
    line = go_on(paused)
    assert "was taken over by another process while this one paused" in line
    assert "--resume" in line
    assert snapshot(folder) == after
    assert_same_study(folder, whole)
    assert leftovers(folder) == []


def test_who_lost_the_run_to_one_that_still_trains_names_it(
    no_locks: None, paused: subprocess.Popen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    monkeypatch.setattr(lease, "TIMEOUT", 0.0)
    (run,) = runs(folder)
    taken = Lease.take(run.folder, locked=False)
    after = snapshot(folder)
    assert f"was taken over by process {os.getpid()} on {HOST}" in go_on(paused)
    assert snapshot(folder) == after
    taken.check()


def test_without_locks_a_run_that_is_being_trained_is_refused_and_left_alone(
    no_locks: None, paused: subprocess.Popen, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "study"
    before = snapshot(folder)
    assert main("--resume", folder) == 2
    assert f"is being trained by process {paused.pid} on {HOST}. Wait" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_without_locks_a_killed_process_of_this_machine_is_not_waited_for(
    no_locks: None, paused: subprocess.Popen, whole: Path, tmp_path: Path
) -> None:
    paused.kill()
    paused.wait()
    assert main("--resume", tmp_path / "study") == 0
    assert_same_study(tmp_path / "study", whole)
    assert leftovers(tmp_path / "study") == [".lock"], "the killed process left it"


def leased(folder: Path, host: str, pid: int = 1, age: float = 0.0) -> Path:
    """A lease that somebody else renewed `age` seconds ago."""
    path = folder / ".lease"
    path.write_text(json.dumps({"host": host, "pid": pid, "token": "other"}))
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize(("age", "is_free"), [(0, False), (590, False), (601, True), (1e6, True)])
def test_the_lease_of_another_machine_is_free_after_the_time_out(
    age: float, is_free: bool, locked: bool, tmp_path: Path
) -> None:
    leased(tmp_path, "elsewhere", age=age)
    if is_free:
        require_free(tmp_path, locked=locked)
    else:
        with pytest.raises(UsageError, match="process 1 on elsewhere"):
            require_free(tmp_path, locked=locked)
    assert os.listdir(tmp_path) == [".lease"]


def test_the_lock_of_the_study_says_that_no_other_process_of_this_machine_trains(
    tmp_path: Path,
) -> None:
    leased(tmp_path, HOST, pid=os.getppid())
    require_free(tmp_path, locked=True)
    with pytest.raises(UsageError, match=f"process {os.getppid()}"):
        require_free(tmp_path, locked=False)


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "3", '{"pid": 1}', "\0" * 20, "[" * 100_000,
        json.dumps({"host": HOST, "pid": 10**30}), json.dumps({"host": HOST, "pid": [-1]}),
    ],
)  # fmt: skip
def test_a_damaged_lease_holds_until_the_time_out_where_nothing_is_locked(
    content: str, tmp_path: Path
) -> None:
    path = leased(tmp_path, HOST)
    path.write_text(content)
    require_free(tmp_path, locked=True)
    with pytest.raises(UsageError, match=r"another process|process (1000|.-1.)"):
        require_free(tmp_path, locked=False)
    then = path.stat().st_mtime - 601
    os.utime(path, (then, then))
    assert Lease.take(tmp_path, locked=False).path == path


@pytest.mark.parametrize("lost", ["before a save", "amid a save", "before the result"])
def test_a_lease_is_looked_at_before_every_save(lost: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.begin({})
    run.stream("metrics").append({"step": 0})
    run.save(1, {"model": {}})
    before = snapshot(run.folder)
    run.stream("metrics").append({"step": 1})
    if lost == "amid a save":
        run.checkpoints.save(2, {}, {}, check=lambda: None)  # the file that is to be replaced
        before = snapshot(run.folder)
        taken = leased(run.folder, "elsewhere")
        with pytest.raises(UsageError, match="was taken over by process 1 on elsewhere"):
            run.checkpoints.save(3, {}, {}, check=run.require_lease)
    else:
        taken = leased(run.folder, "elsewhere")
        with pytest.raises(UsageError, match="was taken over by process 1 on elsewhere"):
            run.save(2, {"model": {}}) if lost == "before a save" else run.finish({"status": ""})
    run.end()
    assert taken.exists(), "it is not ours to release"
    assert {**snapshot(run.folder), ".lease": b""} == {**before, ".lease": b""}


def test_a_lease_is_renewed_now_and_then_by_its_holder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Lease.take(tmp_path, locked=False)
    then = mine.path.stat().st_mtime - 1000
    os.utime(mine.path, (then, then))
    mine.renew()
    assert mine.path.stat().st_mtime == pytest.approx(then), "not at every step"
    monkeypatch.setattr(lease, "TIMEOUT", 0.0)
    mine.renew()
    assert mine.path.stat().st_mtime > then + 900
    leased(tmp_path, "elsewhere")
    with pytest.raises(UsageError, match="taken over"):
        mine.renew()


def test_a_training_renews_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Lease, "renew", lambda self: seen.append(self.path.exists()))
    assert main(*ONE, "--steps", 3, "--out", tmp_path / "study") == 0
    assert seen == [True] * 3
