"""Laws: what holds for minibn's ops, layers, optimizers and graph, whatever the numbers.

`LAWS[name].run(case)` checks one law on one case; `FAULTS[name]` is a fault that breaks it.
"""

from suite.laws import (  # noqa: F401  each registers its laws and their faults
    anything,
    batch_norm,
    convolution,
    elementwise,
    kernels,
    layer_norms,
    layers,
    linearity,
    losses,
    lp_norms,
    numbers,
    operands,
    optimizers,
    pooling,
    tape,
)
from suite.laws.faults import FAULTS, Fault
from suite.laws.row_law import LAWS, RowLaw, about

__all__ = ["FAULTS", "LAWS", "Fault", "RowLaw", "about"]
