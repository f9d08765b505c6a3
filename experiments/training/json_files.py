"""The files of a study: JSON objects, and streams of JSON lines, each with its step.

JSON has no infinity: a number that is not finite is written as null, and the reader chooses what
null stands for.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minibn import checkpoint
from minibn.errors import DataError

DIGEST = "sha256"  # the key of a sealed file's digest


def read_json(path: Path, **needed: type) -> dict[str, Any]:
    """The JSON object of a file. needed: keys that it must have, with the type of their values.

    Raises DataError, in one line, if it can't be read, has another content than its SHA-256 says
    (where `write_json` wrote one), lacks a key, or has another type there.
    """
    try:
        checkpoint.require_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        if missing := [key for key in needed if key not in content]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for key, kind in needed.items():
            if type(content[key]) not in ((int, float) if kind is float else (kind,)):
                raise ValueError(f"its {key} can't be {json.dumps(content[key])[:60]}")
        if content.pop(DIGEST, None) not in (None, _digest_of(content)):
            raise ValueError("it was changed: its SHA-256 is not the one that it states")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} can't be read: {error}. Restore it, or start a new --out."
        ) from None
    return content


def write_json(path: Path, content: dict[str, Any], *, sealed: bool = False) -> None:
    """Write a JSON object atomically. sealed: with its SHA-256, by which `read_json` notices every
    change."""
    if sealed:
        content = {**content, DIGEST: _digest_of(content)}
    checkpoint.write_text(path, json.dumps(content, indent=2) + "\n")


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Stream:
    """A file of JSON lines, each with its "step". Appends are buffered until `flush`.

    `written` says what was flushed, as {"bytes": length, "sha256": digest}. It stands in each
    checkpoint, so that `check_stream` notices every change of the file since.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[tuple[int, str]] = []  # (step, line)
        self._bytes = path.stat().st_size if path.exists() else 0
        self._digest = _digest(path, self._bytes)

    def append(self, record: dict[str, Any]) -> None:
        self._lines.append((record["step"], json.dumps(record) + "\n"))

    def flush(self) -> None:
        """Write the lines to disk: before a checkpoint, so that none from before it is missing.

        Raises DataError, and writes nothing, if the file is not as long as this process left it.
        """
        if not self._lines:
            return
        content = "".join(line for _, line in self._lines).encode()
        with self.path.open("ab") as file:
            if file.seek(0, os.SEEK_END) != self._bytes:
                raise DataError(
                    f"{self.path} was changed by another process, so nothing more is written. "
                    "Continue with --resume when that has ended."
                )
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not self._bytes:
            checkpoint.sync_folder(self.path.parent)  # a new file
        self._bytes += len(content)
        self._digest.update(content)
        self._lines = []

    def drop(self, step: int) -> None:
        """Drop what is not yet written of step `step` or later."""
        self._lines = [(at, line) for at, line in self._lines if at < step]

    @property
    def written(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def cut(self, written: dict[str, Any]) -> None:
        """Go back to what was `written`: drop all that follows in the file."""
        os.truncate(self.path, written["bytes"])
        self._lines, self._bytes = [], written["bytes"]
        self._digest = _digest(self.path, self._bytes)


def check_stream(path: Path, written: dict[str, Any], by: Path, *, whole: bool = False) -> None:
    """Raise DataError unless the file begins with what was `written` (with `whole`: is just that).

    written: as of `Stream.written`; by: the file it was read from, for the message.
    """
    remedy = f"Restore it, or delete {path.parent} and train that run again."
    if not path.is_file():
        raise DataError(f"{path} is missing, and {by} has its SHA-256. {remedy}")
    size, expected = path.stat().st_size, written["bytes"]
    if size < expected or (whole and size > expected):
        raise DataError(f"{path} is damaged: it has {size} of {expected} bytes. {remedy}")
    if _digest(path, expected).hexdigest() != written["sha256"]:
        raise DataError(f"{path} is damaged: its SHA-256 is not the one in {by}. {remedy}")


def _digest(path: Path, size: int) -> Any:
    """SHA-256 of the first `size` bytes of a file, to which more can be added."""
    digest = hashlib.sha256()
    if size:
        with path.open("rb") as file:
            while size and (block := file.read(min(size, 1 << 20))):
                digest.update(block)
                size -= len(block)
    return digest


def read_lines(path: Path, size: int | None = None) -> Iterator[dict[str, Any]]:
    """The records of a stream, or of its first `size` bytes; an incomplete last line, left by a
    kill, is skipped."""
    if not path.exists():
        return
    checkpoint.require_regular(path)
    with path.open("rb") as file:
        for line in file if size is None else io.BytesIO(file.read(size)):
            if line.endswith(b"\n"):
                try:
                    record = json.loads(line)
                    record["step"] + 0
                except (ValueError, TypeError, KeyError, RecursionError):
                    raise DataError(
                        f"{path} is damaged: {line[:60]!r} is no record of a step. "
                        f"Restore it, or delete {path.parent} and train that run again."
                    ) from None
                yield record


def json_number(x: Any, digits: int = 7) -> float | None:
    """A number for a record, to `digits` significant digits; None (null) if it is not finite."""
    x = float(x)
    return float(f"{x:.{digits}g}") if math.isfinite(x) else None


def json_numbers(values: Iterable[Any]) -> list[float | None]:
    """`json_number` of each."""
    return [json_number(x) for x in values]


def float_array(values: Sequence[float | None], null: float) -> np.ndarray:
    """The numbers of a record as floats. null: what stands for those that were not finite or not
    defined, which the file has as null (or NaN): infinity, say, for a loss, NaN for a cosine."""
    numbers = np.array([np.nan if x is None else x for x in values], np.float64)
    return np.where(np.isnan(numbers), null, numbers)
