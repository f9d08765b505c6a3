"""What weight decay does before a norm: it sets how far a layer's weights turn in a step.

A norm takes the size of the weights before it away: f(a w) = f(w) for a > 0. So the gradient g at w
is orthogonal to w, and at a w it is 1/a times as large (van Laarhoven 2017). A step of plain SGD at
the rate η with decay λ, w' = (1 - ηλ) w - ηg, therefore gives, up to the norm's eps,

    ‖w'‖² = (1 - ηλ)² ‖w‖² + η²‖g‖²,          tan(angle of w and w') = η‖g‖ / ((1 - ηλ) ‖w‖)

Only the direction of w counts, and it moves at the effective rate η/‖w‖² (Hoffer et al. 2018; Arora
et al. 2019). Without decay ‖w‖ can only grow, and layers turn less and less. With it growth and
shrinkage come into balance, and there every layer turns by √(2ηλ) a step, whatever its size, depth
and gradient (Wan et al. 2021). Deviations of ‖w‖⁴ from the balance fade as exp(-4ηλt). As the *time
constant* we count 1/(2ηλ) steps: 10,000, 1,000 and 250 for the decays below at η = 0.1.

By the first equation angle² is, in the mean and to first order, 2ηλ plus the relative growth of
‖w‖² in a step. So what a training can refuse is one thing: that ‖w‖ becomes stationary, and when.

VGG-11 at a quarter of the width, with BatchNorm, is trained on CIFAR-10 once with each decay (of
the weights, not of gamma, beta and biases), at a constant rate. The rule of the claim:

    A decay counts if the run has at least 10 time constants: steps ≥ 10 / (2ηλ). (By the beginning
    of its last quarter what was off at first has faded by exp(-15).)
    A layer's angle is the root mean square over the records of the last quarter of the run. (The
    balance is one of squares; the mean angle is smaller, by the spread of the gradients' norms.)
    A layer is in equilibrium if its angle is within 10 % of √(2ηλ).
    The metric is the share of a run's layers that are in equilibrium, one number a seed. The claim:
    it is at least 0.9, for each decay that counts. Layers are the convolutions before a norm.

Decays that do not count are shown, without a verdict. About 7 minutes a run on one core.

    python -m experiments.scale_invariance --quick
    python -m experiments.scale_invariance --threads 1 --seed 10 11 12
    python -m experiments.scale_invariance --resume STUDY
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import vgg_cifar
from experiments.training.command_line import UsageError, at_least, setting, with_defaults
from experiments.training.json_files import json_number
from experiments.training.recorders import Recorder, on_the_clock
from experiments.training.runner import Plan, run_study
from experiments.training.session import Experiment
from experiments.training.step import Step
from experiments.training.study import Run, Study
from experiments.vgg import runs as vgg_runs
from experiments.vgg import settings as vgg_settings
from experiments.views import scale_invariance as scale_invariance_figures
from minibn import nn, to_numpy
from minibn.backend import array_module

KIND = "scale_invariance"
NORM = "batchnorm"  # whose network is trained, of the variants of the VGG experiments


@dataclass(frozen=True)
class DecaySettings(vgg_settings.Settings):
    """Those of all VGG trainings, with the decays to compare; the choices are ours."""

    # None, the usual one, and two whose equilibrium a run on a CPU reaches.
    decays: tuple[float, ...] = setting(
        (0.0, 5e-4, 5e-3, 2e-2), "l2 penalties on the weights; each is trained at each rate"
    )
    # Squared angles vary from step to step by half of their mean: so the 500 records of the last
    # quarter of 10,000 steps give their root to 1 or 2 %.
    angle_every: int = setting(5, "steps between records of the weights' norms and angles")
    weight_decay: float = setting(0.0, "", flag=False)  # `decays` instead
    variants: tuple[str, ...] = setting((NORM,), "", flag=False)
    momentum: float = setting(0.0, "", flag=False)  # the equations above are those of plain SGD
    record_every: int = setting(0, "", flag=False)  # no distributions


# Ten time constants of 5e-3. A quarter of the paper's batch is a quarter of the cost, and the angle
# in equilibrium does not depend on it.
Settings = with_defaults(
    DecaySettings, model="vgg11", width=0.25, steps=10_000, batch_size=32, eval_every=1000
)
QUICK = {
    **{k: v for k, v in vgg_cifar.QUICK.items() if k != "record_every"},
    "decays": (0.0, 2e-2), "lr": (0.2,), "steps": 1250, "eval_every": 250,
    "angle_every": 1,
}  # fmt: skip


def check(s: DecaySettings) -> None:
    """Raise UsageError for settings that can't work."""
    vgg_settings.check(s)
    at_least("--angle-every", s.angle_every, 1)
    for decay in s.decays:
        at_least("--decays", decay, 0)
        if decay * max(s.lr) >= 1:
            raise UsageError(
                f"--decays {decay:g} times --lr {max(s.lr):g} must be below 1: a step would turn "
                "the weights round. Take a smaller one of either."
            )
    if len({variant_of(decay) for decay in s.decays}) < len(s.decays):
        raise UsageError("--decays of a study must differ in six digits.")


def variant_of(decay: float) -> str:
    """What the runs with this decay are called."""
    return f"decay{decay:g}"


def plans(s: DecaySettings) -> list[Plan]:
    return [Plan(variant_of(d), lr, seed) for seed in s.seed for lr in s.lr for d in s.decays]


def decay_of(s: DecaySettings, plan: Plan) -> float:
    return next(d for d in s.decays if variant_of(d) == plan.variant)


class Rotation(Recorder):
    """rotation.jsonl: {step, norm, angle, rate, cosine}, lists by layer from the first.

    Of the weights w of each convolution or linear layer before a norm, all of a layer as one
    vector, and their update to w': norm ‖w‖; angle of w and w' in radians; rate, the effective one
    η/‖w‖²; cosine of w and the gradient g of the loss alone, from the update: ηg = (1 - ηλ) w - w',
    which is plain SGD's. null: not finite.
    """

    def __init__(self, every: int, decay: float) -> None:
        self.every, self.decay = every, decay

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        if step.number % self.every:
            yield
            return
        weights = weights_before_norms(step.model)
        before = [w.data.copy() for w in weights]
        yield
        with on_the_clock(step.run):
            lr = step.optimizer.lr
            rows = [turn(w, p.data, lr, self.decay) for w, p in zip(before, weights, strict=True)]
            columns = {name: [json_number(row[name], 5) for row in rows] for name in rows[0]}
        step.run.stream("rotation").append({"step": step.number, **columns})


def weights_before_norms(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the layers that a norm follows."""
    parts = list(model.children())
    return [
        dict(before.named_parameters())["weight"]
        for (_, before), (name, _) in itertools.pairwise(parts)
        if name.startswith("norm")
    ]


def turn(w: Any, after: Any, lr: float, decay: float) -> dict[str, float]:
    """What Rotation records of one layer: its weights w and what became of them."""
    w = w.astype(np.float64).ravel()
    d = after.astype(np.float64).ravel() - w
    products = array_module(w).stack([w @ w, w @ d, d @ d])  # from which all follows
    ww, wd, dd = to_numpy(products).tolist()
    size, shrink = ww**0.5, lr * decay
    across = max(dd - wd**2 / ww, 0.0) ** 0.5  # of d, the part that is orthogonal to w
    gg = dd + 2 * shrink * wd + shrink**2 * ww  # η²‖g‖², since -ηg = d + ηλ w
    return {
        "norm": size,
        "angle": math.atan2(across, size + wd / size),
        "rate": lr / ww,
        "cosine": -(wd + shrink * ww) / (size * gg**0.5) if gg > 0 else math.nan,
    }


def run(s: DecaySettings, folder: Run, plan: Plan, data: Any) -> dict[str, Any]:
    """Train with one decay, from the last checkpoint if there is one."""
    decay = decay_of(s, plan)
    with_decay = dataclasses.replace(s, weight_decay=decay)
    recorders = [Rotation(s.angle_every, decay)]
    return vgg_runs.run(with_decay, folder, plan, data, recorders, network_of=NORM)


def study_all(s: DecaySettings, study: Study) -> int:
    data = vgg_runs.load_data(s)
    work = vgg_runs.work_of(
        s, data, KIND,
        plans=plans(s),
        configuration=lambda plan: {
            "experiment": KIND, "norm": "batch", "noise": False,
            "weight_decay": decay_of(s, plan), "data_fingerprint": data.fingerprint,
        },
        run=lambda folder, plan: run(s, folder, plan, data),
        plot=lambda: scale_invariance_figures.plot([study]),
    )  # fmt: skip
    return run_study(s, study, work)


main = Experiment(KIND, Settings, QUICK, check, study_all, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
