"""Reading a pickle of plain data and arrays without running code from it.

A pickle is a program: it names callables, and loading calls them. Here a name is looked up in a
short table, and its entries are classes of this module: NumPy's `_reconstruct`, `ndarray` and
`dtype` are not accessible to the pickle, so it can create neither an object array nor an arbitrary
dtype. The accepted content is that of CIFAR's files: dicts, lists, bytes, strings, numbers, and
arrays of numbers, written by Python 2 (protocol 2, strings read as bytes) or by Python 3.
"""

import io
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np

from minibn.errors import DataError

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")  # dtypes of plain numbers
_LENGTHS = {"PUT", "BINPUT", "LONG_BINPUT", "FRAME"}  # opcodes whose argument allocates memory


def load_dict(data: bytes, source: str) -> dict[str, Any]:
    """The dict that the pickle `data` holds, its keys as strings, its arrays as ndarrays.

    `source` names the file in errors. Raises DataError for a pickle that is damaged, that is no
    dict, or that names anything but arrays.

    >>> load_dict(pickle.dumps({b"labels": [3, 1], "data": np.zeros(2, "u1")}), "a file")
    {'labels': [3, 1], 'data': array([0, 0], dtype=uint8)}
    >>> load_dict(pickle.dumps({"f": print}), "a file")
    Traceback (most recent call last):
        ...
    minibn.errors.DataError: a file: hostile pickle: it asks for builtins.print, and only \
arrays, bytes, strings, numbers, lists and dicts are admitted
    """
    try:
        _check_lengths(data)
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        _check_plain(value)
    except _Refused as error:
        raise DataError(f"{source}: hostile pickle: {error}") from None
    except Exception as error:  # damaged bytes can raise any error
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise DataError(f"{source}: damaged pickle ({reason})") from error
    if type(value) is not dict:
        raise DataError(f"{source}: expected a pickled dict, found a {type(value).__name__}")
    return {_text(key): _array(item) for key, item in value.items()}


def _check_plain(value: Any) -> None:
    """Refuse keys that are no strings, and integers of more than 64 bits: printing one can take
    very long, and CIFAR's files hold none. Iterative: nesting may be deeper than the stack."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if not all(type(key) in (str, bytes) for key in item):
                raise _Refused("a dict whose keys are not strings")
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, int) and item.bit_length() > 64:
            raise _Refused(f"an integer of {item.bit_length()} bits")


class _Refused(Exception):
    """The pickle has a name or a value that is not admitted."""


class _Array:
    """In place of `ndarray` and for `_reconstruct(ndarray, (0,), b"b")`; filled by its state."""

    __slots__ = ("value",)

    def __init__(self, *arguments: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _Dtype or type(data) is not bytes or type(shape) is not tuple:
            raise _Refused("an array whose state is not (shape, dtype of numbers, bytes)")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise _Refused(f"an array of shape {shape!r}")
        numbers = dtype.numbers()
        if math.prod(shape) * numbers.itemsize != len(data):
            raise _Refused(f"an array of shape {shape} and dtype {numbers} in {len(data)} bytes")
        flat = np.frombuffer(data, numbers)
        self.value = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


class _Dtype:
    """In place of `dtype`: keeps the code and the byte order, and admits numbers only."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *flags: object) -> None:
        self.code, self.order = _text(code), "="
        if not _NUMBERS.fullmatch(self.code):
            raise _Refused(f"an array of dtype {self.code!r}, which is no plain number")

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])
        if self.order not in ("<", ">", "=", "|"):
            raise _Refused(f"a dtype of byte order {self.order!r}")

    def numbers(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Encode:
    """In place of `_codecs.encode(text, "latin1")`, and for `bytes()`: how Python 3 writes bytes
    in protocol 2."""

    def __new__(cls, text: object = "", encoding: object = "latin1") -> Any:
        if type(text) is not str or _text(encoding) != "latin1":
            raise _Refused(f"an encoding {encoding!r}")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise _Refused("a state for a function")


# All are classes with a __setstate__: the pickle's BUILD can set no attribute on them.
_ADMITTED: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "bytes"): _Encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(
                f"it asks for {module}.{name}, and only arrays, bytes, strings, numbers, "
                "lists and dicts are admitted"
            ) from None


def _check_lengths(data: bytes) -> None:
    """Refuse an opcode that would allocate more bytes than the whole file has."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _LENGTHS and int(argument or 0) > len(data):
            raise _Refused(f"{opcode.name} {argument} in a file of {len(data)} bytes")


def _text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("latin1")
    return str(key)


def _array(item: object) -> object:
    return item.value if type(item) is _Array else item
