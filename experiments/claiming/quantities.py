"""What is measured: named functions from the streams of one run to a number, or to several.

A claim names one of QUANTITIES, with options. A quantity of several layers or of several training
losses is a vector, whose entries a claim compares one by one; nan stands where there is none.
A diverged run has the accuracy of chance. What can't be computed raises `Missing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments import paper
from experiments.claiming.at_equal_loss import at_losses
from experiments.claiming.streams import Missing, RunStreams, Table

Quantity = Callable[..., Any]
CHANCE = 0.1  # accuracy, with ten classes
EVERY = 100  # steps between the distributions that `quantile_change` compares
TINY = 1e-30


# -- accuracy and loss


def train_accuracy(run: RunStreams, *, steps: Sequence[int]) -> float:
    """The mean over the batches of these steps."""
    start, stop = steps
    run.require(stop)
    metrics = run.tables["metrics"]
    seen = metrics["accuracy"][(start <= metrics["step"]) & (metrics["step"] < stop)]
    lost = 0 if run.diverged is None else stop - max(start, min(stop, run.diverged))
    return float(np.mean([*seen, *[CHANCE] * lost]))


def test_accuracy(run: RunStreams, *, updates: int) -> float:
    """After so many updates, in eval mode."""
    run.require(updates)
    if run.diverged is not None and run.diverged < updates:
        return CHANCE
    table = run.tables.get("test", {"updates": np.zeros(0)})
    where = table["updates"] == updates
    if not where.any():
        raise Missing(f"{run} has no test accuracy after {updates:,} updates")
    return float(table["accuracy"][where][0])


def train_loss(run: RunStreams, *, steps: Sequence[int]) -> float:
    """The median over these steps."""
    return float(np.median(run.rows("metrics", steps)["loss"]))


def largest_rate(runs: Sequence[RunStreams], *, accuracy: float, steps: Sequence[int]) -> float:
    """The largest rate of the grid at which the mean training accuracy over these steps reaches
    `accuracy`. A rate that was not run, because a lower one diverged, is not reached. Raises
    Missing if another rate was not run, or none reaches it."""
    ended = {f"{run.lr:g}" for run in runs}
    stop = min((run.lr for run in runs if run.diverged is not None), default=np.inf)
    if lacking := [lr for lr in runs[0].settings["lr"] if lr < stop and f"{lr:g}" not in ended]:
        raise Missing(f"{runs[0]} has no run at lr {lacking[0]:g}")
    found = [run.lr for run in runs if train_accuracy(run, steps=steps) >= accuracy]
    if not found:
        raise Missing(f"{runs[0]}: no rate of the grid reaches accuracy {accuracy}")
    return max(found)


# -- the landscape: probes along a direction


def loss_change(probes: Table, sizes: Sequence[float]) -> np.ndarray:
    """Of each probe, the largest minus the least of the loss at its start and at the steps of these
    sizes. Losses that were not finite count as infinite."""
    losses = np.concatenate([probes["loss"][:, None], at_sizes(probes, "losses", sizes)], axis=1)
    losses = np.where(np.isnan(losses), np.inf, losses)
    return losses.max(1) - losses.min(1)


def loss_band(probes: Table, sizes: Sequence[float]) -> np.ndarray:
    """The paper's: the largest minus the least loss at the steps, without the start."""
    losses = at_sizes(probes, "losses", sizes)
    losses = np.where(np.isnan(losses), np.inf, losses)
    return losses.max(1) - losses.min(1)


def relative_loss_band(probes: Table, sizes: Sequence[float]) -> np.ndarray:
    """`loss_band` as a share of the loss at the probe's start."""
    return loss_band(probes, sizes) / probes["loss"]


def gradient_change(probes: Table, sizes: Sequence[float]) -> np.ndarray:
    """The largest ‖∇L(w - η d) - ∇L(w)‖ over these sizes η."""
    change = at_sizes(probes, "gradient_change", sizes)
    return np.where(np.isnan(change), np.inf, change).max(1)


def relative_gradient_change(probes: Table, sizes: Sequence[float]) -> np.ndarray:
    """`gradient_change` over ‖∇L(w)‖. At one size η along the gradient it is η · beta."""
    return gradient_change(probes, sizes) / probes["gradient_norm"]


def beta(probes: Table, sizes: Sequence[float]) -> np.ndarray:
    """The paper's effective beta: the largest ‖Δ gradient‖ / distance over these sizes."""
    found = at_sizes(probes, "beta", sizes)
    return np.where(np.isnan(found), np.inf, found).max(1)


def gradient_norm(probes: Table, sizes: Sequence[float]) -> np.ndarray:
    """‖∇L(w)‖ where the probe starts."""
    return probes["gradient_norm"]


MEASURES = {
    f.__name__: f
    for f in (
        loss_change,
        loss_band,
        relative_loss_band,
        gradient_change,
        relative_gradient_change,
        beta,
        gradient_norm,
    )
}


def at_sizes(probes: Table, column: str, sizes: Sequence[float]) -> np.ndarray:
    """The entries (probes, sizes) of a column at these step sizes. Raises Missing if a probe has
    not made such a step."""
    own = probes["step_sizes"][:, None, :]
    near = np.isclose(own, np.asarray(sizes)[None, :, None], rtol=1e-5, atol=0)
    if not near.any(2).all():
        lacking = [size for i, size in enumerate(sizes) if not near[:, i].any(1).all()]
        raise Missing(f"no probe with a step of size {lacking[0]:g}; they have {own[0, 0]}")
    return np.take_along_axis(probes[column], near.argmax(2), axis=1)


def landscape(
    run: RunStreams,
    *,
    measure: str,
    sizes: Sequence[float],
    steps: Sequence[int],
    at_loss: Sequence[float] = (),
    direction: str = "gradient",
) -> Any:
    """The median of a measure over the probes of these steps; with `at_loss`, a median for each of
    these training losses, over the probes near it (`at_losses`)."""
    probes = run.rows(f"landscape:{direction}", steps)
    try:
        values = MEASURES[measure](probes, sizes)
    except Missing as lacking:
        raise Missing(f"{run}: {lacking}") from None
    if not at_loss:
        return float(np.median(values))
    metrics = run.tables["metrics"]
    return at_losses(metrics["step"], metrics["loss"], probes["step"], values, at_loss)


# -- internal covariate shift, distributions: an entry a layer


def depth(run: RunStreams, layer: int) -> int:
    """The layer of the run's network that stands for a layer of the paper's."""
    if "model" in run.settings:  # VGG
        return paper.layer_of(run.settings["model"], layer)
    return paper.same_depth(layer, paper.DEEP_LINEAR_LAYERS, run.settings["depth"])


def shift(
    run: RunStreams, *, what: str, steps: Sequence[int], layers: Sequence[int], of: str = ""
) -> Any:
    """Definition 2.1, the median over steps: l2 ‖G - G'‖, relative ‖G - G'‖ / ‖G‖, or cosine. of:
    the "least" of the layers, or the "largest" in size, where a mean over layers would hide a
    sign."""
    found = np.array(
        [np.nanmedian(run.rows("shift", steps, layer=depth(run, k))[what]) for k in layers]
    )
    return {"": found, "least": found.min(), "largest": np.abs(found).max()}[of]


def mean_drift(
    run: RunStreams, *, place: str, steps: Sequence[int], layers: Sequence[int]
) -> np.ndarray:
    """How far a unit's batch mean moves from one step to the next, in standard deviations of the
    unit: the median over sampled units and steps."""
    return np.array([_median(list(_drifts(run, place, steps, k)), run, k) for k in layers])


def _drifts(run: RunStreams, place: str, steps: Sequence[int], layer: int) -> Any:
    for step, unit in _units(run, place, steps, layer):
        now, then = np.flatnonzero(np.diff(step) == 1), np.flatnonzero(np.diff(step) == 1) + 1
        sd = np.sqrt(np.maximum(unit["var"][now], TINY))
        yield from np.abs(unit["mean"][then] - unit["mean"][now]) / sd


def quantile_change(
    run: RunStreams, *, place: str, steps: Sequence[int], layers: Sequence[int]
) -> np.ndarray:
    """How far a unit's whole distribution moves in 100 steps: the mean change of its seven
    quantiles, in standard deviations of the earlier one; the median over sampled units and
    steps."""
    return np.array([_median(list(_moves(run, place, steps, k)), run, k) for k in layers])


def _moves(run: RunStreams, place: str, steps: Sequence[int], layer: int) -> Any:
    for step, unit in _units(run, place, steps, layer):
        rows = {int(t): i for i, t in enumerate(step) if t % EVERY == 0}
        for t, i in rows.items():
            if t + EVERY in rows:
                moved = np.abs(unit["quantiles"][rows[t + EVERY]] - unit["quantiles"][i]).mean()
                yield moved / np.sqrt(max(unit["var"][i], TINY))


def _units(run: RunStreams, place: str, steps: Sequence[int], layer: int) -> Any:
    """(steps, rows) of each sampled unit. Without a norm, the norm's input is the activation."""
    if place == "norm_input" and run.norm == "none":
        place = "activation"
    rows = run.rows(f"distributions:{place}", steps, layer=depth(run, layer))
    for unit in np.unique(rows["unit"]):
        own = rows["unit"] == unit
        yield rows["step"][own], {name: column[own] for name, column in rows.items()}


def _median(values: list[float], run: RunStreams, layer: int) -> float:
    if not values:
        raise Missing(f"{run} has no two records of layer {layer} to compare")
    return float(np.nanmedian(values))


# -- what came after the paper


def growth_deviation(run: RunStreams, *, depth: int, theory: Sequence[Sequence[Any]]) -> float:
    """Of `explosion`: the largest |factor / theory - 1| / margin over rows of theory, each a
    network, its batch size, theory's factor per layer and the margin; below 1 all agree."""
    found = []
    for network, batch_size, factor, margin in theory:
        table = run.tables.get(f"gradients:{network}", {"depth": np.zeros(0)})
        where = (table["depth"] == depth) & (table.get("batch_size", -1) == batch_size)
        if not where.any():
            raise Missing(f"{run} has no {network} of depth {depth} and batch size {batch_size}")
        found.append(abs(float(table["factor"][where][0]) / factor - 1) / margin)
    return max(found)


def test_accuracy_at_best_rate(runs: Sequence[RunStreams]) -> float:
    """The last test accuracy of the rate whose training accuracy, over the last tenth of the steps,
    is the highest. Raises Missing unless every rate of the grid has ended."""
    ended = {f"{run.lr:g}" for run in runs}
    if lacking := [lr for lr in runs[0].settings["lr"] if f"{lr:g}" not in ended]:
        raise Missing(f"{runs[0]} has no run at lr {lacking[0]:g}")
    steps = runs[0].settings["steps"]
    best = max(runs, key=lambda run: train_accuracy(run, steps=[steps - steps // 10, steps]))
    return test_accuracy(best, updates=steps)


def path_deviation(run: RunStreams, *, network: str) -> float:
    """Of `skip_init` at step 0: the largest |l · residual / skip - 1| over the blocks l = 1, 2, ...
    of a network, of the variances on their two paths."""
    table = run.tables.get(f"paths:{network}")
    if table is None:
        raise Missing(f"{run} has no variances of the paths of {network}")
    return float(np.abs(table["block"] * table["residual"] / table["skip"] - 1).max())


def equilibrium_share(run: RunStreams, *, within: float) -> float:
    """Of `scale_invariance`: the share of the layers whose angle a step, the root mean square over
    the last quarter of the run, is within this share of √(2 · lr · decay)."""
    decay = float(run.variant.removeprefix("decay"))
    rows = run.rows("rotation", [run.settings["steps"] * 3 // 4, run.settings["steps"]])
    angle = np.sqrt(np.mean(rows["angle"].astype(np.float64) ** 2, axis=0))
    return float(np.mean(np.abs(angle / np.sqrt(2 * run.lr * decay) - 1) <= within))


QUANTITIES: dict[str, Quantity] = {
    f.__name__: f
    for f in (
        train_accuracy,
        test_accuracy,
        train_loss,
        largest_rate,
        landscape,
        shift,
        mean_drift,
        quantile_change,
        growth_deviation,
        equilibrium_share,
        test_accuracy_at_best_rate,
        path_deviation,
    )
}
