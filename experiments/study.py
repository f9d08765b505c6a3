"""Studies and runs: results are files.

    STUDY/
      study.json                     the settings
      runs/batchnorm-lr0.1-seed0/
        config.json                  settings, versions, device, threads, commit, data hash
        metrics.jsonl ...            one line a step; one file per recorder, nothing from the clock
        timings.jsonl                what the clock said
        checkpoint/latest.npz        everything the run needs to continue bit for bit
        result.json                  written when the run is done or has diverged
      figures/, table.md             drawn from the files by a separate step

A run may be killed at any moment: lines after the last checkpoint are cut when it continues.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import minibn
from experiments.command_line import UsageError
from minibn import checkpoint
from minibn.errors import DataError


def read_json(path: Path) -> Any:
    """The JSON of a file. Raises DataError, in one line, if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Restore it, or start a new --out.") from None


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
        """Bring the lines to disk: before a checkpoint, so that it never promises more."""
        if self._lines:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
                file.flush()
                os.fsync(file.fileno())
            self._lines = []

    def cut(self, steps: int) -> None:
        """Drop what is not yet written, lines of step `steps` or later, and half a last line."""
        self._lines = []
        if self.path.exists():
            kept = [json.dumps(r) + "\n" for r in read_lines(self.path) if r["step"] < steps]
            checkpoint.write_text(self.path, "".join(kept))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a stream; an incomplete last line, left by a kill, is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise DataError(f"{path} holds a line that is not JSON: {line[:60]!r}") from None


class Run:
    """One training: a folder and its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self._streams: dict[str, Stream] = {}

    @property
    def config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")

    @property
    def result(self) -> dict[str, Any] | None:
        path = self.folder / "result.json"
        return read_json(path) if path.exists() else None

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint" / "latest.npz"

    def stream(self, name: str) -> Stream:
        """The stream NAME.jsonl of this run."""
        return self._streams.setdefault(name, Stream(self.folder / f"{name}.jsonl"))

    def records(self, name: str) -> list[dict[str, Any]]:
        """What stream NAME.jsonl holds."""
        return list(read_lines(self.folder / f"{name}.jsonl"))

    def begin(self, config: dict[str, Any]) -> None:
        self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", config)

    def save(self, step: int, states: dict[str, Any]) -> None:
        """A checkpoint after `step` steps: first the lines up to it, then the state."""
        for stream in self._streams.values():
            stream.flush()
        checkpoint.save(self.checkpoint_path, {"step": step, "run": self.name}, states)

    def restore(self) -> tuple[int, dict[str, Any] | None]:
        """(steps done, states) of the last checkpoint, or (0, None); later lines are cut."""
        step, states = 0, None
        if self.checkpoint_path.exists():
            manifest, states = checkpoint.load(self.checkpoint_path)
            step = int(manifest["step"])
        for path in self.folder.glob("*.jsonl"):
            self.stream(path.stem).cut(step)
        return step, states

    def finish(self, result: dict[str, Any]) -> None:
        for stream in self._streams.values():
            stream.flush()
        write_json(self.folder / "result.json", result)


class Study:
    """A folder of runs that share settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, experiment: str, settings: dict[str, Any]) -> Study:
        """A new study. Raises UsageError if the folder holds one already or can't be written."""
        if (folder / "study.json").exists():
            raise UsageError(
                f"--out {folder} holds a study already. Continue it with --resume {folder}, or "
                "choose another folder."
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"--out {folder} is not an empty folder. Choose another.")
        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            write_json(folder / "study.json", {"experiment": experiment, "settings": settings})
        except OSError as error:
            raise UsageError(
                f"--out {folder} can't be written: {error.strerror}. Choose another folder."
            ) from None
        return cls(folder)

    @classmethod
    def open(cls, folder: Path, experiment: str) -> Study:
        if not (folder / "study.json").exists():
            raise UsageError(f"--resume {folder}: there is no study (no study.json in that folder).")
        study = cls(folder)
        if study._content.get("experiment") != experiment:
            raise UsageError(f"--resume {folder} is a study of {study._content.get('experiment')}.")
        return study

    @property
    def _content(self) -> dict[str, Any]:
        return read_json(self.folder / "study.json")

    @property
    def settings(self) -> dict[str, Any]:
        return self._content["settings"]

    def change(self, **settings: Any) -> None:
        content = self._content
        content["settings"].update(settings)
        write_json(self.folder / "study.json", content)

    def run(self, name: str) -> Run:
        return Run(self.folder / "runs" / name)

    def runs(self) -> list[Run]:
        """The runs that have begun, by name."""
        return [Run(p.parent) for p in sorted(self.folder.glob("runs/*/config.json"))]


def default_folder(experiment: str) -> Path:
    return Path("runs") / experiment / time.strftime("%Y%m%d-%H%M%S")


@functools.cache
def commit() -> str:
    """The commit of the source, with "+changes" if files differ; "unknown" outside a checkout."""
    here = Path(minibn.__file__).parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(backend: Any, threads: int) -> dict[str, Any]:
    """What a run's result may depend on beside its settings."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "minibn": metadata.version("minibn"),
        "commit": commit(),
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": threads,
        **backend.describe(),
    }
