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

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn import ops
from minibn.analysis.state import (
    Arrays,
    Batch,
    Loss,
    WorkingState,
    arrays,
    check_decay,
    inner,
    loss_of,
    norm,
    trainable,
    working_state,
)
from minibn.autograd.backward import grad
from minibn.autograd.tape import no_grad, set_grad_enabled
from minibn.autograd.tensor import Tensor, value
from minibn.backend import array_module
from minibn.nn.module import Module

SAMPLES = 4096  # values of a unit, at most, whose distributions are compared


@dataclass(frozen=True)
class LayerShift:
    """Definition 2.1 for one layer, counted from 1, whose parameters are `names`.

    l2 = ‖G - G'‖; relative = l2 / ‖G‖; cosine of G and G'; gradient_norm = ‖G‖. Quotients by 0 are
    nan. G has the parameters' entries one after another: norms are in units of loss per weight.
    """

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
    for name, p in trainable(model).items():
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
    `before` is a whole `snapshot`, statistics and noise are those of that snapshot; otherwise the
    model's present ones. weight_decay λ adds λ w to the gradients of weights of two axes or more.
    layers: lists of parameter names, in order; by default `layers_of(model)`. Parameters in none of
    them do not move: with some of the layers only, it is no longer Definition 2.1.

    Costs about two thirds of a training step a layer. The model is left unchanged, bit for bit.
    Raises ValueError where before or after lack a parameter, layers name an unknown one or one
    twice, or the loss is no scalar.
    """
    _check_values("covariate_shift", model, before, after)
    check_decay("covariate_shift", weight_decay)
    params = dict(model.named_parameters())
    groups = layers_of(model) if layers is None else _check_layers(layers, trainable(model))
    shifts = []
    quiet = np.errstate(all="ignore")  # host: flags
    with working_state(model) as state, set_grad_enabled(True), quiet:

        def gradients(names: Sequence[str]) -> list[Any]:
            _reset(state, model, before)
            of = [params[name] for name in names]
            y = loss_of(model, batch, loss, "covariate_shift")
            g = arrays(grad(y, of, unused="zeros"))
            decay = [weight_decay if p.ndim > 1 else 0.0 for p in of]
            return [g_i + c * p.data if c else g_i for g_i, c, p in zip(g, decay, of, strict=True)]

        state.replace({name: before[name] for name in params})
        every = [name for names in groups for name in names]
        G = dict(zip(every, gradients(every), strict=True))
        for i, names in enumerate(groups):
            ours = [G[name] for name in names]
            length = norm(ours)
            if i == 0:  # nothing lies before it
                shifts.append(_layer(1, names, 0.0, length, length, length * length))
                continue
            state.replace({name: after[name] for name in groups[i - 1]})
            theirs = gradients(names)
            change = norm([a - b for a, b in zip(theirs, ours, strict=True)])
            products = inner(theirs, ours)
            shifts.append(_layer(i + 1, names, change, length, norm(theirs), products))
    return shifts


def _check_values(who: str, model: Module, before: Arrays, after: Arrays) -> None:
    """Raise ValueError unless both hold an array for every parameter, of its shape."""
    for which, given in (("before", before), ("after", after)):
        wrong = [
            f"{name} {p.shape}"
            for name, p in model.named_parameters()
            if isinstance(given.get(name), Tensor)
            or getattr(given.get(name), "shape", 0) != p.shape
        ]
        if wrong:
            raise ValueError(
                f"{who}: {which} lacks an array for {', '.join(wrong)}. Take a snapshot(model)."
            )


def _check_layers(layers: Any, params: Any) -> list[list[str]]:
    """Raise ValueError unless these are lists of names of parameters, each at most once."""
    groups = [[names] if isinstance(names, str) else list(names) for names in layers]
    every = [name for names in groups for name in names]
    if len(set(every)) < len(every) or not all(groups) or not set(every) <= set(params):
        raise ValueError(
            f"covariate_shift: layers={layers!r} must be lists of parameters' names, each name "
            f"once. There are {', '.join(params)}."
        )
    return groups


def _layer(i: int, names: Any, l2: float, g: float, g_other: float, product: float) -> LayerShift:
    nan = float("nan")
    cosine = product / (g * g_other) if g * g_other else nan
    return LayerShift(i, tuple(names), l2, l2 / g if g else nan, cosine, g)


def _reset(state: WorkingState, model: Module, snapshot: Arrays) -> None:
    """Statistics and counters of the snapshot, where it has them all."""
    whole = all(name in snapshot for name, _ in model.named_buffers())
    state.reset_buffers(snapshot if whole else None)


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
    Wasserstein distances over at most `samples` of them, at the same places before and after
    (which overestimates small distances a little: a few per cent at the default).
    Costs two forward passes and the sorting. The model is left unchanged, bit for bit.
    Raises ValueError where before or after lack a parameter, a place is unknown or is not run,
    samples is below 1 or the batch is empty.
    """
    _check_values("distribution_shift", model, before, after)
    if samples < 1:
        raise ValueError(f"distribution_shift: samples={samples} must be 1 or more.")
    if isinstance(places, str) or not len(batch[0]):
        wrong = "places is one name" if isinstance(places, str) else "the batch is empty"
        raise ValueError(
            f"distribution_shift: {wrong}; it takes a list, and a batch of one or more."
        )
    parts = dict(model.named_modules())
    if unknown := [place for place in places if place not in parts]:
        raise ValueError(f"distribution_shift: the model has no {', '.join(unknown)}.")
    moments: list[dict[str, tuple[Any, Any, Any]]] = []
    with working_state(model) as state, no_grad(), np.errstate(all="ignore"):  # host: flags
        names = [name for name, _ in model.named_parameters()]
        for weights in (before, after):
            state.replace({name: weights[name] for name in names})
            _reset(state, model, before)
            moments_here: dict[str, tuple[Any, Any, Any]] = {}
            with ExitStack() as stack:
                for place in places:
                    stack.enter_context(parts[place].watch(_watcher(moments_here, place, samples)))
                model(batch[0])
            moments.append(moments_here)
    if silent := [place for place in places if place not in moments[0]]:
        raise ValueError(
            f"distribution_shift: {', '.join(silent)} had no input in the forward pass."
        )
    return [_unit_shift(place, *(m[place] for m in moments)) for place in places]


def _watcher(moments: dict[str, Any], place: str, samples: int) -> Any:
    def watch(module: Module, inputs: tuple, output: Any) -> None:
        rows = value(inputs[0])
        rows = rows.reshape(-1, rows.shape[-1])  # (M, C)
        stride = -(-len(rows) // samples)
        while math.gcd(stride, len(rows)) > 1:  # else a stride of W would take one column of pixels
            stride += 1
        chosen = rows[::stride]
        moments[place] = (
            rows.mean(axis=0),
            rows.var(axis=0),
            array_module(rows).sort(chosen, axis=0),
        )

    return watch


def _unit_shift(place: str, old: tuple[Any, Any, Any], new: tuple[Any, Any, Any]) -> UnitShift:
    """Sorted samples of equal number: W₁ is the mean distance between values of equal rank."""
    xp = array_module(old[0])
    mean, var, distance = (
        float(xp.abs(b - a).mean().item()) for a, b in zip(old, new, strict=True)
    )
    return UnitShift(place, mean, var, distance, std=float(xp.sqrt(old[1]).mean().item()))
