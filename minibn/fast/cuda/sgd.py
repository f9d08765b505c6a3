"""One update by SGD of all parameters, in one launch.

A network has some forty parameters, and CuPy launches a kernel for each operation on each of them:
a hundred launches and more, most of which move a few kilobytes. Here one kernel updates all of
them. The addresses and sizes of the arrays are a table that is passed by value (CUDA allows 4 KB:
MOST tensors), so that no transfer is needed; more tensors take more launches.

The operations are those of `optim.SGD` in the same order, each rounded like NumPy's: weights are
bitwise equal. The learning rate is the table's times `scalars.rate`, which is 1 outside a captured
graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minibn.backend import backend_of
from minibn.fast.cuda.program import LARGEST, REALS, Program, address
from minibn.fast.cuda.scalars import scalars
from minibn.fast.kernel import Kernel
from minibn.optim import Row

PROGRAM = Program("sgd")
THREADS, ITEMS = 256, 4
MOST = 60  # tensors a launch: 64 bytes each
TENSOR = np.dtype(
    [("w", "u8"), ("v", "u8"), ("g", "u8"), ("count", "i4"), ("first_block", "i4"),
     ("nesterov", "i4"), ("unused", "i4"), ("lr", "f8"), ("decay", "f8"), ("momentum", "f8")]
)  # fmt: skip
TABLE = np.dtype([("tensor", TENSOR, (MOST,))])


class FusedSGD(Kernel):
    """w, g, v of all parameters -> w and v updated in place. `op` is the optimizer."""

    @classmethod
    def fits(cls, op: Any, *arrays: Any) -> bool:
        """Contiguous arrays of one dtype, with fewer elements than C's int allows."""
        dtype = arrays[0].dtype
        return dtype in REALS and all(
            x.dtype == dtype and x.flags.c_contiguous and x.size <= LARGEST - THREADS * ITEMS
            for x in arrays
        )

    def update_all(self, rows: list[Row]) -> None:
        for start in range(0, len(rows), MOST):
            _launch(rows[start : start + MOST], self.op.lr)


def _launch(rows: Sequence[Row], lr: float) -> None:
    table = np.zeros((), TABLE)  # host: handed over by value
    blocks = 0
    for entry, ((w, g, *velocity), group) in zip(table["tensor"], rows, strict=False):
        v = velocity[0] if velocity else None
        entry["w"], entry["g"], entry["v"] = (0 if x is None else address(x) for x in (w, g, v))
        entry["count"], entry["first_block"], entry["nesterov"] = w.size, blocks, group["nesterov"]
        entry["lr"], entry["decay"] = lr * group["lr_scale"], group["weight_decay"]
        entry["momentum"] = group["momentum"]
        blocks += -(-w.size // (THREADS * ITEMS))
    w = rows[0][0][0]
    settings: dict[str, Any] = {"MOST": MOST, "THREADS": THREADS, "ITEMS": ITEMS}
    rate = scalars(backend_of(w)).rate
    PROGRAM.launch(
        "sgd", blocks, THREADS, table[()], len(rows), rate, REAL=REALS[w.dtype], **settings
    )
