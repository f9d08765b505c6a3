"""The records of runs as arrays, in memory and in small files: what the claims are judged from.

A stream (landscape.jsonl) becomes tables of columns, a row a record: one table for each value of
its words, so that "landscape:gradient" has the probes along the gradient. Numbers that were not
finite or not recorded (null) are nan. A kept study is one .npz file: its tables in float32, the
settings and the result of every run as JSON. All verdicts follow from these files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.training.study import Study
from minibn import checkpoint
from minibn.errors import DataError

Table = dict[str, np.ndarray]

ABOUT = "about"  # the key of the JSON in the file
SET_ASIDE = {"histogram", "range"}  # columns of distributions that no claim is about
NO_STREAMS = {"timings"}  # read for the time of a run alone
OF_A_MACHINE = ("out", "resume", "data_dir")  # settings that say nothing about a training


class Missing(Exception):
    """Why a claim has no number from a run."""


@dataclass(frozen=True)
class RunStreams:
    """One training. settings: of its study; environment: commit, device, versions; result: how it
    ended; seconds: of training and recorders together."""

    study: str
    kind: str
    variant: str
    lr: float
    seed: int
    settings: dict[str, Any]
    environment: dict[str, Any]
    result: dict[str, Any] | None
    seconds: float
    norm: str
    data: str  # its fingerprint
    tables: dict[str, Table] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"{self.variant} at lr {self.lr:g}, seed {self.seed} ({self.study})"

    @property
    def diverged(self) -> int | None:
        """The step at which it diverged; None if it did not."""
        result = self.result or {}
        return result["step"] if result.get("status") == "diverged" else None

    @property
    def steps(self) -> int:
        """How many updates were made."""
        steps = self.tables.get("metrics", {}).get("step")
        return 0 if steps is None else int(steps[-1]) + 1

    def require(self, steps: int) -> None:
        """Raise Missing unless it has so many steps, or ended before because it diverged."""
        if self.diverged is None and self.steps < steps:
            raise Missing(f"{self} has {self.steps:,} of the {steps:,} steps")

    def rows(self, table: str, steps: Sequence[int], **equal: float) -> Table:
        """The rows of the steps from steps[0] to steps[1] (exclusive) whose columns have the values
        `equal`. Raises Missing if there are none, or if the run does not reach steps[1]."""
        start, stop = steps
        if self.diverged is not None and self.diverged < stop:
            raise Missing(f"{self} diverged at step {self.diverged:,}")
        self.require(stop)
        columns = self.tables.get(table, {"step": np.zeros(0)})
        chosen = (start <= columns["step"]) & (columns["step"] < stop)
        for name, value in equal.items():
            chosen &= columns.get(name, np.full(len(chosen), np.nan)) == value
        if not chosen.any():
            where = " ".join(f"{name} {value:g}" for name, value in equal.items())
            raise Missing(f"{self} has no {table} {where} at steps {start:,} to {stop:,}")
        return {name: column[chosen] for name, column in columns.items()}


def tables_of(stream: str, records: Iterable[dict[str, Any]]) -> dict[str, Table]:
    """{table: columns} of a stream's records. Lists become rows of an array, padded with nan."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in map(_flat, records):
        words = [value for value in record.values() if isinstance(value, str)]
        groups.setdefault(":".join([stream, *words]), []).append(record)
    return {name: _columns(group) for name, group in groups.items()}


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """{"residual": {"4.1": x}} as {"residual.4.1": x}."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        parts = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{key}" if key else name: x for key, x in parts.items()}
    return flat


def _columns(records: Sequence[dict[str, Any]]) -> Table:
    names = {name for record in records for name in record} - SET_ASIDE
    columns = {}
    for name in sorted(names):
        values = [record.get(name) for record in records]
        if any(isinstance(value, str) for value in values):
            continue
        rows = [value if isinstance(value, list) else [value] for value in values]
        array = np.full((len(rows), max(map(len, rows))), np.nan, np.float32)
        for i, row in enumerate(rows):
            array[i, : len(row)] = [np.nan if x is None else x for x in row]
        many = any(isinstance(value, list) for value in values)
        columns[name] = array if many else array[:, 0]
    return columns


def read_study(study: Study) -> list[RunStreams]:
    """The runs of a study that have begun."""
    found = []
    for run in study.runs():
        config = run.config
        tables: dict[str, Table] = {}
        for path in sorted(run.folder.glob("*.jsonl")):
            if path.stem not in NO_STREAMS:
                tables |= tables_of(path.stem, run.records(path.stem))
        settings = {k: v for k, v in config["settings"].items() if k not in OF_A_MACHINE}
        found.append(
            RunStreams(
                study=study.folder.name,
                kind=study.kind,
                variant=config["variant"],
                lr=config["lr"],
                seed=config["seed"],
                settings=settings,
                environment=config["environment"],
                result=run.result,
                seconds=sum(record["seconds"] for record in run.records("timings")),
                norm=config.get("norm", "none"),
                data=config["data_fingerprint"],
                tables=tables,
            )
        )
    return found


def keep(study: Study, folder: Path) -> Path:
    """Write FOLDER/STUDY.npz, a few hundred kB, and return it. Raises DataError if a run has not
    ended: what is kept is never half a training."""
    runs = read_study(study)
    if open_runs := [run for run in runs if run.result is None]:
        raise DataError(f"{open_runs[0]} has not ended. Finish the study, then keep it.")
    about = [{k: v for k, v in vars(run).items() if k != "tables"} for run in runs]
    arrays: dict[str, np.ndarray] = {ABOUT: np.array(json.dumps(about))}
    for i, run in enumerate(runs):
        for table, columns in run.tables.items():
            arrays |= {f"{i}/{table}/{name}": array for name, array in columns.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{study.folder.name}.npz"
    with checkpoint.atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return path


def load(path: Path) -> list[RunStreams]:
    """The runs of a kept study. Raises DataError if the file can't be read."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            runs = [RunStreams(**content) for content in json.loads(str(file[ABOUT]))]
            for key in file.files:
                if key != ABOUT:
                    run, table, column = key.split("/")
                    runs[int(run)].tables.setdefault(table, {})[column] = file[key]
    except Exception as error:  # of a damaged file: zip, zlib, JSON, a missing key
        raise DataError(
            f"{path} can't be read: {error}. Restore it, or keep the study again."
        ) from None
    return runs
