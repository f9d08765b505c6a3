"""Training steps on a GPU: the contenders, timed in rounds.

A round is as many steps in a row as take a tenth of a second, between two events: as in a training,
no step waits for the device. Contenders take their rounds in turn, after a warm-up that lasts until
two rounds take the same time (autotuning, compilation and captures are then done, caches are filled
and clock rates are stable).

A contender that cannot run (out of memory, say) is left out, with the reason. A case in which none
of ours can run is skipped.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from experiments.benchmarking.cases import OURS, Case, Step, check_agreement
from experiments.benchmarking.comparison import OWN, RIVAL
from experiments.benchmarking.device import Device, NotHere
from experiments.benchmarking.parts import Bench
from experiments.benchmarking.timing import (
    PATIENCE,
    Contender,
    Timings,
    in_turn,
    settle,
    single_phase,
)
from experiments.output import say
from minibn.autograd.tape import apply
from minibn.backend import get_backend
from minibn.errors import CaptureError
from minibn.fast.cuda.captured_step import CapturedStep
from minibn.fast.selection import runs_cuda_kernels
from minibn.ops.loss import SoftmaxCrossEntropy

ROUND = 0.1  # seconds of a round, of the fastest contender
MOST_STEPS = 100  # of a round
BEFORE_CAPTURE = 10  # steps at most

# As one trains VGG on CIFAR-10; `experiments.vgg_cifar` takes both as flags.
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True, kw_only=True)
class GpuBench(Bench):
    """What the parts share on a GPU. theirs: PyTorch's view of it, None without PyTorch."""

    device: Device
    theirs: Any = None
    ways: tuple[str, ...] = ("eager", "graph")  # in which ours train: see `OurStep.become`
    precision: str  # of the parts that do not compare precisions
    large_batch: int = 8192
    warm_up: int = 3  # steps of a round of the warm-up
    patience: int = PATIENCE  # rounds of the warm-up at most
    left_out: list[dict[str, Any]] = field(default_factory=list)
    save: Callable[[str, Any], None] = lambda part, record: None  # stores a part's record so far

    def case(self, model: str, variant: str, batch: int) -> Case:
        return Case(model, variant, batch, self.width, self.precision, MOMENTUM, WEIGHT_DECAY)

    def contenders(self, ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
        """The names of contenders that train in these ways; PyTorch's only if it is installed."""
        rivals = [f"{RIVAL} {way}" for way in theirs] if self.pytorch else []
        return [f"{OURS} {way}" for way in ours] + rivals

    def side(self, name: str) -> Any:
        """The device as this contender's library sees it."""
        return self.theirs if name.startswith(RIVAL) else self.device

    def tidy(self) -> None:
        """Free the cached memory of both libraries."""
        self.device.tidy()
        if self.theirs:
            self.theirs.tidy()

    @property
    def out_of_memory_errors(self) -> tuple[type[Exception], ...]:
        """What either library raises when memory runs out."""
        theirs = self.theirs.out_of_memory_errors if self.theirs else ()
        return self.device.out_of_memory_errors + theirs

    @contextmanager
    def unless_it_fails(self, what: Any, who: str) -> Iterator[None]:
        """The work of one contender, which is left out if it fails: the others can still be
        measured, and time on a GPU is expensive."""
        try:
            yield
        except Exception as error:  # of kernels, compilers, captures or drivers: reported
            self.leave_out(what, who, error)

    def leave_out(self, what: Any, who: str, error: Exception) -> None:
        """Print and record the reason. An error counts as our mistake unless memory ran out, the
        machine lacks something, or it is PyTorch's."""
        lines = str(error).strip().splitlines() or [""]
        full = isinstance(error, self.out_of_memory_errors)
        reason = f"{'out of memory' if full else type(error).__name__}: {lines[0]}"[:300]
        self.left_out.append({
            "what": str(what), "who": who, "reason": reason,
            "mistake": not (full or isinstance(error, NotHere) or who.startswith(RIVAL)),
            "traceback": "".join(traceback.format_exception(error)),
        })  # fmt: skip
        say(f"  {what}: {who} left out. {reason}")


class OurStep(Step):
    """Our training step with labels on the device; eager until `become`."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._labels = get_backend().asarray(self.labels)
        self._captured: CapturedStep | None = None

    def become(self, way: str) -> None:
        """Make `update` run this way from now on: "eager", in the modes "lean" or "reference" of
        `minibn.kernels`, or "graph", which first runs some steps. Raises CaptureError if no step
        can be captured, NotHere without CUDA kernels."""
        if way in ("lean", "reference"):
            self.kernels = way
        elif way == "graph":
            if not runs_cuda_kernels(get_backend()):
                raise NotHere("graphs repeat CUDA kernels: --backend emulated rehearses them")
            reasons: list[str] = []
            self._captured = CapturedStep(
                lambda: (super(OurStep, self)._step(),), self.network, self.optimizer,
                reasons.append,
            )  # fmt: skip
            for _ in range(BEFORE_CAPTURE):
                if not self._captured.captured and not reasons:
                    self.update()
            if not self._captured.captured:
                raise CaptureError(*reasons or ["no two steps are alike"])

    def _step(self) -> Any:
        return super()._step() if self._captured is None else self._captured()[0]

    def _loss(self) -> Any:
        """Without a check of the labels, which would wait for the device."""
        return apply(SoftmaxCrossEntropy(self._labels), self.network(self.images))


def way_of(name: str) -> str:
    """How a contender trains: "graph" of "PyTorch graph"."""
    return name.split()[-1]


def about(bench: GpuBench, names: Iterable[str]) -> list[str]:
    """A line about each contender of PyTorch's."""
    return [f"{n}: {bench.pytorch.WAYS[way_of(n)]}." for n in names if n.startswith(RIVAL)]


def build_step(bench: GpuBench, case: Case, name: str) -> Any:
    """The contender's step, still eager."""
    if name.startswith(RIVAL):
        return bench.pytorch.Step(case, bench.theirs.name)
    return OurStep(case)


def race(
    bench: GpuBench, case: Case, names: Iterable[str]
) -> tuple[Timings, dict[str, Any]] | None:
    """(times of the contenders that ran, how they were timed); None if none of ours did."""
    raced = None
    with bench.unless_it_fails(case, "every contender"):
        raced = _race(bench, case, names)
    bench.tidy()
    return raced


def _race(
    bench: GpuBench, case: Case, names: Iterable[str]
) -> tuple[Timings, dict[str, Any]] | None:
    steps: dict[str, Any] = {}
    for name in names:
        with bench.unless_it_fails(case, name):
            steps[name] = build_step(bench, case, name)
    if not any(name in OWN for name in steps):
        return None
    distance = check_agreement(case, steps)
    warm: dict[str, tuple[float, bool]] = {}
    for name in list(steps):
        with bench.unless_it_fails(case, name):
            steps[name].become(way_of(name))
            seconds = bench.side(name).clock.seconds
            warm[name] = settle(partial(seconds, steps[name].update, bench.warm_up), bench.patience)
        if name not in warm:
            del steps[name]  # and its memory
    if not any(name in OWN for name in steps):
        return None
    fastest = min(seconds for seconds, _ in warm.values())
    times = max(1, min(MOST_STEPS, math.ceil(ROUND / fastest)))
    contenders = [
        Contender(name, single_phase("total", step.update, bench.side(name).clock, times))
        for name, step in steps.items()
    ]
    found = in_turn(contenders, bench.rounds, pause=0.0)
    settled = {name: done for name, (_, done) in warm.items()}
    return found, {
        "steps_a_round": times, "settled": settled, "losses_apart": {"first": distance}
    }  # fmt: skip
