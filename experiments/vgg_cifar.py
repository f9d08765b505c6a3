"""Figures 1, 2 and 8 of "How Does Batch Normalization Help Optimization?" (Santurkar et al. 2018).

A VGG network trained with plain SGD, four ways from the same weights on the same batches:

    standard          no normalisation
    batchnorm         BatchNorm behind every convolution
    noisy-batchnorm   and time-varying noise behind every BatchNorm (Algorithm 1)
    noisy-standard    the same noise in the network without BatchNorm

The paper's claim: BatchNorm trains faster and tolerates larger learning rates; noise that makes the
layers' distributions less stable than the standard network's hardly harms it; so the stability of
distributions is not why BatchNorm helps. The paper's own setting takes days on a CPU; `--quick`
shows this at one rate, in a minute on drawn shapes.

    python -m experiments.vgg_cifar --quick
    python -m experiments.vgg_cifar --backend cupy
    python -m experiments.vgg_cifar --resume runs/vgg_cifar/20260101-120000
"""

from __future__ import annotations

import sys

from experiments.vgg import runs as vgg_runs
from experiments.vgg.settings import Settings

# Products this small gain next to nothing from a second thread (a step of "standard" takes 16 and
# 15 ms), and lose eightfold when the other core is busy.
QUICK = {
    "data": "shapes", "train_size": 6000, "test_size": 1000, "model": "vgg11", "width": 0.125,
    "batch_size": 32, "steps": 500, "eval_every": 100, "record_every": 10, "checkpoint_every": 250,
    "threads": 1,
}  # fmt: skip


main = vgg_runs.experiment("vgg_cifar", Settings, QUICK, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
