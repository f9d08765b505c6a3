"""Two studies of the same runs beside each other: where their curves part, and by how much.

    python -m experiments.compare A B [--out DIR]

The same training in another rounding (other kernels, threads, precision or a GPU) is equal at
first; then its differences grow from step to step, until the two are as far apart as two seeds are.
So the question is not whether the curves differ, but whether they differ by more than two seeds do.
Train A with two seeds: the differences between its seeds stand beside those between A and B:

    python -m experiments.vgg_cifar --kernels fast --seed 0 1 --out A ...
    python -m experiments.vgg_cifar --kernels reference --seed 0 --out B ...

Prints a table, and writes compare.md and figures/compare.png into A unless --out says otherwise.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.training.command_line import UsageError, parse_folders, setting
from experiments.training.comparability import require_comparable
from experiments.training.entry_point import check_out, program
from experiments.training.study import Run, Study
from experiments.views.plotting import COLOURS, own_style, save, smooth, subplots
from experiments.views.vgg_tables import final_train
from minibn import checkpoint
from minibn.errors import DataError

PROGRAM = "python -m experiments.compare"
VISIBLE = 0.01  # a difference, as a share of the loss, that is visible
LEAST = 1e-9  # where a difference of 0 is plotted
HEAD = (
    "run", "steps", "differs from step", "by 1 % from step", "largest difference of the loss",
    "smoothed", "train accuracy", "test accuracy",
)  # fmt: skip
# Settings of where and which runs: labels leave them out.
NOT_IN_LABELS = ("data_dir", "variants", "lr", "seed", "quick")


@dataclass(frozen=True)
class Pair:
    """Two runs of one variant and rate: of one seed in two studies, or of two seeds in one."""

    name: str
    a: Run
    b: Run

    @cached_property
    def losses(self) -> np.ndarray:
        """(2, steps): the losses of the steps that both have."""
        a, b = ([m["loss"] for m in run.records("metrics")] for run in (self.a, self.b))
        return np.array(list(zip(a, b, strict=False))).reshape(-1, 2).T

    def window(self) -> int:
        """A tenth of the steps, over which curves are smoothed."""
        return max(1, self.losses.shape[1] // 10)

    def gap(self) -> float:
        """The largest difference of the smoothed losses, from the first full window on."""
        window = self.window()
        a, b = (smooth(losses, window)[window - 1 :] for losses in self.losses)
        return float(np.abs(a - b).max(initial=0))

    def row(self) -> list[str]:
        a, b = self.losses
        difference = np.abs(a - b)
        steps = len(difference)
        largest = f"{difference.max():.2g} at {difference.argmax()}" if steps else ""
        return [
            self.name,
            str(steps),
            _first(difference > 0),
            _first(difference > VISIBLE * np.abs(a)),
            largest,
            f"{self.gap():.2g}",
            f"{_train(self.a)}, {_train(self.b)}",
            f"{_test(self.a)}, {_test(self.b)}",
        ]


def _first(where: np.ndarray) -> str:
    """The first step where it holds."""
    return str(where.argmax()) if where.any() else "never"


def _train(run: Run) -> str:
    result = run.result or {}
    if result.get("status") == "diverged":
        return f"diverged at {result['step']}"
    return f"{final_train(run):.3f}"


def _test(run: Run) -> str:
    tests = run.records("test")
    return f"{tests[-1]['accuracy']:.3f}" if tests else "-"


def between(a: Study, b: Study) -> list[Pair]:
    """The runs that both studies have, by name. Raises DataError if there are none."""
    require_comparable([a, b], free=("precision",))
    theirs = {run.name: run for run in _runs_with_metrics(b)}
    pairs = [
        Pair(run.name, run, theirs[run.name]) for run in _runs_with_metrics(a) if run.name in theirs
    ]
    if not pairs:
        raise DataError(
            f"{a.folder} and {b.folder} have no run in common (of one variant, rate and seed). "
            "Train B with the --variants, --lr and --seed of A."
        )
    for pair in pairs:
        if pair.a.config["data_fingerprint"] != pair.b.config["data_fingerprint"]:
            raise DataError(
                f"{pair.name} was trained on other data in {b.folder} than in {a.folder}."
            )
    order = list(COLOURS)
    return sorted(pairs, key=lambda pair: (order.index(pair.a.config["variant"]), pair.name))


def between_seeds(study: Study, like: Run) -> list[Pair]:
    """Every two runs of the study that differ from each other, and from `like`, by seed alone."""
    key = ("variant", "lr")
    same = [
        r
        for r in _runs_with_metrics(study)
        if [r.config[k] for k in key] == [like.config[k] for k in key]
    ]
    same.sort(key=lambda run: run.config["seed"])
    return [
        Pair(f"{a.name} and seed {b.config['seed']}", a, b)
        for a, b in itertools.combinations(same, 2)
    ]


def _runs_with_metrics(study: Study) -> list[Run]:
    return [run for run in study.runs() if run.records("metrics")]


def labels_of(a: Study, b: Study) -> tuple[str, str]:
    """A label of each: the settings that differ, or else its folder."""
    one, other = a.settings, b.settings
    keys = [k for k in one if k not in NOT_IN_LABELS and one[k] != other.get(k)]
    if not keys:
        return str(a.folder), str(b.folder)
    names = [", ".join(f"{k} {content.get(k)}" for k in keys) for content in (one, other)]
    return names[0], names[1]


def make_table(a: Study, b: Study) -> str:
    """Markdown: a row for each run of both, then one for every two seeds of A; and a verdict."""
    pairs, names = between(a, b), labels_of(a, b)
    rows: list[list[str]] = []
    verdict, seen = [], set()
    for pair in pairs:
        rows.append(pair.row())
        seeds = between_seeds(a, pair.a)
        rows += [other.row() for other in seeds if other.name not in seen]
        seen |= {other.name for other in seeds}
        verdict.append(f"{pair.name}: {pair.gap():.2g} between the studies, {_among(seeds)}")
    note = f"A: {names[0]}; B: {names[1]}. Accuracies of A, then of B; smoothed over a tenth."
    largest = "Largest difference of the smoothed loss: " + "; ".join(verdict) + "."
    return f"{markdown_table(HEAD, rows)}\n\n{note}\n\n{largest}\n"


def _among(seeds: list[Pair]) -> str:
    gaps = sorted(pair.gap() for pair in seeds)
    ends = [f"{gap:.2g}" for gap in (gaps if len(gaps) < 2 else (gaps[0], gaps[-1]))]
    return f"{' to '.join(ends)} between two seeds" if ends else "with one seed to compare"


@own_style()
def plot(a: Study, b: Study, folder: Path) -> Path:
    """A column a variant and rate. Above the losses of both, below how far they are apart."""
    columns: dict[tuple[str, float], list[Pair]] = {}
    for pair in between(a, b):
        config = pair.a.config
        columns.setdefault((config["variant"], config["lr"]), []).append(pair)
    figure, grid = subplots(
        2, len(columns), figsize=(4.2 * len(columns), 5.6), sharex=True, squeeze=False
    )
    for (above, below), ((variant, lr), pairs) in zip(grid.T, columns.items(), strict=True):
        above.set(title=f"{variant}, lr {lr:g}", ylabel="loss")
        _curves(above, pairs[0], labels_of(a, b), COLOURS[variant])
        below.set(xlabel="step", ylabel="|difference of the loss|", yscale="log")
        below.minorticks_off()
        _distances(below, between_seeds(a, pairs[0].a), "0.6", "two seeds of A")
        _distances(below, pairs, COLOURS[variant], "A and B")
        for axes in (above, below):
            axes.legend(fontsize=7)
    figure.tight_layout()
    return save(figure, folder, "compare")


def _curves(axes: Any, pair: Pair, names: tuple[str, str], colour: str) -> None:
    styles = ({"color": colour}, {"color": "0.2", "linestyle": "--"})
    for losses, name, style in zip(pair.losses, names, styles, strict=True):
        axes.plot(losses, alpha=0.25, linewidth=0.6, **style)
        axes.plot(smooth(losses, pair.window()), label=name, **style)


def _distances(axes: Any, pairs: list[Pair], colour: str, name: str) -> None:
    for i, pair in enumerate(pairs):
        one, other = pair.losses
        distance = np.maximum(np.abs(one - other), LEAST)
        axes.plot(distance, color=colour, linewidth=0.8, label="" if i else name)


@dataclass(frozen=True)
class Options:
    out: str | None = setting(None, "folder for the table and the figure", kind=str, path=True)


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and plot the figure. Returns the exit code."""
    folders, options = parse_folders(
        Options, arguments, program=PROGRAM, description=__doc__, folders="A B"
    )
    if len(folders) != 2:
        raise UsageError(f"which two studies? {PROGRAM} runs/fast runs/reference")
    check_out(options.out)
    a, b = (Study.open(folder, "vgg_cifar", "STUDY") for folder in folders)
    table = make_table(a, b)
    out = Path(options.out) if options.out else a.folder
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(out / "compare.md", table)
    print(f"{table}\nFigure: {plot(a, b, out / 'figures')}")


if __name__ == "__main__":
    sys.exit(main())
