"""Figures, table and summary of `equal_loss`: two networks' landscapes at equal training loss.

equal-loss-VARIANT.png   standard over VARIANT: quotients against training loss, a line a step size,
                         a row an initialisation; at the right, at equal steps
table.md                 the same in numbers
summary.json             seed by seed

From runs in memory (`claiming.streams`), of studies or of kept ones. Which probe belongs to which
loss: `at_equal_loss`. A quotient is of the two runs of one seed. Several seeds: the median, and a
band from the least to the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claiming.at_equal_loss import AROUND, CENTRES, WIDTH
from experiments.claiming.streams import RunStreams
from experiments.output import markdown_table
from experiments.training.json_files import write_json
from experiments.views.comparison_at_equal_loss import (
    LATE,
    MEASURES,
    Comparison,
    compare,
    not_compared,
)
from experiments.views.plotting import (
    WIDEST,
    colour_scale,
    entry,
    fill_band,
    heading,
    in_order,
    legend_below,
    own_style,
    plain_numbers,
    save,
    subplots,
)
from experiments.views.series import spread
from experiments.views.tables import short
from minibn import checkpoint

PLACES = [*range(len(CENTRES)), len(CENTRES) + 0.5]  # of the bins, and of equal steps


TITLES = {
    "loss_band": "band of the loss\nfrom L(w) to L(w - ηd)",
    "relative_loss_band": "relative to the loss,\nband / L(w)",
    "gradient_change": "change of the gradient\n‖∇L(w - ηd) - ∇L(w)‖",
    "beta": "relative to the gradient,\nη · effective beta",
}


def plot(runs: Sequence[RunStreams], out: Path) -> None:
    """Draw a figure a variant, write table.md and summary.json, and print the numbers at the rate
    and the paths.

    Raises DataError if the runs are not of one network and data set, or hold no pair to compare.
    """
    found = compare(runs)
    out.mkdir(parents=True, exist_ok=True)
    lacking = not_compared(runs, found)
    rest = f"\n\nNot compared, without probes or a partner: {'; '.join(lacking)}." * bool(lacking)
    checkpoint.write_text(out / "table.md", make_table(found) + rest + "\n")
    write_json(out / "summary.json", {"comparisons": summary(found)})
    variants = in_order(c.variant for c in found)
    paths = [
        figure([c for c in found if c.variant == variant], out / "figures") for variant in variants
    ]
    print(f"\n{make_table(found, at_rate=True)}{rest}\n")
    print("\n".join(["Figures:", *map(str, paths)]))


@own_style()
def figure(found: Sequence[Comparison], folder: Path) -> Path:
    """A row an initialisation (and rate), a column a measure; all on one scale."""
    first = found[0]
    figure, grid = subplots(
        len(found), len(MEASURES), figsize=(WIDEST, 1.6 + 2.5 * len(found)), sharey=True,
        squeeze=False,
    )  # fmt: skip
    ends = np.log10([min(first.sizes), max(first.sizes)])
    shades = colour_scale("viridis_r", ends[0] - 0.3, ends[1] + 0.01)
    colours = [shades.to_rgba(np.log10(size)) for size in first.sizes]
    rates = {c.lr for c in found}
    for row, c in zip(grid, found, strict=True):
        for axes, (measure, title) in zip(row, TITLES.items(), strict=True):
            axes.axhline(1, color="0.35", linestyle="--", linewidth=1)
            axes.axvline(len(CENTRES) - 0.25, color="0.6", linewidth=0.8)
            for i, shade in enumerate(colours):
                _line(axes, c.quotients[measure][:, :, i], shade)
            labels = [f"{centre:g}" for centre in CENTRES] + ["equal\nstep"]
            numbers = zip(labels, c.count(), strict=True)
            axes.set_xticks(PLACES, [f"{label}\nn={n}" for label, n in numbers])
            axes.tick_params(axis="x", labelsize=7.5)
            axes.set(yscale="log", xlim=(-0.4, PLACES[-1] + 0.6))
            axes.set_title(title)
        at = f", lr {c.lr:g}" if len(rates) > 1 else ""
        row[0].set_ylabel(f"init {c.init}{at}\nstandard / {c.variant}")
    plain_numbers(grid[0][0])
    for axes in grid[-1]:
        axes.set_xlabel("training loss (nats)")
    handles = [
        entry(f"η = {size:g}", color=shade, marker="o", markersize=3)
        for size, shade in zip(first.sizes, colours, strict=True)
    ]
    legend_below(figure, handles, _title(found))
    return save(figure, folder, f"equal-loss-{first.variant}")


def _line(axes: Any, quotients: np.ndarray, shade: Any) -> None:
    """(seeds, places): median and band; a bin without a number interrupts the line."""
    known = np.where(np.isfinite(quotients), quotients, np.nan)
    some = ~np.isnan(known).all(0)
    low, middle, high = np.full((3, known.shape[1]), np.nan)
    if some.any():
        low[some], high[some] = np.nanmin(known[:, some], 0), np.nanmax(known[:, some], 0)
        middle[some] = np.nanmedian(known[:, some], 0)
    style = {"color": shade, "linewidth": 1.3, "marker": "o", "markersize": 3}
    axes.plot(PLACES[:-1], middle[:-1], **style)
    axes.plot(PLACES[-1:], middle[-1:], **style, markerfacecolor="white")
    if len(known) > 1:
        fill_band(axes, PLACES[:-1], low[:-1], high[:-1], shade, alpha=0.15)
        axes.vlines(PLACES[-1:], low[-1:], high[-1:], color=shade, alpha=0.3, linewidth=3)


def _title(found: Sequence[Comparison]) -> str:
    seeds = sorted({seed for c in found for seed in c.seeds})
    who = f"seed {seeds[0]}" if len(seeds) == 1 else "median over n seeds, band: least to largest"
    at = f", lr {found[0].lr:g}" if len({c.lr for c in found}) == 1 else ""
    return heading(
        [f"Probes along the gradient at equal training loss{at}: standard / {found[0].variant}"],
        [f"above 1: larger in the standard network; {who}{found[0].precision}"],
        ["n=0: a bin that a network jumps over or does not reach; right, open: at equal steps, "
         f"the last {1 - LATE:.0%} of training"],
    )  # fmt: skip


def make_table(found: Sequence[Comparison], *, at_rate: bool = False) -> str:
    """Markdown: a row a variant, initialisation, measure and step size; with `at_rate` only the
    step size nearest to the rate."""
    rows = []
    for c in found:
        nearest = int(np.argmin(np.abs(np.log(np.array(c.sizes) / c.lr))))
        for measure in MEASURES:
            for i in [nearest] if at_rate else range(len(c.sizes)):
                values = np.moveaxis(c.quotients[measure][:, :, i], 0, 1)  # (places, seeds)
                cells = [_cell(v) for v in values]
                rows.append((c.variant, c.init, f"{c.lr:g}", measure, f"{c.sizes[i]:g}", *cells))
    head = (
        "standard /", "init", "lr", "measure", "step size",
        *(f"loss {centre:g}" for centre in CENTRES), "equal step",
    )  # fmt: skip
    note = (
        "quotients standard / variant of two runs of one seed: median over the seeds (least to "
        f"largest), n seeds; training loss: mean within {AROUND} steps, within a factor of {WIDTH} "
        "of the column's; empty: no probe of one of the two is there; equal step: medians over the "
        f"last {1 - LATE:.0%} of the steps"
    )
    return markdown_table(head, rows, note)


def _cell(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{spread(known.tolist())}, n={len(known)}" if len(known) else ""


def summary(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """For each comparison the quotients (seeds, places, sizes), null where there is none; the last
    place is at equal steps."""
    return [
        {
            "variant": c.variant, "init": c.init, "lr": c.lr, "seeds": c.seeds,
            "losses": CENTRES, "step_sizes": c.sizes, "probes": c.probes.tolist(),
            "quotients": {
                measure: [[[short(v) for v in line] for line in seed] for seed in values]
                for measure, values in c.quotients.items()
            },
        }
        for c in found
    ]  # fmt: skip
