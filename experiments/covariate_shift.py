"""Figure 3a of the paper: BatchNorm does not reduce internal covariate shift.

For every layer of a network in training, how much the gradient of its weights changes when the
layers before it have made their update (Definition 2.1): ‖G - G'‖ and the cosine of the two, on
one batch. The paper's claim: with BatchNorm they are no closer than without, although it trains
better. Beside it the original notion: how far the distribution that enters each layer moves.

The trainings are those of `vgg_cifar`, with the measurement on, which costs as much as about ten
training steps each time. Fig. 3b, of the deep linear network, comes from `deep_linear`.

    python -m experiments.covariate_shift --quick
    python -m experiments.covariate_shift --backend cupy
    python -m experiments.covariate_shift --resume STUDY
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from experiments import vgg_cifar
from experiments.running.command_line import setting
from experiments.vgg import runs as vgg_runs
from experiments.vgg import settings as vgg_settings


@dataclass(frozen=True)
class Settings(vgg_settings.Settings):
    """Those of all VGG trainings, with other defaults."""

    variants: tuple[str, ...] = setting(
        ("standard", "batchnorm"), f"what to train: {', '.join(vgg_settings.VARIANTS)}"
    )
    # The rows of Fig. 3a.
    lr: tuple[float, ...] = setting((0.1, 0.01), "learning rates; each variant is trained at each")
    # The paper draws a point each 100 steps.
    shift_every: int = setting(
        100, "steps between measurements of covariate shift (and some early); 0: none"
    )


QUICK = {**vgg_cifar.QUICK, "steps": 300, "shift_every": 20}


main = vgg_runs.experiment("covariate_shift", Settings, QUICK, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
