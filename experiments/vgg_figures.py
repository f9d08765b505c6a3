"""Figures, table and verdict of `vgg_cifar` studies, from their files.

    python -m experiments.vgg_figures STUDY [STUDY ...] [--out DIR]

draws them again, for several studies (of one network on one data set) together; into the first one
unless --out says otherwise.

accuracy.png        training and test accuracy over the steps (Figs. 1a, 1b, 2 left)
distributions.png   what enters the ReLU of a layer, over training (Figs. 1c, 2 right)
drift.png           how its mean and variance move (Fig. 8), at the ReLU and at the norm's input
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import paper
from experiments.command_line import UsageError, parse, report, setting
from experiments.figures import COLOURS, DASHES, fan, pyplot, save, smooth
from experiments.study import Run, Study, write_json
from experiments.vgg_tables import (
    against_the_paper,
    drift_table,
    first_seed_and_rate,
    first_units,
    make_table,
    make_verdict,
    require_alike,
    successive,
    summary,
)
from minibn import checkpoint
from minibn.errors import DataError

PROGRAM = "python -m experiments.vgg_figures"


def draw(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw everything, write table.md and summary.json, and print table, verdict and paths.

    Raises DataError if there are no results, or if the studies are not of one network and data set.
    """
    out = out or studies[0].folder
    runs = [r for study in studies for r in study.runs() if r.records("metrics") or r.result]
    if not runs:
        raise DataError(f"{studies[0].folder} has no run with results yet.")
    settings = studies[0].settings
    require_alike(studies)
    order = list(COLOURS)
    runs.sort(key=lambda r: (r.config["lr"], r.config["seed"], order.index(r.config["variant"])))
    window = max(1, settings["steps"] // 50)
    layers = paper.shown_layers(settings["model"])
    table, verdict = make_table(runs), make_verdict(runs)
    parts = (table, verdict, against_the_paper(runs), drift_table(runs, layers))
    text = "\n\n".join(part for part in parts if part)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(out / "table.md", text.rstrip() + "\n")
    write_json(out / "summary.json", summary(settings, runs, window))
    folder = out / "figures"
    path = accuracy_figure(runs, folder, window)
    others = [distribution_figure(runs, layers, folder), drift_figure(runs, layers, folder)]
    print(f"\n{table}\n\n{verdict}\n")
    print(f"Figure: {path}\nAlso: {', '.join(map(str, others))}")


def label(run: Run, runs: list[Run]) -> str:
    """The variant, and what else tells this run from the others."""
    config = run.config
    text = config["variant"]
    if len({r.config["lr"] for r in runs}) > 1:
        text += f", lr {config['lr']:g}"
    if len({r.config["seed"] for r in runs}) > 1:
        text += f", seed {config['seed']}"
    return text


def accuracy_figure(runs: list[Run], folder: Path, window: int) -> Path:
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    rates = sorted({run.config["lr"] for run in runs})
    for run in runs:
        config, metrics, tests = run.config, run.records("metrics"), run.records("test")
        style = {
            "color": COLOURS[config["variant"]],
            "linestyle": DASHES[rates.index(config["lr"]) % len(DASHES)],
        }
        if metrics:
            accuracy = smooth([m["accuracy"] for m in metrics], window)
            left.plot([m["step"] for m in metrics], accuracy, label=label(run, runs), **style)
        if (run.result or {}).get("status") == "diverged" and metrics:
            left.plot(metrics[-1]["step"], accuracy[-1], "x", color=style["color"])
        updates = [t["updates"] for t in tests]
        right.plot(updates, [t["accuracy"] for t in tests], marker=".", **style)
    left.set(title=f"training (mean of the last {window} steps)", xlabel="step", ylabel="accuracy")
    right.set(title="test", xlabel="step", ylim=(0, 1))
    left.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    return save(figure, folder, "accuracy")


def _title(layer: int, of_paper: int) -> str:
    return f"layer {layer}" + (f" (as deep as the paper's {of_paper})" if layer != of_paper else "")


def distribution_figure(runs: list[Run], layers: dict[int, int], folder: Path) -> Path:
    """One panel a layer and variant: quantiles of one unit's values over the batch, by step."""
    plt = pyplot()
    chosen = first_seed_and_rate(runs)
    recorded = [first_units(run) for run in chosen]
    figure, grid = plt.subplots(
        len(layers), len(chosen), figsize=(2.9 * len(chosen), 1.9 * len(layers)),
        sharex=True, squeeze=False,
    )  # fmt: skip
    for row, (layer, of_paper) in zip(grid, layers.items(), strict=True):
        for axes, run, series in zip(row, chosen, recorded, strict=True):
            seen = [r for r in series.get((layer, "activation"), []) if "quantiles" in r]
            if seen:
                quantiles = np.array([r["quantiles"] for r in seen])
                fan(axes, [r["step"] for r in seen], quantiles, COLOURS[run.config["variant"]])
        row[0].set_ylabel(_title(layer, of_paper).replace(" (", "\n("), fontsize=8)
    for axes, run in zip(grid[0], chosen, strict=True):
        axes.set_title(run.config["variant"], color=COLOURS[run.config["variant"]])
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.suptitle(
        "what enters the ReLU of one unit: median and 50, 90, 98 % of its values (mind the scales)"
    )
    figure.tight_layout()
    return save(figure, folder, "distributions")


def drift_figure(runs: list[Run], layers: dict[int, int], folder: Path) -> Path:
    """Fig. 8: how mean and variance change between successive steps, and since the first.

    Solid: at the activation; dotted: at the norm's input. After a BatchNorm the batch mean is
    beta and the variance gamma² by definition, so the dotted line is the fair comparison.
    """
    plt = pyplot()
    chosen = first_seed_and_rate(runs)
    recorded = [first_units(run) for run in chosen]
    columns = [(moment, first) for moment in ("mean", "var") for first in (False, True)]
    names = {"mean": "mean", "var": "variance"}
    figure, grid = plt.subplots(
        len(layers), 4, figsize=(14, 1.9 * len(layers)), sharex=True, squeeze=False
    )
    for row, (layer, of_paper) in zip(grid, layers.items(), strict=True):
        for axes, (moment, first) in zip(row, columns, strict=True):
            for run, series in zip(chosen, recorded, strict=True):
                variant = run.config["variant"]
                for place, style in (("activation", "-"), ("norm_input", ":")):
                    records = series.get((layer, place), [])
                    steps, change = (_since_first if first else successive)(records, moment)
                    if steps:
                        name = variant + (": norm's input" if place == "norm_input" else "")
                        line = smooth(change, 3)
                        axes.plot(steps, line, style, color=COLOURS[variant], label=name)
            axes.set_yscale("log")
            axes.minorticks_off()
            since = "since step 0" if first else "to the next step"
            axes.set_title(f"|change of {names[moment]}| {since}", fontsize=8)
        row[0].set_ylabel(_title(layer, of_paper).replace(" (", "\n("), fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=6, fontsize=8)
    figure.suptitle("mean and variance of one unit")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return save(figure, folder, "drift")


def _since_first(records: list[dict[str, Any]], moment: str) -> tuple[list[int], list[float]]:
    """|moment(t) - moment(0)| for every recorded t after the first."""
    later = [r for r in records if r["step"] > 0]
    return [r["step"] for r in later], [
        max(abs(r[moment] - records[0][moment]), 1e-12) for r in later
    ]


@dataclass(frozen=True)
class Options:
    out: str | None = setting(None, "folder for figures, table and summary", kind=str)


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    folders = []
    while words and not words[0].startswith("-"):
        folders.append(Path(words.pop(0)))
    try:
        given = parse(
            Options,
            words,
            program=f"{PROGRAM} STUDY [STUDY ...]",
            description=str(__doc__).partition("\n\n")[0],
        )
        if not folders:
            raise UsageError(f"which study? {PROGRAM} runs/vgg_cifar/TIME")
        out = Path(given["out"]) if given.get("out") else None
        draw([Study.open(folder, "vgg_cifar", "STUDY") for folder in folders], out)
    except (UsageError, DataError, OSError) as error:
        return report(PROGRAM, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
