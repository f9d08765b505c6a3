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

from experiments import vgg_cifar
from experiments.training.command_line import with_defaults
from experiments.vgg import runs as vgg_runs
from experiments.vgg import settings as vgg_settings

Settings = with_defaults(
    vgg_settings.Settings,
    variants=("standard", "batchnorm"),
    lr=(0.1, 0.01),  # the rows of Fig. 3a
    shift_every=100,  # the paper has a point each 100 steps
)

QUICK = {**vgg_cifar.QUICK, "steps": 300, "shift_every": 20}


main = vgg_runs.experiment("covariate_shift", Settings, QUICK, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
