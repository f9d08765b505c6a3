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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claiming.streams import RunStreams, Table
from experiments.output import markdown_table
from experiments.training.comparability import scale
from experiments.training.json_files import write_json
from experiments.training.settings import in_precision
from experiments.views.at_equal_loss import AROUND, CENTRES, WIDTH, at_losses, count_at_losses
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
from minibn.errors import DataError

STANDARD = "standard"
LATE = 0.25  # of the steps, from which on equal steps are compared: the paper's claims are late
PLACES = [*range(len(CENTRES)), len(CENTRES) + 0.5]  # of the bins, and of equal steps
MEASURES = {
    # A step alone may end as high as it began; the band up to it does not vanish then.
    "loss_band": "band of the loss\nfrom L(w) to L(w - ηd)",
    "relative_loss_band": "relative to the loss,\nband / L(w)",
    "gradient_change": "change of the gradient\n‖∇L(w - ηd) - ∇L(w)‖",
    # ‖ηd‖ = η ‖∇L(w)‖, so at one η this is η times the effective beta.
    "beta": "relative to the gradient,\nη · effective beta",
}


def plot(runs: Sequence[RunStreams], out: Path) -> None:
    """Draw a figure a variant, write table.md and summary.json, and print the numbers at the rate
    and the paths.

    Raises DataError if the runs are not of one network and data set, or hold no pair to compare.
    """
    found = compare(runs)
    out.mkdir(parents=True, exist_ok=True)
    text = make_table(found)
    checkpoint.write_text(out / "table.md", text + "\n")
    write_json(out / "summary.json", {"comparisons": summary(found)})
    variants = in_order(c.variant for c in found)
    paths = [
        figure([c for c in found if c.variant == variant], out / "figures") for variant in variants
    ]
    print(f"\n{make_table(found, at_rate=True)}\n")
    print("\n".join(["Figures:", *map(str, paths)]))


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
        for axes, (measure, title) in zip(row, MEASURES.items(), strict=True):
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
