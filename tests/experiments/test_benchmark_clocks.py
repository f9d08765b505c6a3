"""Clocks, devices and launches of the benchmark, on a fake device."""

import contextlib
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from experiments.benchmarking import clock as clocks
from experiments.benchmarking import device as devices
from experiments.benchmarking import launches, timing
from experiments.benchmarking.device import Cuda, Device
from experiments.benchmarking.timing import Times, settle
from minibn import use


@pytest.fixture
def strict() -> Iterator[Any]:
    with use("strict") as backend:
        yield backend


# -- clocks


class Queue:
    """A device that does the work in its queue when it is waited for: 1 s for each piece."""

    def __init__(self) -> None:
        self.now, self.waiting = 0.0, []  # type: ignore[var-annotated]  # callables

    def wait(self) -> None:
        for work in self.waiting:
            work()
        self.waiting = []

    def work(self) -> None:
        self.waiting.append(lambda: setattr(self, "now", self.now + 1))

    def event(self) -> Any:
        def record() -> None:
            self.waiting.append(lambda: setattr(event, "at", self.now))

        event = types.SimpleNamespace(record=record, synchronize=self.wait, at=None)
        return event

    def clock(self) -> clocks.Clock:
        return clocks.Clock(self.event, lambda start, end: 1000 * (end.at - start.at))


def test_a_clock_times_work_on_the_device_without_waiting_inside() -> None:
    queue = Queue()
    clock = queue.clock()
    queue.work()
    with clock.span() as span:
        queue.work()
        queue.work()
    assert queue.now == 0  # not waited for yet
    assert span.seconds == 2
    assert clock.seconds(queue.work, times=4) == 1


def test_the_hosts_clock_waits_for_the_device_at_each_mark(monkeypatch) -> None:
    queue = Queue()
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: queue.now)
    assert clocks.host_clock(queue.wait).seconds(queue.work, times=3) == 1
    queue.work()
    assert clocks.HOST.seconds(queue.work) == 0


def test_a_warm_up_ends_with_two_equal_rounds_or_with_patience() -> None:
    rounds = iter([9.0, 3.0, 2.0, 2.01, 7.0])
    assert settle(lambda: next(rounds)) == (2.01, True)
    assert next(rounds) == 7.0
    restless = iter(range(1, 100))
    assert settle(lambda: 2.0 ** next(restless)) == (2.0**timing.PATIENCE, False)


def test_a_record_of_times_has_their_range_and_every_round() -> None:
    record = Times((0.3, 0.1, 0.2)).record()
    assert record["range_ms"] == [100, 300] and len(record["rounds_ms"]) == 3


# -- devices


class FakeCupy:
    """The part of CuPy that `Cuda` uses."""

    def __init__(self) -> None:
        self.queue, self.freed = Queue(), []  # type: ignore[var-annotated]  # names of pools
        self.cuda = types.SimpleNamespace(
            Event=self.queue.event, get_elapsed_time=self.queue.clock().elapsed_ms
        )

    def RawKernel(self, source: str, name: str) -> Callable[..., None]:
        return lambda blocks, threads, arguments: self.queue.waiting.append(
            lambda: setattr(self.queue, "now", self.queue.now + arguments[0] / 1e9)
        )

    def _pool(self, name: str) -> Any:
        return types.SimpleNamespace(free_all_blocks=lambda: self.freed.append(name))

    def get_default_memory_pool(self) -> Any:
        return self._pool("memory")

    def get_default_pinned_memory_pool(self) -> Any:
        return self._pool("pinned")


def fake_cuda() -> tuple[Cuda, FakeCupy]:
    cupy = FakeCupy()
    peak = types.SimpleNamespace(start=10, now=10, most=10)

    @contextlib.contextmanager
    def peak_memory() -> Iterator[Any]:
        yield peak

    backend = types.SimpleNamespace(
        xp=cupy, synchronize=cupy.queue.wait, out_of_memory_errors=(MemoryError,), peak=peak,
        peak_memory=peak_memory, name="cupy",
    )  # fmt: skip
    return Cuda(backend), cupy


def test_a_gpus_time_is_that_between_its_events() -> None:
    device, cupy = fake_cuda()
    device.lag(5.0)
    assert device.clock.seconds(cupy.queue.work, 2) == 1
    assert cupy.queue.now == 7  # the work waited behind 5 s of keeping busy


def test_tidying_a_gpu_hands_back_both_pools() -> None:
    device, cupy = fake_cuda()
    device.tidy()
    assert cupy.freed == ["memory", "pinned"]


def test_the_peak_of_a_gpu_is_above_what_was_loaded() -> None:
    device, cupy = fake_cuda()

    def prepare() -> Callable[[], None]:
        assert cupy.freed  # after tidying
        return lambda: setattr(device.backend.peak, "most", device.backend.peak.most + 5)

    assert device.peak(prepare, 3) == {"loaded": 10, "peak": 25, "step": 15}


def test_the_rehearsals_peak_counts_what_a_step_needs(strict) -> None:
    def prepare() -> Callable[[], Any]:
        loaded = strict.xp.zeros(1 << 18)
        return lambda: loaded + 1

    found = Device(strict).peak(prepare, 2)
    assert found["loaded"] >= 8 << 18 and 8 << 18 <= found["step"] < 10 << 18


def test_the_kernel_that_keeps_a_gpu_busy_compiles() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nvrtc = pytest.importorskip("cupy", exc_type=ImportError).cuda.nvrtc
    try:
        nvrtc.getVersion()
    except Exception as error:  # there are several errors for a missing NVRTC
        pytest.skip(f"NVRTC can't be loaded: {error}")
    program = nvrtc.createProgram(devices.SPIN, "spin.cu", [], [])
    try:
        nvrtc.compileProgram(program, ["-arch=sm_90"])
    except Exception as error:  # the compiler's: it fails with its log
        pytest.fail(f"{error}\n{nvrtc.getProgramLog(program)}")
    assert b"globaltimer" in nvrtc.getPTX(program)


# -- kernels


def test_launches_are_counted_and_summed_by_kernel() -> None:
    device, cupy = fake_cuda()

    def step() -> None:
        for name, seconds in (("conv", 2), ("norm", 1), ("conv", 2)):
            with AROUND[-1](name):
                for _ in range(seconds):
                    cupy.queue.work()
        cupy.queue.work()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launches, "wrap_launches", around)
        found = launches.shares(device, step, rounds=2)
    assert [(k.name, k.launches) for k in found.kernels] == [("conv", 2), ("norm", 1)]
    assert [k.ms for k in found.kernels] == pytest.approx([4000, 1000])
    assert (found.step_ms, found.bare_ms, found.rest_ms) == pytest.approx((6000, 6000, 1000))


AROUND: list[Callable[[str], Any]] = [contextlib.nullcontext]


@contextlib.contextmanager
def around(timed: Callable[[str], Any]) -> Iterator[None]:
    AROUND.append(timed)
    yield
    AROUND.pop()
