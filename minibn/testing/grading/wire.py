"""Messages between the grader and the process of a solution: JSON with arrays, never pickles.

A message is 16 digits (8 of the length of its JSON, 8 of the bytes after it), the JSON, and the
bytes of its arrays, to which the JSON refers. Reading one runs no code, whoever wrote it.
"""

from __future__ import annotations

import io
import json
from math import prod
from typing import Any, BinaryIO

import numpy as np

HEAD = 16
LONGEST = 2 * 10**8 // 4  # bytes of JSON, and of arrays, in one message
KINDS = "biufc"


class BadMessage(ValueError):
    """What arrived is no message."""


def pack(message: Any) -> bytes:
    """message: None, numbers, strings, lists, dicts with strings as keys, numeric arrays."""
    blobs: list[bytes] = []

    def plain(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            if x.dtype.kind not in KINDS:
                raise TypeError(f"an array of {x.dtype} is not numeric")
            blobs.append(np.ascontiguousarray(x).tobytes())
            return {"__array__": [x.dtype.newbyteorder("<").str, list(x.shape)]}
        if isinstance(x, np.generic):
            return plain(np.asarray(x))
        if isinstance(x, dict):
            return {str(key): plain(value) for key, value in x.items()}
        if isinstance(x, (list, tuple)):
            return [plain(value) for value in x]
        if x is None or isinstance(x, (bool, int, float, str)):
            return x
        raise TypeError(f"a {type(x).__name__} can't be sent")

    text = json.dumps(plain(message)).encode()
    data = b"".join(blobs)
    if max(len(text), len(data)) > LONGEST:
        raise TypeError(f"{len(data) + len(text)} bytes are too many: {LONGEST} at most")
    return b"%08d%08d" % (len(text), len(data)) + text + data


def copy(message: Any) -> Any:
    """The message as it arrives, where nothing is sent."""
    return read(io.BytesIO(pack(message)))


def read(stream: BinaryIO) -> Any:
    """The next message; EOFError at the end of the stream, BadMessage for anything else."""
    head = stream.read(HEAD)
    if not head:
        raise EOFError
    if len(head) < HEAD or not head.isdigit():
        raise BadMessage("no message begins here")
    sizes = int(head[:8]), int(head[8:])
    if max(sizes) > LONGEST:
        raise BadMessage("it is too long")
    text, data = (stream.read(size) for size in sizes)
    if (len(text), len(data)) != sizes:
        raise EOFError
    start = 0

    def whole(x: Any) -> Any:
        nonlocal start
        if isinstance(x, list):
            return [whole(value) for value in x]
        if not isinstance(x, dict):
            return x
        if set(x) != {"__array__"}:
            return {key: whole(value) for key, value in x.items()}
        dtype, shape = np.dtype(x["__array__"][0]), tuple(map(int, x["__array__"][1]))
        if dtype.kind not in KINDS or min(shape, default=0) < 0:
            raise BadMessage("an array that is not numeric")
        count = prod(shape)
        if start + count * dtype.itemsize > len(data):
            raise BadMessage("an array without its numbers")
        array = np.frombuffer(data, dtype, count, start).reshape(shape).copy()
        start += count * dtype.itemsize
        return array

    try:
        return whole(json.loads(text))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise BadMessage(str(error)) from None
