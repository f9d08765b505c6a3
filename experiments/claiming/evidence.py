"""Studies as evidence: the runs of a variant at a rate, one a seed, all of one scale.

Where a run lacks what a claim needs, `Missing` is raised with the reason: the claim is then
undecided. Studies that are not comparable raise DataError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.training import comparability
from experiments.training.study import Run, Study
from minibn.errors import DataError


class Missing(Exception):
    """Why there is no number: the claim stays undecided."""


class Key(NamedTuple):
    """Which runs: a variant at a learning rate; or, without one, at all rates (a `Sweep`)."""

    variant: str
    lr: float | None

    def __str__(self) -> str:
        return self.variant if self.lr is None else f"{self.variant} at lr {self.lr:g}"


class Trace:
    """One training. `copies`: the same training in several studies, which may
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
        """The stream's records in the first copy that has any."""
        if stream not in self._records:
            found: list[dict[str, Any]] = []
            for run in self.copies:
                found = found or run.records(stream)
            self._records[stream] = found
        return self._records[stream]

    @property
    def diverged(self) -> int | None:
        """The step at which the run diverged; None if it did not."""
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
        """The records of the steps start to stop (exclusive) whose keys have the `wanted` values.
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
        """Add the same training from another study. Raises DataError if its metrics differ."""
        ours, theirs = self.copies[0], other
        for a, b in zip(ours.records("metrics"), theirs.records("metrics"), strict=False):
            if a != b:
                raise DataError(
                    f"{ours.folder} and {theirs.folder} are different trainings of one variant, "
                    f"rate and seed (from step {a['step']}). Give only one of the studies."
                )
        self.copies.append(other)
        longest = max(self.copies, key=lambda run: len(run.records("metrics")))
        self.copies.sort(key=lambda run: run is not longest)
        self._records.clear()


class Sweep:
    """The runs of a variant and seed over a grid of rates, ascending. `studies`: all of the kind,
    each of which decides alone what it leaves out of its grid."""

    def __init__(
        self, variant: str, seed: int, traces: Sequence[Trace], studies: tuple[Study, ...]
    ) -> None:
        self.variant, self.seed, self.studies = variant, seed, studies
        self.traces = sorted(traces, key=lambda trace: trace.config["lr"])

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"


TraceOrSweep = Trace | Sweep


class Evidence:
    """Studies of any kinds; those of one kind must be comparable."""

    def __init__(self, folders: Sequence[Path], kinds: Collection[str]) -> None:
        self.studies: dict[str, list[Study]] = {}
        self.traces: dict[str, dict[Key, dict[int, Trace]]] = {}
        for folder in folders:
            study = Study.open(folder, tuple(sorted(kinds)), "STUDY")
            self.studies.setdefault(study.kind, []).append(study)
        for kind, studies in self.studies.items():
            comparability.require_comparable(studies)
            self.traces[kind] = _traces(studies)

    def runs(self, kind: str, keys: Sequence[Key]) -> dict[int, list[TraceOrSweep]]:
        """seed -> the runs of the keys, in order, for the seeds that all of them have.

        Raises Missing if there is no study of the kind, no run of a key, or no seed in common.
        """
        if kind not in self.studies:
            raise Missing(f"no study of {kind} was given")
        found = [self._seeds(kind, key) for key in keys]
        for key, seeds in zip(keys, found, strict=True):
            if not seeds:
                raise Missing(f"no run of {key} in these studies")
        common = sorted(set.intersection(*(set(seeds) for seeds in found)))
        if not common:
            raise Missing(f"{' and '.join(map(str, keys))} have no seed in common")
        return {seed: [seeds[seed] for seeds in found] for seed in common}

    def _seeds(self, kind: str, key: Key) -> Mapping[int, TraceOrSweep]:
        """seed -> the key's run or sweep. Rates are compared by six digits, as in run names."""
        of = {k.lr: seeds for k, seeds in self.traces[kind].items() if k.variant == key.variant}
        if key.lr is not None:
            return next((seeds for lr, seeds in of.items() if f"{lr:g}" == f"{key.lr:g}"), {})
        by_seed: dict[int, list[Trace]] = {}
        for seeds in of.values():
            for seed, trace in seeds.items():
                by_seed.setdefault(seed, []).append(trace)
        studies = tuple(self.studies[kind])
        return {seed: Sweep(key.variant, seed, traces, studies) for seed, traces in by_seed.items()}

    def run_descriptions(self, kind: str) -> dict[str, Any]:
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

    def varied_settings(self, kind: str) -> dict[str, list[Any]]:
        """The variants, rates and seeds of the runs, each as it first appears."""
        configs = [t.config for seeds in self.traces[kind].values() for t in seeds.values()]
        return {
            "variants": list(dict.fromkeys(config["variant"] for config in configs)),
            "rates": sorted({config["lr"] for config in configs}),
            "seeds": sorted({config["seed"] for config in configs}),
        }

    def settings(self, kind: str) -> dict[str, Any]:
        """The settings that the studies of a kind share, without paths of this machine."""
        return comparability.scale(self.studies[kind][0])


def _traces(studies: Sequence[Study]) -> dict[Key, dict[int, Trace]]:
    """variant and rate -> seed -> run."""
    found: dict[Key, dict[int, Trace]] = {}
    for run in (run for study in studies for run in study.runs()):
        config = run.config
        seeds = found.setdefault(Key(config["variant"], config["lr"]), {})
        if config["seed"] in seeds:
            seeds[config["seed"]].add(run)
        else:
            seeds[config["seed"]] = Trace(run)
    return found
