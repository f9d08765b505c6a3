"""A catalogue of wrong gradients: read it to learn how gradients go wrong.

Each entry is a vjp of minibn with a plausible mistake, which the docstring describes; most of them
have been made. A set of checks is as good as what it finds here:
`python -m minibn.testing kill` runs every check against every mutant and prints which finds which.

One file for each family of ops. Mistakes of the backward pass itself (broadcasting, memory, dtypes,
saved arrays) are in `tape.py`.
"""

from suite.mutants import (
    conv,
    elementwise,
    linalg,
    loss,
    norm,
    other_norms,
    pool,
    reduce,
    shape,
    tape,
)
from suite.mutants.mutant import MUTANTS, Mutant

FAMILIES = tuple(
    module.__name__.rpartition(".")[2]
    for module in (elementwise, tape, reduce, shape, linalg, conv, pool, norm, other_norms, loss)
)

__all__ = ["FAMILIES", "MUTANTS", "Mutant"]
