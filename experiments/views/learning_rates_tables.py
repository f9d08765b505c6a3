"""The tables of `learning_rates` studies and their summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.training.study import Run
from experiments.views.learning_rates_gains import gains
from experiments.views.learning_rates_outcomes import (
    AT_CHANCE,
    DIVERGED,
    LEAST,
    Outcome,
    at,
    best_rate,
    largest,
    middle_rate,
)
from experiments.views.series import spread
from experiments.views.tables import seconds, short


def stable_table(found: Sequence[Outcome], grid: Sequence[float]) -> str:
    """Markdown: a row a variant."""
    rows = []
    without, learning = largest(found, learns=False), largest(found)
    for variant in without:
        best = best_rate(found, variant)
        there = [] if best is None else at(found, variant, best).values()
        cells = [
            variant,
            rates_text(without[variant].values(), grid[-1]),
            rates_text(learning[variant].values(), grid[-1]),
            "none" if best is None else f"{best:g}",
            spread([o.train for o in there], ".3f"),
            spread([o.test for o in there], ".3f"),
        ]
        rows.append(cells)
    head = (
        "variant", "largest rate without divergence", "largest rate that learns", "best rate",
        "train accuracy there", "test accuracy there",
    )  # fmt: skip
    note = (
        "median over seeds, least to largest where they differ; ≥: the largest rate of the grid; "
        "none: no rate of the grid"
    )
    return markdown_table(head, rows, note)


def rates_text(rates: Iterable[float], top: float) -> str:
    """The median of rates, with the least and largest where they differ."""
    rates = list(rates)
    low, middle, high = (
        ("≥ " if lr >= top else "") + f"{lr:g}" if lr else "none"
        for lr in (min(rates), middle_rate(rates), max(rates))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def grid_table(found: Sequence[Outcome], grid: Sequence[float]) -> str:
    """Markdown: training accuracy, a row a variant, a column a rate."""
    rows = [
        (variant, *(_cell(list(at(found, variant, lr).values())) for lr in grid))
        for variant in dict.fromkeys(o.variant for o in found)
    ]
    note = (
        "training accuracy by rate, mean over seeds, a diverged run counted as chance; in "
        "brackets how many did not learn; not run: left out, for a lower rate diverged at every "
        "seed of the study; counts as diverged"
    )
    return markdown_table(("variant", *(f"{lr:g}" for lr in grid)), rows, note)


def _cell(there: Sequence[Outcome]) -> str:
    if not there:
        return ""
    statuses = [o.status if o.has_run else "not run" for o in there]
    count = [(s, statuses.count(s)) for s in (AT_CHANCE, DIVERGED, "not run")]
    failed = ", ".join(f"{n} {s}" for s, n in count if n)
    if all(o.status == DIVERGED for o in there):
        steps = [o.step for o in there if o.step is not None]
        return f"diverged at step {spread(steps, 'g')}" if steps else "not run"
    return f"{np.mean([o.train for o in there]):.3f}" + (f" ({failed})" if failed else "")


def definitions(steps: int) -> str:
    return (
        f"Trained for {steps:,} steps. Diverged: a loss that is not finite. Learns: mean training "
        f"accuracy of the last quarter of the steps at least {LEAST:g}. At chance: neither; dead, "
        "or too slow for so few steps."
    )


def summary(
    settings: dict[str, Any], runs: Sequence[Run], found: Sequence[Outcome], grid: Sequence[float]
) -> dict[str, Any]:
    """Everything the figure and the tables show, in a small file (without this machine's paths)."""
    free = ("data_dir", "variants", "lr", "seed")
    variants = list(dict.fromkeys(o.variant for o in found))
    content = {
        "settings": {k: v for k, v in settings.items() if k not in free},
        "definitions": definitions(settings["steps"]),
        "grid": list(grid),
        "largest_without_divergence": largest(found, learns=False),
        "largest_that_learns": largest(found),
        "best_rate": {v: best_rate(found, v) for v in variants},
        "gains_over_standard": {v: gains(found, v) for v in variants if v != "standard"},
        "runs": [asdict(o) for o in found if o.has_run],
        "seconds": round(sum(map(seconds, runs)), 1),
        "environment": runs[0].config["environment"],
        "data_fingerprint": sorted({run.config["data_fingerprint"] for run in runs}),
    }
    return _plain(content)


def _plain(content: Any) -> Any:
    """For JSON: numbers to five digits, null if not finite."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    if isinstance(content, float):
        return short(content, 5)
    return content
