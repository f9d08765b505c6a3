"""The trainings behind all VGG figures: one run a variant, rate and seed, and the study of them.

A study is the same kind whichever experiment began it, so that one training serves every figure:
what is measured on the way depends on its settings alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments import paper, session, vgg_figures
from experiments.command_line import UsageError
from experiments.probes import CovariateShift, Curvature, Landscape
from experiments.recorders import Distributions, Recorder, TestAccuracy
from experiments.step import one_step
from experiments.study import Run, Study, environment
from experiments.training import clock, cores, train
from experiments.vgg_settings import VARIANTS, Plan, Settings, check, plans
from minibn import nn, optim
from minibn.analysis import layers_of
from minibn.backend import get_backend
from minibn.data import Batches, Dataset, load, pad_crop_flip
from reference_models.vgg import vgg

KIND = "vgg_cifar"  # what study.json says, whichever experiment it was


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
        "experiment": KIND,
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


def recorders(s: Settings, model: nn.Sequential, plan: Plan, data: Dataset) -> list[Recorder]:
    """What is measured on the way; each writes nothing where its interval is 0."""
    decay, parts = s.weight_decay, dict(model.children())
    depth = len(layers_of(model))
    places = [f"relu{k}" if f"relu{k}" in parts else "" for k in range(1, depth + 1)]
    return [
        Landscape(
            s.probe_every,
            s.probe_sizes,
            directions=s.probe_directions,
            weight_decay=decay,
            seed=plan.seed,
        ),
        CovariateShift(s.shift_every, places, weight_decay=decay),
        Curvature(s.curvature_every, weight_decay=decay),
        TestAccuracy(data, s.eval_every),
        Distributions(paper.shown_layers(s.model), s.record_every, units=3, seed=plan.seed),
    ]


def run(s: Settings, study: Study, plan: Plan, data: Dataset) -> dict[str, Any]:
    """Train one variant, from its last checkpoint if there is one."""
    folder = study.run(plan.name)
    done = finished(s, folder)
    if done:
        return done
    folder.begin(configuration(s, plan, data))
    model = network(s, plan.variant, plan.seed)
    augment = pad_crop_flip if s.augment else None
    return train(
        folder,
        model,
        sgd(s, model, plan.lr),
        Batches(data.train_images, data.train_labels, s.batch_size, plan.seed, augment),
        steps=s.steps,
        recorders=recorders(s, model, plan, data),
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


def preset(settings: type[Settings], quick: dict[str, Any], given: dict[str, Any]) -> Settings:
    """The defaults, then with --quick its preset, then what was given."""
    return settings(**{**(quick if given.get("quick") else {}), **given})


def attend(
    name: str,
    settings: type[Settings],
    quick: dict[str, Any],
    description: str | None,
    arguments: Sequence[str] | None,
) -> int:
    """The session of an experiment of this kind. Returns the exit code."""
    return session.attend(
        session.Experiment(
            name, settings, partial(preset, settings, quick), check, study_all, kind=KIND
        ),
        description=str(description).partition("\n\n")[0],
        arguments=arguments,
    )
