"""Why residual networks train with BatchNorm, and with SkipInit in its place (De & Smith 2020).

Batch norm biases residual blocks towards the identity: at step 0 each branch is small beside its
skip path. SkipInit does that with one trained number at the end of each branch, which starts at 0.
The study measures, for each seed,

    at step 0, of networks that are not trained (run "initialisation", lr 0):
        paths.jsonl       mean squares of residual branch and skip path, block by block
        gradients.jsonl   the correlation of gradients at neighbouring inputs (Balduzzi et al. 2017)
    training of a pre-activation ResNet at each rate of a grid:
        none              no norm: convolutions with biases
        batchnorm         before each ReLU
        skipinit          none, and a trained scalar at the end of each branch, 0 at first

The claims. The networks and the definitions are in `residual/paths.py` and
`residual/gradients.py`.

    paths        metric: the largest over blocks l = 1 ... 16 of |l · residual / skip - 1|, of
                 batchnorm (paths.jsonl), one number a seed. Claim (De & Smith): it is
                 below 0.10. Margin: zero padding takes 4 %, and over 16 draws of 64 channels a
                 block's ratio scatters by about 2 %.
    gradients    metric: correlation at lag 1 (1/255 of the inputs' range) of residual-batchnorm
                 minus that of feedforward-batchnorm, 24 layers (gradients.jsonl), one number a
                 seed. Claim (Balduzzi et al.: skip paths keep gradients from shattering): it is
                 above 0.10. Margin: a mean over 20 draws scatters by about 0.015, so that 0.10
                 is no accident; and gradients of correlation 0.10 are still noise.
    accuracy     metric: training accuracy (metrics.jsonl, mean over the last tenth of the steps;
                 0.1 for a run that diverged) of skipinit minus none, each at its best rate, paired
                 by seed. Claim (De & Smith): it is above 0.05. Margin: the mean over
                 the last tenth of so short a training scatters by about 0.01 from seed to seed.
                 The same of skipinit minus batchnorm has no side in the paper at this length: it
                 is reported.
    n            3 seeds or more; 95 % t interval of the mean

Seen before the rules' runs, as pilots: seeds 1 to 3 of paths (0.040 to 0.056) and gradients (0.43
to 0.47); and of training 150 steps of seed 1 (ResNet-20 at a quarter of the width, last 30 steps):
skipinit 0.25 and batchnorm 0.31 at lr 0.1, none at chance (0.10) for 60 steps at lr 0.01.

    python -m experiments.skip_init --quick
    python -m experiments.skip_init --backend cupy
    python -m experiments.skip_init --resume STUDY

On a CPU (CIFAR-10, ResNet-20 at a quarter of the width), in about 14 minutes of one core a seed:

    python -m experiments.skip_init --model resnet20 --width 0.25 --steps 400 --batch-size 64 \\
        --test-size 2000 --threads 1
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.residual.gradients import LAGS, NETWORKS, gradient_correlations
from experiments.residual.paths import path_variances
from experiments.training.command_line import UsageError, at_least, flag_name, one_of, setting
from experiments.training.runner import Plan, Result, run_study
from experiments.training.session import Experiment
from experiments.training.study import Run, Study
from experiments.vgg import classifiers
from experiments.vgg.runs import load_data
from experiments.views import skip_init as skip_init_figures
from minibn import nn
from minibn.backend import get_backend
from minibn.data import Dataset, normalize
from reference_models.resnet import RESNET, resnet

KIND = "skip_init"

# The name of a variant -> (norm, SkipInit)
VARIANTS = {
    "none": ("none", False),
    "batchnorm": ("batch", False),
    "skipinit": ("none", True),
}
START = "initialisation"  # the run of what is measured and not trained


@dataclass(frozen=True)
class Settings(classifiers.ClassifierSettings):
    """Trainings of a ResNet, and the sizes of what is measured at step 0."""

    quick: bool = setting(False, "small networks on drawn shapes: over in two minutes")
    steps: int = setting(2000, "updates per run")
    seed: tuple[int, ...] = setting((0, 1, 2), "root seeds of weights and data order")
    # The deeper, the more depends on the scale of the branches.
    model: str = setting("resnet56", "the network that is trained", choices=RESNET)
    width: float = setting(1.0, "factor on its channels")
    variants: tuple[str, ...] = setting(tuple(VARIANTS), "what to train", choices=VARIANTS)
    # Without a norm the output doubles with each block: it needs far smaller rates.
    lr: tuple[float, ...] = setting(
        (0.001, 0.01, 0.1), "learning rates; each variant is trained at each"
    )
    # Enough to see 1/l, in seconds; De & Smith show up to 1,000 layers.
    path_blocks: int = setting(16, "blocks of the networks whose paths are measured")
    path_channels: int = setting(64, "channels of these blocks")
    path_images: int = setting(16, "images in the batch on which they are measured")
    path_draws: int = setting(16, "networks whose mean squares are averaged")
    # Balduzzi et al. show 24 layers, without skip paths.
    gradient_depth: int = setting(24, "hidden layers of the networks of one number; even")
    gradient_units: int = setting(200, "units of each of these layers")
    gradient_draws: int = setting(20, "networks whose correlations are averaged")


QUICK = {
    "data": "shapes", "train_size": 2000, "test_size": 500, "model": "resnet20", "width": 0.25,
    "batch_size": 32, "steps": 150, "eval_every": 150, "checkpoint_every": 150, "threads": 1,
    "seed": (0,), "lr": (0.01, 0.1), "path_blocks": 8, "path_channels": 32, "path_images": 8,
    "path_draws": 4, "gradient_draws": 5,
}  # fmt: skip


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    classifiers.check_classifier(s, tuple(VARIANTS))
    one_of("--model", s.model, tuple(RESNET))
    at_least("--width", s.width, 0, above=True)
    for name in ("path_blocks", "path_channels", "path_images", "path_draws", "gradient_depth",
                 "gradient_units", "gradient_draws"):  # fmt: skip
        at_least(flag_name(name), getattr(s, name), 1)
    if s.gradient_depth % 2:
        raise UsageError(
            f"--gradient-depth {s.gradient_depth} must be even: two layers make a block."
        )
    try:
        resnet(s.model, width=s.width)
    except ValueError as error:
        raise UsageError(str(error)) from None


def network(s: Settings, plan: Plan) -> nn.Sequential:
    """The plan's ResNet, with the weights that belong to its seed."""
    norm, skip_init = VARIANTS[plan.variant]
    net = resnet(s.model, width=s.width, norm=norm, skip_init=skip_init, preactivation=True)
    return net.initialize(plan.seed)


def measure_start(s: Settings, folder: Run, seed: int, data: Dataset) -> Result:
    """Write paths.jsonl and gradients.jsonl: what holds before any training.

    paths: a record a variant and block, {variant, block, residual, skip}. gradients: a record a
    network and lag (in points), {network, lag, correlation}.
    """
    folder.restore()
    images = normalize(get_backend().asarray(data.train_images[: s.path_images]))
    for variant, (norm, skip_init) in VARIANTS.items():
        residual, skip = path_variances(
            images, norm=norm, skip_init=skip_init, blocks=s.path_blocks,
            channels=s.path_channels, draws=s.path_draws, seed=seed,
        )  # fmt: skip
        for block, (f, x) in enumerate(zip(residual.tolist(), skip.tolist(), strict=True), 1):
            folder.stream("paths").append(
                {"step": 0, "variant": variant, "block": block, "residual": f, "skip": x}
            )
    for name in NETWORKS:
        found = gradient_correlations(
            name, depth=s.gradient_depth, units=s.gradient_units, draws=s.gradient_draws, seed=seed
        )
        for lag in LAGS:
            folder.stream("gradients").append(
                {"step": 0, "network": name, "lag": lag, "correlation": found[lag]}
            )
    result: Result = {"status": "done", "steps": s.steps}
    folder.finish(result)
    return result


def study_all(s: Settings, study: Study) -> int:
    data = load_data(s)
    if len(data.train_images) < s.path_images:
        raise UsageError(
            f"--path-images {s.path_images} is more than the {len(data.train_images):,} training "
            "images. Take fewer."
        )
    work = classifiers.work_of(
        s,
        data,
        lambda plan: network(s, plan),
        configuration=lambda plan: {"experiment": KIND},
        about=f"on {data.name}, {s.model} width {s.width:g}",
        plot=lambda: skip_init_figures.plot([study]),
    )
    starts = [Plan(START, 0.0, seed) for seed in s.seed]

    def run(folder: Run, plan: Plan) -> Result:
        if plan in starts:
            return measure_start(s, folder, plan.seed, data)
        return work.run(folder, plan)

    def seconds(left: Mapping[Plan, int]) -> float:
        estimate = work.seconds or (lambda trainings: 0.0)
        return estimate({plan: steps for plan, steps in left.items() if plan not in starts})

    every = [*starts, *work.plans]
    return run_study(s, study, dataclasses.replace(work, plans=every, run=run, seconds=seconds))


main = Experiment(KIND, Settings, QUICK, check, study_all, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
