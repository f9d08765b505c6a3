"""Updates in place, element by element, a piece at a time: the weights of a network, say.

`w -= lr * g` takes a temporary array as large as the weights, and a rule with momentum and decay
passes over memory once for every operation. For one piece of 2¹⁸ elements after another the same
lines cost what reading w and g and writing w costs: temporaries are 1 MB, stay in the cache and are
used again for every piece. Each element sees the same operations in the same order, so the result
is the same bit for bit.

Measured for the 14.7 million weights of VGG-16 on two cores: SGD 5.0 ms instead of 6.5, with
momentum and decay 10.5 instead of 15.3 (PyTorch: 4.0 and 10.7), Adam 24 instead of 50. Pieces of
2¹⁶ take a fifth longer: each call waits for the interpreter's lock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.autograd.dispatch import mode
from minibn.fast.cpu import threads
from minibn.fast.kernel import Kernel
from minibn.optim import Row

PIECE = 1 << 18  # elements: 1 MB in float32
LARGE = 1 << 18  # elements; from here on pieces are shared out to threads


def piecewise(update: Callable[..., None], *arrays: Any) -> None:
    """update(*arrays), in pieces where that is faster. The arrays have one shape, and `update`
    treats each element alike."""
    size = arrays[0].size
    flat = all(type(a) is np.ndarray and a.flags.c_contiguous for a in arrays)
    if mode() == "reference" or size <= PIECE or not flat:
        update(*arrays)
        return
    runs = [a.reshape(-1) for a in arrays]

    def work(elements: slice) -> None:
        for piece in threads.blocks(elements, PIECE):
            update(*(run[piece] for run in runs))

    if size >= LARGE:
        threads.in_shares(work, size)
    else:
        work(slice(0, size))


class PiecewiseUpdate(Kernel):
    """The update of each parameter, in pieces. `op` is the optimizer."""

    def update_all(self, rows: list[Row]) -> None:
        for arrays, group in rows:
            piecewise(functools.partial(self.op.update, group), *arrays)
