"""The update of a norm's running statistics in one launch instead of six.

They are short vectors, so the cost is that of the launches. The operations are those of
`nn.RunningStatistics.average` in the same order: results are bitwise equal.
"""

from __future__ import annotations

from typing import Any

from minibn.fast.cuda.program import REALS, Program
from minibn.fast.kernel import Kernel

PROGRAM = Program("running_statistics")
THREADS = 128


class FusedRunningStatistics(Kernel):
    """Two statistics of a norm, in place. `op` is the layer."""

    @classmethod
    def fits(cls, op: Any, *arrays: Any) -> bool:
        """Two statistics, each with its new value, of one shape and dtype, contiguous."""
        dtype, shape = arrays[0].dtype, arrays[0].shape
        return (
            len(arrays) == 4
            and dtype in REALS
            and all(x.dtype == dtype and x.shape == shape for x in arrays)
            and all(x.flags.c_contiguous for x in arrays)
        )

    def average(self, weight: float, pairs: list[tuple[Any, Any]]) -> None:
        """As `RunningStatistics.average`, of two statistics."""
        arrays = [array for pair in pairs for array in pair]
        kept = arrays[0]
        PROGRAM.launch(
            "average", -(-kept.size // THREADS), THREADS, *arrays, 1 - weight, float(weight),
            kept.size, REAL=REALS[kept.dtype],
        )  # fmt: skip
