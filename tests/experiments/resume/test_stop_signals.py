"""A signal saves, a second one ends the program, whatever its main thread does."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies import KILLED, ONE, STEPS, assert_same_study, killed, leftovers, main, runs

from experiments.training import signals
from experiments.training.signals import interrupts, stop_requests


def test_a_hangup_saves_says_how_to_go_on_and_exits_with_130(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    stopped = killed("SIGHUP: before 5th step", *ONE, "--steps", STEPS, "--out", folder)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert f"--resume {folder}" in stopped.stdout
    assert len(runs(folder)[0].records("metrics")) == 5
    assert main("--resume", folder) == 0
    assert_same_study(folder, whole)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("moment", ["before data", "before plotting"])
def test_a_signal_outside_of_the_training_ends_in_one_line(
    name: str, moment: str, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    stopped = killed(f"{name}: {moment}", *ONE, "--steps", 2, "--out", folder)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert stopped.stdout.splitlines()[-1].startswith("Stopped;")
    assert leftovers(folder) == [] and folder.exists() == (moment == "before plotting")


def test_a_terminal_that_is_closed_saves(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    command = [sys.executable, KILLED, "SIGSTOP: before 5th step", *ONE, "--steps", STEPS]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [str(word) for word in (*command, "--out", folder)])
    while not os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]):
        pass
    os.close(terminal)  # the kernel sends SIGHUP, and SIGCONT to what is stopped
    os.kill(pid, signal.SIGCONT)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert len(runs(folder)[0].records("metrics")) == 5
    assert leftovers(folder) == []
    assert main("--resume", folder) == 0
    assert_same_study(folder, whole)


def test_what_nohup_started_goes_on_after_a_hangup(tmp_path: Path) -> None:
    ignoring = (
        "import signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from experiments.training.signals import interrupts, stop_requests\n"
        "for block in (stop_requests, interrupts):\n    with block() as asked:\n"
        "        signal.raise_signal(signal.SIGHUP)\n        assert not asked\nprint('went on')"
    )
    found = subprocess.run([sys.executable, "-c", ignoring], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("went on\n", "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_programs_that_start_others_are_interrupted_as_by_ctrl_c(name: str) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt), interrupts():
        signal.raise_signal(getattr(signal, name))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


def test_handlers_and_the_wakeup_descriptor_are_as_before_afterwards() -> None:
    before = [signal.getsignal(s) for s in signals.STOP]
    descriptors = len(os.listdir("/dev/fd"))
    for _ in range(20):
        with stop_requests() as asked:
            signal.raise_signal(signal.SIGINT)
        assert asked == [signal.SIGINT]
    assert [signal.getsignal(s) for s in signals.STOP] == before
    assert signal.set_wakeup_fd(-1) == -1
    deadline = time.monotonic() + 10
    while len(os.listdir("/dev/fd")) > descriptors:  # the last watcher closes its own
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_more_than_two_signals_are_not_complained_of() -> None:
    program = (
        "import signal, time\nfrom experiments.training.signals import stop_requests\n"
        "try:\n    with stop_requests() as asked:\n        try:\n"
        "            for _ in range(2): signal.raise_signal(signal.SIGTERM)\n"
        "        finally:\n            time.sleep(0.3)\n"
        "            for _ in range(3): signal.raise_signal(signal.SIGTERM)\n"
        "except KeyboardInterrupt:\n    print(len(asked))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("5\n", "")


BUSY = {
    "computing": "x = np.ones((1500, 1500)); [x @ x for _ in range(10**9)]",
    "waiting for a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "in C code that never returns": "deadlock()",
    "in a destructor": "loop_in_a_destructor()",
    "dropping every exception": "drop_every_exception()",
    "with a kernel's threads": "[parallel(lambda i: time.sleep(60)) for _ in range(10**9)]",
}
PROGRAM = """
import ctypes, signal, sys, threading, time
import numpy as np
from experiments.training import signals
from experiments.training.entry_point import program
from minibn.fast.cpu.threads import parallel
signal.signal(signal.SIGINT, signal.default_int_handler)
signals.PATIENCE = 1.0

def deadlock():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

class Destructor:
    def __del__(self):
        time.sleep(0.3)

def loop_in_a_destructor():
    while True:
        Destructor()

def drop_every_exception():
    while True:
        try:
            time.sleep(0.05)
        except BaseException:  # this is what is tested
            pass

@program("busy", stopped="Stopped.")
def main(arguments):
    with signals.stop_requests() as asked:
        print("begun", flush=True)
        BUSY
sys.exit(main([]))
"""


@pytest.mark.parametrize("gap", [0.05, 0.4])  # of two at once, the kernel delivers one
@pytest.mark.parametrize("busy", BUSY)
def test_the_second_ctrl_c_always_ends_the_program(busy: str, gap: float) -> None:
    text = PROGRAM.replace("BUSY", BUSY[busy])
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "MINIBN_NUM_THREADS": "2"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        time.sleep(gap)
        assert process.poll() is None, "the first one waits for the step"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Stopped" in out + err
