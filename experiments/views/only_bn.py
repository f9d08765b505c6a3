"""The figure and the tables of `only_bn` studies, from their files.

only_bn.png   training accuracy over the steps, each variant at its best rate; test accuracy at the
              end against the rate; its difference to only-batchnorm's at the best rates, by seed

table.md holds accuracies and differences; summary.json the same as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.training.comparability import require_comparable
from experiments.training.json_files import write_json
from experiments.training.settings import in_precision
from experiments.training.study import Run, Study
from experiments.views import best_rates
from experiments.views.learning_rates_outcomes import Outcome
from experiments.views.plotting import WIDEST, legend_below, own_style, save, subplots
from experiments.views.series import spread
from experiments.views.tables import count_of_seeds, seconds, short
from minibn import checkpoint

OURS = "only-batchnorm"
# variant -> its colour, in the order of legends and tables (Okabe & Ito 2008, safe for the
# colour-blind)
COLOURS = {
    OURS: "#0072b2",
    "random-weights": "#d55e00",
    "output-layer": "#009e73",
    "all": "#111111",
}
MARGIN = 0.02  # of the claim: see experiments/only_bn.py


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw the figure, write table.md and summary.json, and print tables and paths.

    Raises DataError if no run has ended, or if the studies are not of one network and data set.
    """
    out = out or studies[0].folder
    require_comparable(studies)
    settings = studies[0].settings
    runs, found = best_rates.ended(studies, COLOURS)
    parts = (counts_table(runs), best_rates.accuracy_table(found), difference_table(found))
    text = "\n\n".join(part for part in parts if part)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(out / "table.md", text + "\n")
    write_json(out / "summary.json", summary(settings, runs, found))
    path = figure(runs, found, settings, out / "figures")
    print(f"\n{text}\n\nFigure: {path}")


def differences(found: Sequence[Outcome]) -> dict[str, dict[int, float]]:
    """other variant -> seed -> test accuracy of only-batchnorm minus its, at the best rates."""
    variants = best_rates.variants_of(found)
    others = [v for v in variants if v != OURS] if OURS in variants else []
    every = {v: best_rates.difference(found, OURS, v, "test") for v in others}
    return {v: by_seed for v, by_seed in every.items() if by_seed}


def counts_table(runs: Sequence[Run]) -> str:
    """Markdown: how many numbers each variant trains."""
    counted = {run.config["variant"]: run.config for run in runs}
    rows = [
        (v, f"{counted[v]['trained']:,}", f"{counted[v]['trained'] / counted[v]['parameters']:.2%}")
        for v in COLOURS
        if v in counted
    ]
    return markdown_table(("variant", "trained numbers", "of all"), rows)


def difference_table(found: Sequence[Outcome]) -> str:
    """Markdown: a row a variant that only-batchnorm is compared with."""
    rows = [
        (v, len(by_seed), spread(list(by_seed.values()), ".3f"))
        for v, by_seed in differences(found).items()
    ]
    note = "test accuracy at the end, each variant at its best rate, paired by seed"
    return markdown_table((f"{OURS} minus", "seeds", "difference"), rows, note)


def summary(
    settings: dict[str, Any], runs: Sequence[Run], found: Sequence[Outcome]
) -> dict[str, Any]:
    """Everything that figure and tables show, in a small file (without this machine's paths)."""
    free = ("data_dir", "variants", "lr", "seed")
    return {
        "settings": {k: v for k, v in settings.items() if k not in free},
        "best_rate": {v: best_rates.best_rate(found, v) for v in best_rates.variants_of(found)},
        "difference": {
            v: {str(seed): short(d) for seed, d in by_seed.items()}
            for v, by_seed in differences(found).items()
        },
        "runs": best_rates.as_numbers(found),
        "trained": {run.config["variant"]: run.config["trained"] for run in runs},
        "seconds": round(sum(map(seconds, runs)), 1),
        "environment": runs[0].config["environment"],
    }


@own_style()
def figure(
    runs: Sequence[Run], found: Sequence[Outcome], settings: dict[str, Any], folder: Path
) -> Path:
    picture, (left, middle, right) = subplots(1, 3, figsize=(WIDEST, 4.2))
    best_rates.curves(left, runs, found, COLOURS)
    left.set_title("training, at the best rate of each")
    best_rates.by_rate(middle, found, COLOURS, "test")
    middle.set_title("test, at the end")
    _differences(right, differences(found))
    title = (
        f"Training a part of {settings['model']}, width {settings['width']:g}, {settings['data']}, "
        f"{settings['steps']:,} steps{in_precision(settings)}; "
        f"{count_of_seeds(len({o.seed for o in found}))}"
    )
    legend_below(picture, best_rates.handles(found, COLOURS), title)
    return save(picture, folder, "only_bn")


def _differences(axes: Any, of: dict[str, dict[int, float]]) -> None:
    """A row a variant: a point a seed, a bar at the mean, the margin as a dashed line."""
    for row, (variant, by_seed) in enumerate(of.items()):
        values = list(by_seed.values())
        axes.plot(values, [row] * len(values), "o", color=COLOURS[variant], markersize=4)
        mean = float(np.mean(values))
        axes.plot([mean, mean], [row - 0.12, row + 0.12], color=COLOURS[variant], linewidth=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(MARGIN, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(of)), [v.replace("-", "\n") for v in of])
    axes.set_ylim(len(of) - 0.5, -0.5)
    axes.set_xlabel("difference of test accuracy")
    axes.set_title(f"{OURS} minus the other\n(bar: mean; dashed: margin {MARGIN:g})")
