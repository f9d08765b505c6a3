"""The training loop that every experiment shares: measure, save, continue, stop cleanly."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from experiments.training.command_line import UsageError
from experiments.training.device_steps import DeviceStep, device_step
from experiments.training.recorders import Recorder
from experiments.training.run import Place, Run
from experiments.training.signals import stop_requests
from experiments.training.step import CLASSIFY, Feed, Step, Task, one_step
from minibn import nn
from minibn.errors import DataError
from minibn.fast.cpu import threads
from minibn.optim import Optimizer

DRAIN = 20  # steps between transfers of the metrics from the device


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or SIGHUP: the run is saved and can be continued."""


def cores() -> int:
    """The default number of threads: MINIBN_NUM_THREADS, else all cores.

    Raises UsageError for a bad MINIBN_NUM_THREADS.
    """
    try:
        return threads.count()
    except ValueError as error:
        raise UsageError(str(error)) from None


def train(
    run: Run,
    model: nn.Sequential,
    optimizer: Optimizer,
    batches: Feed,
    *,
    steps: int,
    task: Task = CLASSIFY,
    recorders: Sequence[Recorder] = (),
    checkpoint_every: int = 500,
    label: str = "",
) -> dict[str, Any]:
    """Train to `steps` updates from the run's last checkpoint, and return its result.

    metrics.jsonl gets step, loss, accuracy (of the batch, before the update; if the task has a
    score) and lr. A loss that is not finite ends the run as diverged, with its step.
    Raises Interrupted after saving, DataError as `restore` does, and UsageError if another process
    took the run over.
    """
    start = restore(run, model, optimizer)
    recorders = sorted(recorders, key=lambda recorder: not recorder.runs_the_model)
    progress = Progress(label, start, steps, run.place)
    metrics = Metrics(run, progress)
    began, recorded = time.perf_counter(), run.seconds_of_recorders

    def save(done: int) -> None:
        nonlocal began, recorded
        spent, began = time.perf_counter() - began, time.perf_counter()
        share, recorded = run.seconds_of_recorders - recorded, run.seconds_of_recorders
        run.stream("timings").append({
            "step": done - 1, "updates": done, "seconds": round(spent, 3),
            "recorders": round(share, 3),
        })  # fmt: skip
        run.save(done, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})

    diverged = None
    model.train()
    on_device = device_step(model, optimizer, batches, task)
    with stop_requests() as asked, progress, np.errstate(all="ignore"):
        for number in range(start, steps):
            step = Step.of(batches, run, model, optimizer, number, task)
            metrics.enqueue(number, *update(step, recorders, on_device), optimizer.lr)
            due = number == steps - 1 or bool(asked) or (number + 1) % checkpoint_every == 0
            if due or (number + 1) % DRAIN == 0:
                diverged = metrics.drain()
                if diverged is not None:
                    break
            for recorder in recorders:
                recorder.after(step)
            if due:
                save(number + 1)
            run.renew_lease()
            progress.step()
            if asked and number < steps - 1:
                raise Interrupted
        if diverged is None:  # after the checkpoint, which a longer run goes on from
            for recorder in recorders:
                recorder.at_end(run, model, steps)
    if diverged is not None:  # measurements from that step on mean nothing
        run.drop(diverged)
        result = {"status": "diverged", "step": diverged}
    else:
        result = {"status": "done", "steps": steps}
    run.finish(result)
    if asked:
        raise Interrupted
    return result


def restore(run: Run, model: nn.Sequential, optimizer: Optimizer) -> int:
    """Load the run's last checkpoint, if there is one, into both. Returns the steps done.

    Raises DataError if the checkpoint is another network's, or as `Run.restore` does.
    """
    start, states = run.restore()
    if states is None:
        return start
    try:
        model.load_state_dict(states["model"])
        optimizer.load_state_dict(states["optimizer"])
    except KeyError as error:
        raise DataError(
            f"checkpoint {run.checkpoint_path} does not fit this network: {error.args[0]} "
            f"Restore the right one, or delete {run.folder} and train again."
        ) from None
    return start


def update(
    step: Step, recorders: Sequence[Recorder], on_device: DeviceStep | None = None
) -> tuple[Any, Any]:
    """One update, within `during` of the recorders. Returns (loss, score), as `one_step` does."""
    with ExitStack() as stack:
        for recorder in recorders:
            stack.enter_context(recorder.during(step))
        if on_device is not None:
            return on_device(step.number)
        return one_step(step.model, step.optimizer, step.inputs, step.targets, step.task)


class Metrics:
    """metrics.jsonl, whose numbers wait on the device, so that no step waits for a transfer."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.stream, self.progress = run.stream("metrics"), progress
        self._waiting: list[tuple[int, Any, Any, float]] = []

    def enqueue(self, step: int, loss: Any, score: Any, lr: float) -> None:
        self._waiting.append((step, loss, score, lr))

    def drain(self) -> int | None:
        """Fetch and write the numbers. Returns the step of a loss that is not finite, or None."""
        for step, loss, score, lr in self._waiting:
            loss = float(loss.item())
            if not math.isfinite(loss):
                return step
            accuracy = {} if score is None else {"accuracy": float(score.item())}
            self.stream.append({"step": step, "loss": loss, **accuracy, "lr": lr})
            self.progress.show(loss, **accuracy)
        self._waiting.clear()
        return None


class Progress:
    """A progress line on a terminal, of 80 characters at most; elsewhere a line of text now and
    then. Both show which run of the study it is, and the time that is left for all of them."""

    LINE = "{desc} |{bar:12}| {n_fmt}/{total_fmt}{postfix}"

    def __init__(self, label: str, start: int, steps: int, place: Place | None = None) -> None:
        self.label, self.start, self.steps = label, start, steps
        self.place = place or Place()
        self.done, self.loss, self.accuracy = start, math.nan, math.nan
        self.terminal = sys.stderr.isatty()
        self.began = self.printed_at = time.perf_counter()

    def __enter__(self) -> Progress:
        if self.terminal:
            from tqdm import tqdm  # needed on a terminal only

            print(f"{self.place}: {self.label}", file=sys.stderr)
            self.bar = tqdm(
                total=self.steps, initial=self.start, desc=str(self.place), bar_format=self.LINE
            )
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.terminal:
            self.bar.close()
        elif self.done > self.start:
            self._say()

    def show(self, loss: float, accuracy: float = math.nan) -> None:
        smooth = 0.1 if math.isfinite(self.accuracy) else 1.0
        self.loss = loss
        self.accuracy = (1 - smooth) * self.accuracy + smooth * accuracy if smooth < 1 else accuracy

    def step(self) -> None:
        self.done += 1
        if self.terminal:
            left = f", {self.left_of_all} left" if self.left_of_all else ""
            self.bar.set_postfix_str(self.state + left, refresh=False)
            self.bar.update()
        elif time.perf_counter() - self.printed_at > 30:
            self._say()

    @property
    def state(self) -> str:
        if math.isnan(self.loss):
            return "begun"
        accuracy = "" if math.isnan(self.accuracy) else f", acc {self.accuracy:.2f}"
        digits = ".3f" if abs(self.loss) < 1000 else ".3g"
        return f"loss {self.loss:{digits}}{accuracy}"

    @property
    def rate(self) -> float:
        """Steps per second."""
        return (self.done - self.start) / max(time.perf_counter() - self.began, 1e-9)

    @property
    def left_of_all(self) -> str:
        """The time for this run and those after it, at its rate; "" before the first step."""
        steps = self.steps - self.done + self.place.steps_after
        return clock(steps / self.rate) if self.done > self.start else ""

    def _say(self) -> None:
        self.printed_at = time.perf_counter()
        left = (self.steps - self.done) / max(self.rate, 1e-9)
        in_all = f", {self.place}, {self.left_of_all} left in all" if self.place.runs > 1 else ""
        with contextlib.suppress(OSError):  # a terminal that hung up: what asks to save comes next
            print(
                f"{self.label}: step {self.done}/{self.steps}, {self.state}, "
                f"{self.rate:.1f} steps/s, {clock(left)} left{in_all}",
                flush=True,
            )


def clock(seconds: float) -> str:
    """Seconds as text: "45 s", "3 min", "2 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
