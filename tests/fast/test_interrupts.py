"""Interrupts: a training loop that catches one and goes on computes what it computed before."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from minibn.fast.cpu import memory, threads
from minibn.fast.cpu.threads import GRACE, parallel

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no signals")

# Steps from the same parameters, each interrupted at a random time; then one without an interrupt,
# which must give the same bits as the first.
TRAINING = """
import random, signal, sys, threading
import numpy as np
from minibn import nn, ops, optim
from minibn.fast.cpu.threads import limit_threads

kind, n, signals = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm(16), nn.ReLU(),
    nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
).initialize(seed=0)
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
rng = np.random.default_rng(0)
images = rng.standard_normal((64, 16, 16, 3), np.float32)
labels = rng.integers(0, 10, 64)
start = {k: np.array(v) for k, v in net.state_dict().items()}

def step():
    optimizer.zero_grad()
    loss = ops.softmax_cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()

def bits():
    net.load_state_dict(start)
    optimizer.load_state_dict(fresh)
    step()
    return {k: np.array(v).tobytes() for k, v in net.state_dict().items()}

class Alarm(Exception):
    pass

def ring(*_):
    raise Alarm

signal.signal(signal.SIGALRM, ring)
expected_error = Alarm if kind == "SIGALRM" else KeyboardInterrupt
fresh = optimizer.state_dict()
caught = 0
with limit_threads(n):
    right = bits()
    assert bits() == right
    for k in range(signals):
        try:
            delay = random.Random(k).uniform(0.0005, 0.03)
            if kind == "SIGALRM":
                signal.setitimer(signal.ITIMER_REAL, delay)
            else:
                threading.Timer(delay, signal.raise_signal, [signal.SIGINT]).start()
            while True:
                step()
        except expected_error:
            caught += 1
        assert bits() == right, k
print(caught)
"""


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("kind", ["SIGINT", "SIGALRM"])
def test_a_step_after_an_interrupt_at_any_time_gives_the_same_bits(kind, n):
    script = [sys.executable, "-c", TRAINING, kind, str(n), "100"]
    found = subprocess.run(script, timeout=300, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "100\n"), found.stderr
    assert not found.stderr


@pytest.mark.parametrize("when", ["the buffer is noted", "the lease is noted"])
def test_an_interrupt_while_memory_is_lent_leaves_a_pool_that_works(when, monkeypatch):
    """It came, once in thousands of signals, between two lines of `_Lease`: the buffer returned to
    a pool that did not know it."""

    def interrupt(*_):
        raise KeyboardInterrupt

    class Interrupted(dict):
        __setitem__ = interrupt

    with monkeypatch.context() as patch:
        if when == "the buffer is noted":
            patch.setattr(memory._End, "buffer", property(None, interrupt))
        else:
            patch.setattr(memory, "_ends", Interrupted())
        for _ in range(3):
            with contextlib.suppress(KeyboardInterrupt):
                memory.empty((memory.SMALL,), np.uint8)
    gc.collect()
    assert memory.free_bytes() >= 0
    arrays = [memory.empty((memory.SMALL,), np.uint8) for _ in range(4)]
    for k, array in enumerate(arrays):
        array[:] = k
    assert [int(array[0]) for array in arrays] == [0, 1, 2, 3], "no buffer is lent twice"
    del arrays, array
    memory.release()
    assert (memory.free_bytes(), len(memory._ends)) == (0, 0)


class Alarm(Exception):
    pass


@pytest.fixture
def alarm():
    def ring(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupt_while_waiting_is_raised_at_once_and_the_next_call_is_right(alarm):
    go_on = threading.Event()
    begun = threading.Barrier(2)

    def part(i):
        begun.wait(10)
        if i == 1:
            go_on.wait(30)

    alarm(0.05)
    began = time.monotonic()
    with pytest.raises(Alarm):
        parallel(part, 2)
    assert time.monotonic() - began < GRACE + 5  # the part itself would take 30 seconds
    # The only worker still runs the old part.
    assert [parallel(lambda i: i * i, 2) for _ in range(3)] == 3 * [[0, 1]]
    go_on.set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_after_an_interrupt_the_parts_that_were_not_begun_never_are(error):
    def occupy(i):
        if i > 0:
            occupied.release()
            release.wait(30)

    occupied, release, ran = threading.Semaphore(0), threading.Event(), []

    def part(i):
        ran.append(i)
        raise error

    n = len(threads._workers) + 2
    other = threading.Thread(target=parallel, args=(occupy, n))
    other.start()
    for _ in range(n - 1):  # all workers
        occupied.acquire(timeout=10)
    with pytest.raises(error):
        parallel(part, n)
    release.set()
    other.join(30)
    assert ran == [0]
    assert parallel(lambda i: i, n) == list(range(n))


def test_an_interrupted_call_restores_the_threads_of_blas_at_the_next(monkeypatch):
    class Library:
        num_threads = 7

        def set_num_threads(self, n):
            self.num_threads = n
            if n == 7 and interrupt:
                raise interrupt.pop()

    library, interrupt = Library(), [KeyboardInterrupt()]
    monkeypatch.setattr(threads, "_blas", lambda: (library, other))
    other = Library()
    with pytest.raises(KeyboardInterrupt):
        parallel(lambda i: i, 2)
    assert other.num_threads == 1
    assert parallel(lambda i: other.num_threads, 2) == [1, 1]
    assert (library.num_threads, other.num_threads) == (7, 7)


def test_where_no_thread_can_be_started_the_parts_run_in_turn(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(threads, "_workers", [])
    here = threading.get_ident()
    assert parallel(lambda i: (i, threading.get_ident() == here), 3) == [
        (0, True), (1, True), (2, True)
    ]  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        parallel(lambda i: 1 // (1 - i), 3)


FORKS = """
import os, threading, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
import numpy as np
from minibn import nn, kernels
from minibn.fast.cpu.threads import limit_threads

net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)).initialize(seed=0)
images = np.ones((8, 10, 10, 16), np.float32)
stop = threading.Event()

def compute():
    with limit_threads(2), kernels("always"):
        while not stop.is_set():
            net(images)

threads = [threading.Thread(target=compute, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for _ in range(25):
    child = os.fork()
    if child == 0:
        with limit_threads(2), kernels("always"):
            net(images)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
stop.set()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_children_forked_while_other_threads_compute_compute_too():
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKS)], timeout=120, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


def test_memory_returns_to_the_pool_without_python_code_that_could_swallow_an_interrupt():
    from minibn.fast.cpu import memory

    assert not hasattr(memory._Lease, "__del__")
    memory.release()
    array = memory.empty((memory.SMALL,), np.uint8)
    view = array[1:]
    del array
    assert memory.free_bytes() == 0
    del view
    assert memory.free_bytes() >= memory.SMALL
    memory.release()
    assert (memory.free_bytes(), len(memory._ends)) == (0, 0)
