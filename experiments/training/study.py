"""Studies and runs: results are files.

    STUDY/
      study.json                     the settings
      .lock                          while a process trains it: the process's id
      runs/batchnorm-lr0.1-seed0/
        config.json                  settings, versions, device, threads, commit, data hash
        metrics.jsonl ...            one line a step; one file per recorder, without times
        timings.jsonl                seconds from checkpoint to checkpoint
        checkpoint/latest.npz        everything the run needs to continue bit for bit
        result.json                  written when the run is done or has diverged
      figures/, table.md             plotted from the files by a separate step

A run may be killed at any moment: lines after the last checkpoint are cut when it continues.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minibn
from experiments.training.command_line import UsageError
from experiments.training.json_files import Stream, read_json, read_lines, write_json
from experiments.training.study_lock import lock_study
from minibn import checkpoint
from minibn.errors import DataError
from minibn.fast.cuda.cudnn import is_preferred


def steps_of(manifest: dict[str, Any], path: Path) -> int:
    """The steps done before a run's checkpoint. Raises DataError if its manifest lacks them."""
    step = manifest.get("step")
    if type(step) is not int or step < 0:
        raise DataError(f"checkpoint {path} is no run's: its manifest has no step. Restore it.")
    return step


@dataclass(frozen=True)
class Place:
    """Which run of a study it is, and the steps of the runs after it: for the progress line."""

    number: int = 1
    runs: int = 1
    steps_after: int = 0

    def __str__(self) -> str:
        return f"run {self.number} of {self.runs}"


class Run:
    """One training: a folder and its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.place = Place()
        self._streams: dict[str, Stream] = {}

    @property
    def config(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        content = read_json(
            path, variant=str, lr=float, seed=int, settings=dict, data_fingerprint=str,
            environment=dict,
        )  # fmt: skip
        for part, keys in (("environment", {"threads"}), ("settings", {"kernels", "precision"})):
            if lacking := sorted(keys - set(content[part])):
                raise DataError(
                    f"{path} is damaged: its {part} lacks {', '.join(lacking)}. Restore it."
                )
        return content

    @property
    def result(self) -> dict[str, Any] | None:
        path = self.folder / "result.json"
        if not path.exists():
            return None
        diverged = read_json(path, status=str)["status"] == "diverged"
        return read_json(path, step=int) if diverged else read_json(path, steps=int)

    def final_result(self, steps: int) -> dict[str, Any] | None:
        """The result of a run that diverged or has done all its steps, else None."""
        result = self.result if self.has_begun else None
        if result and (result["status"] == "diverged" or result["steps"] >= steps):
            return result
        return None

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint" / "latest.npz"

    def stream(self, name: str) -> Stream:
        """The stream NAME.jsonl of this run."""
        return self._streams.setdefault(name, Stream(self.folder / f"{name}.jsonl"))

    def records(self, name: str) -> list[dict[str, Any]]:
        """The records of stream NAME.jsonl."""
        return list(read_lines(self.folder / f"{name}.jsonl"))

    @property
    def has_begun(self) -> bool:
        """Whether `begin` was called. Raises DataError if config.json was lost since."""
        if (self.folder / "config.json").exists():
            return True
        if self.checkpoint_path.exists():
            raise DataError(
                f"{self.folder / 'config.json'} is missing, so the data and settings of the "
                f"checkpoint are unknown. Restore it, or delete {self.folder} and train again."
            )
        return False

    def begin(self, config: dict[str, Any]) -> None:
        """Start or go on: write config.json, delete an earlier result and partly written files."""
        self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "result.json").unlink(missing_ok=True)
        for leftover in self.folder.rglob(".*.part"):
            leftover.unlink()
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
            if manifest.get("run") != self.name:
                raise DataError(
                    f"checkpoint {self.checkpoint_path} belongs to run {manifest.get('run')}. "
                    f"Restore the right one, or delete {self.folder} and train again."
                )
            step = steps_of(manifest, self.checkpoint_path)
        self.cut(step)
        return step, states

    def cut(self, steps: int) -> None:
        """Drop the lines of step `steps` or later from every stream."""
        for stream in self._streams.values():
            stream.flush()
        for path in self.folder.glob("*.jsonl"):
            self.stream(path.stem).cut(steps)

    def finish(self, result: dict[str, Any]) -> None:
        for stream in self._streams.values():
            stream.flush()
        write_json(self.folder / "result.json", result)


class Study:
    """A folder of runs that share settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new_folders: list[Path] | None = None  # those that `create` made, outermost first

    @classmethod
    def create(cls, folder: Path, experiment: str, settings: dict[str, Any]) -> Study:
        """A new study. Raises UsageError if the folder holds one already or can't be written."""
        if cls(folder).exists:
            raise UsageError(
                f"--out {folder} holds a study already. Continue it with --resume {folder}, or "
                "choose another folder."
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"--out {folder} is not an empty folder. Choose another.")
        study = cls(folder)
        study._new_folders = [p for p in reversed((folder, *folder.parents)) if not p.exists()]
        try:
            with study.remove_on_failure():
                (folder / "runs").mkdir(parents=True, exist_ok=True)
                write_json(folder / "study.json", {"experiment": experiment, "settings": settings})
        except OSError as error:
            raise UsageError(
                f"--out {folder} can't be written: {error.strerror}. Choose another folder."
            ) from None
        return study

    @contextmanager
    def remove_on_failure(self) -> Iterator[None]:
        """When the block raises before any run began, a study that was just created is removed,
        unless another process trains it."""
        try:
            yield
        except BaseException:
            if self._new_folders is not None and not self.runs():
                with contextlib.suppress(UsageError, OSError), lock_study(self.folder):
                    (self.folder / "study.json").unlink(missing_ok=True)
                    (self.folder / "runs").rmdir()
                for folder in reversed(self._new_folders):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            raise

    @property
    def exists(self) -> bool:
        return (self.folder / "study.json").exists()

    @classmethod
    def open(cls, folder: Path, kinds: str | tuple[str, ...], flag: str = "--resume") -> Study:
        """The study in that folder. Raises UsageError if there is none, or one of another kind."""
        if not cls(folder).exists:
            raise UsageError(
                f"{flag} {folder}: there is no study (no study.json in that folder). "
                "Name the one that --out named, or runs/EXPERIMENT/TIME."
            )
        study = cls(folder)
        allowed = (kinds,) if isinstance(kinds, str) else kinds
        if study.kind not in allowed:
            raise UsageError(
                f"{flag} {folder} is a study of {study.kind}. Give one of {' or '.join(allowed)}."
            )
        return study

    @property
    def kind(self) -> str:
        """The experiment's name, or the one that several experiments share."""
        return self._content["experiment"]

    @property
    def _content(self) -> dict[str, Any]:
        return read_json(self.folder / "study.json", experiment=str, settings=dict)

    @property
    def settings(self) -> dict[str, Any]:
        return self._content["settings"]

    def change(self, **settings: Any) -> None:
        content = self._content
        if settings.items() <= content["settings"].items():
            return
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
        return git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(backend: Any, threads: int) -> dict[str, Any]:
    """What a run's result may depend on beside its settings."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "minibn": minibn.__version__,
        "commit": commit(),
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": threads,
        **backend.describe(),
        **({"cudnn": "chosen"} if backend.name == "cupy" and is_preferred() else {}),
    }
