"""Standard over another variant, run by run of one seed, at equal training loss and at equal steps.

From runs in memory (`claiming.streams`). Which probe belongs to which loss: `at_equal_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.claiming.at_equal_loss import at_losses, count_at_losses
from experiments.claiming.streams import RunStreams, Table
from experiments.training.comparability import scale
from experiments.training.settings import in_precision
from minibn.errors import DataError

STANDARD = "standard"
LATE = 0.25  # of the steps, from which on equal steps are compared: the paper's claims are late
# Of the loss the band of the walk up to a step size: a step alone may end as high as it began.
# ‖ηd‖ = η ‖∇L(w)‖, so at one η beta is the gradient's relative change, over η.
MEASURES = ("loss_band", "relative_loss_band", "gradient_change", "beta")


@dataclass(frozen=True)
class Comparison:
    """Standard over one variant, from one initialisation and at one rate.

    quotients: measure -> (seeds, places, sizes): of the bins of CENTRES and, last, at equal steps.
    probes: of standard and of the variant, how many are in each bin: (seeds, 2, bins).
    """

    variant: str
    init: str
    lr: float
    precision: str
    seeds: tuple[int, ...]
    sizes: tuple[float, ...]
    quotients: dict[str, np.ndarray]
    probes: np.ndarray

    def count(self) -> np.ndarray:
        """The seeds with a number, at each place."""
        return np.isfinite(self.quotients["loss_band"]).any(2).sum(0)


def compare(runs: Sequence[RunStreams]) -> list[Comparison]:
    """Standard and each other variant, by initialisation and rate, over the seeds of both.

    Raises DataError if the runs are not of one network and data set, or hold no pair.
    """
    probed = [run for run in runs if "landscape:gradient" in run.tables]
    require_one_network(probed)
    named = {(r.settings["init"], r.lr, r.variant, r.seed): r for r in reversed(probed)}
    places = dict.fromkeys((r.settings["init"], r.lr, r.variant) for r in probed)
    sizes = sizes_of_all(probed) if probed else ()
    found = []
    for init, lr, variant in sorted(places, key=lambda p: (p[0], p[1])):
        seeds = sorted(s for i, r, v, s in named if (i, r, v) == (init, lr, variant))
        pairs = [
            (seed, named[init, lr, STANDARD, seed], named[init, lr, variant, seed])
            for seed in seeds
            if variant != STANDARD and (init, lr, STANDARD, seed) in named
        ]
        if pairs:
            found.append(_comparison(pairs, sizes))
    if not found:
        raise DataError(
            "no run with probes has a standard network of its seed, rate and initialisation beside "
            "it. Train both with --probe-every."
        )
    return found


def not_compared(runs: Sequence[RunStreams], found: Sequence[Comparison]) -> list[str]:
    """The runs that no comparison holds: without probes, or without a partner of their seed."""
    used = {(c.init, c.lr, v, s) for c in found for v in (STANDARD, c.variant) for s in c.seeds}
    own = {str(r): (r.settings["init"], r.lr, r.variant, r.seed) for r in runs}
    return [name for name, key in own.items() if key not in used]


def _comparison(
    pairs: Sequence[tuple[int, RunStreams, RunStreams]], sizes: tuple[float, ...]
) -> Comparison:
    _, _, first = pairs[0]
    quotients = {}
    for measure in MEASURES:
        with np.errstate(all="ignore"):  # of probes that were not finite
            each = [_quotient(a, b, measure, sizes) for _, a, b in pairs]
        quotients[measure] = np.array(each)
    return Comparison(
        variant=first.variant,
        init=first.settings["init"],
        lr=first.lr,
        precision=in_precision(first.settings),
        seeds=tuple(seed for seed, *_ in pairs),
        sizes=sizes,
        quotients=quotients,
        probes=np.array([[probes_in_bins(a), probes_in_bins(b)] for _, a, b in pairs]),
    )


def _quotient(
    one: RunStreams, other: RunStreams, measure: str, sizes: Sequence[float]
) -> np.ndarray:
    """(places, sizes): of two runs of one seed; at equal steps, up to the last that both have."""
    last = min(run.tables["metrics"]["step"][-1] for run in (one, other))
    a, b = (by_loss(run, measure, sizes, last) for run in (one, other))
    return a / b


def by_loss(run: RunStreams, measure: str, sizes: Sequence[float], last: float) -> np.ndarray:
    """(places, sizes): the median of a measure near each training loss; and, in the last place,
    over the later steps up to `last`."""
    metrics, probes = run.tables["metrics"], run.tables["landscape:gradient"]
    values = measured(probes, measure, sizes)
    late = (LATE * last <= probes["step"]) & (probes["step"] <= last)
    near = at_losses(metrics["step"], metrics["loss"], probes["step"], values)
    at_steps = np.median(values[late], axis=0) if late.any() else np.full(len(sizes), np.nan)
    return np.array([*near, at_steps])


def probes_in_bins(run: RunStreams) -> np.ndarray:
    metrics, probes = run.tables["metrics"], run.tables["landscape:gradient"]
    return count_at_losses(metrics["step"], metrics["loss"], probes["step"])


def measured(probes: Table, measure: str, sizes: Sequence[float]) -> np.ndarray:
    """(probes, sizes): a measure of each probe at each of these ascending step sizes; of the loss,
    the largest minus the least from the start to this step. What was not finite is infinite."""
    near = np.isclose(probes["step_sizes"][:, None, :], np.array(sizes)[None, :, None], rtol=1e-5)
    places = near.argmax(2)  # (probes, sizes)
    column = "losses" if "loss" in measure else measure
    values = np.take_along_axis(probes[column], places, axis=1).astype(np.float64)
    values = np.where(np.isnan(values), np.inf, values)
    if "loss" not in measure:
        return values
    start = probes["loss"].astype(np.float64)[:, None]
    walk = np.concatenate([start, values], axis=1)  # (probes, 1 + sizes)
    band = np.maximum.accumulate(walk, 1) - np.minimum.accumulate(walk, 1)
    return band[:, 1:] / (start if measure.startswith("relative") else 1)


def sizes_of_all(runs: Sequence[RunStreams]) -> tuple[float, ...]:
    """The step sizes that all probes have in common. Raises DataError if there are none."""
    tables = [run.tables["landscape:gradient"]["step_sizes"] for run in runs]
    common = [
        float(size)
        for size in tables[0][0]
        if all(np.isclose(table, size, rtol=1e-5, atol=0).any(1).all() for table in tables)
    ]
    if not common:
        raise DataError(f"the probes of {runs[0]} and the others have no step size in common.")
    return tuple(float(f"{size:.6g}") for size in sorted(common))


def require_one_network(runs: Sequence[RunStreams]) -> None:
    """Raise DataError unless the runs differ in their initialisation alone, and what every figure
    compares."""
    for run in runs:
        ours, theirs = (scale(r, free=("init",)) for r in (runs[0], run))  # type: ignore[arg-type]  # of settings
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                raise DataError(
                    f"{run} has {key} {theirs.get(key)}, {runs[0]} {ours.get(key)}: equal losses "
                    "of different trainings say nothing. Use them separately."
                )
        if run.data != runs[0].data:
            raise DataError(f"{run} was trained on other data than {runs[0]}. Use them separately.")
