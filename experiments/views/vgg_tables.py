"""The numbers of `vgg_cifar` runs as text: a table, one line, and tables beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import paper
from experiments.output import markdown_table
from experiments.training.settings import in_precision
from experiments.training.study import Run
from experiments.views import probe_tables
from experiments.views.plotting import smooth
from experiments.views.series import group_runs, main_rate, spread
from experiments.views.tables import (
    CHANCE,
    JUDGED,
    as_deep,
    count_of_seeds,
    seconds,
)

LAST = 0.1  # the share of the steps over which a final training accuracy is averaged
POINTS, WALKS = 900, 400  # of all runs together in a summary, which is to stay a small file


def final_train(run: Run) -> float:
    """Training accuracy, the mean over the last tenth of the steps; chance if it diverged."""
    if (run.result or {}).get("status") == "diverged":
        return CHANCE
    accuracy = [r["accuracy"] for r in run.records("metrics")]
    return float(np.mean(accuracy[-max(1, int(len(accuracy) * LAST)) :]))


def make_table(runs: list[Run]) -> str:
    """Markdown: one row a run."""
    rows = []
    for run in runs:
        config, result, test = run.config, run.result or {}, run.records("test")
        if result.get("status") == "diverged":
            outcome = [f"diverged at step {result['step']}", ""]
        elif test:
            outcome = [f"{final_train(run):.3f}", f"{test[-1]['accuracy']:.3f}"]
        else:
            outcome = ["", ""]
        done = len(run.records("metrics"))
        who = (config["variant"], f"{config['lr']:g}", f"{config['seed']}", f"{done}")
        rows.append((*who, *outcome))
    head = ("variant", "lr", "seed", "steps", "train accuracy", "test accuracy")
    note = f"train: mean over the last {LAST:.0%} of the steps; test: at the end, in eval mode"
    if runs:
        note += in_precision(runs[0].config["settings"])
    return markdown_table(head, rows, note)


def in_one_line(runs: Sequence[Run]) -> str:
    """The final training accuracy of each variant, rate by rate: the mean over its seeds. Runs that
    have not ended are left out, as shorter runs are less accurate. What the numbers say of the
    paper is judged by the rules of `experiments.claims`."""
    groups = group_runs(run for run in runs if run.result)
    if not groups:
        return "No run has ended."
    main = main_rate(groups)
    parts = []
    for lr in sorted({group.lr for group in groups}, key=lambda lr: (lr != main, lr)):
        of_rate = [group for group in groups if group.lr == lr]
        seeds = max(len(group.runs) for group in of_rate)
        means = [(g.variant, np.mean([final_train(run) for run in g.runs])) for g in of_rate]
        texts = ", ".join(f"{variant} {mean:.2f}" for variant, mean in means)
        parts.append(f"at lr {lr:g}, {count_of_seeds(seeds)}: {texts}")
    several = min(len(group.runs) for group in groups) > 1
    return f"Training accuracy, means over the seeds; {'; '.join(parts)}. {JUDGED[several]}"


def around(records: list[dict[str, Any]], step: int, window: int) -> float | None:
    """Mean accuracy of the steps within `window` of `step`, in per cent."""
    near = [r["accuracy"] for r in records if abs(r["step"] - step) <= window]
    return 100 * float(np.mean(near)) if near and records[-1]["step"] >= step - 1 else None


def against_the_paper(runs: list[Run]) -> str:
    """Markdown: accuracies beside the paper's at equal steps (per cent), for CIFAR-10; of several
    seeds the median, the least and the largest."""
    if runs[0].config["settings"]["data"] != "cifar10":
        return ""
    rows = []
    for group in group_runs(runs):
        key = (group.variant, group.lr)
        metrics, tests = group.records("metrics"), group.records("test")
        for i, step in enumerate(paper.STEPS):
            near = [around(records, step, window=25) for records in metrics]
            ours = [accuracy for accuracy in near if accuracy is not None]
            test = [100 * r["accuracy"] for s in tests for r in s if r["updates"] == step]
            if not ours:
                continue
            cells = [
                spread(ours, ".1f"),
                _cell(paper.TRAIN.get(key), i),
                spread(test, ".1f"),
                _cell(paper.TEST.get(key), i),
            ]
            rows.append((key[0], f"{key[1]:g}", f"{step}", *cells))
    head = ("variant", "lr", "step", "train", "paper's", "test", "paper's")
    note = "per cent; train: mean of the batches within 25 steps; the paper's net is full width"
    return markdown_table(head, rows, note)


def _cell(row: tuple | None, i: int) -> str:
    return "" if row is None or row[i] is None else f"{row[i]:g}"


def first_seeds(runs: Sequence[Run]) -> list[Run]:
    """The first seed of each variant at the main rate, in the order of COLOURS."""
    groups = group_runs(runs)
    rate = main_rate(groups)
    return [group.runs[0] for group in groups if group.lr == rate]


def first_units(run: Run) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """(layer, place) -> the records of the layer's first sampled unit, in order."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for record in run.records("distributions"):
        series = found.setdefault((record["layer"], record["place"]), [])
        if not series or series[0]["unit"] == record["unit"]:
            series.append(record)
    return found


def successive(records: list[dict[str, Any]], moment: str) -> tuple[list[int], list[float]]:
    """|moment(t+1) - moment(t)| wherever both steps were recorded."""
    at = {r["step"]: r[moment] for r in records}
    steps = [t for t in at if t + 1 in at]
    return steps, [max(abs(at[t + 1] - at[t]), 1e-12) for t in steps]


def drift_table(runs: list[Run], layers: dict[int, int]) -> str:
    """Markdown: how far a unit's batch mean moves from one step to the next (Fig. 8a): the median
    over training, at the activation and at the norm's input, beside the paper's."""
    rows = []
    for run in first_seeds(runs):
        variant, series = run.config["variant"], first_units(run)
        for layer, of_paper in layers.items():
            found = {
                place: successive(series.get((layer, place), []), "mean")[1]
                for place in ("activation", "norm_input")
            }
            cells = [f"{np.median(change):.2g}" if change else "" for change in found.values()]
            theirs = paper.DRIFT.get((variant, of_paper), "")
            rows.append((variant, as_deep(layer, of_paper), *cells, f"{theirs}"))
    if not any(run.records("distributions") for run in first_seeds(runs)):
        return ""
    head = ("variant", "layer", "at the activation", "at the norm's input", "paper's")
    note = (
        "median of |change of a unit's batch mean to the next step|, one unit a layer, one seed, "
        f"lr {main_rate(group_runs(runs)):g}"
    )
    return markdown_table(head, rows, note)


def summary(settings: dict[str, Any], runs: list[Run], window: int) -> dict[str, Any]:
    """What the curves were plotted from, thinned out (without paths of this machine)."""
    content: dict[str, Any] = {}
    environments: list[dict[str, Any]] = []
    stride = window * max(1, round(50 * len(runs) / POINTS))
    for run in runs:
        metrics, config = run.records("metrics"), run.config
        if config["environment"] not in environments:
            environments.append(config["environment"])
        every = slice(stride - 1, None, stride)
        content[run.name] = {
            "variant": config["variant"],
            "lr": config["lr"],
            "seed": config["seed"],
            "result": run.result,
            "step": [m["step"] for m in metrics][every],
            "train_accuracy": _smooth_and_round([m["accuracy"] for m in metrics], window)[every],
            "loss": _smooth_and_round([m["loss"] for m in metrics], window)[every],
            "test": [[t["updates"], round(t["accuracy"], 4)] for t in run.records("test")],
            **probe_tables.summary(run, max(8, min(25, WALKS // len(runs)))),
            "seconds": seconds(run),
            "environment": environments.index(config["environment"]),
            "data_fingerprint": config["data_fingerprint"],
        }
    shared = {k: v for k, v in settings.items() if k not in ("data_dir", "variants", "lr", "seed")}
    return {
        "settings": shared,
        "smoothed_over_steps": window,
        "environments": environments,  # a run names its own by its place here
        "runs": content,
    }


def _smooth_and_round(values: list[float], window: int) -> list[float]:
    return [round(float(v), 4) for v in smooth(values, window)]
