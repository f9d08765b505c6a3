"""The results of `scale_invariance`: how far each layer turns a step, against √(2ηλ)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.training.json_files import float_array
from experiments.training.study import Run, Study
from experiments.views.series import ReadOnce, spread
from experiments.views.tables import count_of_seeds, short
from minibn.errors import DataError

# The rule of the claim; its reasons are in experiments/scale_invariance.py.
COUNTS_FROM = 10  # time constants in a run
WINDOW = 0.75  # of the run; the records from there on count
WITHIN = 0.1  # of the equilibrium's angle


@dataclass(frozen=True)
class Training:
    """A run with its numbers. updates: those it has when it is done. columns: name -> (records,
    layers), at `steps` (records,)."""

    run: Run
    decay: float
    lr: float
    seed: int
    updates: int
    is_done: bool  # False of a run that diverged, or has not ended
    steps: np.ndarray
    columns: dict[str, np.ndarray]

    @property
    def equilibrium(self) -> float:
        """The angle √(2ηλ) in radians."""
        return math.sqrt(2 * self.lr * self.decay)

    @property
    def time_constants(self) -> float:
        """How many of 1/(2ηλ) steps the run has."""
        return 2 * self.lr * self.decay * self.updates

    @property
    def counts(self) -> bool:
        """Whether the rule judges it. (2 · 0.1 · 0.005 · 10,000 is 10 but for rounding.)"""
        return self.time_constants >= COUNTS_FROM * (1 - 1e-9)

    @property
    def late(self) -> np.ndarray:
        """Which records lie in the window."""
        return self.steps >= WINDOW * self.updates

    @property
    def angles(self) -> np.ndarray:
        """Of each layer, the root mean square over the window."""
        return np.sqrt((self.columns["angle"][self.late] ** 2).mean(axis=0))

    @property
    def in_equilibrium(self) -> np.ndarray:
        """Of each layer, whether its angle is within the margin; all False without decay."""
        if not self.decay:
            return np.zeros(len(self.angles), bool)
        return np.abs(self.angles / self.equilibrium - 1) <= WITHIN

    @property
    def growth(self) -> np.ndarray:
        """Of each layer, ‖w‖² at the last record over that at the first."""
        norms = self.columns["norm"]
        return (norms[-1] / norms[0]) ** 2


NAMES = ("norm", "angle", "rate", "cosine")


def trainings_of(runs: Iterable[Run]) -> list[Training]:
    """The runs with records, by rate, decay and seed."""
    found = []
    for run in runs:
        if records := run.records("rotation"):
            config = run.config
            columns = {name: _rows(records, name) for name in NAMES}
            steps = np.array([r["step"] for r in records])
            who = (config["weight_decay"], config["lr"], config["seed"])
            updates, is_done = (
                config["settings"]["steps"],
                (run.result or {}).get("status") == "done",
            )
            found.append(Training(run, *who, updates, is_done, steps, columns))
    return sorted(found, key=lambda t: (t.lr, t.decay, t.seed))


def _rows(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([float_array(r[name], np.nan) for r in records])


def find_trainings(studies: Sequence[Study]) -> list[Training]:
    """Those of the studies. Raises DataError if nothing was measured yet."""
    found = trainings_of(ReadOnce(run.folder) for study in studies for run in study.runs())
    if not found:
        raise DataError(f"{studies[0].folder} has no angles yet. Continue it with --resume.")
    return found


def groups_of(found: Iterable[Training]) -> dict[tuple[float, float], list[Training]]:
    """(rate, decay) -> its trainings, one a seed."""
    groups: dict[tuple[float, float], list[Training]] = {}
    for training in found:
        groups.setdefault((training.lr, training.decay), []).append(training)
    return groups


def equilibrium_table(found: Sequence[Training]) -> str:
    rows = []
    for (lr, decay), group in groups_of(found).items():
        done = [t for t in group if t.is_done]
        row = [f"{decay:g}", f"{lr:g}", f"{len(done)} of {len(group)}"]
        if not done:
            rows.append((*row, *[""] * 7))
            continue
        angles = np.concatenate([t.angles for t in done])
        layers = np.concatenate([t.in_equilibrium for t in done])
        verdict = f"{layers.sum()} of {layers.size}" if decay else ""
        if decay and not done[0].counts:
            verdict = f"({verdict}: does not count)"
        rows.append((
            *row, f"{done[0].time_constants:.3g}", f"{done[0].equilibrium:.4f}" if decay else "",
            spread(angles.tolist(), ".4f"), verdict,
            spread([float(t.angles.max() / t.angles.min()) for t in done], ".3g"),
            spread(np.concatenate([t.growth for t in done]).tolist(), ".3g"),
            spread([a for t in done for a in accuracy(t.run)], ".3f"),
        ))  # fmt: skip
    head = (
        "decay", "rate", "done", "time constants", "√(2ηλ), rad", "angle a step, rad",
        "layers within 10 %", "largest / least angle", "growth of ‖w‖²", "test accuracy",
    )  # fmt: skip
    seeds = len({t.seed for t in found})
    note = (
        "medians over layers and seeds, least to largest; angle: root mean square over the last "
        f"quarter of the run; a decay counts from {COUNTS_FROM} time constants of 1/(2ηλ) steps"
    )
    return f"How far a layer's weights turn in a step, {count_of_seeds(seeds)}.\n\n" + (
        markdown_table(head, rows, note)
    )


def accuracy(run: Run) -> list[float]:
    """The test accuracy at the end; nothing if there is none."""
    return [r["accuracy"] for r in run.records("test")][-1:]


def summary(found: Sequence[Training]) -> dict[str, Any]:
    """{run: its numbers} of those that are done."""
    return {
        t.run.name: {
            "decay": t.decay, "lr": t.lr, "seed": t.seed, "steps": t.updates,
            "time_constants": short(t.time_constants), "counts": t.counts,
            "equilibrium": short(t.equilibrium), "angles": [short(a) for a in t.angles.tolist()],
            "share_in_equilibrium": float(t.in_equilibrium.mean()),
            "growth": [short(g) for g in t.growth.tolist()],
            "largest_cosine": short(float(np.abs(t.columns["cosine"]).max()), 2),
            "accuracy": next(iter(accuracy(t.run)), None),
        }
        for t in found if t.is_done
    }  # fmt: skip
