"""What a Tensor takes over from its array: shape, dtype and sizes, and its values on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import to_numpy

Array = Any  # an array of any backend: NumPy, CuPy or the strict double


class ArrayAttributes:
    """The attributes of `data`, by NumPy's names and PyTorch's."""

    __slots__ = ()
    data: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return self.size

    # -- on the host
    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the same memory on NumPy, a transfer on a GPU."""
        return to_numpy(self.data)

    def item(self) -> float:
        """The value of a Tensor with one element as a Python number (a transfer on a GPU)."""
        return self.data.item()

    def tolist(self) -> Any:
        """The values as (nested lists of) Python numbers (a transfer on a GPU)."""
        return self.numpy().tolist()
