"""Studies and runs: results are files.

    STUDY/
      study.json                     the settings
      .lock                          while a process trains it: the process's id
      runs/batchnorm-lr0.1-seed0/
        config.json                  settings, versions, device, threads, commit, data hash
        metrics.jsonl ...            one line a step; one file per recorder, without times
        timings.jsonl                seconds from checkpoint to checkpoint, and of them recorders'
        checkpoint/latest.npz        everything the run needs to continue bit for bit
        checkpoint/previous.npz      the one before, if the last is damaged
        result.json                  written when the run is done or has diverged
        .lease                       while a process trains the run
      figures/, table.md             plotted from the files by a separate step

A run may be killed at any moment: lines after the last checkpoint are cut when it continues. The
length and SHA-256 of every stream stand in each checkpoint and in result.json: `Run.check` notices
if a file was changed since.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.training.command_line import UsageError
from experiments.training.json_files import read_json, write_json
from experiments.training.run import Run
from experiments.training.study_lock import lock_study


class Study:
    """A folder of runs that share settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_locked = False  # by this process, where the system has locks
        self._new_folders: list[Path] | None = None  # that `create` made or would, outermost first
        self._is_new = False  # whether study.json is ours

    @classmethod
    def create(cls, folder: Path, experiment: str, settings: dict[str, Any]) -> Study:
        """A new study. Raises UsageError if the folder holds one already or can't be written."""
        study = cls(folder)
        study._require_new()
        if folder.exists() and not (folder.is_dir() and all(map(_is_leftover, folder.iterdir()))):
            raise UsageError(f"--out {folder} is not an empty folder. Choose another.")
        study._new_folders = _missing(folder)
        with study._writing():
            folder.mkdir(parents=True, exist_ok=True)
            study._write(experiment, settings)
        return study

    @classmethod
    def create_by_time(cls, name: str, experiment: str, settings: dict[str, Any]) -> Study:
        """A new study in runs/NAME/TIME, or in TIME-2, TIME-3, ... if others began in this second.

        Raises UsageError if it can't be written.
        """
        first = Path("runs") / name / time.strftime("%Y%m%d-%H%M%S")
        for number in itertools.count(1):
            study = cls(first if number == 1 else first.with_name(f"{first.name}-{number}"))
            study._new_folders = _missing(study.folder)
            with study._writing():
                try:
                    study.folder.mkdir(parents=True)  # which only one process can
                except FileExistsError:
                    continue
                study._write(experiment, settings)
            return study
        raise AssertionError

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A block that writes the new study. Raises UsageError if it can't."""
        try:
            with self.remove_on_failure():
                yield
        except OSError as error:
            raise UsageError(
                f"--out {self.folder} can't be written: {error.strerror}. Choose another folder."
            ) from None

    def _write(self, experiment: str, settings: dict[str, Any]) -> None:
        with lock_study(self.folder):
            self._require_new()
            self._is_new = True
            for leftover in self.folder.glob(".*.part"):
                leftover.unlink()
            self._store({"experiment": experiment, "settings": settings})

    def _require_new(self) -> None:
        if self.exists:
            raise UsageError(
                f"--out {self.folder} holds a study already. Continue it with --resume "
                f"{self.folder}, or choose another folder."
            )

    @contextmanager
    def remove_on_failure(self) -> Iterator[None]:
        """When the block raises before any run began, a study that was just created is removed,
        unless another process trains it."""
        try:
            yield
        except BaseException:  # a Ctrl-C too
            if self._new_folders is not None and not self.runs():
                with contextlib.suppress(UsageError, OSError), lock_study(self.folder):
                    if self._is_new:
                        (self.folder / "study.json").unlink(missing_ok=True)
                        shutil.rmtree(self.folder / "runs", ignore_errors=True)
                for folder in reversed(self._new_folders):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            raise

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Train it within the block. Raises UsageError if another process does."""
        with lock_study(self.folder) as file:
            self.is_locked = file is not None
            yield

    def clean(self) -> None:
        """Delete what killed processes left. Call it when no other process trains a run."""
        for pattern in (".*.part", ".lease"):
            for leftover in self.folder.rglob(pattern):
                leftover.unlink(missing_ok=True)

    @property
    def exists(self) -> bool:
        return (self.folder / "study.json").exists()

    @classmethod
    def open(cls, folder: Path, kinds: str | tuple[str, ...], flag: str = "--resume") -> Study:
        """The study in that folder. Raises UsageError if there is none, or one of another kind, and
        DataError if a run was changed since it ended, or before its last checkpoint."""
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
        for path in sorted(folder.glob("runs/*")):
            if (run := Run(path)).has_begun:
                run.check(old=True)
        return study

    @property
    def kind(self) -> str:
        """The experiment's name, or the one that several experiments share."""
        return self._content["experiment"]

    @property
    def _content(self) -> dict[str, Any]:
        return read_json(self.folder / "study.json", experiment=str, settings=dict)

    def _store(self, content: dict[str, Any]) -> None:
        write_json(self.folder / "study.json", content, sealed=True)

    @property
    def settings(self) -> dict[str, Any]:
        return self._content["settings"]

    def change(self, **settings: Any) -> None:
        content = self._content
        if settings.items() <= content["settings"].items():
            return
        content["settings"].update(settings)
        self._store(content)

    def run(self, name: str) -> Run:
        return Run(self.folder / "runs" / name)

    def runs(self) -> list[Run]:
        """The runs that have begun, by name."""
        return [Run(p.parent) for p in sorted(self.folder.glob("runs/*/config.json"))]


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, outermost first."""
    return [p for p in reversed((folder, *folder.parents)) if not p.exists()]


def _is_leftover(path: Path) -> bool:
    """Whether a process that was killed before it had written study.json left this file."""
    return path.name == ".lock" or (path.name.startswith(".") and path.suffix == ".part")
