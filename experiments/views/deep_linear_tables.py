"""The numbers of `deep_linear` runs as text: tables beside the paper's, the main ones in one line,
a summary.

A loss at a step is the median over the 50 steps up to it: at the edge of stability it jumps from
step to step. Several seeds: their median, with the least and the largest in brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments import paper
from experiments.output import markdown_table
from experiments.training.study import Run
from experiments.views.landscape import LOSS
from experiments.views.probe_tables import ends, median_of
from experiments.views.series import Group, over_training, spread
from experiments.views.shift import late_cosine, medians
from experiments.views.tables import (
    JUDGED,
    as_deep,
    count_of_seeds,
    seconds,
    short,
)

WINDOW = 50


def loss_at(run: Run, step: int) -> float:
    """The loss after `step` updates: see the module. Infinite if the run diverged before, nan if it
    has not reached that step."""
    records = run.records("metrics")
    if not records or records[-1]["step"] < step - 1:
        diverged = (run.result or {}).get("status") == "diverged"
        return float("inf" if diverged else "nan")
    near = [r["loss"] for r in records if step - WINDOW < r["step"] <= step]
    return float(np.median(near))


def losses_at(group: Group, step: int) -> list[float]:
    """A loss for each seed."""
    return [loss_at(run, step) for run in group.runs]


def nearest_rank(run: Run) -> float:
    """The rank whose best map has the loss nearest to the run's last, in decades: see
    `deep_linear.rank_losses`. nan if it diverged."""
    last = loss_at(run, run.records("metrics")[-1]["step"] + 1)
    if not last > 0 or (run.result or {}).get("status") == "diverged":
        return float("nan")
    levels = np.maximum(run.config["rank_losses"], 1e-12 * last)  # the last one is 0
    return float(np.argmin(abs(np.log(levels / last))))


def outcome(group: Group) -> str:
    """How many runs diverged, and when."""
    results = [run.result or {} for run in group.runs]
    steps = [r["step"] for r in results if r.get("status") == "diverged"]
    return f"{len(steps)} of {len(results)} diverged (step {min(steps)})" if steps else ""


def make_tables(groups: Sequence[Group]) -> list[str]:
    """Markdown: loss, landscape, covariate shift."""
    return [t for t in (loss_table(groups), landscape_table(groups), shift_table(groups)) if t]


def loss_table(groups: Sequence[Group]) -> str:
    reached = max(s[-1]["step"] + 1 for group in groups for s in group.records("metrics"))
    steps = sorted({0, reached, *(s for s in paper.DEEP_LINEAR_STEPS if s < reached)})
    rows = []
    for group in groups:
        theirs = dict(zip(paper.DEEP_LINEAR_STEPS, _papers_losses(group), strict=True))
        cells = [
            spread(losses_at(group, s)) + (f"; {theirs[s]:.3g}" if theirs.get(s) else "")
            for s in steps
        ]
        rank = spread([nearest_rank(run) for run in group.runs])
        rows.append(_row(group, [str(len(group.runs)), *cells, rank, outcome(group)]))
    head = ("variant", "lr", "seeds", *(f"step {s:,}" for s in steps), "rank", "")
    note = (
        "training loss; behind a semicolon the paper's; rank: of the best linear maps, the one "
        "whose loss is nearest to the last"
    )
    return markdown_table(head, rows, note)


def _papers_losses(group: Group) -> Sequence[float | None]:
    nothing = (None,) * len(paper.DEEP_LINEAR_STEPS)
    return paper.DEEP_LINEAR_LOSS.get((group.variant, group.lr), nothing)


def over_probes(group: Group, of: Callable[[dict[str, Any]], float], start: int = 0) -> list[float]:
    """The median over training, from step `start`, of a number of each probe, for each seed."""
    found = []
    for records in group.records("landscape", direction="gradient"):
        later = [r for r in records if r["step"] >= start]
        found.append(over_training([r["step"] for r in later], [of(r) for r in later]))
    return found


def decades(record: dict[str, Any]) -> float:
    """The width of a probe's band of losses: log10 of largest / least."""
    low, high = ends(record, LOSS)
    return float(np.log10(high / low)) if low > 0 and np.isfinite(high) else float("inf")


def beta(record: dict[str, Any]) -> float:
    return ends(record, "beta")[1]


def landscape_table(groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        probes = group.records("landscape", direction="gradient")
        if not probes:
            continue
        beside = group.lr == paper.DEEP_LINEAR_RATE
        cells = [
            spread(over_probes(group, decades)),
            _of(paper.DEEP_LINEAR_LOSS_BAND, group, beside),
            spread([beta(s[0]) for s in probes]),
            spread(over_probes(group, beta)),
            _of(paper.DEEP_LINEAR_BETA, group, beside),
            spread([max(map(beta, s)) for s in probes]),
            _of(paper.DEEP_LINEAR_LARGEST_BETA, group, beside),
            f"{2 / group.lr:.3g}",
        ]
        rows.append(_row(group, cells))
    head = (
        "variant", "lr", "loss band", "paper's", "beta at step 0", "median beta", "paper's",
        "largest beta", "paper's", "2/lr",
    )  # fmt: skip
    note = "probes along the gradient; loss band: log10 of largest / least, median over training"
    return markdown_table(head, rows, note)


def shift_layers(depth: int) -> dict[int, int]:
    """Layer -> the paper's layer of Fig. 3b that lies as deep."""
    of = paper.DEEP_LINEAR_LAYERS
    return {paper.same_depth(k, of, depth): k for k in paper.DEEP_LINEAR_SHIFT_LAYERS}


def shift_table(groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        depth = group.runs[0].config["settings"]["depth"]
        for layer, k in shift_layers(depth).items() if group.records("shift") else ():
            l2, cosine = paper.DEEP_LINEAR_SHIFT.get((group.variant, group.lr, k), (None, None))
            cells = [
                as_deep(layer, k),
                spread(medians(group, layer, "l2")),
                "" if l2 is None else f"{l2:.3g}",
                spread(medians(group, layer, "relative")),
                spread(late_cosine(group, layer)),
                "" if cosine is None else f"{cosine:.3g}",
            ]
            rows.append(_row(group, cells))
    head = ("variant", "lr", "layer", "l2", "paper's", "relative l2", "cosine", "paper's")
    note = "Definition 2.1: medians over training; cosine: the mean of its second half"
    return markdown_table(head, rows, note)


def _of(theirs: dict[str, float], group: Group, beside: bool) -> str:
    return f"{theirs[group.variant]:.3g}" if beside and group.variant in theirs else ""


def _row(group: Group, cells: Sequence[str]) -> list[str]:
    return [group.variant, f"{group.lr:g}", *cells]


def in_one_line(groups: Sequence[Group]) -> str:
    """The numbers that the paper compares, at the largest rate: the median over seeds for each
    variant. What they say of the paper is judged by the rules of `experiments.claims`."""
    lr = max(group.lr for group in groups)
    of_rate = [group for group in groups if group.lr == lr]
    last = min(s[-1]["step"] + 1 for group in of_rate for s in group.records("metrics"))
    measures: dict[str, Callable[[Group], Sequence[float]]] = {
        f"loss at step {step:,}": partial(losses_at, step=step)
        for step in sorted({min(1000, last), last})
    }
    for k in paper.DEEP_LINEAR_SHIFT_LAYERS:
        measures[f"l2 of the covariate shift, layer {k}, median"] = partial(_shift_as_deep, k=k)
    measures["effective beta, median"] = partial(over_probes, of=beta)
    measures["effective beta, largest"] = partial(_largest, of=beta)
    measures["band of losses along a probe, median decades"] = partial(over_probes, of=decades)
    parts = []
    for what, of in measures.items():
        found = [(group.variant, of(group)) for group in of_rate]
        texts = [f"{v} {np.median(x):.3g}" for v, x in found if x and not np.isnan(x).any()]
        parts += [f"{what}: {', '.join(texts)}"] if texts else []
    seeds = max(len(group.runs) for group in of_rate)
    return f"At lr {lr:g}, {count_of_seeds(seeds)}: {'; '.join(parts)}. {JUDGED[seeds > 1]}"


def _shift_as_deep(group: Group, k: int) -> list[float]:
    """The median l2 of the layer that lies as deep as the paper's layer k, for each seed; empty if,
    in a shallow network, that layer stands for another of the paper's."""
    depth = group.runs[0].config["settings"]["depth"]
    layers = [ours for ours, theirs in shift_layers(depth).items() if theirs == k]
    return medians(group, layers[0], "l2") if layers and group.records("shift") else []


def _largest(group: Group, of: Callable[[dict[str, Any]], float]) -> list[float]:
    """The largest of a number of each probe, for each seed."""
    return [max(map(of, s)) for s in group.records("landscape", direction="gradient")]


def summary(settings: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """What the curves were plotted from, in a small file (without paths of this machine)."""
    runs = [run for group in groups for run in group.runs]
    own = ("variants", "variants_elsewhere", "lr", "seed")
    shared = {k: v for k, v in settings.items() if k not in own}
    return {"settings": shared, "runs": {run.name: _of_run(run) for run in runs}}


def _of_run(run: Run) -> dict[str, Any]:
    config, metrics = run.config, run.records("metrics")
    sparse = [m for m in metrics if m["step"] % WINDOW == 0 or m is metrics[-1]]
    probes = [r for r in run.records("landscape") if r["direction"] == "gradient"]
    shifts: dict[int, list[dict[str, Any]]] = {}
    for record in run.records("shift"):
        shifts.setdefault(record["layer"], []).append(record)
    return {
        "variant": config["variant"],
        "lr": config["lr"],
        "seed": config["seed"],
        "result": run.result,
        "rank_losses": config["rank_losses"],
        "step": [m["step"] for m in sparse],
        "loss": [short(m["loss"]) for m in sparse],
        "walk_step": [r["step"] for r in probes],
        "walk_loss": [[short(v) for v in ends(r, LOSS)] for r in probes],
        "beta": [short(beta(r)) for r in probes],
        "shift_l2": {layer: short(median_of(of, "l2")) for layer, of in shifts.items()},
        "seconds": seconds(run),
        "environment": config["environment"],
        "data_fingerprint": config["data_fingerprint"],
    }
