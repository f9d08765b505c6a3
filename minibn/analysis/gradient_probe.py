"""A probe along the gradient: how the loss and its gradient change (Santurkar et al. 2018, §3.2).

From the weights w, with d the gradient of a batch's loss there, the loss and the gradient are
measured at w - η d for several step sizes η, on the same batch and in training mode:

    loss variation              L(w - η d)
    gradient predictiveness     ‖∇L(w - η d) - ∇L(w)‖
    "effective" beta            ‖∇L(w - η d) - ∇L(w)‖ / ‖η d‖, and its maximum over η

This evaluates the landscape at one point of one training; it trains nothing. (Curves of several
trainings at different rates, which are often plotted instead, measure something else.)

beta estimates a Lipschitz constant of the gradient from a few distances, and has no information
below the smallest. If the gradient reaches its full change before the first η, beta's maximum is
‖Δg‖ / ‖η₁ d‖: with ‖Δg‖ near ‖d‖ it is 1/η₁ for any network. `saturated` detects this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn import ops
from minibn.analysis.state import (
    Batch,
    Loss,
    arrays,
    check_decay,
    inner,
    loss_of,
    norm,
    trainable,
    working_state,
)
from minibn.autograd.backward import grad
from minibn.autograd.tape import set_grad_enabled
from minibn.backend import array_module, backend_of
from minibn.nn.module import Module
from minibn.random import generator

DIRECTIONS = ("gradient", "random", "filter")


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Probe:
    """The result of a probe. The vectors have an entry a step size; all are float64 on the host.

    loss, gradient_norm: where the probe starts. losses; gradient_change ‖∇L(w - η d) - ∇L(w)‖;
    cosine of the two gradients; distance ‖η d‖; beta = gradient_change / distance. Undefined
    quotients (η = 0) are nan, overflows inf.
    """

    loss: float
    gradient_norm: float
    step_sizes: np.ndarray
    losses: np.ndarray
    gradient_change: np.ndarray
    cosine: np.ndarray
    distance: np.ndarray

    @property
    def beta(self) -> np.ndarray:
        with np.errstate(all="ignore"):  # host: a record of a probe
            return self.gradient_change / self.distance

    @property
    def effective_beta(self) -> float:
        """The largest beta of the probe; nan if there is none."""
        beta = self.beta[~np.isnan(self.beta)]  # host: a record of a probe
        return float(beta.max()) if beta.size else float("nan")

    @property
    def saturated(self) -> bool:
        """Whether beta is largest at the shortest step, and the gradient's change there no longer
        grows with the step (nearer to constant than to proportional): the true beta is larger,
        and the measured one is about 1/η."""
        order = [i for i in np.argsort(self.step_sizes) if self.step_sizes[i] > 0]  # host: a record
        if len(order) < 2 or self.effective_beta != self.beta[order[0]]:
            return False
        first, second = order[:2]
        longer = self.step_sizes[second] / self.step_sizes[first]
        return bool(self.gradient_change[second] < (1 + longer) / 2 * self.gradient_change[first])

    @property
    def at_floor(self) -> bool:
        """Whether beta is largest at the shortest step: a shorter one may show a larger beta."""
        etas = self.step_sizes
        shortest = int(np.argmin(np.where(etas > 0, etas, np.inf)))  # host: a record of a probe
        several = (self.step_sizes > 0).sum() > 1
        return bool(several and self.effective_beta == self.beta[shortest])

    @property
    def at_ceiling(self) -> bool:
        """Whether beta is largest at the longest step: a longer one may show a larger beta."""
        longest = int(np.argmax(self.step_sizes))  # host: a record of a probe
        several = (self.step_sizes > 0).sum() > 1
        return bool(several and self.effective_beta == self.beta[longest])


def probe(
    model: Module,
    batch: Batch,
    step_sizes: Sequence[float],
    *,
    loss: Loss = ops.softmax_cross_entropy,
    direction: str = "gradient",
    probe_batch: Batch | None = None,
    weight_decay: float = 0.0,
    frozen_noise: bool = True,
    seed: int = 0,
) -> Probe:
    """Measure loss and gradient at steps from the model's weights against `direction`.

    batch: (x, targets) on the model's backend. loss(model(x), targets) -> scalar.
    direction: "gradient"; "random", normal and as long as the gradient; "filter", normal with each
    filter (last axis) as long as the model's own, and 0 for vectors such as biases and gammas (Li
    et al. 2018). probe_batch: measure on this one; the direction is still the gradient of
    `batch`. weight_decay λ adds λ/2 ‖w‖² over weights of two axes or more, as `decay_groups`
    does. frozen_noise: every evaluation draws the noise of the present step; else each draws its
    own, so that the noise is measured too. Parameters that require no gradient stay where they are.

    Costs one forward and backward pass a step size, and one more (two with a probe_batch). The
    model is left unchanged, bit for bit.
    Raises ValueError for a step size that is negative or not finite, an unknown direction, a model
    without parameters or a loss that is no scalar.

    >>> from minibn import nn
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False)).initialize(seed=0, dtype=np.float64)
    >>> x, y = np.eye(2), np.zeros((2, 1))
    >>> p = probe(net, (x, y), [0.5, 1.0], loss=lambda z, y: ((z - y) ** 2).sum() * 0.5)
    >>> p.beta.round(6).tolist(), (p.losses / p.loss).round(6).tolist()
    ([1.0, 1.0], [0.25, 0.0])
    """
    etas = _check_step_sizes(step_sizes)
    check_decay("probe", weight_decay)
    if direction not in DIRECTIONS:
        raise ValueError(f"probe: direction={direction!r} is none of {', '.join(DIRECTIONS)}.")
    names, params = list(trainable(model)), list(trainable(model).values())
    quiet = np.errstate(all="ignore")  # host: flags
    with working_state(model) as state, set_grad_enabled(True), quiet:
        start = [p.data for p in params]

        def measure(where: Batch) -> tuple[float, list[Any]]:
            """The loss and its gradient at the present weights."""
            if frozen_noise:
                state.reset_buffers()
            value = loss_of(model, where, loss, "probe")
            g = arrays(grad(value, params, unused="zeros"))
            total = float(value.data.item())
            if weight_decay:
                decayed = [p.data if p.ndim > 1 else p.data * 0 for p in params]
                g = [g_i + weight_decay * w for g_i, w in zip(g, decayed, strict=True)]
                total += weight_decay / 2 * inner(decayed, decayed)
            return total, g

        loss_here, g = measure(batch)
        d = g if direction == "gradient" else _draw_direction(direction, names, start, g, seed)
        if probe_batch is not None:
            loss_here, g = measure(probe_batch)
        g_norm, d_norm = norm(g), norm(d)
        rows = []
        for eta in etas.tolist():
            state.replace({n: w - eta * d_i for n, w, d_i in zip(names, start, d, strict=True)})
            there, g_there = measure(batch if probe_batch is None else probe_batch)
            change = norm([a - b for a, b in zip(g_there, g, strict=True)])
            lengths = norm(g_there) * g_norm
            cosine = inner(g_there, g) / lengths if lengths else float("nan")
            rows.append((there, change, cosine, eta * d_norm))
    columns = (np.array(column) for column in zip(*rows, strict=True))  # host: the record
    return Probe(loss_here, g_norm, etas, *columns)


def _check_step_sizes(step_sizes: Sequence[float]) -> np.ndarray:
    try:
        etas = np.array([eta + 0.0 for eta in step_sizes], np.float64)  # host: settings of a probe
    except (TypeError, ValueError):
        etas = np.array([np.nan])  # host: no numbers
    if not etas.size or not (np.isfinite(etas) & (etas >= 0)).all():  # host: settings
        raise ValueError(
            f"probe: step_sizes={step_sizes!r} must be finite numbers, 0 or more, at least one."
        )
    return etas


def _draw_direction(
    direction: str, names: Sequence[str], weights: list[Any], g: list[Any], seed: int
) -> list[Any]:
    """A random direction, keyed by the parameters' names; see `probe`."""
    d = [
        backend_of(w).asarray(generator(seed, "direction", name).standard_normal(w.shape), w.dtype)
        for name, w in zip(names, weights, strict=True)
    ]
    if direction == "random":
        scale = norm(g) / norm(d)
        return [d_i * scale for d_i in d]
    return [_filter_normalised(d_i, w) for d_i, w in zip(d, weights, strict=True)]


def _filter_normalised(d: Any, w: Any) -> Any:
    if w.ndim < 2:
        return d * 0
    xp, axes = array_module(w), tuple(range(w.ndim - 1))
    return d * xp.sqrt((w * w).sum(axis=axes) / (d * d).sum(axis=axes))
