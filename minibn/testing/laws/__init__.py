"""Laws: what holds for every op, layer, optimizer and graph, whatever the numbers.

`LAWS` is the registry (`LAWS.md` is made from it), `check_laws(problem)` puts somebody's own op
through all the laws that are about any op, and `LAWS[name].run(case)` checks one law on one case.
`recorded(f, vjp)` makes an op of a function with a hand-written vjp.
"""

from minibn.testing.laws import (  # noqa: F401  each registers its laws
    arrays,
    batch_norm,
    convolution,
    graph,
    kernels,
    layer_norms,
    layers,
    losses,
    lp_norms,
    optimizers,
    pooling,
    vjp,
)
from minibn.testing.laws.law import LAWS, Law, check_laws, law
from minibn.testing.laws.table import table
from minibn.testing.laws.written import recorded

__all__ = ["LAWS", "Law", "check_laws", "law", "recorded", "table"]
