"""A catalogue of functions from outside: right vjps that are easily called wrong, and wrong ones.

`FUNCTIONS` are the functions of NumPy arrays, `WRONG` the mistakes that people make in their
gradients, `RIGHT` the right gradients at usual and at hard points. A checker of gradients is as
good as what it finds in WRONG, and as quiet as it is about RIGHT.
"""

from suite.functions import (
    activations,
    elementwise,
    elementwise_more,
    formulas,
    geometry,
    kinks,
    linalg,
    losses,
    memory,
    networks,
    norms,
    places,
    precision,
    reductions,
    state,
    thresholds,
    ties,
    windows,
)
from suite.functions.function import FUNCTIONS, RIGHT, WRONG, Function, Right, Wrong

FAMILIES = tuple(
    module.__name__.rpartition(".")[2]
    for module in (
        elementwise, elementwise_more, formulas, activations, kinks, thresholds, ties, reductions,
        norms, linalg, geometry, windows, losses, networks, memory, precision, state, places,
    )
)  # fmt: skip

__all__ = ["FAMILIES", "FUNCTIONS", "RIGHT", "WRONG", "Function", "Right", "Wrong"]
