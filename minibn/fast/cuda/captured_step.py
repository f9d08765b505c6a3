"""A training step captured as a CUDA graph and replayed: one launch, the same results.

A step of VGG is some hundred launches, and a large GPU may execute them faster than the host can
launch them. `CapturedStep` runs a few steps normally, captures one, and then replays it (see
`graph.py`).

A replay repeats the captured launches on the current contents of the same arrays. So everything
that can make one step different from another must be handled here:

    what changes at every step    the batch, in the same arrays; the learning rate and the step of
                                  random draws, which kernels read from the device (`scalars`)
    counters on the host          of layers, the optimizer's steps, versions: advanced by a replay
    the state of the capture      modules and their settings and modes, arrays, groups of the
                                  optimizer, kernels, precision: if any is another object, or a
                                  counter was set, the step is captured again
    observers                     with watchers, a profiler or anomaly detection the step runs
                                  normally; the graph stays valid

Law: after any number of steps all state equals that without capturing, bit for bit, except that
parameters have no `.grad`: their gradients are in the graph's memory.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

from minibn.autograd import observers
from minibn.autograd.dispatch import mode
from minibn.backend import backend_of
from minibn.errors import CaptureError, first_line
from minibn.fast.cuda.graph import Graph
from minibn.fast.cuda.scalars import Scalars, use_scalars
from minibn.fast.precision import current as precision
from minibn.fast.selection import edited_definitions, runs_cuda_kernels
from minibn.nn.module import Module
from minibn.nn.noise import RandomLayer
from minibn.nn.norm import RunningStatistics
from minibn.nn.state import Counter, State
from minibn.optim import Optimizer

WARM_UP = 2  # normal steps before the capture: they compile kernels and fill caches
RESTLESS = 10  # changes without a capture, after which `on_refusal` is called
WORD = 1 << 64

Results = tuple[Any, ...]  # 0-d arrays of the backend, or None


class CapturedStep:
    """Runs `step()` at each call: normally at first, then by replays.

    step() makes one update of the model by the optimizer, from a batch in fixed arrays, and returns
    0-d arrays (or None). refused(why) is called when it can't be captured:
    once for each such state; the step then runs normally.
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
        self._key: list[Any] = []  # the state of the last step without observers
        self._warm = 0  # steps in that state
        self._changes = 0  # successive steps, each in another state
        self._why_not = ""
        self._replay: Replay | None = None

    @property
    def captured(self) -> bool:
        """Whether there is a captured graph."""
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
        if ticks is None:  # a counter was set
            self._begin_anew()
            ticks = 0
        if self._replay is None and self._warm >= WARM_UP and not self._why_not:
            self._capture()
        if self._replay is not None:
            return self._replay(ticks)
        self._warm += 1
        return self.step()

    def _begin_anew(self) -> None:
        self._key, self._warm, self._why_not, self._replay = self._found(), 0, "", None

    def _found(self) -> list[Any]:
        """Every object that determines what a step does."""
        backend = backend_of(self.optimizer.params[0].data)
        found: list[Any] = [
            runs_cuda_kernels(backend),
            *map(sys.intern, (mode(), precision())),
            *edited_definitions(),
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

    def _capture(self) -> None:
        """Capture the step, or report why it can't be."""
        try:
            self._check()
            self._replay = Replay(self.step, self.model, self.optimizer, self._found)
        except Exception as error:  # of any kind: report it, and run the step normally
            self._why_not = first_line(error)
            self.on_refusal(self._why_not)

    def _check(self) -> None:
        """Raise CaptureError for what would wrongly be the same in every replay."""
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
    """A captured step that can be replayed."""

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
        try:
            optimizer.lr = 1.0  # as an argument; the rate on the device multiplies it
            with use_scalars(self._scalars), self._graph.capture():
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
        finally:  # the capture executed nothing; restore the host's state
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
        """By how many steps the counters advanced since the capture; None if they disagree."""
        found = None
        for counter, base, move in zip(self._host.counters, self._base, self._moves, strict=False):
            steps, rest = divmod(int(counter.data) - base, move or 1)
            if rest or (not move and steps) or (move and found not in (None, steps)):
                return None
            found = steps if move else found
        return found or 0

    def __call__(self, ticks: int) -> Results:
        """Replay the step. Returns copies of its results, which the next replay overwrites."""
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
    """The integers that a step changes on the host: counters, versions, an optimizer's steps."""

    def __init__(self, model: Module, optimizer: Optimizer) -> None:
        states = [*model.named_parameters(), *model.named_buffers()]
        self.states = list({id(s): s for s in [*dict(states).values(), *optimizer.params]}.values())
        self.counters = [s for s in self.states if isinstance(s, Counter)]
        self.optimizer = optimizer

    def read(self) -> list[int]:
        """The counters first."""
        counts = [int(counter.data) for counter in self.counters]
        versions = (s.version.count for s in self.states)
        return [*counts, *versions, self.optimizer.steps, *self.optimizer.updates]

    def write(self, values: list[int]) -> None:
        left = iter(values)
        for counter in self.counters:
            counter.data[...] = next(left)
        for state in self.states:
            state.version.count = next(left)
        self.optimizer.steps = next(left)
        self.optimizer.updates = list(left)


def _watched(module: Module) -> bool:
    return bool(vars(module).get("_watchers"))


def _same(a: list[Any], b: list[Any]) -> bool:
    """Whether both hold the same objects, by identity."""
    return len(a) == len(b) and all(map(operator.is_, a, b))
