"""Studies as evidence: the runs of a variant at a rate, one a seed, all of one scale.

What a claim needs and a run does not have raises `Missing` with the reason: the claim is then
undecided. Studies that must not stand in one table raise DataError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.running.command_line import UsageError
from experiments.running.study import Run, Study, read_json
from minibn.errors import DataError

# Settings that say where, how and which runs, or how often is measured: they may differ between
# studies of one table. All others make the scale.
FREE = (
    "quick", "backend", "data_dir", "threads", "kernels", "variants",
    "variants_elsewhere", "lr", "seed",
    "eval_every", "record_every", "checkpoint_every", "probe_every", "probe_directions",
    "shift_every", "curvature_every", "measure_every", "moments_steps",
)  # fmt: skip

# Where the rates are what is compared, their grid belongs to the scale.
GRID = {"learning_rates": ("lr",)}


class Missing(Exception):
    """Why there is no number: the claim stays undecided."""


EVERY_RATE = 0.0


class Key(NamedTuple):
    """Which runs: a variant at a learning rate; or, with EVERY_RATE, at all rates (a `Sweep`)."""

    variant: str
    lr: float

    def __str__(self) -> str:
        return f"{self.variant} at lr {self.lr:g}" if self.lr else self.variant


class Trace:
    """One training, as rules read it. `copies`: the same training in several studies, which may
    have measured different things."""

    def __init__(self, run: Run) -> None:
        self.copies = [run]
        self.config = run.config
        self._records: dict[str, list[dict[str, Any]]] = {}

    @property
    def key(self) -> Key:
        return Key(self.config["variant"], self.config["lr"])

    def __str__(self) -> str:
        return f"{self.key}, seed {self.config['seed']}"

    @property
    def settings(self) -> dict[str, Any]:
        return self.config["settings"]

    def records(self, stream: str) -> list[dict[str, Any]]:
        """What the stream holds, in the first copy that has it."""
        if stream not in self._records:
            found: list[dict[str, Any]] = []
            for run in self.copies:
                found = found or run.records(stream)
            self._records[stream] = found
        return self._records[stream]

    @property
    def diverged(self) -> int | None:
        """The step at which the loss was no number."""
        result = self.copies[0].result or {}
        return result["step"] if result.get("status") == "diverged" else None

    @property
    def steps(self) -> int:
        """How many updates were made."""
        metrics = self.records("metrics")
        return metrics[-1]["step"] + 1 if metrics else 0

    def require(self, steps: int) -> None:
        """Raise Missing unless the run has so many steps, or ended before because it diverged."""
        if self.diverged is None and self.steps < steps:
            raise Missing(f"{self} has {self.steps:,} of the {steps:,} steps")

    def between(self, stream: str, start: int, stop: int, **wanted: Any) -> list[dict[str, Any]]:
        """The records of the steps start to stop (without), with these values of their keys.
        Raises Missing if the run doesn't reach `stop`, or nothing was recorded there."""
        if self.diverged is not None and self.diverged < stop:
            raise Missing(f"{self} diverged at step {self.diverged:,}")
        self.require(stop)
        found = [
            record
            for record in self.records(stream)
            if start <= record["step"] < stop
            and all(record.get(key) == value for key, value in wanted.items())
        ]
        if not found:
            what = ", ".join([stream, *(str(value) for value in wanted.values())])
            where = f"step {start:,}" if stop == start + 1 else f"steps {start:,} to {stop:,}"
            raise Missing(f"{self} has no records of {what} at {where}")
        return found

    def add(self, other: Run) -> None:
        """The same training from another study. Raises DataError if it went another way."""
        ours, theirs = self.copies[0], other
        for a, b in zip(ours.records("metrics"), theirs.records("metrics"), strict=False):
            if a != b:
                raise DataError(
                    f"{ours.folder} and {theirs.folder} are different trainings of one variant, "
                    f"rate and seed (from step {a['step']}). Which counts? Name one of the studies."
                )
        self.copies.append(other)
        longest = max(self.copies, key=lambda run: len(run.records("metrics")))
        self.copies.sort(key=lambda run: run is not longest)
        self._records.clear()


class Sweep:
    """The runs of a variant and seed over a grid of rates, ascending. `family`: those of every seed
    in the same studies, which decide together which rates are not run."""

    def __init__(self, variant: str, seed: int, everyone: Sequence[Trace]) -> None:
        self.variant, self.seed = variant, seed
        ascending = sorted(everyone, key=lambda trace: trace.key.lr)
        self.traces = [trace for trace in ascending if trace.config["seed"] == seed]
        studies = {trace.copies[0].folder.parent for trace in self.traces}
        self.family = [t for t in ascending if t.copies[0].folder.parent in studies]

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"


Found = Trace | Sweep


class Evidence:
    """Studies of any kinds. Of one kind all are of one scale: the same network and data."""

    def __init__(self, folders: Sequence[Path], kinds: Collection[str]) -> None:
        self.kinds = kinds
        self.traces: dict[str, dict[Key, dict[int, Trace]]] = {}
        self.studies: dict[str, list[Study]] = {}
        for folder in folders:
            study = Study(folder)
            if not study.exists:
                raise UsageError(f"STUDY {folder}: there is no study (no study.json there).")
            self._admit(study)

    def _admit(self, study: Study) -> None:
        kind = read_json(study.folder / "study.json", "experiment")["experiment"]
        if kind not in self.kinds:
            raise UsageError(
                f"STUDY {study.folder} is a study of {kind}. There are claims about "
                f"{', '.join(sorted(self.kinds))}."
            )
        others = self.studies.setdefault(kind, [])
        for other in others[:1]:
            _require_alike(other, study, kind)
        others.append(study)
        found = self.traces.setdefault(kind, {})
        for run in study.runs():
            config = run.config
            seeds = found.setdefault(Key(config["variant"], config["lr"]), {})
            if config["seed"] in seeds:
                seeds[config["seed"]].add(run)
            else:
                seeds[config["seed"]] = Trace(run)
        self._require_same_data(kind)

    def _require_same_data(self, kind: str) -> None:
        """One data set for all runs of VGG; elsewhere the data may belong to the seed."""
        first: dict[Any, Run] = {}
        for run in (run for study in self.studies[kind] for run in study.runs()):
            config = run.config
            of = first.setdefault(None if kind == "vgg_cifar" else config["seed"], run)
            if config["data_fingerprint"] != of.config["data_fingerprint"]:
                raise DataError(
                    f"{run.folder} saw other data than {of.folder}: claims compare like with "
                    "like. Judge them apart."
                )

    def runs(self, kind: str, keys: Sequence[Key]) -> dict[int, list[Found]]:
        """seed -> the runs of the keys, in order, for the seeds that all of them have.

        Raises Missing if there is no study of the kind, no run of a key, or no seed in common.
        """
        if kind not in self.traces:
            raise Missing(f"no study of {kind} was given")
        found = [self._seeds(kind, key) for key in keys]
        for key, seeds in zip(keys, found, strict=True):
            if not seeds:
                raise Missing(f"no run of {key} in these studies")
        common = sorted(set.intersection(*(set(seeds) for seeds in found)))
        if not common:
            raise Missing(f"{' and '.join(map(str, keys))} have no seed in common")
        return {seed: [seeds[seed] for seeds in found] for seed in common}

    def _seeds(self, kind: str, key: Key) -> Mapping[int, Found]:
        """seed -> what the key names; rates are equal if they are in six digits, as in names."""
        of = {k: seeds for k, seeds in self.traces[kind].items() if k.variant == key.variant}
        if key.lr != EVERY_RATE:
            return next((s for k, s in of.items() if f"{k.lr:g}" == f"{key.lr:g}"), {})
        everyone = [trace for seeds in of.values() for trace in seeds.values()]
        seeds = {trace.config["seed"] for trace in everyone}
        return {seed: Sweep(key.variant, seed, everyone) for seed in seeds}

    def described(self, kind: str) -> dict[str, Any]:
        """run -> how it ended, and at which commit it was trained."""
        found = {}
        for seeds in self.traces[kind].values():
            for trace in seeds.values():
                run = trace.copies[0]
                found[run.name] = {
                    "result": run.result,
                    "commit": trace.config["environment"].get("commit"),
                }
        return found

    def settings(self, kind: str) -> dict[str, Any]:
        """What the studies of a kind share; without paths of this machine."""
        content, grid = self.studies[kind][0].settings, GRID.get(kind, ())
        return {k: v for k, v in content.items() if k not in FREE or k in grid}


def _require_alike(first: Study, second: Study, kind: str) -> None:
    ours, theirs = first.settings, second.settings
    free = [key for key in FREE if key not in GRID.get(kind, ())]
    for key in sorted({*ours, *theirs}):
        if key not in free and ours.get(key) != theirs.get(key):
            raise DataError(
                f"{second.folder} has {key} {theirs.get(key)}, {first.folder} {ours.get(key)}: "
                "claims compare like with like. Judge them apart."
            )
