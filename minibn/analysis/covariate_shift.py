"""Internal covariate shift, in the paper's sense and in the original one.

**Definition 2.1** (Santurkar et al. 2018). An update takes the layers from W⁽ᵗ⁾ to W⁽ᵗ⁺¹⁾. With
the batch of step t, the shift of layer i is ‖G - G'‖, where

    G  = ∂L/∂W_i at (W₁⁽ᵗ⁾,    ..., W_{i-1}⁽ᵗ⁾,   W_i⁽ᵗ⁾, ..., W_k⁽ᵗ⁾)
    G' = ∂L/∂W_i at (W₁⁽ᵗ⁺¹⁾, ..., W_{i-1}⁽ᵗ⁺¹⁾, W_i⁽ᵗ⁾, ..., W_k⁽ᵗ⁾)

Both on the same batch, in training mode: how much the layer's own gradient changes because the
layers before it moved. Layer 1 has none by definition.

**The original notion** (Ioffe & Szegedy 2015): the distribution of a layer's inputs changes. For
each unit, the change of its mean and variance over a batch, and the distance of the two
distributions (Wasserstein-1), between the weights before and after the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn import ops
from minibn.analysis.probe import Batch, Loss
from minibn.analysis.state import Arrays, arrays, held, inner, norm
from minibn.backend import array_module
from minibn.backward import grad
from minibn.nn.module import Module
from minibn.tape import no_grad, recording, value

SAMPLES = 4096  # values of a unit whose distribution is compared


@dataclass(frozen=True)
class LayerShift:
    """Definition 2.1 for one layer, counted from 1. relative = l2 / ‖G‖; nan where ‖G‖ is 0."""

    layer: int
    names: tuple[str, ...]
    l2: float
    relative: float
    cosine: float
    gradient_norm: float


def layers_of(model: Module) -> list[list[str]]:
    """The model's parameters by layer: a layer begins with a weight of two axes or more, and the
    vectors behind it (bias, its norm's gamma and beta) belong to it.

    >>> from minibn import nn
    >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm(3), head=nn.Linear(3, 1))
    >>> layers_of(net)
    [['0.weight', '1.gamma', '1.beta'], ['head.weight', 'head.bias']]
    """
    layers: list[list[str]] = []
    for name, p in model.named_parameters():
        if p.ndim > 1 or not layers:
            layers.append([])
        layers[-1].append(name)
    return layers


def covariate_shift(
    model: Module,
    batch: Batch,
    before: Arrays,
    after: Arrays,
    *,
    layers: Sequence[Sequence[str]] | None = None,
    loss: Loss = ops.softmax_cross_entropy,
    weight_decay: float = 0.0,
) -> list[LayerShift]:
    """Definition 2.1 for every layer.

    batch (x, targets) of the step; before, after: the parameters by name around its update. If
    `before` is a whole `snapshot`, statistics and noise are those of its moment, too; otherwise the
    model's present ones. layers: parameter names, default `layers_of(model)`. Costs about two
    thirds of a training step a layer. The model is left as it was, to the last bit.
    Raises ValueError where before or after lack a parameter.
    """
    params = dict(model.named_parameters())
    for which, given in (("before", before), ("after", after)):
        if missing := [name for name in params if name not in given]:
            raise ValueError(f"covariate_shift: {which} lacks {', '.join(missing)}.")
    groups = layers_of(model) if layers is None else [list(names) for names in layers]
    x, targets = batch
    found = []
    with held(model) as hold, recording(True), np.errstate(all="ignore"):  # host: NumPy's warnings

        def gradients(names: Sequence[str]) -> list[Any]:
            _rewind(hold, model, before)
            of = [params[name] for name in names]
            g = arrays(grad(loss(model(x), targets), of, unused="zeros"))
            decay = [weight_decay if p.ndim > 1 else 0.0 for p in of]
            return [g_i + c * p.data if c else g_i for g_i, c, p in zip(g, decay, of, strict=True)]

        hold.put({name: before[name] for name in params})
        every = [name for names in groups for name in names]
        G = dict(zip(every, gradients(every), strict=True))
        for i, names in enumerate(groups):
            ours = [G[name] for name in names]
            length = norm(ours)
            if i == 0:  # nothing lies before it
                found.append(_layer(1, names, 0.0, length, length, length * length))
                continue
            hold.put({name: after[name] for name in groups[i - 1]})
            theirs = gradients(names)
            change = norm([a - b for a, b in zip(theirs, ours, strict=True)])
            products = inner(theirs, ours)
            found.append(_layer(i + 1, names, change, length, norm(theirs), products))
    return found


def _layer(i: int, names: Any, l2: float, g: float, g_other: float, product: float) -> LayerShift:
    nan = float("nan")
    cosine = product / (g * g_other) if g * g_other else nan
    return LayerShift(i, tuple(names), l2, l2 / g if g else nan, cosine, g)


def _rewind(hold: Any, model: Module, snapshot: Arrays) -> None:
    """Statistics and counters of the snapshot, where it has them all."""
    whole = all(name in snapshot for name, _ in model.named_buffers())
    hold.rewind(snapshot if whole else None)


@dataclass(frozen=True)
class UnitShift:
    """How the distributions at one place moved: means over its units of |change of the mean|,
    |change of the variance|, the Wasserstein-1 distance, and the standard deviation before."""

    place: str
    mean_drift: float
    var_drift: float
    wasserstein: float
    std: float


def distribution_shift(
    model: Module,
    batch: Batch,
    before: Arrays,
    after: Arrays,
    places: Sequence[str],
    *,
    samples: int = SAMPLES,
) -> list[UnitShift]:
    """The original notion of covariate shift: what enters the modules named `places` (such as
    "relu3"), on one batch, with the parameters before and after an update.

    A unit is a channel; height and width count as batch. Means and variances are over all values,
    Wasserstein distances over at most `samples` of them, at the same places before and after.
    Costs two forward passes and the sorting. The model is left as it was, to the last bit.
    """
    parts = dict(model.named_modules())
    if unknown := [place for place in places if place not in parts]:
        raise ValueError(f"distribution_shift: the model has no {', '.join(unknown)}.")
    seen: list[dict[str, tuple[Any, Any, Any]]] = []
    with held(model) as hold, no_grad(), np.errstate(all="ignore"):  # host: NumPy's warnings
        names = [name for name, _ in model.named_parameters()]
        for weights in (before, after):
            hold.put({name: weights[name] for name in names})
            _rewind(hold, model, before)
            found: dict[str, tuple[Any, Any, Any]] = {}
            with ExitStack() as stack:
                for place in places:
                    stack.enter_context(parts[place].watch(_watcher(found, place, samples)))
                model(batch[0])
            seen.append(found)
    if silent := [place for place in places if place not in seen[0]]:
        raise ValueError(f"distribution_shift: {', '.join(silent)} saw nothing in a forward pass.")
    return [_moved(place, seen[0][place], seen[1][place]) for place in places]


def _watcher(found: dict[str, Any], place: str, samples: int) -> Any:
    def see(module: Module, inputs: tuple, output: Any) -> None:
        rows = value(inputs[0])
        rows = rows.reshape(-1, rows.shape[-1])  # (M, C)
        chosen = rows[:: -(-len(rows) // samples)]
        found[place] = rows.mean(axis=0), rows.var(axis=0), array_module(rows).sort(chosen, axis=0)

    return see


def _moved(place: str, old: tuple[Any, Any, Any], new: tuple[Any, Any, Any]) -> UnitShift:
    """Sorted samples of equal number: W₁ is the mean distance between values of equal rank."""
    xp = array_module(old[0])
    mean, var, distance = (
        float(xp.abs(b - a).mean().item()) for a, b in zip(old, new, strict=True)
    )
    return UnitShift(place, mean, var, distance, std=float(xp.sqrt(old[1]).mean().item()))
