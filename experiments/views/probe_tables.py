"""Probes and covariate shift in numbers: markdown tables beside the paper's, and summaries.

Medians and shares over training weigh each record by the steps up to the next; the largest value
and the mean cosine of the second half don't. Several seeds: their median, with the least and the
largest in brackets; of shares, their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import paper
from experiments.output import markdown_table
from experiments.training.json_files import float_array
from experiments.training.study import Run
from experiments.views.landscape import beside_the_paper, probe_groups, share
from experiments.views.series import Group, over_training, spread
from experiments.views.shift import (
    MEASURES,
    groups_by_rate,
    late_cosine,
    layers_to_show,
    medians,
    of_layer,
    papers,
)
from experiments.views.step_sizes import CHANGE, LOSS, at_sizes, probes_of, sizes_to_show
from experiments.views.tables import as_deep, short


def ends(record: dict[str, Any], key: str) -> tuple[float, float]:
    """The least and the largest value of a probe."""
    values = float_array(record[key], np.inf)
    return float(values.min()), float(values.max())


def width(record: dict[str, Any], key: str) -> float:
    low, high = ends(record, key)
    return high - low if np.isfinite(low) else float("inf")


def landscape_table(runs: Sequence[Run]) -> str:
    """A row a variant, rate and direction: widths, beta, step 0, each beside the paper's."""
    rows = []
    sizes_at: dict[str, None] = {}  # in order, each once
    for (lr, direction), groups in probe_groups(runs).items():
        sizes = sizes_to_show(groups, direction)
        sizes_at[f"{', '.join(f'{size:g}' for size in sizes)} at lr {lr:g}"] = None
        beside = beside_the_paper(groups, direction, sizes)
        for group in groups:
            seeds = probes_of(group, direction, sizes)
            steps = [[r["step"] for r in s] for s in seeds]

            def over(values: Any, seeds: Any = seeds, steps: Any = steps) -> list[float]:
                """The median over training of a number of each record, for each seed."""
                each = zip(steps, seeds, strict=True)
                return [over_training(at, [values(r) for r in s]) for at, s in each]

            starts = [s[0] for s in seeds if s[0]["step"] == 0]
            cells: list[tuple[list[float], Mapping[str, float]]] = [
                (over(lambda r: width(r, LOSS)), paper.LOSS_BAND),
                (over(lambda r: width(r, CHANGE)), paper.CHANGE_BAND),
                ([ends(r, CHANGE)[1] for r in starts], paper.CHANGE_AT_START),
                (over(lambda r: ends(r, "beta")[1]), paper.LATE_BETA),
                ([max(ends(r, "beta")[1] for r in s) for s in seeds], paper.LARGEST_BETA),
            ]
            texts: list[str] = []
            for ours, theirs in cells:
                texts += [spread(ours), f"{theirs.get(group.variant, '') if beside else ''}"]
            start = spread([ends(r, "beta")[1] for r in starts])
            flags = [
                f"{share(group, f, direction, sizes):.0%}" for f in ("saturated", "at_ceiling")
            ]
            way = "" if direction == "gradient" else f", {direction}"
            who = (group.variant + way, f"{lr:g}", f"{len(seeds)}")
            rows.append((*who, *texts, start, *flags))
    head = (
        "variant", "lr", "seeds", "loss: width", "paper's", "change: width", "paper's",
        "change, step 0", "paper's", "beta: median", "paper's late", "beta: largest", "paper's",
        "beta, step 0", "saturated", "at ceiling",
    )  # fmt: skip
    note = (
        "widths: largest minus least over the step sizes of a probe, median over training; change: "
        "l2 change of the gradient; beta: the largest of a probe; saturated, at ceiling: shares of "
        f"training; the paper's are over 15,000 steps; step sizes: {'; '.join(sizes_at)}"
    )
    return markdown_table(head, rows, note)


def steps_table(runs: Sequence[Run]) -> str:
    """Standard and batchnorm beside the paper at its steps: the probes of the same step."""
    rows = []
    groups = probe_groups(runs).get((paper.RATE, "gradient"), [])
    sizes = sizes_to_show(groups) if groups else ()
    for group in groups if groups and beside_the_paper(groups, "gradient", sizes) else ():
        if group.variant not in paper.EFFECTIVE_BETA:
            continue
        seeds = probes_of(group, "gradient", sizes)
        for i, step in enumerate(paper.LANDSCAPE_STEPS):
            at = [r for s in seeds for r in s if r["step"] == step]
            if not at:
                continue
            cells = []
            for key, theirs in ((LOSS, paper.LOSS_RANGE), (CHANGE, paper.CHANGE_RANGE)):
                low, high = np.median([ends(r, key) for r in at], axis=0)
                papers = theirs[group.variant][i]
                cells += [f"{low:.3g} to {high:.3g}", f"{papers[0]:g} to {papers[1]:g}"]
            beta = spread([ends(r, "beta")[1] for r in at])
            cells += [beta, f"{paper.EFFECTIVE_BETA[group.variant][i]:g}"]
            rows.append((group.variant, f"{step}", *cells))
    head = (
        f"variant, lr {paper.RATE:g}", "step", "loss", "paper's", "change of the gradient",
        "paper's", "effective beta", "paper's",
    )  # fmt: skip
    note = (
        "least to largest over the probe, effective beta: the largest; medians over the seeds; the "
        "paper's loss holds a weight penalty of about 2"
    )
    return markdown_table(head, rows, note)


def shift_table(runs: Sequence[Run]) -> str:
    """Definition 2.1 of two layers, and the original notion, beside the paper's."""
    rows = [
        _shift_row(group, lr, layer, k)
        for lr, groups in groups_by_rate(runs).items()
        for layer, k in layers_to_show(runs).items()
        for group in groups
    ]
    head = (
        "variant", "lr", "layer", "l2: median", "paper's", "l2, step 0", "paper's", "relative l2",
        "cosine, second half", "paper's", "mean's drift", "variance's drift", "Wasserstein",
    )  # fmt: skip
    note = (
        "medians over training; cosine: mean over the second half; drifts and Wasserstein: of "
        "what enters the ReLU, from before the update to after it, mean over the units"
    )
    return markdown_table(head, rows, note)


def _shift_row(group: Group, lr: float, layer: int, k: int) -> list[str]:
    l2, cosine, start = ("" if v is None else f"{v:g}" for v in papers(group, k))
    starts = [float(values[0]) for steps, values in of_layer(group, layer, "l2") if steps[0] == 0]
    drifts = [spread(medians(group, layer, m), ".2g") for m in list(MEASURES)[3:]]
    return [
        group.variant, f"{lr:g}", as_deep(layer, k),
        spread(medians(group, layer, "l2"), ".2g"), l2,
        spread(starts, ".2g"), start,
        spread(medians(group, layer, "relative"), ".2g"),
        spread(late_cosine(group, layer), ".2g"), cosine, *drifts,
    ]  # fmt: skip


def summary(run: Run, points: int) -> dict[str, Any]:
    """What the views of one run show: `points` of its probes, and medians by layer."""
    content: dict[str, Any] = {}
    probes = [r for r in run.records("landscape") if r["direction"] == "gradient"]
    if probes:
        own = Group(run.config["variant"], run.config["lr"], (run,))
        sizes = sizes_to_show([own])
        probes = [at_sizes(r, sizes) for r in probes]
        places = np.unique(np.linspace(0, len(probes) - 1, points).round().astype(int))
        chosen = [probes[i] for i in places]
        content["landscape"] = {
            "step_sizes": list(sizes),
            "step": [r["step"] for r in chosen],
            "loss": [[short(v, 3) for v in ends(r, LOSS)] for r in chosen],
            "gradient_change": [[short(v, 3) for v in ends(r, CHANGE)] for r in chosen],
            "effective_beta": [short(ends(r, "beta")[1], 3) for r in chosen],
        }
    by_layer: dict[int, list[dict[str, Any]]] = {}
    for record in run.records("shift"):
        by_layer.setdefault(record["layer"], []).append(record)
    if by_layer:
        content["shift"] = {
            measure: [short(median_of(by_layer[layer], measure), 3) for layer in sorted(by_layer)]
            for measure in MEASURES
        }
    return content


def median_of(records: Sequence[dict[str, Any]], measure: str) -> float:
    """The median over training of a measure of one layer's shift records."""
    values = float_array([r.get(measure) for r in records], np.nan)
    return over_training([r["step"] for r in records], values)
