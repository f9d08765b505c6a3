"""Reading a pickle of plain data and arrays without running code from it.

A pickle is a program for a machine with a stack: it names callables, and loading calls them.
`_run` is that machine, for the opcodes that plain data need; what may be named stands in
`pickled_names`. The machine does not hash, compare or print a container: of one that holds itself,
or the same one twice at each of sixty levels, none of these ends. It takes time and memory in
proportion to the file.

The accepted content is that of CIFAR's files: dicts, lists, bytes, strings, numbers, and arrays
of numbers, written by Python 2 (protocol 2, strings read as bytes) or by Python 3 (up to protocol
5). `pickle` itself is not used; `pickletools` decodes one opcode after the other.
"""

import pickletools
import warnings
from typing import Any

from minibn.data.pickled_names import ADMITTED, Array, Dtype, Refused, text
from minibn.errors import DataError

MAX_OPCODES = 150_000  # a file of CIFAR-10 has 40,000; these take a fifth of a second
MAX_ITEMS = 150_000  # of the nested lists and dicts, each counted as often as it is reached
MAX_DEPTH = 10  # CIFAR's: 2, a list in a dict


def load_dict(data: bytes, source: str) -> dict[str, Any]:
    """The dict that the pickle `data` holds, its keys as strings, its arrays as ndarrays.

    `source` names the file in errors. Raises DataError, within about a second and in memory of
    about `data`'s size, for a pickle that is damaged, that is no dict, that names anything but
    arrays, that holds itself or is nested deeper than MAX_DEPTH, or that has more than MAX_OPCODES.

    >>> import pickle, numpy as np
    >>> load_dict(pickle.dumps({b"labels": [3, 1], "data": np.zeros(2, "u1")}), "a file")
    {'labels': [3, 1], 'data': array([0, 0], dtype=uint8)}
    >>> load_dict(pickle.dumps({"f": print}), "a file")
    Traceback (most recent call last):
        ...
    minibn.errors.DataError: a file: hostile pickle: it asks for builtins.print, and only \
arrays, bytes, strings, numbers, lists and dicts are admitted
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of an escape in a string
            value = _run(data)
        if type(value) is not dict:
            raise DataError(f"{source}: expected a pickled dict, found a {type(value).__name__}")
        _check_nesting(value)
        content = {text(key): _array(item) for key, item in value.items()}
        if len(content) < len(value):
            raise Refused("a dict with the same key as a string and as bytes")
    except Refused as error:
        raise DataError(f"{source}: hostile pickle: {' '.join(str(error).split())}") from None
    except DataError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{source}: damaged pickle ({reason:.200})") from error
    return content


def _run(data: bytes) -> Any:
    """What the pickle leaves on its stack. Raises Refused, or any error for damaged bytes."""
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack
    budget = 4 * len(data) + 1000  # bytes given to calls, each of which may copy them
    memo: dict[int, Any] = {}
    argument: Any

    def above_mark() -> list[Any]:
        height = marks.pop()
        above = stack[height:]
        del stack[height:]
        return above

    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if budget < 0:
            raise Refused("the same bytes in very many calls")
        if count == MAX_OPCODES:
            raise Refused(f"over {MAX_OPCODES:,} opcodes, a file of CIFAR-10 has 40,000")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                if argument.bit_length() > 64:  # printing a long one can take very long
                    raise Refused(f"an integer of {argument.bit_length()} bits")
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
                budget -= _bytes_of(arguments)
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                budget -= _bytes_of(state)
                _set_state(stack[-1], state)
            case "STOP":
                (value,) = stack
                return value
            case name:
                raise Refused(f"the opcode {name}, which plain data do not need")
    raise AssertionError("genops raises ValueError if there is no STOP")


def _extend(target: object, items: list[Any]) -> None:
    if type(target) is not list:
        raise Refused(f"an item is appended to a {type(target).__name__}")
    target += items


def _set_items(target: object, items: list[Any]) -> None:
    """Keys and values by turns. A key is checked before it is hashed."""
    if type(target) is not dict:
        raise Refused(f"a key is set in a {type(target).__name__}")
    if not all(type(key) in (str, bytes) for key in items[::2]):
        raise Refused("a dict whose keys are not strings")
    target |= zip(items[::2], items[1::2], strict=True)


def _bytes_of(arguments: object) -> int:
    if type(arguments) is not tuple:
        raise Refused(f"a call or a state with a {type(arguments).__name__}, not a tuple")
    return len(arguments) + sum(len(item) for item in arguments if type(item) in (str, bytes))


def _call(function: object, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(function, type):
        raise Refused(f"a {type(function).__name__} is called")
    return function(*arguments)  # a class of `pickled_names`: nothing else comes from _admitted


def _set_state(target: object, state: tuple[Any, ...]) -> None:
    if not isinstance(target, (Array, Dtype)):
        raise Refused(f"a state for a {type(target).__name__}")
    target.set_state(*state)


def _admitted(module: object, name: object) -> type:
    if type(module) is not str or type(name) is not str:
        raise Refused("a name that is no string")
    try:
        return ADMITTED[module, name]
    except KeyError:
        raise Refused(
            f"it asks for {module:.100}.{name:.100}, and only arrays, bytes, strings, numbers, "
            "lists and dicts are admitted"
        ) from None


def _check_nesting(value: Any) -> None:
    """Refuse a value that could not be printed, since it holds itself, or the same list so often
    that it has very many items; and what is neither plain data nor an array in the outer dict."""
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise Refused(f"lists or dicts nested more than {MAX_DEPTH} deep, or in themselves")
        if count + len(waiting) > MAX_ITEMS:
            raise Refused(f"over {MAX_ITEMS:,} items in its lists and dicts")
        if isinstance(item, (list, tuple, dict)):
            inner = item.values() if isinstance(item, dict) else item
            waiting += ((one, depth + 1) for one in inner)
        elif type(item) is Array:
            if depth != 1 or item.value is None:
                raise Refused("an array without numbers, or inside a list")
        elif item is not None and type(item) not in (bool, int, float, str, bytes):
            raise Refused(f"a {type(item).__name__} as a value")


def _array(item: object) -> object:
    return item.value if type(item) is Array else item
