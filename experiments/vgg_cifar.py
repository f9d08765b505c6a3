"""Figures 1, 2 and 8 of "How Does Batch Normalization Help Optimization?" (Santurkar et al. 2018).

A VGG network trained with plain SGD, four ways from the same weights on the same batches:

    standard          no normalisation
    batchnorm         BatchNorm behind every convolution
    noisy-batchnorm   and time-varying noise behind every BatchNorm (Algorithm 1)
    noisy-standard    the same noise in the network without BatchNorm

The paper's claim: BatchNorm trains faster and bears a larger learning rate; noise that makes the
layers' distributions less stable than the standard network's hardly harms it; so the stability of
distributions is not why BatchNorm helps. The paper's own setting takes days on a CPU; `--quick`
shows all four findings in a minute on drawn shapes.

    python -m experiments.vgg_cifar --quick
    python -m experiments.vgg_cifar --backend cupy
    python -m experiments.vgg_cifar --resume runs/vgg_cifar/20260101-120000
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import paper, session, vgg_figures
from experiments.command_line import (
    UsageError,
    at_least,
    flag_name,
    one_of,
    setting,
)
from experiments.recorders import Distributions, Recorder, TestAccuracy
from experiments.study import Run, Study, environment
from experiments.training import clock, cores, one_step, train
from minibn import nn, optim
from minibn.backend import get_backend
from minibn.data import Batches, Dataset, load, pad_crop_flip
from reference_models.vgg import VGG, vgg

PROGRAM = "python -m experiments.vgg_cifar"
DATA = ("cifar10", "shapes")
MOST_PARAMETERS = 10**12  # beyond what any machine holds

# The name of a variant -> (norm, noise)
VARIANTS = {
    "standard": ("none", False),
    "batchnorm": ("batch", False),
    "noisy-batchnorm": ("batch", True),
    "noisy-standard": ("none", True),
}


@dataclass(frozen=True)
class Settings:
    """The paper's settings by default; what it does not say is marked as our choice."""

    quick: bool = setting(False, "a small network on drawn shapes: four variants in a minute")
    # The paper ran on a GPU; NumPy is what everybody has.
    backend: str = setting("numpy", f"where arrays live: {', '.join(session.BACKENDS)}")
    data: str = setting("cifar10", f"the data set: {', '.join(DATA)}")
    data_dir: str | None = setting(
        None, "folder with cifar-10-batches-py or its archive (else the cache, else a download)",
        kind=str,
    )  # fmt: skip
    # All of it; fewer images make a quick trial.
    train_size: int | None = setting(None, "use the first so many training images", kind=int)
    test_size: int | None = setting(None, "use the first so many test images", kind=int)
    # "VGG-like": layers up to #13 are shown. VGG-16 has 13 convolutions (our choice).
    model: str = setting("vgg16", f"the network: {', '.join(VGG)}")
    width: float = setting(1.0, "factor on the convolutions' channels")
    # Not stated in the paper; one linear layer is the least that can classify (our choice).
    head: str = setting("linear", "hidden widths of the classifier: linear, 512,512 or 4096,4096")
    variants: tuple[str, ...] = setting(tuple(VARIANTS), f"what to train: {', '.join(VARIANTS)}")
    # Fig. 1 also shows 0.5, where the standard network stays at chance.
    lr: tuple[float, ...] = setting((0.1,), "learning rates; each variant is trained at each")
    # "15,000 steps (training accuracy plateaus)": 38 epochs of CIFAR-10.
    steps: int = setting(15_000, "updates per run")
    batch_size: int = setting(128, "images per step")
    # "standard stochastic gradient descent"; how its loss curves decay fits no momentum either.
    momentum: float = setting(0.0, "momentum of SGD")
    # Not stated. Its loss curves start above ln 10 and fit a penalty of about 4e-4 (inferred).
    weight_decay: float = setting(0.0, "l2 penalty; 4e-4 fits the paper's loss curves")
    # "since our focus is on training, we do not use data augmentation"
    augment: bool = setting(False, "pad-and-crop and flip the training images")
    seed: tuple[int, ...] = setting(
        (0,), "root seeds of weights, data order and noise, not of shapes"
    )
    out: str | None = setting(None, "the study's folder (default: runs/vgg_cifar/TIME)", kind=str)
    resume: str | None = setting(
        None, "continue the study in this folder; only --steps may be raised", kind=str
    )
    eval_every: int = setting(500, "steps between measurements of test accuracy")
    record_every: int = setting(100, "steps between records of the activations' distributions")
    checkpoint_every: int = setting(500, "steps between checkpoints")
    threads: int | None = setting(
        None, "threads of kernels and BLAS (default: MINIBN_NUM_THREADS, else all cores)", kind=int
    )
    # The same mathematics in another rounding; `python -m experiments.compare` shows two studies.
    kernels: str = setting(
        "fast",
        "how ops run on NumPy: fast; lean, which keeps less for the backward pass: less memory, "
        "more time; or reference: the definitions in minibn/ops alone",
    )
    force: bool = setting(False, "with --resume: accept other threads, kernels or data")


# Products this small gain next to nothing from a second thread (a step of "standard" takes 16 and
# 15 ms), and lose eightfold when the other core is busy.
QUICK = {
    "data": "shapes", "train_size": 6000, "test_size": 1000, "model": "vgg11", "width": 0.125,
    "batch_size": 32, "steps": 500, "eval_every": 100, "record_every": 10, "checkpoint_every": 250,
    "threads": 1,
}  # fmt: skip


def settings_from(given: dict[str, Any]) -> Settings:
    """Defaults, then the preset, then what was given."""
    return Settings(**{**(QUICK if given.get("quick") else {}), **given})


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    one_of("--backend", s.backend, session.BACKENDS)
    one_of("--kernels", s.kernels, session.KERNELS)
    one_of("--data", s.data, DATA)
    one_of("--model", s.model, tuple(VGG))
    for variant in s.variants:
        one_of("--variants", variant, tuple(VARIANTS))
    for name in ("steps", "batch_size", "eval_every", "record_every", "checkpoint_every"):
        at_least(flag_name(name), getattr(s, name), 1)
    for name in ("train_size", "test_size", "threads"):
        if getattr(s, name) is not None:
            at_least(flag_name(name), getattr(s, name), 1)
    at_least("--width", s.width, 0, above=True)
    for lr in s.lr:
        at_least("--lr", lr, 0, above=True)
    for seed in s.seed:
        at_least("--seed", seed, 0)
    at_least("--weight-decay", s.weight_decay, 0)
    if not 0 <= s.momentum < 1:
        raise UsageError(f"--momentum {s.momentum} must lie in [0, 1).")
    for name in ("variants", "lr", "seed"):
        if len(set(getattr(s, name))) < len(getattr(s, name)):
            raise UsageError(
                f"--{name} names something twice: {' '.join(map(str, getattr(s, name)))}."
            )
    if len({plan.name for plan in plans(s)}) < len(plans(s)):
        raise UsageError(f"--lr {session.shown(s.lr)}: rates of a study must differ in six digits.")
    try:
        numbers = sum(p.size for p in vgg(s.model, width=s.width, head=s.head).parameters())
    except OverflowError:
        numbers = MOST_PARAMETERS + 1
    except ValueError as error:
        raise UsageError(str(error)) from None
    if numbers > MOST_PARAMETERS:
        raise UsageError(
            f"--width {s.width:g} with --head {s.head} makes a network of more than "
            f"{MOST_PARAMETERS:.0e} parameters. Take a smaller one."
        )


@dataclass(frozen=True)
class Plan:
    """One run of the study."""

    variant: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}-lr{self.lr:g}-seed{self.seed}"


def plans(s: Settings) -> list[Plan]:
    return [Plan(v, lr, seed) for seed in s.seed for lr in s.lr for v in s.variants]


def network(s: Settings, variant: str, seed: int) -> nn.Sequential:
    """The variant's VGG, with the weights that belong to the seed."""
    norm, noise = VARIANTS[variant]
    model = vgg(s.model, width=s.width, head=s.head, norm=norm, noise=noise)
    return model.initialize(seed)


def sgd(s: Settings, model: nn.Sequential, lr: float) -> optim.SGD:
    groups = optim.decay_groups(model, s.weight_decay)
    return optim.SGD([g for g in groups if g["params"]], lr, momentum=s.momentum)


def load_data(s: Settings) -> Dataset:
    return load(s.data, s.data_dir, train_size=s.train_size, test_size=s.test_size)


def configuration(s: Settings, plan: Plan, data: Dataset) -> dict[str, Any]:
    """What config.json of a run says."""
    return {
        "experiment": "vgg_cifar",
        **dataclasses.asdict(plan),
        "norm": VARIANTS[plan.variant][0],
        "noise": VARIANTS[plan.variant][1],
        "settings": session.stored(s),
        "data_fingerprint": data.fingerprint,
        "environment": environment(get_backend(), s.threads or cores()),
    }


def finished(s: Settings, folder: Run) -> dict[str, Any] | None:
    """The result of a run that has nothing left to do: it diverged, or has all its steps."""
    result = folder.result if folder.begun else None
    if result and (result["status"] == "diverged" or result.get("steps", 0) >= s.steps):
        return result
    return None


def run(s: Settings, study: Study, plan: Plan, data: Dataset) -> dict[str, Any]:
    """Train one variant, from its last checkpoint if there is one."""
    folder = study.run(plan.name)
    done = finished(s, folder)
    if done:
        return done
    folder.begin(configuration(s, plan, data))
    model = network(s, plan.variant, plan.seed)
    recorders: list[Recorder] = [
        TestAccuracy(data, s.eval_every),
        Distributions(paper.shown_layers(s.model), s.record_every, units=3, seed=plan.seed),
    ]
    augment = pad_crop_flip if s.augment else None
    return train(
        folder,
        model,
        sgd(s, model, plan.lr),
        Batches(data.train_images, data.train_labels, s.batch_size, plan.seed, augment),
        steps=s.steps,
        recorders=recorders,
        checkpoint_every=s.checkpoint_every,
        label=f"{plan.variant} lr {plan.lr:g} seed {plan.seed}",
    )


def seconds_a_step(s: Settings, data: Dataset) -> float:
    """From the second of two steps of a throw-away copy of the dearest variant."""
    variant = max(s.variants, key=lambda name: (VARIANTS[name][0] != "none", VARIANTS[name][1]))
    model = network(s, variant, 0)
    optimizer = sgd(s, model, s.lr[0])
    batches = Batches(data.train_images, data.train_labels, s.batch_size, 0)
    with np.errstate(all="ignore"):  # a rate may be too large: training will say so
        one_step(model, optimizer, *batches.batch(0))
        get_backend().synchronize()
        began = time.perf_counter()
        one_step(model, optimizer, *batches.batch(1))
        get_backend().synchronize()
    return time.perf_counter() - began


def study_all(s: Settings, study: Study) -> int:
    data = load_data(s)
    if s.batch_size > len(data.train_images):
        raise UsageError(
            f"--batch-size {s.batch_size} is more than the {len(data.train_images):,} training "
            "images. Use a smaller batch."
        )
    for plan in plans(s):
        folder = study.run(plan.name)
        if folder.begun and not finished(s, folder):
            session.unchanged(folder, configuration(s, plan, data), s.force)
    study.change(**session.stored(s))
    todo = [plan for plan in plans(s) if not finished(s, study.run(plan.name))]
    steps = sum(s.steps - len(study.run(plan.name).records("metrics")) for plan in todo)
    print(
        f"{study.folder}: {len(todo)} of {len(plans(s))} runs to do, {steps:,} steps on "
        f"{data.name}, {s.model} width {s.width:g}, {s.backend}, threads "
        f"{s.threads}, kernels {s.kernels}",
        flush=True,
    )
    if todo and s.backend != "cupy" and not s.quick:
        seconds = seconds_a_step(s, data) * steps
        if seconds > 600:
            print(
                f"This will take at most about {clock(seconds)} here. It can be stopped and "
                "continued at any time; --quick shows the same findings in a minute.",
                flush=True,
            )
    for plan in todo:
        result = run(s, study, plan, data)
        if result["status"] == "diverged":
            print(f"{plan.name}: diverged at step {result['step']}", flush=True)
    vgg_figures.draw([study])
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study, draw its figures, print its table. Returns the exit code."""
    return session.attend(
        session.Experiment("vgg_cifar", Settings, settings_from, check, study_all),
        description=str(__doc__).partition("\n\n")[0],
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
