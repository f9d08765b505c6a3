"""Tensors among Python's functions: float(loss), if loss, f"{loss:.3f}".

Only a Tensor with one value is a number; another raises TypeError, which says what to do instead.
"""

from __future__ import annotations

from typing import Any

from minibn.autograd.array_attributes import ArrayAttributes


class PythonProtocol(ArrayAttributes):
    """The part of Tensor that Python's built-in functions call."""

    __slots__ = ()

    def _number(self, what: str) -> Any:
        if self.size != 1:
            raise TypeError(
                f"{what} needs a Tensor with one value, this one has shape {self.shape}. Reduce "
                "it, as with .sum(), .max() or (x > 0).all(), or take .numpy()."
            )
        return self.item()

    def __bool__(self) -> bool:
        return bool(self._number("the truth value (of if, and, not)"))

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __int__(self) -> int:
        return int(self._number("int()"))

    def __complex__(self) -> complex:
        return complex(self._number("complex()"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"an index is an integer; this Tensor is of {self.dtype}.")
        return int(self._number("an index"))

    def __format__(self, spec: str) -> str:
        """A Tensor without axes is formatted as its number, as in f"{loss:.3f}"."""
        if self.ndim and spec:
            raise TypeError(
                f"a Tensor of shape {self.shape} can't be formatted with {spec!r}: only one "
                "without axes, as a loss. Take .item() of an element, or .numpy()."
            )
        return repr(self) if self.ndim else format(self.item(), spec)
