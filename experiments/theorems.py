"""The theorems of "How Does Batch Normalization Help Optimization?" (Santurkar et al. 2018, section
4), in numbers: which hold, which do not as they are printed, and what they say about a network.

First on random losses of one unit, then for every unit of a small network in training: two
convolutions and a hidden linear layer (the paper's own case), each with BatchNorm and ReLU. All in
float64. Beside the residuals, which are rounding where the constants are right, this shows how
BatchNorm changes a unit's gradient: gamma²/sigma², the removal of the gradient's mean, and of its
correlation with the activations (Theorem 4.1). A few minutes a seed on one core.

    python -m experiments.theorems --quick
    python -m experiments.theorems --seed 0 1 2
    python -m experiments.theorems --resume runs/theorems/20260101-120000
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from experiments.theory.records import Heads, Theorems
from experiments.theory.settings import QUICK, SIDE, Settings, check, plans
from experiments.training.loop import train
from experiments.training.recorders import Recorder
from experiments.training.runner import Plan, Work, check_batch_size, run_study
from experiments.training.session import Experiment
from experiments.training.settings import INITS
from experiments.training.step import CLASSIFY, Task
from experiments.training.study import Run, Study
from experiments.views import theorems as theorems_figures
from minibn import nn, optim
from minibn.backend import get_backend
from minibn.data import Batches, Dataset, load, normalize

KIND = "theorems"
NORMS = ("norm1", "norm2", "norm3")
DTYPE = np.float64  # residuals are to be rounding, not float32's


def network(s: Settings, seed: int) -> nn.Sequential:
    """Two convolutions and two linear layers; all but the last with BatchNorm and ReLU."""
    first, second = s.channels
    pixels, init = (SIDE // 4) ** 2, INITS[s.init]
    return nn.Sequential(
        conv1=nn.Conv2d(3, first, 3, padding=1, bias=False, init=init),
        norm1=nn.BatchNorm(first),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(first, second, 3, padding=1, bias=False, init=init),
        norm2=nn.BatchNorm(second),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear3=nn.Linear(pixels * second, s.hidden, bias=False, init=init),
        norm3=nn.BatchNorm(s.hidden),
        relu3=nn.ReLU(),
        linear4=nn.Linear(s.hidden, 10, init=init),
    ).initialize(seed, DTYPE)


def _prepare(images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    return normalize(get_backend().asarray(images), DTYPE), labels


TASK: Task = dataclasses.replace(CLASSIFY, prepare=_prepare)


def load_data(s: Settings) -> Dataset:
    return load(s.data, s.data_dir, train_size=s.train_size, test_size=1)  # unused


def recorders(s: Settings, seed: int) -> list[Recorder]:
    drawn = dict(network(s, seed).named_parameters())
    weights = [drawn[f"{name}.weight"].data for name in ("conv1", "conv2", "linear3")]
    start = [w.reshape(-1, w.shape[-1]) for w in weights]
    return [
        Heads(s.m, s.eps, s.draws, s.largest, seed),
        Theorems(NORMS, start, s.measure_every, s.largest),
    ]


def run(s: Settings, folder: Run, plan: Plan, data: Dataset) -> dict[str, Any]:
    """Measure and train, from the last checkpoint if there is one."""
    model = network(s, plan.seed)
    return train(
        folder,
        model,
        optim.SGD(model.parameters(), plan.lr),
        Batches(data.train_images, data.train_labels, s.batch_size, plan.seed),
        steps=s.steps,
        task=TASK,
        recorders=recorders(s, plan.seed),
        checkpoint_every=s.checkpoint_every,
        label=f"theorems lr {plan.lr:g} seed {plan.seed}",
    )


def study_all(s: Settings, study: Study) -> int:
    data = load_data(s)
    check_batch_size(s.batch_size, data)
    work = Work(
        plans=plans(s),
        configuration=lambda plan: {
            "experiment": KIND,
            "norm": "batch",
            "noise": False,
            "data_fingerprint": data.fingerprint,
        },
        run=lambda folder, plan: run(s, folder, plan, data),
        about=f"on {data.name}, batch {s.batch_size} (the first, measured most, take longest)",
        plot=lambda: theorems_figures.plot([study]),
    )
    return run_study(s, study, work)


main = Experiment(KIND, Settings, QUICK, check, study_all, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
