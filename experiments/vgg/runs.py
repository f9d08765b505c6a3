"""The trainings behind all VGG figures: one run a variant, rate and seed, and the study of them.

Studies of all VGG experiments are of one kind, so that one training serves every figure: what is
measured depends on its settings alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import paper
from experiments.training.loop import train
from experiments.training.probes import CovariateShift, Curvature, Landscape
from experiments.training.recorders import Distributions, Recorder, TestAccuracy
from experiments.training.runner import Plan, Work, check_batch_size, run_study
from experiments.training.session import Experiment
from experiments.training.step import one_step
from experiments.training.study import Run, Study
from experiments.training.variants import norm_text
from experiments.vgg.settings import Settings, check, network, norm_of, plans
from experiments.views import vgg as vgg_figures
from minibn import nn, optim
from minibn.analysis import layers_of
from minibn.backend import get_backend
from minibn.data import Batches, Dataset, load, pad_crop_flip

KIND = "vgg_cifar"  # in study.json, of every experiment on VGG


def sgd(s: Settings, model: nn.Sequential, lr: float) -> optim.SGD:
    groups = optim.decay_groups(model, s.weight_decay)
    return optim.SGD([g for g in groups if g["params"]], lr, momentum=s.momentum)


def load_data(s: Settings) -> Dataset:
    """The data set. Raises UsageError if it is smaller than a batch."""
    data = load(s.data, s.data_dir, train_size=s.train_size, test_size=s.test_size)
    check_batch_size(s.batch_size, data)
    return data


def recorders(s: Settings, model: nn.Sequential, plan: Plan, data: Dataset) -> list[Recorder]:
    """The recorders of a run; each writes nothing where its interval is 0."""
    decay, parts = s.weight_decay, dict(model.children())
    depth = len(layers_of(model))
    places = [f"relu{k}" if f"relu{k}" in parts else "" for k in range(1, depth + 1)]
    chosen: list[Recorder] = [
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
    ]
    if s.record_every:
        layers = paper.shown_layers(s.model)
        chosen.append(Distributions(layers, s.record_every, units=3, seed=plan.seed))
    return chosen


def run(
    s: Settings,
    folder: Run,
    plan: Plan,
    data: Dataset,
    others: Sequence[Recorder] = (),
    *,
    network_of: str = "",
) -> dict[str, Any]:
    """Train one variant, from its last checkpoint if there is one. others: more recorders.
    network_of: the variant whose network it is; else the plan's."""
    model = network(s, network_of or plan.variant, plan.seed)
    augment = pad_crop_flip if s.augment else None
    return train(
        folder,
        model,
        sgd(s, model, plan.lr),
        Batches(data.train_images, data.train_labels, s.batch_size, plan.seed, augment),
        steps=s.steps,
        recorders=[*recorders(s, model, plan, data), *others],
        checkpoint_every=s.checkpoint_every,
        label=plan.label,
    )


def seconds_a_step(s: Settings, data: Dataset) -> float:
    """Seconds of the second of two steps, with a temporary copy of the most expensive variant."""
    variant = max(s.variants, key=lambda name: (norm_of(name)[0] != "none", norm_of(name)[1]))
    model = network(s, variant, 0)
    optimizer = sgd(s, model, s.lr[0])
    batches = Batches(data.train_images, data.train_labels, s.batch_size, 0)
    with np.errstate(all="ignore"):  # a rate may be too large: training reports it
        one_step(model, optimizer, *batches.batch(0))
        get_backend().synchronize()
        began = time.perf_counter()
        one_step(model, optimizer, *batches.batch(1))
        get_backend().synchronize()
    return time.perf_counter() - began


def work_of(s: Settings, data: Dataset, kind: str = KIND, **more: Any) -> Work:
    """The trainings of these settings. `more`: other parts of the Work."""
    shared: dict[str, Any] = {
        "plans": plans(s),
        "configuration": lambda plan: {
            "experiment": kind,
            "norm": norm_text(norm_of(plan.variant)[0]),
            "noise": norm_of(plan.variant)[1],
            "data_fingerprint": data.fingerprint,
        },
        "run": lambda folder, plan: run(s, folder, plan, data),
        "about": f"on {data.name}, {s.model} width {s.width:g}",
        "seconds": lambda left: seconds_a_step(s, data) * sum(left.values()),
    }
    return Work(**{**shared, **more})


def study_all(s: Settings, study: Study) -> int:
    data = load_data(s)
    return run_study(s, study, work_of(s, data, plot=lambda: vgg_figures.plot([study])))


def experiment(
    name: str, settings: type[Settings], quick: dict[str, Any], description: str | None
) -> Experiment:
    """An experiment of this kind: the same trainings, with defaults of its own."""
    return Experiment(name, settings, quick, check, study_all, description, kind=KIND)
