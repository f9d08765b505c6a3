"""Recorders of `minibn.analysis`: the landscape, covariate shift and curvature along a training.

Each measures on the batch of its step, in training mode, and leaves the model as it was: a run with
recorders takes the same path as one without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from experiments.training.json_files import json_number, json_numbers
from experiments.training.recorders import Recorder, on_the_clock
from experiments.training.step import Step
from minibn.analysis import Hessian, covariate_shift, distribution_shift, probe, snapshot
from minibn.random import derive

FIRST_STEPS = (1, 2, 5, 10, 20, 50)  # the first steps differ most from all others


def is_due(step: int, every: int) -> bool:
    """Whether this step is measured: each `every`-th (0: none), and FIRST_STEPS below `every`."""
    return every > 0 and (step % every == 0 or (step in FIRST_STEPS and step < every))


class Landscape(Recorder):
    """landscape.jsonl: a probe from the weights of a step (Figs. 4, 10 to 13).

    The step sizes are `multiples` of the learning rate. Costs len(multiples) + 1 training steps for
    each direction.
    """

    runs_the_model = True

    def __init__(
        self,
        every: int,
        multiples: Sequence[float],
        *,
        directions: Sequence[str] = ("gradient",),
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.every, self.multiples, self.directions = every, tuple(multiples), tuple(directions)
        self.weight_decay, self.seed = weight_decay, seed

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        if is_due(step.number, self.every):
            with on_the_clock(step.run):
                for direction in self.directions:
                    self._probe(step, direction)
        yield

    def _probe(self, step: Step, direction: str) -> None:
        lr = step.optimizer.lr
        result = probe(
            step.model,
            step.batch,
            [multiple * lr for multiple in self.multiples],
            loss=step.task.loss,
            direction=direction,
            weight_decay=self.weight_decay,
            seed=derive(self.seed, "landscape", step.number),
        )
        step.run.stream("landscape").append(
            {
                "step": step.number,
                "lr": lr,
                "direction": direction,
                "loss": json_number(result.loss),
                "gradient_norm": json_number(result.gradient_norm),
                "step_sizes": json_numbers(result.step_sizes),
                "losses": json_numbers(result.losses),
                "gradient_change": json_numbers(result.gradient_change),
                "cosine": json_numbers(result.cosine),
                "beta": json_numbers(result.beta),
                "saturated": result.saturated,
                "at_floor": result.at_floor,
                "at_ceiling": result.at_ceiling,
            }
        )


class CovariateShift(Recorder):
    """shift.jsonl: Definition 2.1 for every layer, and the change of its ReLU's inputs (Fig. 3).

    `places`: for each layer, from the first, the module whose input is its activation; "" for
    none. The update is the step's own. Costs about two thirds of a training step a layer.
    """

    runs_the_model = True

    def __init__(self, every: int, places: Sequence[str], *, weight_decay: float = 0.0) -> None:
        self.every, self.places, self.weight_decay = every, tuple(places), weight_decay

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        if not is_due(step.number, self.every):
            yield
            return
        before = snapshot(step.model)
        yield
        after = {name: p.data for name, p in step.model.named_parameters()}
        with on_the_clock(step.run):
            self._record(step, before, after)

    def _record(self, step: Step, before: dict[str, Any], after: dict[str, Any]) -> None:
        shifts = covariate_shift(
            step.model,
            step.batch,
            before,
            after,
            loss=step.task.loss,
            weight_decay=self.weight_decay,
        )
        places = [place for place in self.places if place]
        moved = {
            unit.place: unit
            for unit in distribution_shift(step.model, step.batch, before, after, places)
        }
        for shift in shifts:
            record = {
                "step": step.number,
                "layer": shift.layer,
                "l2": json_number(shift.l2),
                "relative": json_number(shift.relative),
                "cosine": json_number(shift.cosine),
                "gradient_norm": json_number(shift.gradient_norm),
            }
            place = self.places[shift.layer - 1] if shift.layer <= len(self.places) else ""
            if place:
                unit = moved[place]
                for key in ("mean_drift", "var_drift", "wasserstein", "std"):
                    record[key] = json_number(getattr(unit, key))
            step.run.stream("shift").append(record)


class Curvature(Recorder):
    """curvature.jsonl: gᵀHg / gᵀg, the largest eigenvalues of the Hessian, and its trace.

    A measurement costs about five training steps for the graph, and two or three for each
    Hessian-vector product: one along the gradient, at most `iterations` for the eigenvalues,
    `samples` for the trace.
    """

    runs_the_model = True

    def __init__(
        self, every: int, *, iterations: int = 12, samples: int = 4, weight_decay: float = 0.0
    ) -> None:
        self.every, self.weight_decay = every, weight_decay
        self.iterations, self.samples = iterations, samples

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        if self.every and step.number % self.every == 0:
            with on_the_clock(step.run):
                self._record(step)
        yield

    def _record(self, step: Step) -> None:
        record: dict[str, Any] = {"step": step.number, "lr": step.optimizer.lr}
        try:
            decay = {"weight_decay": self.weight_decay}
            H = Hessian(step.model, step.batch, loss=step.task.loss, **decay)
            largest = H.eigenvalues(2, iterations=self.iterations)
            trace = H.trace(self.samples)
            record |= {
                "along_gradient": json_number(H.along_gradient()),
                "eigenvalues": json_numbers(largest.values),
                "residuals": json_numbers(largest.residuals),
                "converged": largest.converged,
                "trace": json_number(trace.value),
                "trace_error": json_number(trace.error),
            }
        except FloatingPointError:  # the training diverges: a record without numbers
            record |= {"along_gradient": None, "eigenvalues": [], "residuals": []}
            record |= {"trace": None, "trace_error": None}
        step.run.stream("curvature").append(record)
