"""The figures and the tables of `skip_init` studies, from their files.

start.png      at step 0: residual branch over skip path, block by block; correlation of gradients
               against the distance of the inputs
training.png   training accuracy over the steps, each variant at its best rate, and at the end
               against the rate

table.md holds the same; summary.json the same as numbers, and the metrics of the claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.residual.gradients import ENDS, POINTS
from experiments.training.comparability import require_comparable
from experiments.training.json_files import write_json
from experiments.training.settings import in_precision
from experiments.training.study import Run, Study
from experiments.views import best_rates
from experiments.views.learning_rates_outcomes import Outcome
from experiments.views.plotting import (
    DOTTED,
    WIDEST,
    entry,
    legend_below,
    own_style,
    save,
    subplots,
)
from experiments.views.series import spread, without_copies
from experiments.views.tables import count_of_seeds, seconds, short
from minibn import checkpoint
from minibn.errors import DataError

# variant -> its colour, in the order of legends and tables (Okabe & Ito 2008)
COLOURS = {"none": "#d55e00", "batchnorm": "#0072b2", "skipinit": "#009e73"}
# network of `residual/gradients.py` -> how it is drawn; dashed: without skip paths
STYLES: dict[str, dict[str, Any]] = {
    "feedforward": {"color": COLOURS["none"], "linestyle": "--"},
    "feedforward-batchnorm": {"color": COLOURS["batchnorm"], "linestyle": "--"},
    "residual": {"color": COLOURS["none"]},
    "residual-batchnorm": {"color": COLOURS["batchnorm"]},
    "residual-skipinit": {"color": COLOURS["skipinit"]},
}
MARKS = {"none": "s", "batchnorm": "o", "skipinit": "^"}

Table = dict[Any, dict[int, list[float]]]  # variant or network -> block or lag -> a value a seed


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw the figures, write table.md and summary.json, and print tables and paths.

    Raises DataError if no run has ended, or if the studies are not of one network and data set.
    """
    out = out or studies[0].folder
    require_comparable(studies)
    settings = studies[0].settings
    every = without_copies(run for study in studies for run in study.runs())
    starts = [run for run in every if run.records("paths") and run.result]
    trained = [run for run in every if run.config["variant"] in COLOURS and run.result]
    if not starts and not trained:
        raise DataError(f"{studies[0].folder} has no run that ended. Continue it with --resume.")
    found = best_rates.ended(studies, COLOURS)[1] if trained else []
    parts = (
        paths_table(ratios(starts)),
        gradients_table(correlations(starts)),
        best_rates.accuracy_table(found),
    )
    text = "\n\n".join(part for part in parts if part)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(out / "table.md", text + "\n")
    write_json(out / "summary.json", summary(settings, starts, trained, found))
    folder = out / "figures"
    pictures = [start_figure(starts, settings, folder)] if starts else []
    pictures += [training_figure(trained, found, settings, folder)] if trained else []
    print(f"\n{text}\n\nFigures: {', '.join(map(str, pictures))}")


def ratios(starts: Sequence[Run]) -> Table:
    """variant -> block -> residual over skip mean square, a value a seed."""
    table: Table = {}
    for run in starts:
        for r in run.records("paths"):
            of = table.setdefault(r["variant"], {}).setdefault(r["block"], [])
            of.append(r["residual"] / r["skip"])
    return table


def correlations(starts: Sequence[Run]) -> Table:
    """network -> lag -> correlation of gradients, a value a seed."""
    table: Table = {}
    for run in starts:
        for r in run.records("gradients"):
            of = table.setdefault(r["network"], {}).setdefault(r["lag"], [])
            of.append(r["correlation"])
    return table


def deviations(table: Table) -> list[float]:
    """The claim's number, a value a seed: the largest |l · ratio - 1| over blocks l, with
    BatchNorm."""
    by_block = table.get("batchnorm", {})
    scaled = [[abs(block * r - 1) for r in of] for block, of in by_block.items()]
    return [max(of) for of in zip(*scaled, strict=True)]


def contrast(table: Table) -> list[float]:
    """The claim's number, a value a seed: correlation at lag 1 with BatchNorm, of the residual
    minus that of the feedforward network."""
    ours, theirs = (
        table.get(n, {}).get(1, []) for n in ("residual-batchnorm", "feedforward-batchnorm")
    )
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def paths_table(table: Table) -> str:
    """Markdown: a row a block."""
    variants = [v for v in COLOURS if v in table]
    blocks = sorted({block for of in table.values() for block in of})
    rows = [
        (block, f"{1 / block:.3f}", *(spread(table[v][block], ".3f") for v in variants))
        for block in blocks
    ]
    note = (
        "mean square of the residual branch over that of its skip path, at step 0; median over "
        "seeds, least to largest"
    )
    if known := deviations(table):
        note += f"; batchnorm, largest |l · ratio - 1|: {spread(known, '.3f')}"
    return markdown_table(("block l", "1/l", *variants), rows, note)


def gradients_table(table: Table) -> str:
    """Markdown: a row a network."""
    lags = sorted({lag for of in table.values() for lag in of})
    rows = [
        (name, *(spread(table[name][lag], ".2f") for lag in lags))
        for name in STYLES
        if name in table
    ]
    note = (
        f"correlation of the slopes at inputs 1, 2, ... points apart ({POINTS} points in "
        f"[{ENDS[0]:g}, {ENDS[1]:g}]), at step 0; median over seeds, least to largest"
    )
    return markdown_table(("network", *map(str, lags)), rows, note)


def summary(
    settings: dict[str, Any],
    starts: Sequence[Run],
    trained: Sequence[Run],
    found: Sequence[Outcome],
) -> dict[str, Any]:
    """Everything that figures and tables show, in a small file (without this machine's paths)."""
    free = ("data_dir", "variants", "lr", "seed")
    variants = best_rates.variants_of(found)
    pairs = [p for p in (("skipinit", "none"), ("skipinit", "batchnorm")) if {*p} <= {*variants}]
    tables = {"ratios": ratios(starts), "correlations": correlations(starts)}
    return {
        "settings": {k: v for k, v in settings.items() if k not in free},
        "largest_deviation": [short(v) for v in deviations(tables["ratios"])],
        "contrast_of_gradients": [short(v) for v in contrast(tables["correlations"])],
        "difference": {
            f"{one} minus {other}": {
                str(seed): short(d)
                for seed, d in best_rates.difference(found, one, other, "train").items()
            }
            for one, other in pairs
        },
        "best_rate": {v: best_rates.best_rate(found, v) for v in variants},
        **{
            name: {
                k: {str(at): [short(v) for v in values] for at, values in of.items()}
                for k, of in table.items()
            }
            for name, table in tables.items()
        },
        "runs": best_rates.as_numbers(found),
        "seconds": round(sum(map(seconds, trained)), 1),
        "environment": [*starts, *trained][0].config["environment"],
    }


@own_style()
def start_figure(starts: Sequence[Run], settings: dict[str, Any], folder: Path) -> Path:
    picture, (left, right) = subplots(1, 2, figsize=(WIDEST, 4.6))
    table = ratios(starts)
    for variant in (v for v in COLOURS if v in table):
        blocks = sorted(table[variant])
        for seed in range(len(starts)):
            values = [table[variant][block][seed] for block in blocks]
            left.plot(
                blocks, values, MARKS[variant], color=COLOURS[variant], markersize=4,
                markerfacecolor="none",
            )  # fmt: skip
    blocks = sorted({block for of in table.values() for block in of})
    left.plot(blocks, [1 / block for block in blocks], color="black", **DOTTED)
    left.set(
        title="residual branch over skip path, a mark a seed\n(dotted: 1/l)", ylim=(-0.05, None),
        xlabel="block l", ylabel="ratio of mean squares",
    )  # fmt: skip
    lines = correlations(starts)
    for name in (n for n in STYLES if n in lines):
        lags = sorted(lines[name])
        every = np.array([lines[name][lag] for lag in lags])  # (lags, seeds)
        right.plot(lags, np.median(every, 1), marker=".", linewidth=1.3, **STYLES[name])
        right.fill_between(
            lags, every.min(1), every.max(1), color=STYLES[name]["color"], alpha=0.18, linewidth=0
        )
    right.axhline(0, color="black", linewidth=0.8)
    right.set(
        title="correlation of gradients\n(median over seeds, band: least to largest)",
        xlabel=f"distance of the inputs, in points ({POINTS} in [{ENDS[0]:g}, {ENDS[1]:g}])",
        ylabel="correlation", xscale="log", ylim=(-0.2, 1.05),
    )  # fmt: skip
    ticks = sorted({lag for of in lines.values() for lag in of})
    right.set_xticks(ticks, [str(lag) for lag in ticks])
    right.set_xticks([], minor=True)
    handles = [
        *(
            entry(v, color=COLOURS[v], linestyle="", marker=MARKS[v], markerfacecolor="none")
            for v in COLOURS
            if v in table
        ),
        *(entry(name, **STYLES[name]) for name in STYLES if name in lines),
    ]
    title = (
        f"At step 0: {settings['path_blocks']} blocks of {settings['path_channels']} channels on "
        f"{settings['data']}; {settings['gradient_depth']} layers of {settings['gradient_units']} "
        f"units on numbers; {count_of_seeds(len(starts))}"
    )
    legend_below(picture, handles, title, columns=4)
    return save(picture, folder, "start")


@own_style()
def training_figure(
    trained: Sequence[Run], found: Sequence[Outcome], settings: dict[str, Any], folder: Path
) -> Path:
    picture, (left, right) = subplots(1, 2, figsize=(WIDEST, 4.4))
    best_rates.curves(left, trained, found, COLOURS)
    left.set_title("over the steps, at the best rate of each\n(median over seeds, band: range)")
    best_rates.by_rate(right, found, COLOURS, "train")
    right.set_title("at the end (last tenth of the steps)\n(line: mean over seeds)")
    title = (
        f"Training accuracy of {settings['model']}, width {settings['width']:g}, "
        f"{settings['data']}, {settings['steps']:,} steps{in_precision(settings)}; "
        f"{count_of_seeds(len({o.seed for o in found}))}"
    )
    legend_below(picture, best_rates.handles(found, COLOURS), title)
    return save(picture, folder, "training")
