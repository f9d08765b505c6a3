"""How large may the learning rate be, with and without each norm? (Bjorck et al., NeurIPS 2018.)

The paper shows two rates (Fig. 1: at 0.5 the standard network stays at chance). Bjorck et al. say
that BatchNorm helps *by* larger rates: at an equal small one both reach about the same accuracy,
and without it large steps let activations explode, the more the deeper the layer. So each variant
is trained shortly at each rate of a geometric grid, with several seeds. The study shows

    the largest rate that does not diverge, and the largest that learns
    the accuracy over the grid; the best, and how much of the gain is there at equal rate already
    mean and variance of each layer's output in the last steps before a loss is not finite (if
    that is within the first --moments-steps)

by the definitions in views/learning_rates_outcomes.py. Above a rate at which every seed of a
variant diverged, that variant is not run.

    python -m experiments.learning_rates --quick
    python -m experiments.learning_rates --backend cupy
    python -m experiments.learning_rates --resume STUDY

On a CPU (CIFAR-10, five variants, three seeds: 120 runs), in about half an hour of one core:

    python -m experiments.learning_rates --model vgg11 --width 0.25 --steps 200 \\
        --lr 0.05 0.1 0.2 0.4 0.8 1.6 3.2 6.4 --variants standard batchnorm l1 l2 linf \\
        --test-size 2000 --threads 1
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from experiments import vgg_cifar
from experiments.training.command_line import at_least, setting
from experiments.training.json_files import json_numbers
from experiments.training.recorders import Recorder
from experiments.training.runner import Plan, Result, run_study
from experiments.training.session import Experiment
from experiments.training.step import Step
from experiments.training.study import Run, Study
from experiments.vgg import runs as vgg_runs
from experiments.vgg import settings as vgg_settings
from experiments.views import learning_rates as learning_rates_figures
from experiments.views.learning_rates_outcomes import barrier
from minibn import nn, to_numpy
from minibn.autograd.tensor import value

KIND = "learning_rates"


@dataclass(frozen=True)
class Settings(vgg_settings.Settings):
    """Those of all VGG trainings, with other defaults."""

    variants: tuple[str, ...] = vgg_settings.variants_of(
        ("standard", "batchnorm", "noisy-batchnorm", "noisy-standard", "l1", "l2", "linf")
    )
    # Doubling, from where the standard network is slow to beyond what BatchNorm tolerates.
    lr: tuple[float, ...] = setting(
        (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4), "the grid of learning rates"
    )
    # At step 1,000 Fig. 1 has 49 and 83 % at rate 0.1, and 10 % for the standard network at 0.5.
    steps: int = setting(1000, "updates per run")
    # What a rate does near the edge depends on the seed.
    seed: tuple[int, ...] = setting((0, 1, 2), "root seeds of weights, data order and noise")
    # Short runs need their test accuracy once, at the end, which is always measured.
    eval_every: int = setting(1000, "steps between measurements of test accuracy")
    record_every: int = setting(0, "", flag=False)  # no distributions: `moments_steps` instead
    checkpoint_every: int = setting(100, "steps between checkpoints")
    # Most runs that diverge do it at once. A record costs a quarter of a step.
    moments_steps: int = setting(
        40, "first steps in which mean and variance of the layers' outputs are recorded"
    )


# Where each begins to fail on drawn shapes, in batches of 32.
QUICK = {
    **{k: v for k, v in vgg_cifar.QUICK.items() if k != "record_every"},
    "variants": ("standard", "batchnorm"), "lr": (0.05, 0.1, 0.2, 0.4), "seed": (0, 1),
    "steps": 300,
}  # fmt: skip


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work."""
    vgg_settings.check(s)
    at_least("--moments-steps", s.moments_steps, 0)


class Moments(Recorder):
    """moments.jsonl: {step, mean, var}, lists by layer from the first.

    Of the output of each convolution or linear layer, before norm and noise, so that no norm fixes
    it: the mean over its channels of |mean over the batch|, and of the variance over the batch (and
    height and width). null: not finite.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        if step.number >= self.steps:
            yield
            return
        moments: list[Any] = []

        def see(module: nn.Module, inputs: tuple, output: Any) -> None:
            y = value(output).astype("float64")  # float32 overflows in the variance first
            axes = tuple(range(y.ndim - 1))
            moments.append((abs(y.mean(axis=axes)).mean(), y.var(axis=axes).mean()))

        with ExitStack() as stack:
            for name, part in step.model.children():
                if name.startswith(("conv", "linear")):
                    stack.enter_context(part.watch(see))
            yield
        mean, var = ([float(to_numpy(x)) for x in column] for column in zip(*moments, strict=True))
        step.run.stream("moments").append(
            {"step": step.number, "mean": json_numbers(mean), "var": json_numbers(var)}
        )


def ascending(s: Settings) -> list[Plan]:
    """The plans by rate: whether one is run depends on those at lower rates."""
    return sorted(vgg_settings.plans(s), key=lambda plan: plan.lr)


def study_all(s: Settings, study: Study) -> int:
    data = vgg_runs.load_data(s)
    diverged: dict[str, list[tuple[float, bool]]] = {}  # variant -> (rate, whether it diverged)

    def wanted(plan: Plan, results: Mapping[Plan, Result]) -> bool:
        before = [(p.lr, r["status"] == "diverged") for p, r in results.items()
                  if p.variant == plan.variant]  # fmt: skip
        diverged[plan.variant] = before
        return plan.lr <= barrier(before)

    def run(folder: Run, plan: Plan) -> Result:
        result = vgg_runs.run(s, folder, plan, data, [Moments(s.moments_steps)])
        # Hundreds of checkpoints are not needed: with more --steps a run begins again, the same.
        folder.checkpoints.delete()
        return result

    def plot() -> None:
        for variant, before in diverged.items():
            if (end := barrier(before)) < max(s.lr):
                print(f"{variant}: not run above {end:g}, where every seed diverged", flush=True)
        learning_rates_figures.plot([study])

    work = vgg_runs.work_of(
        s, data, KIND, run=run, plot=plot, wanted=wanted,
        plans=ascending(s), keeps_checkpoints=False,
    )  # fmt: skip
    return run_study(s, study, work)


main = Experiment(KIND, Settings, QUICK, check, study_all, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
