"""Figures 5a, 6 and 12 of the paper: normalisation by l1, l2 and l-infinity norms.

They take a unit's mean away, as BatchNorm does, and divide by the average of its values' l_p norm
(our reading, since the paper has no formula: `minibn/ops/lp_normalization.py`). The claim: they
train as well as BatchNorm and smooth the landscape as much, although the layers' distributions
shift more than without any norm.

The trainings are those of `vgg_cifar`, with probes on. Figs. 5b and 13, of the deep linear network,
come from `deep_linear`.

    python -m experiments.lp_norms --quick
    python -m experiments.lp_norms --backend cupy
    python -m experiments.lp_norms --resume STUDY
"""

from __future__ import annotations

import sys

from experiments import vgg_cifar
from experiments.training.command_line import with_defaults
from experiments.vgg import runs as vgg_runs
from experiments.vgg import settings as vgg_settings

Settings = with_defaults(
    vgg_settings.Settings,
    variants=("standard", "batchnorm", "l1", "l2", "linf"),
    probe_every=100,  # the paper has a point each 100 steps
)

QUICK = {**vgg_cifar.QUICK, "steps": 300, "probe_every": 20}


main = vgg_runs.experiment("lp_norms", Settings, QUICK, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
