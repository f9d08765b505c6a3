"""The numbers of `vgg_cifar` runs as text: table, verdict in one line, the paper's beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import paper
from experiments.running.study import Run, Study
from experiments.views import probe_tables
from experiments.views.drawing import smooth
from experiments.views.series import grouped, main_rate, spread
from experiments.views.tables import JUDGED, require_same, seconds

LAST = 0.1  # the share of the steps over which a final training accuracy is averaged
MARGIN = 0.02  # accuracies nearer than this count as alike
# Of these the paper says something; of the first pair also at other rates.
COMPARED = (
    ("batchnorm", "standard"), ("batchnorm", "noisy-batchnorm"), ("noisy-batchnorm", "standard"),
    ("standard", "noisy-standard"), ("l1", "batchnorm"), ("l2", "batchnorm"),
    ("linf", "batchnorm"),
)  # fmt: skip
POINTS, WALKS = 900, 400  # of all runs together in a summary, which is to stay a small file


def require_alike(studies: Sequence[Study]) -> None:
    """Raise DataError unless the studies are of one network, data set and length."""
    require_same(studies, ("model", "width", "head", "data", "batch_size", "steps"))


def final_train(run: Run) -> float:
    """Training accuracy, the mean over the last tenth of the steps; chance if it diverged."""
    if (run.result or {}).get("status") == "diverged":
        return 0.1
    accuracy = [r["accuracy"] for r in run.records("metrics")]
    return float(np.mean(accuracy[-max(1, int(len(accuracy) * LAST)) :]))


def make_table(runs: list[Run]) -> str:
    """Markdown: one row a run."""
    rows = [
        "| variant | lr | seed | steps | train accuracy | test accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        config, result, test = run.config, run.result or {}, run.records("test")
        if result.get("status") == "diverged":
            outcome = f"diverged at step {result['step']} | |"
        else:
            outcome = f"{final_train(run):.3f} | {test[-1]['accuracy']:.3f} |" if test else "| |"
        done = len(run.records("metrics"))
        rows.append(
            f"| {config['variant']} | {config['lr']:g} | {config['seed']} | {done} | {outcome}"
        )
    share = f"train: mean over the last {LAST:.0%} of the steps; test: at the end, in eval mode"
    return "\n".join(rows) + f"\n\n({share})"


def make_verdict(runs: list[Run]) -> str:
    """One line: training accuracies, and which of two variants that the paper compares is ahead.

    One is ahead if the mean accuracies differ by more than MARGIN, and each seed of it lies above
    each of the other. Runs that have not ended are left out: a shorter one would lose. What that
    says of the paper is judged by the rules of `experiments.claims`.
    """
    groups = grouped(run for run in runs if run.result)
    if not groups:
        return "Verdict: none yet, for no run has ended."
    rate = main_rate(groups)
    scores = {(g.variant, g.lr): [final_train(run) for run in g.runs] for g in groups}
    pairs = [
        (a, b, lr)
        for a, b in COMPARED
        for lr in sorted({group.lr for group in groups}, key=lambda lr: (lr != rate, lr))
        if (a, lr) in scores and (b, lr) in scores
        if lr == rate or (a, b) == COMPARED[0]
    ]
    lines = [
        _compared((a, scores[a, lr]), (b, scores[b, lr])) + ("" if lr == rate else f" at lr {lr:g}")
        for a, b, lr in pairs
    ]
    seeds = max(len(values) for (_, lr), values in scores.items() if lr == rate)
    count = f"{seeds} seed{'s' * (seeds != 1)}"
    text = "; ".join(lines or ["nothing to compare"])
    return f"Verdict at lr {rate:g}, {count}, training accuracy: {text}. {JUDGED[seeds > 1]}"


def _compared(one: tuple[str, list[float]], other: tuple[str, list[float]]) -> str:
    first, second = sorted((one, other), key=lambda named: -np.mean(named[1]))
    (a, best), (b, worst) = first, second
    if np.mean(best) - np.mean(worst) <= MARGIN:
        return f"{a} {np.mean(best):.2f} and {b} {np.mean(worst):.2f} lie within {MARGIN:g}"
    word = "is ahead of" if min(best) > max(worst) else "overlaps with"
    return f"{a} {np.mean(best):.2f} {word} {b} {np.mean(worst):.2f}"


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
    for group in grouped(runs):
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
            rows.append(f"| {key[0]} | {key[1]:g} | {step} | {' | '.join(cells)} |")
    if not rows:
        return ""
    head = "| variant | lr | step | train | paper's | test | paper's |\n|" + "---|" * 7 + "\n"
    note = "(per cent; train: mean of the batches within 25 steps; the paper's net is full width)"
    return head + "\n".join(rows) + "\n\n" + note


def _cell(row: tuple | None, i: int) -> str:
    return "" if row is None or row[i] is None else f"{row[i]:g}"


def first_seeds(runs: Sequence[Run]) -> list[Run]:
    """The first seed of each variant at the main rate, in the order of COLOURS."""
    groups = grouped(runs)
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
            name = f"{layer}" if layer == of_paper else f"{layer} (paper's {of_paper})"
            rows.append(f"| {variant} | {name} | {' | '.join(cells)} | {theirs} |")
    if not any(run.records("distributions") for run in first_seeds(runs)):
        return ""
    head = "| variant | layer | at the activation | at the norm's input | paper's |\n"
    rate = main_rate(grouped(runs))
    note = (
        "(median of |change of a unit's batch mean to the next step|, one unit a layer, one seed, "
        f"lr {rate:g})"
    )
    return head + "|" + "---|" * 5 + "\n" + "\n".join(rows) + "\n\n" + note


def summary(settings: dict[str, Any], runs: list[Run], window: int) -> dict[str, Any]:
    """What the curves were drawn from, thinned out (without paths of this machine)."""
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
            "train_accuracy": _rounded([m["accuracy"] for m in metrics], window)[every],
            "loss": _rounded([m["loss"] for m in metrics], window)[every],
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


def _rounded(values: list[float], window: int) -> list[float]:
    return [round(float(v), 4) for v in smooth(values, window)]
