"""Reading a pickle of plain data and arrays without running code from it.

A pickle is a program for a machine with a stack: it names callables, and loading calls them.
`_run` is that machine for the opcodes that plain data need, and knows six callables, which are this
module's: the pickle can create neither an object array nor an arbitrary dtype, and no other name is
looked up. It does not hash, compare or print a container, since of one that holds itself, or the
same one twice at each of sixty levels, none of these ends. Each opcode costs about as much as its
bytes in the file, and there are at most MAX_OPCODES.

The accepted content is that of CIFAR's files: dicts, lists, bytes, strings, numbers, and arrays
of numbers, written by Python 2 (protocol 2, strings read as bytes) or by Python 3 (up to protocol
5). Of the two modules of `pickle`, only `pickletools` is used, which decodes one opcode after the
other.
"""

import math
import pickletools
import re
from typing import Any, TypeGuard

import numpy as np

from minibn.errors import DataError

MAX_OPCODES = 300_000  # a file of CIFAR-10 has 40,000; these take about half a second
MAX_ITEMS = 300_000  # of the nested lists and dicts, each counted as often as it is reached
MAX_DEPTH = 10  # CIFAR's: 2, a list in a dict
MAX_DIMENSIONS = 32

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")  # dtypes of plain numbers


def load_dict(data: bytes, source: str) -> dict[str, Any]:
    """The dict that the pickle `data` holds, its keys as strings, its arrays as ndarrays.

    `source` names the file in errors. Raises DataError, within about a second and in memory of
    about `data`'s size, for a pickle that is damaged, that is no dict, that names anything but
    arrays, that holds itself or is nested deeper than MAX_DEPTH, or that has more than MAX_OPCODES.

    >>> import pickle
    >>> load_dict(pickle.dumps({b"labels": [3, 1], "data": np.zeros(2, "u1")}), "a file")
    {'labels': [3, 1], 'data': array([0, 0], dtype=uint8)}
    >>> load_dict(pickle.dumps({"f": print}), "a file")
    Traceback (most recent call last):
        ...
    minibn.errors.DataError: a file: hostile pickle: it asks for builtins.print, and only \
arrays, bytes, strings, numbers, lists and dicts are admitted
    """
    try:
        value = _run(data)
        if type(value) is not dict:
            raise DataError(f"{source}: expected a pickled dict, found a {type(value).__name__}")
        _check_nesting(value)
        content = {_text(key): _array(item) for key, item in value.items()}
        if len(content) < len(value):
            raise _Refused("a dict with the same key as a string and as bytes")
    except _Refused as error:
        raise DataError(f"{source}: hostile pickle: {error}") from None
    except DataError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise DataError(f"{source}: damaged pickle ({reason:.200})") from error
    return content


def _run(data: bytes) -> Any:
    """What the pickle leaves on its stack. Raises _Refused, or any error for damaged bytes."""
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack
    memo: dict[int, Any] = {}
    argument: Any

    def above_mark() -> list[Any]:
        height = marks.pop()
        above = stack[height:]
        del stack[height:]
        return above

    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count == MAX_OPCODES:
            raise _Refused(f"over {MAX_OPCODES:,} opcodes, a file of CIFAR-10 has 40,000")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                if argument.bit_length() > 64:  # printing a long one can take very long
                    raise _Refused(f"an integer of {argument.bit_length()} bits")
                stack.append(argument)
            case "FLOAT" | "BINFLOAT" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "BYTEARRAY8":
                stack.append(bytes(argument))
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":  # Python 2's str
                stack.append(argument.encode("latin1"))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(items[::-1]))
            case "MARK":
                marks.append(len(stack))
            case "LIST":
                stack.append(above_mark())
            case "TUPLE":
                stack.append(tuple(above_mark()))
            case "DICT":
                items = above_mark()
                stack.append({})
                _set_items(stack[-1], items)
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "APPENDS":
                items = above_mark()
                _extend(stack[-1], items)
            case "SETITEM":
                items = [stack.pop(-2), stack.pop()]
                _set_items(stack[-1], items)
            case "SETITEMS":
                items = above_mark()
                _set_items(stack[-1], items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_admitted(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_admitted(stack.pop(), name))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                _set_state(stack[-1], state)
            case "STOP":
                (value,) = stack
                return value
            case name:
                raise _Refused(f"the opcode {name}, which plain data do not need")
    raise AssertionError("genops raises ValueError if there is no STOP")


def _extend(target: object, items: list[Any]) -> None:
    if type(target) is not list:
        raise _Refused(f"an item is appended to a {type(target).__name__}")
    target += items


def _set_items(target: object, items: list[Any]) -> None:
    """Keys and values by turns. A key is checked before it is hashed."""
    if type(target) is not dict:
        raise _Refused(f"a key is set in a {type(target).__name__}")
    if not all(type(key) in (str, bytes) for key in items[::2]):
        raise _Refused("a dict whose keys are not strings")
    target |= zip(items[::2], items[1::2], strict=True)


def _call(function: object, arguments: object) -> Any:
    if type(arguments) is not tuple or not isinstance(function, type):
        raise _Refused(f"a {type(function).__name__} is called")
    return function(*arguments)  # a class of this module: nothing else comes from _admitted


def _set_state(target: object, state: object) -> None:
    if not isinstance(target, (_Array, _Dtype)) or type(state) is not tuple:
        raise _Refused(f"a state for a {type(target).__name__}")
    target.set_state(*state)


def _admitted(module: object, name: object) -> type:
    if type(module) is not str or type(name) is not str:
        raise _Refused("a name that is no string")
    try:
        return _ADMITTED[module, name]
    except KeyError:
        raise _Refused(
            f"it asks for {module:.100}.{name:.100}, and only arrays, bytes, strings, numbers, "
            "lists and dicts are admitted"
        ) from None


def _check_nesting(value: Any) -> None:
    """Refuse a value that a reader could not print: one that holds itself, or holds the same list
    so often that it has very many items."""
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise _Refused(f"lists or dicts nested more than {MAX_DEPTH} deep, or in themselves")
        if count + len(waiting) > MAX_ITEMS:
            raise _Refused(f"over {MAX_ITEMS:,} items in its lists and dicts")
        if isinstance(item, (list, tuple, dict)):
            inner = item.values() if isinstance(item, dict) else item
            waiting += ((one, depth + 1) for one in inner)


class _Refused(Exception):
    """The pickle has an opcode, a name or a value that is not admitted."""


class _Array:
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
        array = _Array()
        array.value = _array_of(data, dtype, shape, order, axes)
        return array


class _Dtype:
    """In place of `dtype`: keeps the code and the byte order, and admits numbers only."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *flags: object) -> None:
        self.code, self.order = _text(code), "="
        if not _NUMBERS.fullmatch(self.code):
            raise _Refused(f"an array of dtype {self.code!r:.100}, which is no plain number")

    def set_state(self, version: object, order: object, *rest: object) -> None:
        self.order = _text(order)
        if self.order not in ("<", ">", "=", "|"):
            raise _Refused(f"a dtype of byte order {self.order!r:.100}")

    def numbers(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Encode:
    """In place of `_codecs.encode(text, "latin1")`, and for `bytes()`: how Python 3 writes bytes
    in protocol 2."""

    def __new__(cls, text: object = "", encoding: object = "latin1") -> Any:
        if type(text) is not str or _text(encoding) != "latin1":
            raise _Refused("an encoding that is not latin1")
        return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "bytes"): _Encode,
}


def _array_of(
    data: object, dtype: object, shape: object, order: object, axes: Any = None
) -> np.ndarray:
    """The array of this shape whose numbers stand in `data` in C or Fortran order; order "K": in C
    order, then its axes are permuted."""
    if type(dtype) is not _Dtype or type(data) is not bytes or not _is_shape(shape):
        raise _Refused("an array whose state is not (shape, dtype of numbers, bytes)")
    numbers, order = dtype.numbers(), _text(order)
    if math.prod(shape) * numbers.itemsize != len(data):
        raise _Refused(f"an array of shape {shape} and dtype {numbers} in {len(data)} bytes")
    flat = np.frombuffer(data, numbers)
    if order == "F":
        return flat.reshape(shape[::-1]).T
    if order == "K" and _is_shape(axes):
        return flat.reshape(shape).transpose(axes)
    if order != "C":
        raise _Refused("an array in an order that is not C, F, or K with axes")
    return flat.reshape(shape)


def _is_shape(value: object) -> TypeGuard[tuple[int, ...]]:
    return (
        type(value) is tuple
        and len(value) <= MAX_DIMENSIONS
        and all(type(n) is int and n >= 0 for n in value)
    )


def _text(key: object) -> str:
    """A string or bytes as a string. Raises _Refused for anything else, which is never printed."""
    if type(key) is bytes:
        return key.decode("latin1")
    if type(key) is not str:
        raise _Refused(f"a {type(key).__name__} where a string is expected")
    return key


def _array(item: object) -> object:
    return item.value if type(item) is _Array else item
