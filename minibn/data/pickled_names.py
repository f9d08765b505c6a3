"""What a pickle may name, and what its names stand for.

A pickle asks for NumPy's `_reconstruct`, `ndarray` and `dtype`. It gets the classes of this module,
which make arrays of plain numbers only, from bytes that are as many as the shape says.
"""

import math
import re
from typing import Any, TypeGuard

import numpy as np

MAX_DIMENSIONS = 32

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")  # dtypes of plain numbers


class Refused(Exception):
    """The pickle has an opcode, a name or a value that is not admitted."""


class Array:
    """In place of `ndarray` and for `_reconstruct(ndarray, (0,), b"b")`; filled by its state."""

    __slots__ = ("value",)

    def __init__(self, *arguments: object) -> None:
        self.value: np.ndarray | None = None

    def set_state(self, version: object, *state: Any) -> None:
        shape, dtype, fortran, data = state
        self.value = _array_of(data, dtype, shape, "F" if fortran else "C")


class _FromBuffer:
    """In place of `_frombuffer(data, dtype, shape, order, axes)`, NumPy's way in protocol 5."""

    def __new__(
        cls, data: object, dtype: object, shape: object, order: object, axes: Any = None
    ) -> Any:
        array = Array()
        array.value = _array_of(data, dtype, shape, order, axes)
        return array


class Dtype:
    """In place of `dtype`: keeps the code and the byte order, and admits numbers only."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *flags: object) -> None:
        self.code, self.order = text(code), "="
        if not _NUMBERS.fullmatch(self.code):
            raise Refused(f"an array of dtype {self.code!r:.100}, which is no plain number")

    def set_state(self, version: object, order: object, *rest: object) -> None:
        self.order = text(order)
        if self.order not in ("<", ">", "=", "|"):
            raise Refused(f"a dtype of byte order {self.order!r:.100}")

    def numbers(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Encode:
    """In place of `_codecs.encode(text, "latin1")`, and for `bytes()`: how Python 3 writes bytes
    in protocol 2."""

    def __new__(cls, content: object = "", encoding: object = "latin1") -> Any:
        if type(content) is not str or text(encoding) != "latin1":
            raise Refused("an encoding that is not latin1")
        return content.encode("latin1")


ADMITTED: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "bytes"): _Encode,
}


def _array_of(
    data: object, dtype: object, shape: object, order: object, axes: Any = None
) -> np.ndarray:
    """The array of this shape whose numbers stand in `data` in C or Fortran order; order "K": in C
    order, then its axes are permuted."""
    if type(dtype) is not Dtype or type(data) is not bytes or not _is_shape(shape):
        raise Refused("an array whose state is not (shape, dtype of numbers, bytes)")
    numbers, order = dtype.numbers(), text(order)
    if math.prod(shape) * numbers.itemsize != len(data):
        raise Refused(f"an array of shape {shape} and dtype {numbers} in {len(data)} bytes")
    flat = np.frombuffer(data, numbers)
    if order == "F":
        return flat.reshape(shape[::-1]).T
    if order == "K" and _is_shape(axes):
        return flat.reshape(shape).transpose(axes)
    if order != "C":
        raise Refused("an array in an order that is not C, F, or K with axes")
    return flat.reshape(shape)


def _is_shape(value: object) -> TypeGuard[tuple[int, ...]]:
    return (
        type(value) is tuple
        and len(value) <= MAX_DIMENSIONS
        and all(type(n) is int and n >= 0 for n in value)
    )


def text(key: object) -> str:
    """A string or bytes as a string. Raises Refused for anything else, which is never printed."""
    if type(key) is bytes:
        return key.decode("latin1")
    if type(key) is not str:
        raise Refused(f"a {type(key).__name__} where a string is expected")
    return key
