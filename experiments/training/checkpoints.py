"""The last two checkpoints of a run: latest.npz, and previous.npz, to fall back on.

A checkpoint's manifest has the step, the run's name, and what was written to each stream by then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minibn import checkpoint
from minibn.errors import DataError

Written = dict[str, dict[str, Any]]  # of each stream: see `Stream.written`


def steps_of(manifest: dict[str, Any], path: Path) -> int:
    """The steps done before a run's checkpoint. Raises DataError if its manifest lacks them."""
    step = manifest.get("step")
    if type(step) is not int or step < 0:
        raise DataError(f"checkpoint {path} is no run's: its manifest has no step. Restore it.")
    return step


def written_of(content: dict[str, Any], path: Path) -> Written:
    """What was written to each stream, by a manifest or a result. Raises DataError without it."""
    streams = content.get("streams")
    fits = isinstance(streams, dict) and all(
        name.isidentifier()  # no path
        and isinstance(s, dict)
        and {key: type(value) for key, value in s.items()} == {"bytes": int, "sha256": str}
        and s["bytes"] >= 0
        for name, s in streams.items()
    )
    if not fits:
        raise DataError(
            f"{path} is damaged: it doesn't say what was written to each stream. Restore it, or "
            "train that run again."
        )
    return dict(streams or {})


class Saved(NamedTuple):
    """A checkpoint. notice: what is wrong with the last one, if this is the one before; else ""."""

    path: Path
    step: int
    written: Written
    states: dict[str, Any]
    notice: str


class Checkpoints:
    """The checkpoints in RUN/checkpoint. run: the run's name, which each must have."""

    def __init__(self, folder: Path, run: str) -> None:
        self.latest, self.previous = folder / "latest.npz", folder / "previous.npz"
        self.run = run

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self.latest.exists() or self.previous.exists()

    def save(
        self, step: int, written: Written, states: dict[str, Any], check: Callable[[], None]
    ) -> None:
        """Write latest.npz; the one that was there becomes previous.npz. check: called before they
        change, when the new file is complete."""

        def rename(source: Path, target: Path) -> None:
            check()
            if target.exists():
                os.replace(target, self.previous)
            os.replace(source, target)

        manifest = {"step": step, "run": self.run, "streams": written}
        checkpoint.save(self.latest, manifest, states, rename=rename)

    def load(self) -> Saved | None:
        """The last one that can be read; None if there is none at all.

        Raises DataError if none can be read, it belongs to another run, or a folder is in the
        place of one, where the next could not be written.
        """
        there = [path for path in (self.latest, self.previous) if path.exists()]
        if folders := [path for path in there if path.is_dir()]:
            raise DataError(f"{folders[0]} is a folder, not a checkpoint. Move it away.")
        damage = None
        for path in there:
            try:
                manifest, states = checkpoint.load(path)
            except DataError as error:
                damage = damage or error
                continue
            if manifest.get("run") != self.run:
                raise DataError(
                    f"checkpoint {path} belongs to run {manifest.get('run')}. Restore the right "
                    f"one, or delete {path.parent.parent} and train again."
                )
            step, notice = steps_of(manifest, path), ""
            if path != self.latest:
                what = "damaged" if damage else "missing"
                notice = f"{self.latest} is {what}: {path.name} stands in, after {step} steps"
            return Saved(path, step, written_of(manifest, path), states, notice)
        if damage is not None:
            raise damage
        return None

    def delete(self) -> None:
        """Delete both."""
        for path in (self.latest, self.previous):
            path.unlink(missing_ok=True)
