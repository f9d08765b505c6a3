"""Laws of optimizers, each against its closed form in the gradients; and of schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import Tensor, optim
from minibn.backend import Backend, to_numpy
from minibn.optim import SGD, Adam, AdamW, constant, cosine, step_decay, warm_up
from minibn.testing.laws.agreement import agree, identical
from minibn.testing.strategies import seeds
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import law

STEPS = 10


@dataclass(frozen=True)
class Kind:
    """An optimizer of one kind, and where its weights are after each step, in closed form.

    path  (w0, gradients (steps, ...), lr, decay) -> weights (steps, ...)
    """

    make: Callable[..., Any]
    path: Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]


def momentum_path(momentum: float, nesterov: bool) -> Callable[..., np.ndarray]:
    """v_t = Σ_k m^(t-k) d_k with d_k = g_k + λ w_k: each velocity is a sum over all gradients."""

    def path(w: np.ndarray, grads: np.ndarray, lr: float, decay: float) -> np.ndarray:
        slopes: list[np.ndarray] = []
        weights = []
        for t, g in enumerate(grads):
            slopes.append(g + decay * w)
            v = sum(momentum ** (t - k) * d for k, d in enumerate(slopes))
            w = w - lr * (slopes[-1] + momentum * v if nesterov else v)
            weights.append(w)
        return np.array(weights)

    return path


def adam_path(betas: tuple[float, float], eps: float, decoupled: bool) -> Callable[..., np.ndarray]:
    """Kingma & Ba's Algorithm 1, with the moments as weighted sums over all gradients so far."""

    def path(w: np.ndarray, grads: np.ndarray, lr: float, decay: float) -> np.ndarray:
        (one, two), slopes, weights = betas, [], []
        for t, g in enumerate(grads, start=1):
            slopes.append(g if decoupled else g + decay * w)
            m = sum((1 - one) * one ** (t - i) * d for i, d in enumerate(slopes, start=1))
            v = sum((1 - two) * two ** (t - i) * d * d for i, d in enumerate(slopes, start=1))
            change = m / (1 - one**t) / (np.sqrt(v / (1 - two**t)) + eps)
            w = w - lr * change - (lr * decay * w if decoupled else 0)
            weights.append(w)
        return np.array(weights)

    return path


KINDS = {
    "SGD": Kind(SGD, momentum_path(0.0, False)),
    "momentum": Kind(lambda p, lr, **k: SGD(p, lr, 0.9, **k), momentum_path(0.9, False)),
    "Nesterov": Kind(lambda p, lr, **k: SGD(p, lr, 0.9, True, **k), momentum_path(0.9, True)),
    "Adam": Kind(Adam, adam_path((0.9, 0.999), 1e-8, False)),
    "Adam, other betas": Kind(
        lambda p, lr, **k: Adam(p, lr, (0.5, 0.7), 0.1, **k), adam_path((0.5, 0.7), 0.1, False)
    ),
    "AdamW": Kind(
        lambda p, lr, weight_decay=0.0: AdamW(p, lr, weight_decay),
        adam_path((0.9, 0.999), 1e-8, True),
    ),
}


@dataclass(frozen=True)
class Training:
    """Weights, ten gradients, a rate and a decay."""

    w: np.ndarray
    grads: np.ndarray
    lr: float
    decay: float


@st.composite
def trainings(draw: Any) -> Training:
    shape = draw(st.sampled_from([(), (3,), (2, 3)]))
    rng = np.random.default_rng(draw(seeds))
    grads = rng.standard_normal((STEPS, *shape)) * 10 ** rng.uniform(-2, 2)
    lr, decay = draw(st.sampled_from([0.1, 0.01])), draw(st.sampled_from([0.0, 0.05]))
    return Training(np.asarray(rng.standard_normal(shape)), grads, lr, decay)  # host: drawn


def about_optimizers(sentence: str, **settings: Any) -> Any:
    return law(
        "optimizers",
        sentence,
        over=tuple(KINDS),
        draw=trainings(),
        subject=KINDS.__getitem__,
        **settings,
    )


def leaf(w: np.ndarray, backend: Backend) -> Tensor:
    return Tensor(backend.asarray(w.copy()), requires_grad=True)


def steps(optimizer: Any, p: Tensor, grads: np.ndarray, backend: Backend) -> np.ndarray:
    """The weights after each step."""
    weights = []
    for g in grads:
        p.grad = Tensor(backend.asarray(g.copy()))
        optimizer.step()
        weights.append(to_numpy(p.data).copy())
    return np.array(weights)


@about_optimizers("Ten steps are the closed form of the ten gradients.")
def ten_steps_in_closed_form(kind: Kind, drawn: Training, backend: Backend) -> None:
    p = leaf(drawn.w, backend)
    actual = steps(kind.make([p], drawn.lr, weight_decay=drawn.decay), p, drawn.grads, backend)
    expected = kind.path(drawn.w, drawn.grads, drawn.lr, drawn.decay)
    agree(actual, expected, "the weights after each step", digits=10)


@about_optimizers("Without gradient and decay nothing changes.")
def no_gradient_no_change(kind: Kind, drawn: Training, backend: Backend) -> None:
    p = leaf(drawn.w, backend)
    actual = steps(kind.make([p], drawn.lr), p, 0 * drawn.grads, backend)
    identical(actual, np.array([drawn.w] * STEPS), "the weights")


@law(
    "optimizers",
    "Decay alone shrinks the weights by (1 - lr·λ) a step.",
    over=("SGD", "AdamW"),  # the others mix it with their moments
    draw=trainings(),
    subject=KINDS.__getitem__,
)
def decay_alone_is_geometric(kind: Kind, drawn: Training, backend: Backend) -> None:
    p = leaf(drawn.w, backend)
    optimizer = kind.make([p], drawn.lr, weight_decay=0.5)
    actual = steps(optimizer, p, 0 * drawn.grads, backend)[-1]
    agree(actual, drawn.w * (1 - drawn.lr * 0.5) ** STEPS, "the weights")


@about_optimizers("The state round-trips: a fresh optimizer that loads it continues bit for bit.")
def the_state_round_trips(kind: Kind, drawn: Training, backend: Backend) -> None:
    for dtype in (np.float64, np.float32):
        p, grads = leaf(drawn.w.astype(dtype), backend), drawn.grads.astype(dtype)
        optimizer = kind.make([p], drawn.lr, weight_decay=drawn.decay)
        steps(optimizer, p, grads[:4], backend)
        state, q = optimizer.state_dict(), leaf(to_numpy(p.data), backend)
        assert all(type(array) is np.ndarray for array in state.values()), "kept on a device"
        expected = steps(optimizer, p, grads[4:], backend)  # the state is a copy
        resumed = kind.make([q], drawn.lr, weight_decay=drawn.decay)
        resumed.load_state_dict(state)
        identical(steps(resumed, q, grads[4:], backend), expected, "the weights")


@about_optimizers("A gradient is read, not written.")
def gradients_are_read_only(kind: Kind, drawn: Training, backend: Backend) -> None:
    p = leaf(drawn.w, backend)
    optimizer = kind.make([p], drawn.lr, weight_decay=0.1)
    for g in drawn.grads[:3]:
        steps(optimizer, p, g[None], backend)
        assert p.grad is not None
        identical(to_numpy(p.grad.data), g, "the gradient after the step")


# -- schedules


@st.composite
def rates(draw: Any) -> tuple[float, float, int, int]:
    """(lr, end, period, a step)"""
    lr, end = draw(st.sampled_from([0.1, 0.3, 1.0])), draw(st.sampled_from([0.0, 0.05]))
    period = draw(st.integers(1, 40))
    return lr, end, period, draw(st.integers(0, 100))


def half_cosine(lr: float, end: float, steps: int, t: int) -> float:
    """(1 + cos x) / 2 = cos²(x / 2)"""
    return end + (lr - end) * math.cos(math.pi / 2 * min(t / steps, 1)) ** 2


SCHEDULES: dict[str, tuple[Callable[..., Any], Callable[..., float]]] = {
    "constant": (lambda lr, end, n: constant(lr), lambda lr, end, n, t: lr),
    "step_decay": (
        lambda lr, end, n: step_decay(lr, n, 0.5),
        lambda lr, end, n, t: lr / 2 ** sum(t >= n * k for k in range(1, 101)),
    ),
    "cosine": (lambda lr, end, n: cosine(lr, n, end), half_cosine),
    "warm_up": (
        lambda lr, end, n: warm_up(cosine(lr, n, end), n),
        lambda lr, end, n, t: half_cosine(lr, end, n, t) * ((t + 1) / n if t < n else 1),
    ),
}


@law(
    "optimizers",
    "A schedule is its closed form at every step, in any order of calls.",
    over=tuple(SCHEDULES),
    draw=rates(),
    subject=SCHEDULES.__getitem__,
    devices=False,
    examples=25,
)
def schedules_in_closed_form(of: Any, drawn: Any, backend: Backend) -> None:
    make, closed_form = of
    *settings, t = drawn
    schedule = make(*settings)
    for step in (t, 0, t + 1, t):  # not in order: it must not count calls
        agree(
            schedule(step),
            closed_form(*settings, step),
            f"the rate at step {step}",
            scale=settings[0],
        )


# -- faults


class Writes(optim.SGD):
    def update(self, group, w, g, v=None):
        g *= 2
        super().update(group, w, g, v)


class Forgets(optim.SGD):
    def load_state_dict(self, state):
        self.steps = 1


def with_momentum(p, lr, **settings):
    return Forgets(p, lr, momentum=0.9)


add_faults(
    ten_steps_in_closed_form=Fault("SGD", replace(KINDS["Nesterov"], make=KINDS["momentum"].make)),
    no_gradient_no_change=Fault("SGD", replace(KINDS["SGD"], make=lambda p, lr: AdamW(p, lr))),
    decay_alone_is_geometric=Fault("AdamW", KINDS["Adam"]),
    the_state_round_trips=Fault("SGD", replace(KINDS["SGD"], make=with_momentum)),
    gradients_are_read_only=Fault("SGD", replace(KINDS["SGD"], make=Writes)),
    schedules_in_closed_form=Fault("cosine", (SCHEDULES["step_decay"][0], SCHEDULES["cosine"][1])),
)
