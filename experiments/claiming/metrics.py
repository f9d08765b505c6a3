"""Metrics: from the runs of one seed to one number.

A `Quantity` belongs to one run: a number, or a vector with one entry per layer. A `Metric` combines
the quantities of one, two or more runs into the number that a rule judges: itself, a difference, a
quotient. Of vectors, a difference's entries are averaged, a quotient's geometrically.

A diverged run counts as chance in accuracies and as infinite in losses. A length that was not
finite when it was measured (null in the files) counts as infinite. What can't be computed raises
`Missing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.claiming.evidence import Missing, Trace, TraceOrSweep
from experiments.training.json_files import float_array
from experiments.views.tables import CHANCE
from minibn.errors import DataError

INF = np.inf
TINY = 1e-30  # the least denominator of a quotient: some quantities are 0 by design


@dataclass(frozen=True)
class Quantity:
    text: str
    of: Callable[[Any], Any]  # of a Trace, or of a Sweep


@dataclass(frozen=True)
class Metric:
    """`fold` combines the quantities of the runs; `form` is it in words, {0}, {1} are the runs."""

    quantity: Quantity
    form: str
    fold: Callable[..., Any]
    quotient: bool = False

    def __call__(self, runs: Sequence[TraceOrSweep]) -> float:
        """One number. Raises Missing if a run lacks what is needed, or if the number is nan, and
        DataError if a record lacks a key."""
        with np.errstate(all="ignore"):
            try:
                found = np.asarray(self.fold(*(self.quantity.of(run) for run in runs)), np.float64)
            except KeyError as lacking:
                names = " or ".join(map(str, runs))
                raise DataError(
                    f"the records of {names} lack {lacking}. Restore them, or train that run again."
                ) from None
            x = float(np.exp(np.log(found).mean()) if self.quotient else found.mean())
        if np.isnan(x):
            raise Missing(f"not a number: {', '.join(map(str, runs))}")
        return x

    def text(self, names: Sequence[str]) -> str:
        return f"{self.quantity.text}: {self.form.format(*names)}"


def itself(quantity: Quantity) -> Metric:
    return Metric(quantity, "{0}", lambda a: a)


def difference(quantity: Quantity) -> Metric:
    return Metric(quantity, "{0} - {1}", lambda a, b: a - b)


def quotient(quantity: Quantity) -> Metric:
    def fold(a: Any, b: Any) -> Any:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.maximum(a, TINY) / np.maximum(b, TINY)

    return Metric(quantity, "{0} / {1}", fold, quotient=True)


def span(start: int, stop: int) -> str:
    return f"step {start:,}" if stop == start + 1 else f"steps {start:,}-{stop:,}"


# Quantities of metrics.jsonl and test.jsonl


def train_accuracy(start: int, stop: int) -> Quantity:
    """The mean over the batches of the steps start to stop (exclusive)."""

    def of(run: Trace) -> float:
        run.require(stop)
        seen = [r["accuracy"] for r in run.records("metrics") if start <= r["step"] < stop]
        lost = stop - max(start, min(stop, run.diverged)) if run.diverged is not None else 0
        return float(np.mean(float_array(seen, null=np.nan).tolist() + [CHANCE] * lost))

    return Quantity(f"train accuracy, {span(start, stop)}", of)


def test_accuracy(updates: int) -> Quantity:
    """After so many updates, in eval mode."""

    def of(run: Trace) -> float:
        run.require(updates)
        if run.diverged is not None and run.diverged < updates:
            return CHANCE
        for record in run.records("test"):
            if record["updates"] == updates:
                return float_value(record["accuracy"], null=np.nan)
        raise Missing(f"{run} has no test accuracy after {updates:,} updates")

    return Quantity(f"test accuracy after {updates:,} steps", of)


def train_loss(start: int, stop: int) -> Quantity:
    """The median over the steps start to stop (exclusive)."""

    def of(run: Trace) -> float:
        run.require(stop)
        if run.diverged is not None and run.diverged < stop:
            return np.inf
        seen = [r["loss"] for r in run.records("metrics") if start <= r["step"] < stop]
        return float(np.median(float_array(seen, null=np.nan)))

    return Quantity(f"training loss, {span(start, stop)}", of)


def float_value(x: float | None, null: float) -> float:
    """`float_array`, for a single number."""
    return float(float_array([x], null)[0])
