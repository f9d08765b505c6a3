"""Figures 4 and 11a of the paper: BatchNorm's landscape, by probes along the gradient.

At steps of one training per variant, the loss and its gradient are measured at w - η ∇L(w) for η
of 1/2, 1, 2 and 4 times the learning rate, on the batch of the step. The paper's claim: with
BatchNorm the loss varies less along the probe, its gradient changes less, and the "effective" beta,
‖Δ gradient‖ / distance, is smaller. (Not at step 0, in its curves as in ours.)

The trainings are those of `vgg_cifar`, with probes on: about an eighth slower. Fig. 12, of the
l_p norms, comes from `lp_norms`; Figs. 10, 11b and 13, of the deep linear network, from
`deep_linear`.

    python -m experiments.landscape --quick
    python -m experiments.landscape --backend cupy
    python -m experiments.landscape --resume STUDY
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
    probe_every=100,  # the paper has a point each 100 steps
    # Its text claims the same for random directions, without a figure.
    probe_directions=("gradient", "random"),
)

QUICK = {**vgg_cifar.QUICK, "steps": 400, "probe_every": 20}


main = vgg_runs.experiment("landscape", Settings, QUICK, __doc__).main

if __name__ == "__main__":
    sys.exit(main())
