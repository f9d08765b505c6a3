"""Training BatchNorm and only BatchNorm: all weights stay random (Frankle et al., ICLR 2021).

Everything else stays as it was drawn. So gamma and beta do not only undo what the normalisation
took: they compute, by choosing and combining random features. Trained from the same weights, on the
same batches, at each rate of a grid:

    only-batchnorm   gamma and beta of every BatchNorm
    random-weights   as many weights: two of each filter, drawn at random; gamma = 1, beta = 0
    output-layer     the last linear layer alone
    all              everything, as the control

The claim (the paper's abstract: "far higher"): only-batchnorm is more accurate than
random-weights, by the following rule, and than output-layer, by the same rule.

    metric       accuracy on all test images after the last step, in eval mode (`accuracy` of the
                 last record of test.jsonl; 0.1 for a run that diverged), each variant at its best
                 rate of the grid: that of the highest training accuracy (metrics.jsonl, mean over
                 the last tenth of the steps and over the seeds), so that no test image chooses
    comparison   only-batchnorm minus the other, paired by seed; the 95 % t interval of its mean
    margin       0.02: the two accuracies are shares of the same 10,000 images, so that sampling
                 moves their difference by about 0.006; a smaller difference than three times
                 that would show no use of gamma and beta that a few more weights have not
    n            3 seeds or more

Seen before the rule's runs: a pilot of seed 1 (VGG-11 at a quarter of the width, 400 steps, rates
0.03 and 0.3, 2,000 test images), in which only-batchnorm had 0.374, random-weights 0.365,
output-layer 0.275.

What differs from the paper: its networks are deep ResNets of full width (82 % on CIFAR-10 with the
deepest), trained to the end with a rate that decays. So a small difference in a small network that
is trained shortly does not speak against its main figure.

    python -m experiments.only_bn --quick
    python -m experiments.only_bn --backend cupy
    python -m experiments.only_bn --model resnet56 --backend cupy
    python -m experiments.only_bn --resume STUDY

On a CPU (VGG-11 at a quarter of the width, CIFAR-10), about 35 minutes of one core a seed:

    python -m experiments.only_bn --model vgg11 --width 0.25 --steps 2000 --threads 1 \\
        --variants only-batchnorm random-weights output-layer
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from experiments.training.command_line import UsageError, at_least, one_of, setting
from experiments.training.runner import Plan, run_study
from experiments.training.session import Experiment
from experiments.training.settings import INITS, init_setting
from experiments.training.study import Study
from experiments.vgg import classifiers
from experiments.vgg.runs import load_data
from experiments.views import only_bn as only_bn_figures
from minibn import nn
from reference_models.partly_trained import train_only
from reference_models.resnet import RESNET, resnet
from reference_models.vgg import VGG, vgg

KIND = "only_bn"

# The name of a variant -> the part that is trained
VARIANTS = {
    "only-batchnorm": "batch-norm",
    "random-weights": "random-weights",
    "output-layer": "output",
    "all": "all",
}


@dataclass(frozen=True)
class Settings(classifiers.ClassifierSettings):
    """The paper's optimizer (SGD, momentum 0.9, batch 128), without its decay of the rate."""

    quick: bool = setting(False, "a small network on drawn shapes: over in two minutes")
    # As many as elsewhere here at this scale; the paper trains for 160 epochs.
    steps: int = setting(2000, "updates per run")
    seed: tuple[int, ...] = setting(
        (0, 1, 2), "root seeds of weights, chosen weights and data order"
    )
    model: str = setting("vgg16", "the network", choices=(*VGG, *RESNET))
    width: float = setting(1.0, "factor on the convolutions' channels")
    init: str = init_setting()
    variants: tuple[str, ...] = setting(tuple(VARIANTS), "what to train", choices=VARIANTS)
    # Around the paper's 0.1: what is best for all weights need not be for a few (a pilot of 400
    # steps: 0.3 rather than 0.03 for gamma and beta and random weights, 0.03 for the output layer).
    lr: tuple[float, ...] = setting(
        (0.03, 0.1, 0.3, 1.0), "learning rates; each variant is trained at each"
    )


QUICK = {
    "data": "shapes", "train_size": 3000, "test_size": 1000, "model": "vgg11", "width": 0.125,
    "batch_size": 32, "steps": 300, "eval_every": 100, "checkpoint_every": 150, "threads": 1,
    "seed": (0,), "lr": (0.01, 0.1),
}  # fmt: skip


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    classifiers.check_classifier(s, tuple(VARIANTS))
    one_of("--model", s.model, (*VGG, *RESNET))
    one_of("--init", s.init, tuple(INITS))
    at_least("--width", s.width, 0, above=True)
    try:
        whole_network(s)
    except ValueError as error:
        raise UsageError(str(error)) from None


def whole_network(s: Settings) -> nn.Sequential:
    """The network with BatchNorm, without values."""
    build = vgg if s.model in VGG else resnet
    return build(s.model, width=s.width, norm="batch", init=INITS[s.init])


def network(s: Settings, plan: Plan) -> nn.Sequential:
    """The plan's network, of which its variant's part is trained."""
    return train_only(whole_network(s), VARIANTS[plan.variant]).initialize(plan.seed)


def count(s: Settings, plan: Plan) -> int:
    """How many numbers the plan trains."""
    return sum(p.size for p in network(s, plan).parameters())


def study_all(s: Settings, study: Study) -> int:
    data = load_data(s)
    work = classifiers.work_of(
        s,
        data,
        lambda plan: network(s, plan),
        configuration=lambda plan: {
            "experiment": KIND,
            "trained": count(s, plan),
            "parameters": count(s, replace(plan, variant="all")),
        },
        about=f"on {data.name}, {s.model} width {s.width:g}",
        plot=lambda: only_bn_figures.plot([study]),
    )
    return run_study(s, study, work)


main = Experiment(KIND, Settings, QUICK, check, study_all, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
