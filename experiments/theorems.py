"""The theorems of "How Does Batch Normalization Help Optimization?" (Santurkar et al. 2018, section
4), in numbers: which hold, which do not as they are printed, and what they say about a network.

First on random losses of one unit, then for every unit of a small network in training: two
convolutions and a hidden linear layer (the paper's own case), each with BatchNorm and ReLU. All in
float64. Beside the residuals, which are rounding where the constants are right, this shows by what
BatchNorm changes a unit's gradient: gamma²/sigma², the removal of the gradient's mean, and of its
correlation with the activations (Theorem 4.1). About five minutes a seed on one core.

    python -m experiments.theorems --quick
    python -m experiments.theorems --seed 0 1 2
    python -m experiments.theorems --resume runs/theorems/20260101-120000
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.running import session
from experiments.running.carry_out import Plan, Work, carry_out, check_batch_size
from experiments.running.command_line import UsageError, at_least, flag_name, one_of, setting
from experiments.running.recorders import Recorder
from experiments.running.step import CLASSIFY, Task
from experiments.running.study import Run, Study
from experiments.running.training import train
from experiments.theorems_records import Heads, Theorems
from experiments.vgg.settings import DATA
from experiments.views import theorems as theorems_figures
from minibn import nn, optim
from minibn.backend import get_backend
from minibn.data import Batches, Dataset, load, normalize

KIND = "theorems"
VARIANT = "batchnorm"
NORMS = ("norm1", "norm2", "norm3")
SIDE = 32  # pixels
DTYPE = np.float64  # residuals are to be rounding, not float32's


@dataclass(frozen=True)
class Settings:
    """Our choices throughout: the paper proves its theorems and measures none of them."""

    quick: bool = setting(False, "a smaller batch, fewer draws and steps: in a minute")
    backend: str = setting("numpy", f"where arrays live: {', '.join(session.BACKENDS)}")
    # Needs no download, and a network this small learns it.
    data: str = setting("shapes", f"the data set: {', '.join(DATA)}")
    data_dir: str | None = setting(
        None, "folder with cifar-10-batches-py or its archive (else the cache, else a download)",
        kind=str,
    )  # fmt: skip
    train_size: int | None = setting(None, "use the first so many training images", kind=int)
    # Units enough to see their spread; a unit costs four Hessian-vector products a measurement.
    channels: tuple[int, ...] = setting((8, 16), "filters of the two convolutions")
    # The paper's theorems are about a linear layer, where m is the batch.
    hidden: int = setting(32, "units of the hidden linear layer")
    batch_size: int = setting(64, "images per step, and values m of a unit of the linear layer")
    lr: float = setting(0.1, "learning rate")  # as the paper's VGG
    steps: int = setting(2000, "updates per run")  # then nearly all images are learnt
    measure_every: int = setting(
        200, "steps between measurements of all units, which are also made at steps 1, 2, 4, ..."
    )
    # The sizes that bracket what a linear layer sees.
    m: tuple[int, ...] = setting((8, 64), "values of a unit, for the random losses")
    # The paper has none, layers have 1e-5, and a large one shows what it does.
    eps: tuple[float, ...] = setting((0.0, 1e-5, 0.1), "eps, for the random losses")
    draws: int = setting(30, "random losses of each of three kinds, for each m and eps")
    # 1 would hide a lambda² that is missing.
    largest: float = setting(2.0, "lambda of Theorems 4.4 and C.1: the spectral norm of the inputs")
    seed: tuple[int, ...] = setting((0,), "root seeds of weights, data order and random losses")
    out: str | None = setting(None, "the study's folder (default: runs/theorems/TIME)", kind=str)
    resume: str | None = setting(
        None, "continue the study in this folder; only --steps may be raised", kind=str
    )
    checkpoint_every: int = setting(200, "steps between checkpoints")
    # Arrays this small gain little from a second thread.
    threads: int | None = setting(1, "threads of kernels and BLAS", kind=int)
    kernels: str = setting("fast", "how ops run on NumPy: fast, lean or reference")
    force: bool = setting(False, "with --resume: accept other threads, kernels or data")


QUICK = {
    "train_size": 2000, "batch_size": 32, "steps": 200, "measure_every": 50, "draws": 5,
    "checkpoint_every": 100,
}  # fmt: skip


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    session.check_shared(s, plans(s), may_repeat=("channels",))
    one_of("--data", s.data, DATA)
    for name in ("hidden", "measure_every", "draws"):
        at_least(flag_name(name), getattr(s, name), 1)
    at_least("--batch-size", s.batch_size, 3)  # of two values a norm leaves ±1
    if s.train_size is not None:
        at_least("--train-size", s.train_size, 1)
    for name in ("lr", "largest"):
        at_least(flag_name(name), getattr(s, name), 0, above=True)
    if len(s.channels) != 2:
        raise UsageError(f"--channels {session.shown(s.channels)}: there are two convolutions.")
    for name, least in (("channels", 1), ("m", 3), ("eps", 0)):
        for number in getattr(s, name):
            at_least(flag_name(name), number, least)
    largest = max(s.batch_size * SIDE**2 * max(s.channels), max(s.m) ** 2, s.hidden * s.channels[1])
    if largest > 10**10:
        raise UsageError(
            f"--batch-size {s.batch_size} --channels {session.shown(s.channels)} --hidden "
            f"{s.hidden} --m {session.shown(s.m)} is more than a machine holds. Take less."
        )


def plans(s: Settings) -> list[Plan]:
    return [Plan(VARIANT, s.lr, seed) for seed in s.seed]


def network(s: Settings, seed: int) -> nn.Sequential:
    """Two convolutions and two linear layers; all but the last with BatchNorm and ReLU."""
    first, second = s.channels
    pixels = (SIDE // 4) ** 2
    return nn.Sequential(
        conv1=nn.Conv2d(3, first, 3, padding=1, bias=False),
        norm1=nn.BatchNorm(first),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(first, second, 3, padding=1, bias=False),
        norm2=nn.BatchNorm(second),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear3=nn.Linear(pixels * second, s.hidden, bias=False),
        norm3=nn.BatchNorm(s.hidden),
        relu3=nn.ReLU(),
        linear4=nn.Linear(s.hidden, 10),
    ).initialize(seed, DTYPE)


def _prepare(images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    return normalize(get_backend().asarray(images), DTYPE), labels


TASK: Task = dataclasses.replace(CLASSIFY, prepare=_prepare)


def load_data(s: Settings) -> Dataset:
    return load(s.data, s.data_dir, train_size=s.train_size, test_size=1)  # no test is made


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
        draw=lambda: theorems_figures.draw([study]),
    )
    return carry_out(s, study, work)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study, draw its figure, print its table. Returns the exit code."""
    return session.attend(
        session.Experiment(KIND, Settings, QUICK, check, study_all),
        description=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
