"""The deep linear network of Santurkar et al. 2018: Figures 3b, 5b, 9, 10, 11b and 13.

25 linear layers of 10 units learn a linear map of 1,000 samples:

    standard, batchnorm, l1, l2, linf     at the rate 1e-6
    standard, batchnorm                   at the rate 1e-7, for covariate shift

Full batch, so that a run is gradient descent on one function, and the probes along its gradient see
the loss that is minimised. The paper's claims: BatchNorm and the l_p norms train it faster (l1
best); BatchNorm does not reduce internal covariate shift; it smooths the loss. The paper's own
size is what runs by default: about 17 minutes a seed on one core.

The shape of the curves was known before the paper: the best linear map of each rank is a saddle
(Baldi & Hornik 1989), and training goes from one to the next, slower each time. So the final losses
are those of ranks: for seed 0, 4 without a norm, 5 with linf, 6 with batchnorm and l1.

    python -m experiments.deep_linear --quick
    python -m experiments.deep_linear --seed 0 1 2
    python -m experiments.deep_linear --resume runs/deep_linear/20260101-120000
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np

from experiments import paper
from experiments.linear.allocator import keep_freed_memory
from experiments.linear.problem import make_problem, network, rank_losses, task
from experiments.linear.settings import QUICK, Settings, check, norm_of, plans
from experiments.training.loop import train
from experiments.training.probes import CovariateShift, Curvature, Landscape
from experiments.training.recorders import Distributions, Recorder
from experiments.training.runner import Plan, Work, run_study
from experiments.training.session import Experiment
from experiments.training.step import Step, one_step
from experiments.training.study import Run, Study
from experiments.training.variants import norm_text, try_norm
from experiments.views import deep_linear as deep_linear_figures
from minibn import nn, optim
from minibn.backend import get_backend

KIND = "deep_linear"
ACTIVATIONS = (1, 11, 24)  # layers of the paper's Fig. 9


class Activations(Distributions):
    """Distributions of a network without ReLUs: the input of layer k + 1."""

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        parts = dict(step.model.children())
        with ExitStack() as stack:
            for layer in self.layers if step.number % self.every <= 1 else ():
                see = self._writer(step, layer)
                stack.enter_context(parts[f"linear{layer + 1}"].watch(_of_input(see)))
            yield


def _of_input(see: Callable[[str, Any], None]) -> Callable[[nn.Module, tuple, Any], None]:
    return lambda module, inputs, output: see("activation", inputs[0])


def recorded_layers(depth: int) -> dict[int, int]:
    """Layer -> the paper's layer that lies as deep, of those in its Fig. 9; none is the last."""
    of = paper.DEEP_LINEAR_LAYERS
    layers = {min(paper.same_depth(k, of, depth), depth - 1): k for k in ACTIVATIONS[::-1]}
    return {layer: k for layer, k in sorted(layers.items()) if layer > 0}


def recorders(s: Settings, seed: int) -> list[Recorder]:
    """The recorders of a run; each writes nothing where its interval is 0."""
    chosen: list[Recorder] = [
        Landscape(s.probe_every, s.probe_sizes, seed=seed),
        CovariateShift(s.shift_every, [f"linear{k + 1}" for k in range(1, s.depth)]),
        Curvature(s.curvature_every),
    ]
    if s.record_every:
        chosen.append(Activations(recorded_layers(s.depth), s.record_every, units=1, seed=seed))
    return chosen


def run(s: Settings, folder: Run, plan: Plan) -> dict[str, Any]:
    """Train one variant, from its last checkpoint if there is one."""
    model = network(s, plan.variant, plan.seed)
    return train(
        folder,
        model,
        optim.SGD(model.parameters(), plan.lr),
        make_problem(s, plan.seed),
        steps=s.steps,
        task=task(s),
        recorders=recorders(s, plan.seed),
        checkpoint_every=s.checkpoint_every,
        label=plan.label,
    )


def seconds_a_step(s: Settings, plan: Plan) -> float:
    """Seconds per step, from ten of a temporary copy; probes and covariate shift included."""
    model, data, of = network(s, plan.variant, plan.seed), make_problem(s, plan.seed), task(s)
    optimizer = optim.SGD(model.parameters(), plan.lr)
    with np.errstate(all="ignore"):  # a rate may be too large: training reports it
        one_step(model, optimizer, *data.batch(0), of)
        began = time.perf_counter()
        for _ in range(10):
            one_step(model, optimizer, *data.batch(0), of)
        get_backend().synchronize()
    probes = (len(s.probe_sizes) + 1) / s.probe_every if s.probe_every else 0
    shifts = (2 * s.depth / 3) / s.shift_every if s.shift_every else 0
    return (time.perf_counter() - began) / 10 * (1 + probes + shifts)


def check_all(s: Settings) -> None:
    """`check`, and a trial of norms of one's own."""
    check(s)
    inputs = make_problem(dataclasses.replace(s, samples=3), 0).x
    for variant in dict.fromkeys(plan.variant for plan in plans(s)):
        if not isinstance(norm_of(variant), str):
            try_norm(variant, partial(network, s, variant, 0), inputs)


def configuration(s: Settings, plan: Plan) -> dict[str, Any]:
    """The content of config.json beside the plan."""
    data = make_problem(s, plan.seed)
    return {
        "experiment": KIND,
        "norm": norm_text(norm_of(plan.variant)),
        "noise": False,
        "rank_losses": [float(f"{loss:.6g}") for loss in rank_losses(s, data)],
        "data_fingerprint": data.fingerprint,
    }


def seconds(s: Settings, left: Mapping[Plan, int]) -> float:
    """An estimate for {plan: steps that are left}."""
    one_of_each = {plan.variant: plan for plan in left}
    cost = {variant: seconds_a_step(s, plan) for variant, plan in one_of_each.items()}
    return sum(cost[plan.variant] * steps for plan, steps in left.items())


def study_all(s: Settings, study: Study) -> int:
    keep_freed_memory()
    work = Work(
        plans=plans(s),
        configuration=lambda plan: configuration(s, plan),
        run=lambda folder, plan: run(s, folder, plan),
        about=f"of {s.depth} layers of {s.width}, {s.samples} samples",
        seconds=lambda left: seconds(s, left),
        plot=lambda: deep_linear_figures.plot([study]),
    )
    return run_study(s, study, work)


main = Experiment(KIND, Settings, QUICK, check_all, study_all, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
