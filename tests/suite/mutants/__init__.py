"""A catalogue of wrong gradients: read it to learn how gradients go wrong.

Each entry is a vjp of minibn with a mistake that somebody could make, and most of them have been
made; the docstring says which. A set of checks is worth what it finds here:
`python -m minibn.testing kill` runs every check against every mutant and prints which finds which.

One file for each family of ops. What is wrong in the walk itself (broadcasting, memory, dtypes,
saved arrays) is in `tape.py`.
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
