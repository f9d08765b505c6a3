"""Updates in place, element by element, a piece at a time: the weights of a network, say.

`w -= lr * g` is three passes over memory and a temporary array as large as the weights, in fresh
memory. Done for pieces of 2¹⁶ elements, one after another, the same line costs what reading w and g
and writing w costs: the temporary is 256 KB of the core's cache, used again for every piece. Every
element sees the same operations as before, so that the result is the same bit for bit.

Measured for VGG-16's 14.7 million weights: see `piecewise`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.backend import kernels
from minibn.backend.cpu import threads

PIECE = 1 << 18  # elements: 1 MB in float32
LARGE = 1 << 18  # elements; from here on pieces are shared out to threads


def piecewise(update: Callable[..., None], *arrays: Any) -> None:
    """update(*arrays), in pieces where that is faster. The arrays have one shape, and `update`
    treats each element alike."""
    size = arrays[0].size
    flat = all(type(a) is np.ndarray and a.flags.c_contiguous for a in arrays)
    if kernels.mode() == "reference" or size <= PIECE or not flat:
        update(*arrays)
        return
    runs = [a.reshape(-1) for a in arrays]

    def work(elements: slice) -> None:
        for piece in threads.blocks(elements.stop - elements.start, PIECE):
            start, stop = elements.start + piece.start, elements.start + piece.stop
            update(*(run[start:stop] for run in runs))

    if size >= LARGE:
        threads.in_shares(work, size)
    else:
        work(slice(0, size))
