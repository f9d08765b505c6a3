"""What `theorems` measures: random losses at the start of a run, and real units along its training.

heads.jsonl      one line a draw: m, eps, head, draw, then `residual` and `exceeded` by theorem
theorems.jsonl   one line a step, layer and unit: m, the same, and its gradient:
    scaling, mean, correlation     the three shares of Theorem 4.1 (minibn.analysis.theorems.Shares)
    reduction, weight_reduction    ‖∇_y L̂‖²/‖∇_y L‖², and the same of the weights before the norm
    multiple                       Lemma 4.5's k, from the weights at the start to those now
both             cosine of ∇_y L and y_hat, with its sign; and Rayleigh quotients: vanilla, of H
                 along ∇_y L; along, of H along ∇_y L̂; curvature, of d²L̂/dy² along ∇_y L̂

`residual` is relative; `exceeded` says whether left ≤ right is violated by more than rounding. What
is not finite is null.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from experiments.training.json_files import json_number
from experiments.training.recorders import Recorder
from experiments.training.step import Step
from minibn import ops, to_numpy
from minibn.analysis import theorems
from minibn.analysis.units import Sides, Units, dot, units_at, weight_gradients
from minibn.autograd.tensor import Tensor
from minibn.backend import get_backend
from minibn.random import generator

# How often 4.2b holds depends on whether the loss is convex.
HEADS = ("tanh", "product", "convex")


def number(x: Any) -> float | None:
    return json_number(x, digits=4)


def identities(u: Units, curvature: theorems.Curvature) -> list[Sides]:
    """Every corrected form about activations. (4.4 and C.1, of weights, follow from 4.1 and 4.2a
    by a factor: to test them needs the gradients in weight space, which random losses have.)"""
    return [
        theorems.fact_c_2(u),
        theorems.theorem_4_1(u),
        curvature.hessian,
        curvature.exact,
        theorems.observation_4_3(u),
        theorems.scale_invariance(u, 3.0),
        theorems.orthogonality(u),
    ]


def printed_forms(u: Units, curvature: theorems.Curvature, largest: float) -> list[Sides]:
    """The inequalities as printed in v3 and in later versions."""
    return [
        theorems.theorem_4_1_printed(u),
        theorems.theorem_4_1_without_eps(u),
        curvature.printed,
        curvature.bound_b,
        theorems.theorem_4_4_printed(u, largest),
    ]


def comparisons(exact: Sequence[Sides], ordered: Sequence[Sides]) -> list[dict[str, Any]]:
    """{"residual": ..., "exceeded": ...} of each unit, each by theorem."""
    residual = {s.theorem: to_numpy(s.residual) for s in (*exact, *ordered)}
    exceeded = {s.theorem: to_numpy(s.is_exceeded) for s in ordered}
    return [
        {
            "residual": {name: number(values[j]) for name, values in residual.items()},
            "exceeded": {name: bool(values[j]) for name, values in exceeded.items()},
        }
        for j in range(len(residual["4.1"]))
    ]


def conditions(u: Units, curvature: theorems.Curvature) -> dict[str, Any]:
    """The quantities whose signs are the conditions that the paper calls mild; (C,) each."""
    gg, dd = dot(u.g, u.g), dot(u.d, u.d)
    return {
        "cosine": curvature.inner / (gg * dot(u.y_hat, u.y_hat)) ** 0.5,
        "vanilla": curvature.vanilla / gg,
        "along": curvature.along / dd,
        "curvature": curvature.exact.left / dd,
    }


def by_unit(columns: dict[str, Any]) -> list[dict[str, float | None]]:
    """{name: (C,)} -> C times {name: number}."""
    values = {name: to_numpy(column) for name, column in columns.items()}
    count = len(next(iter(values.values())))
    return [{name: number(column[j]) for name, column in values.items()} for j in range(count)]


# -- random losses


def head(kind: str, m: int, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """A random loss of one unit's m values, z (m, 1), with 2m hidden units of its own."""
    backend = get_backend()
    a, b, c = rng.standard_normal((2 * m, m)) / math.sqrt(m), *rng.standard_normal((2, 2 * m, 1))
    a, b, c = (backend.asarray(x, dtype=np.float64) for x in (a, b, c))

    def loss(z: Tensor) -> Tensor:
        hidden = ops.matmul(a, z) + b  # (2m, 1)
        if kind == "tanh":
            return (ops.tanh(hidden) * c).sum()
        if kind == "product":
            return (hidden * ops.sigmoid(hidden) * c).sum()
        return ops.logsumexp(hidden)

    return loss


def random_units(kind: str, m: int, eps: float, rng: np.random.Generator) -> Units:
    """One unit with a random loss, pre-activations, gamma and beta."""
    y = rng.standard_normal((m, 1)) * rng.uniform(0.3, 3) + rng.standard_normal()
    gamma, beta = rng.uniform(0.3, 2, 1), rng.standard_normal(1)
    y, gamma, beta = (get_backend().asarray(x, dtype=np.float64) for x in (y, gamma, beta))
    return Units(head(kind, m, rng), y, gamma, beta, eps)


class Heads(Recorder):
    """heads.jsonl, before the first step: `draws` draws of every kind, m and eps."""

    def __init__(
        self, m: Sequence[int], eps: Sequence[float], draws: int, largest: float, seed: int
    ) -> None:
        self.m, self.eps, self.draws, self.largest, self.seed = m, eps, draws, largest, seed

    def during(self, step: Step) -> AbstractContextManager:
        if step.number == 0:
            for m in self.m:
                for eps in self.eps:
                    for kind in HEADS:
                        for draw in range(self.draws):
                            record = self._record(m, eps, kind, draw)
                            step.run.stream("heads").append({"step": 0, **record})
        return contextlib.nullcontext()

    def _record(self, m: int, eps: float, kind: str, draw: int) -> dict[str, Any]:
        rng = generator(self.seed, "theorems", m, eps, kind, draw)
        u, largest = random_units(kind, m, eps, rng), self.largest
        curvature = theorems.theorem_4_2(u)
        # By autograd in weight space, at the worst inputs.
        gradient, quadratic = theorems.through_inputs(u, theorems.worst_inputs(u, largest, draw))
        exact = [
            *identities(u, curvature),
            theorems.theorem_4_4(u, largest, gradient),
            theorems.theorem_c_1(u, curvature, largest, quadratic),
        ]
        ordered = [
            *printed_forms(u, curvature, largest),
            theorems.theorem_c_1_maxima(u, curvature, largest),
        ]
        (found,), (signs,) = comparisons(exact, ordered), by_unit(conditions(u, curvature))
        return {"m": m, "eps": eps, "head": kind, "draw": draw, **signs, **found}


# -- a network in training


def is_due(step: int, every: int) -> bool:
    """At 0, 1, 2, 4, ... and from `every` on at its multiples."""
    return step % every == 0 or (step < every and step & (step - 1) == 0)


class Theorems(Recorder):
    """theorems.jsonl: every unit of every norm, on the step's batch, before its update.

    norms: the names of the norms, layer by layer. start: the weights before each, as they were
    drawn, (F, C).
    """

    runs_the_model = True

    def __init__(
        self, norms: Sequence[str], start: Sequence[Any], every: int, largest: float
    ) -> None:
        self.norms, self.start, self.every, self.largest = norms, start, every, largest

    def during(self, step: Step) -> AbstractContextManager:
        if is_due(step.number, self.every):
            for k, norm in enumerate(self.norms):
                for j, record in enumerate(self._records(step, norm, self.start[k])):
                    where = {"step": step.number, "layer": k + 1, "unit": j}
                    step.run.stream("theorems").append({**where, **record})
        return contextlib.nullcontext()

    def _records(self, step: Step, norm: str, start: Any) -> list[dict[str, Any]]:
        model, batch, largest = step.model, step.batch, self.largest
        with units_at(model, norm, batch, step.task.loss) as u:
            curvature = theorems.theorem_4_2(u)
            weights_g, weights_d = weight_gradients(model, norm, batch, u)
            parts = dict(model.children())
            before = parts[list(parts)[list(parts).index(norm) - 1]]
            now = dict(before.named_parameters())["weight"].data.reshape(start.shape)
            found = comparisons(
                [*identities(u, curvature), theorems.lemma_4_5(start, now)],
                printed_forms(u, curvature, largest),
            )
            removed = theorems.shares(u)
            columns = {
                "scaling": removed.scaling,
                "mean": removed.mean,
                "correlation": removed.correlation,
                "reduction": dot(u.d, u.d) / dot(u.g, u.g),
                "weight_reduction": dot(weights_d, weights_d) / dot(weights_g, weights_g),
                "multiple": theorems.multiple(start, now),
                **conditions(u, curvature),
            }
            numbers = by_unit(columns)
        return [{"m": u.m, **a, **b} for a, b in zip(numbers, found, strict=True)]
