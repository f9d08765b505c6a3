"""Elementwise in-place updates, such as an optimizer's, in pieces that fit into the cache.

`w -= lr * g` needs a temporary array as large as the weights, and a rule with momentum and decay
passes over memory once per operation. Applied to one piece of 2¹⁸ elements after another, the same
lines cost only reading w and g and writing w: temporaries are 1 MB, stay in the cache and are
reused for every piece. Each element gets the same operations in the same order, so results are
bitwise equal.

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
LARGE = 1 << 18  # elements, from which threads are used


def map_pieces(update: Callable[..., None], *arrays: Any) -> None:
    """update(*arrays), in pieces where that is faster. The arrays have one shape, and `update` is
    elementwise."""
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
        threads.map_shares(work, size)
    else:
        work(slice(0, size))


class PiecewiseUpdate(Kernel):
    """The update of each parameter, in pieces. `op` is the optimizer."""

    def update_all(self, rows: list[Row]) -> None:
        for arrays, group in rows:
            map_pieces(functools.partial(self.op.update, group), *arrays)
