"""The running statistics of a norm, moved in one launch instead of six.

They are short vectors, so a launch costs more than what it does. The rule is that of
`nn.RunningStatistics.take_in`, operation by operation: the same bits.
"""

from __future__ import annotations

from typing import Any

from minibn.backend.cuda.program import REALS, Program
from minibn.backend.kernels import Kernel

PROGRAM = Program("running")
THREADS = 128


class FusedTakeIn(Kernel):
    """Two statistics of a norm, in place. `op` is the layer."""

    @classmethod
    def fits(cls, op: Any, *arrays: Any) -> bool:
        """Whether it is two statistics, each with its new value, all alike."""
        dtype, shape = arrays[0].dtype, arrays[0].shape
        return (
            len(arrays) == 4
            and dtype in REALS
            and all(x.dtype == dtype and x.shape == shape for x in arrays)
            and all(x.flags.c_contiguous for x in arrays)
        )

    def move(self, weight: float, *arrays: Any) -> None:
        """arrays: a statistic, its new value, the other statistic, its new value."""
        kept = arrays[0]
        PROGRAM.launch(
            "take_in", -(-kept.size // THREADS), THREADS, *arrays, 1 - weight, float(weight),
            kept.size, REAL=REALS[kept.dtype],
        )  # fmt: skip
