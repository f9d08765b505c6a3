"""The results of `explosion`: the factor per layer of each network, beside the theory's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments.output import markdown_table
from experiments.training.json_files import float_array
from experiments.training.study import Study
from experiments.views.tables import count_of_seeds, short
from minibn.errors import DataError


class Kind(NamedTuple):
    """A network at a batch size."""

    network: str
    batch_size: int

    @property
    def label(self) -> str:
        return f"{self.network}, B = {self.batch_size}"


class Theory(NamedTuple):
    """The factor per layer in infinite width (Yang et al. 2019), and the margin of the claim's rule
    as a share of it."""

    factor: float
    margin: float


def theory_of(kind: Kind) -> Theory | None:
    """None for networks without a rule.

    >>> theory_of(Kind("linear-batchnorm", 8))
    Theory(factor=1.2, margin=0.02)
    """
    if kind.network == "relu":
        return Theory(1.0, 0.05)
    if kind.network == "relu-batchnorm":
        return Theory(math.pi / (math.pi - 1), 0.05)
    if kind.network == "linear-batchnorm":
        return Theory((kind.batch_size - 2) / (kind.batch_size - 3), 0.02)
    return None


@dataclass(frozen=True)
class Found:
    """The records of all seeds."""

    by_seed: dict[int, list[dict[str, Any]]]

    @property
    def kinds(self) -> list[Kind]:
        """In the order of the records."""
        every = (r for records in self.by_seed.values() for r in records)
        return list(dict.fromkeys(Kind(r["network"], r["batch_size"]) for r in every))

    @property
    def depths(self) -> list[int]:
        return sorted({r["depth"] for records in self.by_seed.values() for r in records})

    def at(self, kind: Kind, depth: int) -> list[dict[str, Any]]:
        """One record a seed."""
        return [
            r
            for records in self.by_seed.values()
            for r in records
            if (r["network"], r["batch_size"], r["depth"]) == (*kind, depth)
        ]

    def factors(self, kind: Kind, depth: int) -> np.ndarray:
        """One number a seed; nan where squares overflowed."""
        return float_array([r["factor"] for r in self.at(kind, depth)], np.nan)


def find_records(studies: Sequence[Study]) -> Found:
    """The records of the studies. Raises DataError if nothing was measured yet."""
    runs = {run.config["seed"]: run for study in studies for run in study.runs()}
    by_seed = {seed: run.records("gradients") for seed, run in sorted(runs.items())}
    found = Found({seed: records for seed, records in by_seed.items() if records})
    if not found.by_seed:
        raise DataError(f"{studies[0].folder} has no gradients yet. Continue it with --resume.")
    return found


def factors_table(f: Found) -> str:
    rows = []
    for kind in f.kinds:
        theory = theory_of(kind)
        expected = ("", "") if theory is None else (f"{theory.factor:.4f}", f"{theory.margin:.0%}")
        rows.append((kind.network, kind.batch_size, *map(_spread, _of(f, kind)), *expected))
    head = ("network", "B", *(f"{depth} layers" for depth in f.depths), "theory", "margin")
    note = (
        f"mean of {count_of_seeds(len(f.by_seed))}, least to largest; theory: infinite width, and "
        "for relu-batchnorm a large batch"
    )
    return "Factor per layer of the squared gradient norm at initialisation.\n\n" + markdown_table(
        head, rows, note
    )


def _of(f: Found, kind: Kind) -> list[np.ndarray]:
    return [f.factors(kind, depth) for depth in f.depths]


def _spread(factors: np.ndarray) -> str:
    known = factors[np.isfinite(factors)]
    if not known.size:
        return "-"
    ends = "" if known.size == 1 else f" ({known.min():.3f} to {known.max():.3f})"
    return f"{known.mean():.4f}{ends}"


def summary(f: Found) -> dict[str, Any]:
    """Seed by seed: {network and batch size: {depth: factor}}."""
    return {
        str(seed): {
            kind.label: {
                str(depth): short(float(Found({seed: records}).factors(kind, depth)[0]), 6)
                for depth in f.depths
            }
            for kind in f.kinds
        }
        for seed, records in f.by_seed.items()
    }
