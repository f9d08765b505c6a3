"""A training step, captured as a CUDA graph and then replayed: one launch, the same numbers.

A step of VGG is some hundred launches, and a large GPU may be done with them sooner than the host
has asked for them. `CapturedStep` makes a few steps as they come, captures one, and from then on
has the device repeat it (see `graph.py`).

A replay does what was captured with what stands in the same arrays, so every reason why a step of
another number, or at another time, would do something else must be known here:

    what changes at every step    the batch, in arrays that stay; the learning rate and the number
                                  of the draws, which kernels read from the device (`scalars`)
    what a step moves on the host counters of layers, the optimizer's steps, versions: moved along
    what it was captured with     modules and their settings and modes, arrays, groups of the
                                  optimizer, kernels, precision: if any is another object than it
                                  was, or a counter stands elsewhere, it is captured anew
    who looks                     with watchers, profiler or anomaly detection on, it is made as it
                                  comes; the graph stays

Law: after any number of steps everything is as it would be without capturing, bit for bit, but that
parameters keep no `.grad`: their gradients lie in the graph's memory.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

from minibn.autograd import observers
from minibn.autograd.dispatch import mode
from minibn.backend import backend_of
from minibn.errors import CaptureError
from minibn.fast.cuda.cudnn import is_preferred
from minibn.fast.cuda.graph import Graph
from minibn.fast.cuda.scalars import Scalars, use_scalars
from minibn.fast.precision import current as precision
from minibn.fast.selection import runs_cuda_kernels, verified_definitions
from minibn.nn.module import Counter, Module, State
from minibn.nn.noise import RandomLayer
from minibn.nn.norm import RunningStatistics
from minibn.optim import Optimizer

WARM_UP = 2  # steps as they come before one is captured: they compile, and fill what is kept
RESTLESS = 10  # changes without a capture after which it is said that there will be none
WORD = 1 << 64

Results = tuple[Any, ...]  # 0-d arrays of the backend, or None


class CapturedStep:
    """`step()` again and again: as it comes at first, then by replays.

    step() makes one update of the model by the optimizer, from a batch in arrays that stay where
    they are, and returns 0-d arrays (or None). refused(why) is called when it can't be captured:
    once for each state in which it can't; the step is then made as it comes.
    """

    def __init__(
        self,
        step: Callable[[], Results],
        model: Module,
        optimizer: Optimizer,
        on_refusal: Callable[[str], None] = lambda why: None,
    ) -> None:
        self.step, self.model, self.optimizer, self.on_refusal = step, model, optimizer, on_refusal
        self._modules = [module for _, module in model.named_modules()]
        self._key: list[Any] = []  # what the last step that was not watched ran with
        self._warm = 0  # steps that were made with it
        self._changes = 0  # steps in a row that ran with others than the one before
        self._why_not = ""
        self._replay: Replay | None = None

    @property
    def captured(self) -> bool:
        """Whether there is a graph, which the next step will most likely replay."""
        return self._replay is not None

    def __call__(self) -> Results:
        if observers.current() or any(map(_watched, self._modules)):
            return self.step()
        if not _same(self._key, self._found()):
            self._modules = [module for _, module in self.model.named_modules()]
            self._begin_anew()
            self._changes += 1
            if self._changes == RESTLESS:
                self.on_refusal("the model or the optimizer is made of other objects at each step")
        else:
            self._changes = 0
        ticks = self._replay.ticks if self._replay else 0
        if ticks is None:  # a counter stands elsewhere
            self._begin_anew()
        if self._replay is None and self._warm >= WARM_UP and not self._why_not:
            ticks = self._capture()
        if self._replay is not None:
            return self._replay(ticks or 0)
        self._warm += 1
        return self.step()

    def _begin_anew(self) -> None:
        self._key, self._warm, self._why_not, self._replay = self._found(), 0, "", None

    def _found(self) -> list[Any]:
        """Every object that decides what a step does: two states with the same do the same."""
        backend = backend_of(self.optimizer.params[0].data)
        found: list[Any] = [
            runs_cuda_kernels(backend),
            is_preferred(),
            *map(sys.intern, (mode(), precision())),
            *verified_definitions(),
        ]
        for module in self._modules:
            found += [module, type(module).forward]
            for name, part in vars(module).items():
                if name != "_watchers":
                    found.append(part)
                if isinstance(part, State):
                    found += [part.is_initialized and part.data, part.requires_grad]
        for group in self.optimizer.groups:
            found += [*group.values(), *group["params"], *(p.data for p in group["params"])]
        for kept in self.optimizer.state:
            found += kept.values()
        return found

    def _capture(self) -> int:
        """Capture the step, or say why it can't be. Returns the ticks of its first replay."""
        try:
            self._check()
            self._replay = Replay(self.step, self.model, self.optimizer, self._found)
        except Exception as error:  # whatever stands in the way: it is told, and the step is made
            self._why_not = _line(error) or type(error).__name__
            self.on_refusal(self._why_not)
        return 0

    def _check(self) -> None:
        """Raise CaptureError for what would be the same in every replay, and must not be."""
        known = set(map(id, self.optimizer.params))
        for name, p in self.model.named_parameters():
            if p.requires_grad and id(p) not in known:
                raise CaptureError(f"{name} adds up its gradients, for no optimizer knows it")
        for name, module in self.model.named_modules():
            if not isinstance(module, RunningStatistics):
                continue
            if module.training and module.tracking and module.momentum is None:
                raise CaptureError(
                    f"{name or type(module).__name__} averages over all batches (momentum=None), "
                    "with another weight at each step"
                )


class Replay:
    """A step that was captured, ready to be made."""

    def __init__(
        self,
        step: Callable[[], Results],
        model: Module,
        optimizer: Optimizer,
        found: Callable[[], list[Any]],
    ) -> None:
        self.optimizer = optimizer
        self._host = Host(model, optimizer)
        backend = backend_of(optimizer.params[0].data)
        self._scalars, self._graph = Scalars(backend.xp), Graph(backend)
        self._set = (0, 1.0)  # tick and rate, as they are on the device
        self._base, before = self._host.read(), found()
        lr, kept = optimizer.lr, [dict(state) for state in optimizer.state]
        arrays = [state.data for state in self._host.states if not isinstance(state, Counter)]
        arrays += [array for state in kept for array in state.values()]
        try:
            optimizer.lr = 1.0  # by value; the rate on the device multiplies it
            with use_scalars(self._scalars), self._graph.capture(arrays):
                self._results = step()
            if not self._scalars.rate_is_read:
                raise CaptureError(
                    f"the rate of {type(optimizer).__name__}, by its definition, would be the same "
                    "in every replay of the captured step"
                )
            self._moves = [b - a for a, b in zip(self._base, self._host.read(), strict=True)]
            self._check_draws(model)
            if not _same(before, found()):
                raise CaptureError("a step makes arrays of its own that last")
        finally:  # on the device nothing has happened yet, nor has it here
            self._host.write(self._base)
            optimizer.lr, optimizer.state = lr, kept
            optimizer.zero_grad()

    def _check_draws(self, model: Module) -> None:
        moves = dict(zip(map(id, self._host.counters), self._moves, strict=False))
        for name, module in model.named_modules():
            if isinstance(module, RandomLayer) and module.active and moves[id(module.step)] != 1:
                raise CaptureError(
                    f"{name or type(module).__name__} moves its draws by {moves[id(module.step)]} "
                    "in a step; a replay moves them by 1"
                )

    @property
    def ticks(self) -> int | None:
        """How many steps the counters are beyond where they were at the capture. None if they do
        not agree on it."""
        found = None
        for counter, base, move in zip(self._host.counters, self._base, self._moves, strict=False):
            steps, rest = divmod(int(counter.data) - base, move or 1)
            if rest or (not move and steps) or (move and found not in (None, steps)):
                return None
            found = steps if move else found
        return found or 0

    def __call__(self, ticks: int) -> Results:
        """Make the step. Returns copies of its results, which the next replay overwrites."""
        wanted = (ticks % WORD, float(self.optimizer.lr))
        if wanted != self._set:
            self._scalars.tick.fill(wanted[0])
            self._scalars.rate.fill(wanted[1])
            self._set = wanted
        self.optimizer.zero_grad()
        self._graph.launch()
        self._host.write([a + b for a, b in zip(self._host.read(), self._moves, strict=True)])
        return tuple(None if result is None else result.copy() for result in self._results)


class Host:
    """The integers that a step moves on the host: counters, versions, the optimizer's steps."""

    def __init__(self, model: Module, optimizer: Optimizer) -> None:
        states = [*model.named_parameters(), *model.named_buffers()]
        self.states = list({id(s): s for s in [*dict(states).values(), *optimizer.params]}.values())
        self.counters = [s for s in self.states if isinstance(s, Counter)]
        self.optimizer = optimizer

    def read(self) -> list[int]:
        """The counters first."""
        counts = [int(counter.data) for counter in self.counters]
        return [*counts, *(s.version.count for s in self.states), self.optimizer.steps]

    def write(self, values: list[int]) -> None:
        left = iter(values)
        for counter in self.counters:
            counter.data[...] = next(left)
        for state in self.states:
            state.version.count = next(left)
        self.optimizer.steps = next(left)


def _watched(module: Module) -> bool:
    return bool(vars(module).get("_watchers"))


def _same(a: list[Any], b: list[Any]) -> bool:
    """Whether both hold the same objects: equal ones may change apart."""
    return len(a) == len(b) and all(map(operator.is_, a, b))


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line), "").rstrip(".")
