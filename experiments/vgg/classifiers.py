"""Trainings of classifiers of images that an experiment builds itself: settings and the study.

`only_bn` and `skip_init` train networks that are no variants of VGG by their norm. Their settings
inherit these; each says how a plan becomes a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.training.command_line import UsageError, at_least, flag_name, one_of, setting
from experiments.training.loop import train
from experiments.training.recorders import Recorder, TestAccuracy
from experiments.training.runner import Plan, Result, Work
from experiments.training.settings import ImageSettings, check_images, check_shared
from experiments.training.study import Run
from experiments.vgg.runs import sgd, time_a_step
from minibn import nn
from minibn.data import Batches, Dataset

Network = Callable[[Plan], nn.Sequential]  # with the weights that belong to the plan's seed


@dataclass(frozen=True)
class ClassifierSettings(ImageSettings):
    """SGD with momentum on images, a run a variant, rate and seed."""

    test_size: int | None = setting(None, "test images: the first ones (default: all)", kind=int)
    batch_size: int = setting(128, "images per step")
    momentum: float = setting(0.9, "momentum of SGD")
    weight_decay: float = setting(0.0, "l2 penalty, of weights alone")
    eval_every: int = setting(500, "steps between measurements of test accuracy")


def plans(s: Any) -> list[Plan]:
    return [Plan(v, lr, seed) for seed in s.seed for v in s.variants for lr in s.lr]


def check_classifier(s: Any, variants: Sequence[str]) -> None:
    """Raise UsageError for settings that can't work. s: ClassifierSettings with `variants` and
    `lr`; variants: the known ones."""
    check_shared(s, plans(s))
    check_images(s)
    for variant in s.variants:
        one_of("--variants", variant, tuple(variants))
    for lr in s.lr:
        at_least("--lr", lr, 0, above=True)
    for name in ("batch_size", "eval_every"):
        at_least(flag_name(name), getattr(s, name), 1)
    if s.test_size is not None:
        at_least("--test-size", s.test_size, 1)
    at_least("--weight-decay", s.weight_decay, 0)
    if not 0 <= s.momentum < 1:
        raise UsageError(f"--momentum {s.momentum} must lie in [0, 1).")


def work_of(
    s: Any,
    data: Dataset,
    network: Network,
    *,
    configuration: Callable[[Plan], dict[str, Any]],
    about: str,
    plot: Callable[[], object],
    recorders: Sequence[Recorder] = (),
) -> Work:
    """The trainings of these settings. Test accuracy is recorded beside `recorders`.

    A run that has ended keeps no checkpoint: with more --steps it begins again, the same.
    """

    def run(folder: Run, plan: Plan) -> Result:
        model = network(plan)
        result = train(
            folder,
            model,
            sgd(s, model, plan.lr),
            Batches(data.train_images, data.train_labels, s.batch_size, plan.seed),
            steps=s.steps,
            recorders=[TestAccuracy(data, s.eval_every), *recorders],
            checkpoint_every=s.checkpoint_every,
            label=plan.label,
        )
        folder.checkpoints.delete()
        return result

    def seconds(left: Mapping[Plan, int]) -> float:
        first = {plan.variant: plan for plan in left}
        times = {v: time_a_step(s, network(plan), data) for v, plan in first.items()}
        return sum(steps * times[plan.variant] for plan, steps in left.items())

    return Work(
        plans=plans(s),
        configuration=lambda plan: {
            **configuration(plan), "data_fingerprint": data.fingerprint,
        },
        run=run,
        about=about,
        plot=plot,
        seconds=seconds,
        keeps_checkpoints=False,
    )  # fmt: skip
