"""The files of a study: JSON objects, and streams of JSON lines, each with its step.

JSON has no infinity: a number that is not finite is written as null, and the reader chooses what
null stands for.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minibn import checkpoint
from minibn.errors import DataError


def read_json(path: Path, **needed: type) -> dict[str, Any]:
    """The JSON object of a file. needed: keys that it must have, with the type of their values.

    Raises DataError, in one line, if it can't be read, lacks a key, or has another type there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        if missing := [key for key in needed if key not in content]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for key, kind in needed.items():
            if type(content[key]) not in ((int, float) if kind is float else (kind,)):
                raise ValueError(f"its {key} can't be {json.dumps(content[key])[:60]}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} can't be read: {error}. Restore it, or start a new --out."
        ) from None
    return content


def write_json(path: Path, content: Any) -> None:
    checkpoint.write_text(path, json.dumps(content, indent=2) + "\n")


class Stream:
    """A file of JSON lines, each with its "step". Appends are buffered until `flush`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[str] = []

    def append(self, record: dict[str, Any]) -> None:
        self._lines.append(json.dumps(record) + "\n")

    def flush(self) -> None:
        """Write the lines to disk: before a checkpoint, so that none from before it is missing."""
        if self._lines:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
                file.flush()
                os.fsync(file.fileno())
            self._lines = []

    def cut(self, steps: int) -> None:
        """Drop what is not yet written, lines of step `steps` or later, and half a last line."""
        self.keep(lambda record: record["step"] < steps)

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop what is not yet written, lines that are not wanted, and half a last line."""
        self._lines = []
        if self.path.exists():
            lines = [json.dumps(r) + "\n" for r in read_lines(self.path) if wanted(r)]
            checkpoint.write_text(self.path, "".join(lines))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a stream; an incomplete last line, left by a kill, is skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
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
