"""Quantities with one entry per layer: covariate shift in both senses, moments of distributions.

Layers are the paper's numbers, of 13 convolutions (25 layers of the deep linear network); in a
network of another depth it is the layer at the same relative depth. Distributions are recorded for
a sample of each layer's units: three in VGG, one in the deep linear network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import paper
from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import INF, TINY, Quantity, float_value, span

EVERY = 100  # steps between the distributions that `quantile_change` compares
PLACES = {"activation": "activation", "norm_input": "norm's input"}
IN_WORDS = {
    "l2": "‖G-G'‖",
    "relative": "‖G-G'‖ / ‖G‖",
    "cosine": "cosine of G, G'",
    "wasserstein": "Wasserstein distance over an update, in sd",
}


def depth(run: Trace, layer: int) -> int:
    """The layer of the run's network that stands for a layer of the paper's."""
    if "model" in run.settings:  # VGG
        return paper.layer_of(run.settings["model"], layer)
    return paper.same_depth(layer, paper.DEEP_LINEAR_LAYERS, run.settings["depth"])


def shift(what: str, start: int, stop: int, layers: Sequence[int]) -> Quantity:
    """Definition 2.1: l2, relative or cosine; or, as `wasserstein`, how far an update moves what
    enters the layer's ReLU on the same batch, in standard deviations. Medians over steps."""

    def number(record: dict[str, Any]) -> float:
        # null: a cosine is not defined where a gradient is 0; a length was not finite
        x = float_value(record[what], null=np.nan if what == "cosine" else INF)
        return x / max(nan_if_none(record["std"]), TINY) if what == "wasserstein" else x

    def of(run: Trace) -> np.ndarray:
        found = []
        for layer in layers:
            records = run.between("shift", start, stop, layer=depth(run, layer))
            found.append(_median([number(record) for record in records]))
        return np.array(found)

    return Quantity(f"{IN_WORDS[what]}, {_layers(layers)}, {span(start, stop)}", of)


def drift(
    which: str, place: str, start: int, stop: int, layers: Sequence[int], *, relative: bool = False
) -> Quantity:
    """How far a unit's batch mean or variance moves from one step to the next: the median over
    sampled units and steps. relative: in standard deviations, or as a share of the variance."""

    def of(run: Trace) -> np.ndarray:
        found = []
        for layer in layers:
            moved = []
            for series in _units(run, layer, place, start, stop):
                for step, record in series.items():
                    if step + 1 in series:
                        change = abs(
                            nan_if_none(series[step + 1][which]) - nan_if_none(record[which])
                        )
                        scale = nan_if_none(record["var"]) ** (0.5 if which == "mean" else 1)
                        moved.append(change / max(scale, TINY) if relative else change)
            if not moved:
                raise Missing(f"{run} has no two successive steps of layer {layer} on record")
            found.append(_median(moved))
        return np.array(found)

    name = {"mean": "mean", "var": "variance"}[which]
    unit = "" if not relative else ", in sd" if which == "mean" else ", as a share of it"
    return Quantity(
        f"step-to-step change of sampled units' {name}{unit}, {PLACES[place]}, {_layers(layers)}, "
        f"{span(start, stop)}",
        of,
    )


def quantile_change(
    start: int,
    stop: int,
    layers: Sequence[int],
    place: str = "activation",
    *,
    own_scale: bool = False,
) -> Quantity:
    """How far a unit's whole distribution moves in 100 steps: the mean change of its seven
    quantiles, in standard deviations of the earlier one; the median over sampled units and steps.
    own_scale: of each minus its mean, in its own standard deviations, so that only a change of
    shape counts."""

    def quantiles(record: dict[str, Any]) -> np.ndarray:
        q = np.asarray(record["quantiles"], np.float64)
        return (q - record["mean"]) / max(record["var"] ** 0.5, TINY) if own_scale else q

    def of(run: Trace) -> np.ndarray:
        found = []
        for layer in layers:
            moved = []
            for series in _units(run, layer, place, start, stop):
                for step, now in series.items():
                    then = series.get(step + EVERY, {})
                    if step % EVERY == 0 and "quantiles" in now and "quantiles" in then:
                        change = np.abs(quantiles(then) - quantiles(now)).mean()
                        moved.append(change if own_scale else change / max(now["var"] ** 0.5, TINY))
            if not moved:
                raise Missing(f"{run} has no quantiles of layer {layer} {EVERY} steps apart")
            found.append(_median(moved))
        return np.array(found)

    scale = "each centred and in its own sd" if own_scale else "in sd"
    return Quantity(
        f"change of sampled units' quantiles in {EVERY} steps, {scale}, {PLACES[place]}, "
        f"{_layers(layers)}, {span(start, stop)}",
        of,
    )


def moment(which: str, start: int, stop: int, layers: Sequence[int]) -> Quantity:
    """The size of a unit's batch mean, or its standard deviation, at the activation."""

    def number(record: dict[str, Any]) -> float:
        mean, var = nan_if_none(record["mean"]), nan_if_none(record["var"])
        return abs(mean) if which == "mean" else var**0.5

    def of(run: Trace) -> np.ndarray:
        found = []
        for layer in layers:
            units = _units(run, layer, "activation", start, stop)
            found.append(
                _median([number(record) for series in units for record in series.values()])
            )
        return np.array(found)

    name = {"mean": "|mean|", "sd": "sd"}[which]
    return Quantity(
        f"{name} of sampled units, activation, {_layers(layers)}, {span(start, stop)}", of
    )


def _units(
    run: Trace, layer: int, place: str, start: int, stop: int
) -> list[dict[int, dict[str, Any]]]:
    """For each unit, step -> record. Without a norm, the norm's input is the activation."""
    if place == "norm_input" and run.config.get("norm") == "none":
        place = "activation"
    units: dict[int, dict[int, dict[str, Any]]] = {}
    for r in run.between("distributions", start, stop, layer=depth(run, layer), place=place):
        units.setdefault(r["unit"], {})[r["step"]] = r
    return list(units.values())


def nan_if_none(x: float | None) -> float:
    """x, or nan for None, which medians leave out."""
    return float_value(x, null=np.nan)


def _median(values: Sequence[float]) -> float:
    """The median of the values that are not nan; nan if there is none."""
    known = [x for x in values if not np.isnan(x)]
    return float(np.median(known)) if known else np.nan


def _layers(layers: Sequence[int]) -> str:
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"
