"""One training: a folder and its files. See `study` for the layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.training.checkpoints import Checkpoints, Saved, Written, written_of
from experiments.training.json_files import (
    Stream,
    check_stream,
    read_json,
    read_lines,
    write_json,
)
from experiments.training.lease import Lease
from minibn.errors import DataError


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
        self.seconds_of_recorders = 0.0  # of this process: see `recorders.on_the_clock`
        self._streams: dict[str, Stream] = {}
        self._lease: Lease | None = None

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
        """{"status": "done", "steps": ...} or {"status": "diverged", "step": ...}; None before."""
        content = self._content_of_result
        if content is None:
            return None
        return {key: content[key] for key in ("status", "step", "steps") if key in content}

    @property
    def _content_of_result(self) -> dict[str, Any] | None:
        path = self.folder / "result.json"
        if not path.exists():
            return None
        status = read_json(path, status=str)["status"]
        if status not in ("done", "diverged"):
            raise DataError(f"{path} is damaged: its status can't be {status!r}. Restore it.")
        return read_json(path, **{"step" if status == "diverged" else "steps": int})

    def final_result(self, steps: int) -> dict[str, Any] | None:
        """The result of a run that diverged or has done all its steps, else None."""
        result = self.result if self.has_begun else None
        if result and (result["status"] == "diverged" or result["steps"] >= steps):
            return result
        return None

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoint", self.name)

    @property
    def checkpoint_path(self) -> Path:
        return self.checkpoints.latest

    def stream(self, name: str) -> Stream:
        """The stream NAME.jsonl of this run."""
        if name not in self._streams:
            self._streams[name] = Stream(self.folder / f"{name}.jsonl")
        return self._streams[name]

    def records(self, name: str) -> list[dict[str, Any]]:
        """The records of stream NAME.jsonl, of an unfinished run up to its last checkpoint."""
        written = self._written
        end = None if written is None else written.get(name, {"bytes": 0})["bytes"]
        return list(read_lines(self.folder / f"{name}.jsonl", end))

    @property
    def _written(self) -> Written | None:
        """What the result, or else the last checkpoint, says of each stream; None if neither does.
        Raises DataError as `_load` does."""
        result = self._content_of_result
        if result is None:
            saved = self._load()
            return None if saved is None else saved.written
        return written_of(result, self.folder / "result.json") if "streams" in result else None

    @property
    def has_begun(self) -> bool:
        """Whether `begin` was called. Raises DataError if config.json was lost since."""
        if (self.folder / "config.json").exists():
            return True
        if self.checkpoints or (self.folder / "result.json").exists():
            raise DataError(
                f"{self.folder / 'config.json'} is missing, so the data and settings of this "
                f"run are unknown. Restore it, or delete {self.folder} and train again."
            )
        return False

    @property
    def has_streams(self) -> bool:
        """Whether anything was written to a stream."""
        return any(path.stat().st_size for path in self.folder.glob("*.jsonl"))

    def check(self, *, old: bool = False) -> None:
        """Raise DataError if the files of a run that has ended are not as they were written, or
        those of another not as they were before its last checkpoint.

        old: accept a run of an older version, whose result doesn't say what was written.
        """
        result, path = self._content_of_result, self.folder / "result.json"
        if result is None:
            self._load()
            return
        if old and "streams" not in result:
            return
        written = written_of(result, path)
        for name in sorted(written.keys() | {file.stem for file in self.folder.glob("*.jsonl")}):
            if name not in written:
                raise DataError(
                    f"{self.folder / name}.jsonl is of no stream in {path}. Move it away."
                )
            check_stream(self.folder / f"{name}.jsonl", written[name], path, whole=True)
        lines = sum(1 for _ in read_lines(self.folder / "metrics.jsonl"))
        steps = result["step"] if result["status"] == "diverged" else result["steps"]
        if "metrics" in written and lines != steps:
            raise DataError(
                f"{path} is damaged: it says {steps} steps, and metrics.jsonl has {lines}. Restore "
                f"it, or delete {self.folder} and train again."
            )

    def checkpoint_notice(self, steps: int) -> str:
        """What is wrong with the checkpoints of a run that has done all its `steps`; else ""."""
        try:
            saved = self.checkpoints.load()
        except DataError as error:
            return str(error)
        if saved is None:
            return "its checkpoint is missing"
        older = f"{saved.path} is an older one, after {saved.step} of {steps} steps"
        return saved.notice or (older if saved.step < steps else "")

    def _load(self) -> Saved | None:
        """The last checkpoint that can be read; None if there is none at all.

        Raises DataError if there are only others, or a stream is not as it was before it.
        """
        saved = self.checkpoints.load()
        if saved is not None:
            for name, written in saved.written.items():
                check_stream(self.folder / f"{name}.jsonl", written, saved.path)
        return saved

    def steps_done(self) -> int:
        """The steps that a run need not repeat. Raises DataError as `restore` does."""
        saved = self._load()
        return 0 if saved is None else saved.step

    def begin(self, config: dict[str, Any], *, locked: bool = True) -> None:
        """Start or go on: write config.json, delete an earlier result and partly written files.

        Raises UsageError if another process trains the run. locked: whether this one holds the lock
        of the study.
        """
        self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        self._lease = Lease.take(self.folder, locked=locked)
        (self.folder / "result.json").unlink(missing_ok=True)
        for leftover in self.folder.rglob(".*.part"):
            leftover.unlink()
        write_json(self.folder / "config.json", config, sealed=True)

    def renew_lease(self) -> None:
        """Now and then, say that the process that trains lives. Raises UsageError if another took
        the run over."""
        if self._lease is not None:
            self._lease.renew()

    def require_lease(self) -> None:
        """Raise UsageError if another process took the run over since `begin`."""
        if self._lease is not None:
            self._lease.check()

    def end(self) -> None:
        """Leave the run to others, finished or not."""
        if self._lease is not None:
            self._lease.release()

    def save(self, step: int, states: dict[str, Any]) -> None:
        """A checkpoint after `step` steps: first the lines up to it, then the state.

        Raises UsageError, and writes nothing, if another process took the run over.
        """
        self.checkpoints.save(step, self._flush(), states, check=self.require_lease)

    def restore(self) -> tuple[int, dict[str, Any] | None]:
        """(steps done, states) of the last checkpoint that can be read, or (0, None). Later lines
        are cut.

        Raises DataError, before anything is written, if there are only others, or a stream is not
        as it was before that checkpoint.
        """
        saved = self._load()
        if saved is not None and saved.notice:
            print(f"{self.name}: {saved.notice}", flush=True)
        written = {} if saved is None else saved.written
        self._streams = {}
        for path in self.folder.glob("*.jsonl"):
            if path.stem in written:
                self.stream(path.stem).cut(written[path.stem])
            else:
                path.unlink()
        return (0, None) if saved is None else (saved.step, saved.states)

    def drop(self, step: int) -> None:
        """Drop the lines of step `step` or later, of which none is in a checkpoint yet."""
        for stream in self._streams.values():
            stream.drop(step)

    def finish(self, result: dict[str, Any]) -> None:
        """Write result.json. Raises UsageError as `save` does."""
        written = self._flush()
        self.require_lease()
        write_json(self.folder / "result.json", {**result, "streams": written}, sealed=True)

    def _flush(self) -> Written:
        """Write the lines of all streams; what was written to each until now."""
        self.require_lease()
        for stream in self._streams.values():
            stream.flush()
        written = {name: stream.written for name, stream in sorted(self._streams.items())}
        return {name: w for name, w in written.items() if w["bytes"]}
