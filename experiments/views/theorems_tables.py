"""The results of `theorems`: which forms hold, which are violated how often, the shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.training.json_files import float_array
from experiments.training.study import Study
from experiments.views.tables import short
from minibn.errors import DataError

# Identities: name -> (what it says, how it differs from the paper's form)
EXACT = {
    "C.2": ("∇_y L̂ = gamma/sigma · P ∇_y L (eq. 8)", "as printed"),
    "4.1": ("‖∇_y L̂‖², three shares", "= for ≤; 2/m - ‖y_hat‖²/m² for 1/√m"),
    "4.2 Hessian": ("d²L̂/dy², in full (eqs. 41, 42)", "as printed; at any eps"),
    "4.2a": ("curvature along ∇_y L̂", "= for ≤; P ∇_y L̂ for ∇_y L̂ where eps > 0"),
    "4.3": ("gamma = sigma, beta = mu gives z = y", "as printed"),
    "4.4": ("largest ‖∇_w L̂‖² over ‖X‖ ≤ lambda", "= for ≤; lambda² and 1/m; no second square"),
    "C.1": ("curvature along ∇_w L̂ at X Xᵀ = lambda² I", "= for <; at this X, not at each maximum"),
    "4.5": ("‖w_0 - k w*‖²", "= for ≤"),
    "4.5 scale invariance": ("BN(a y) = BN(y)", "with eps a² for eps"),
    "4.5 orthogonality": ("⟨w, ∇_w L̂⟩ = 0", "gamma ⟨∇_y L, y_hat⟩ eps/(var + eps) for 0"),
}
# Forms printed with ≤: name -> what it says
ORDERED = {
    "4.1 printed": "4.1 of v3, with 1/√m",
    "4.1 without eps": "4.1 of later versions, with 1/m",
    "4.2a printed": "4.2a",
    "4.2b": "4.2b",
    "4.4 printed": "4.4 of v3",
    "C.1 printed": "C.1, about both maxima",
}
SHARES = ("scaling", "mean", "correlation", "reduction", "weight_reduction")
TARGET = 1e-10  # residuals in float64 are to stay below

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Found:
    """The records of all runs of some studies: seed -> those of random losses, and of units."""

    heads: dict[int, Records]
    units: dict[int, Records]

    @property
    def all_heads(self) -> Records:
        return [r for records in self.heads.values() for r in records]

    @property
    def all_units(self) -> Records:
        return [r for records in self.units.values() for r in records]

    @property
    def layers(self) -> list[int]:
        return sorted({r["layer"] for r in self.all_units})

    @property
    def steps(self) -> list[int]:
        return sorted({r["step"] for r in self.all_units})

    def at(self, layer: int, step: int) -> Records:
        """The units of a layer at a step, of all seeds."""
        return [r for r in self.all_units if (r["layer"], r["step"]) == (layer, step)]


def find_records(studies: Sequence[Study]) -> Found:
    """The records of the studies. Raises DataError if nothing was measured yet."""
    runs = {r.config["seed"]: r for study in studies for r in study.runs()}
    found = Found(
        {seed: run.records("heads") for seed, run in sorted(runs.items())},
        {seed: run.records("theorems") for seed, run in sorted(runs.items())},
    )
    if not found.all_units or not found.all_heads:
        raise DataError(f"{studies[0].folder} has no run with measurements yet.")
    return found


def values(records: Records, key: str) -> np.ndarray:
    """The values of this key, without null."""
    return np.array([r[key] for r in records if r[key] is not None])


def residuals(records: Records, theorem: str) -> np.ndarray:
    """The relative residuals; infinite where one is not finite. Empty if it was not computed."""
    return float_array(
        [r["residual"][theorem] for r in records if theorem in r["residual"]], np.inf
    )


def violations(records: Records, form: str) -> np.ndarray:
    """Whether each case violates the form; empty if that was not computed."""
    return np.array([r["exceeded"][form] for r in records if form in r["exceeded"]], bool)


def largest(found: np.ndarray) -> str:
    return f"{found.max():.0e}" if found.size else "-"


def percent(found: np.ndarray) -> str:
    return f"{found.mean():.0%}" if found.size else "-"


def quartiles(found: np.ndarray) -> str:
    """Median and quartiles."""
    if not found.size:
        return "-"
    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
    return f"{middle:.2g} ({low:.2g} to {high:.2g})"


# -- tables


def identities(f: Found) -> str:
    heads, units = f.all_heads, f.all_units
    rows = [
        (name, what, how, largest(residuals(heads, name)), largest(residuals(units, name)))
        for name, (what, how) in EXACT.items()
    ]
    head = ("theorem", "about", "corrected form against v3", "random losses", "units of a network")
    return (
        f"Identities: the largest relative residual of {len(heads):,} random losses and of "
        f"{len(units):,} measurements of the network's units ({len(f.units)} seeds). The target "
        f"is {TARGET:.0e}.\n\n" + markdown_table(head, rows)
    )


def orders(f: Found) -> str:
    plain = [r for r in f.all_heads if r["eps"] == 0]
    with_eps = [r for r in f.all_heads if r["eps"] > 0]
    rows = [
        (
            what,
            *(percent(violations(records, name)) for records in (plain, with_eps, f.all_units)),
            *(largest(residuals(records, name)) for records in (plain, with_eps, f.all_units)),
        )
        for name, what in ORDERED.items()
    ]
    head = (
        "≤ as printed", "violated: eps = 0", "eps > 0", "units",
        "largest difference: eps = 0", "eps > 0", "units",
    )  # fmt: skip
    return (
        "As printed: how often left ≤ right is violated, by more than rounding, and by how much "
        f"the sides differ. Random losses at eps = 0 ({len(plain):,}) and at eps > 0 "
        f"({len(with_eps):,}); units of the network ({len(f.all_units):,}).\n\n"
        + markdown_table(head, rows)
    )


def conditions(f: Found) -> str:
    groups = {
        f"random losses, {kind}": [r for r in f.all_heads if r["head"] == kind]
        for kind in sorted({r["head"] for r in f.all_heads})
    }
    for layer in f.layers:
        groups[f"layer {layer}"] = [r for r in f.all_units if r["layer"] == layer]
    rows = []
    for name, records in groups.items():
        signs = (values(records, k) > 0 for k in ("cosine", "vanilla", "along", "curvature"))
        holds = (~violations(records, form) for form in ("4.2b", "C.1 printed"))
        rows.append((name, f"{len(records):,}", *map(percent, signs), *map(percent, holds)))
    head = (
        "", "n", "⟨∇_y L, y_hat⟩ > 0", "H along ∇_y L > 0", "along ∇_y L̂ > 0", "d²L̂/dy² > 0",
        "4.2b holds", "C.1 holds",
    )  # fmt: skip
    return (
        "The conditions that the paper calls mild, and what rests on them: shares of the cases.\n\n"
        + markdown_table(head, rows)
    )


def shares(f: Found) -> str:
    rows = []
    for layer in f.layers:
        for step in (f.steps[0], f.steps[-1]):
            records = f.at(layer, step)
            m = records[0]["m"]
            found = (quartiles(values(records, k)) for k in SHARES)
            rows.append((f"{layer}", f"{m:,}", f"{step:,}", f"{1 / m:.1g}", *found))
    head = (
        "layer", "m", "step", "1/m", "gamma²/sigma²", "mean removed", "correlation removed",
        "‖∇_y L̂‖²/‖∇_y L‖²", "the same of its weights",
    )  # fmt: skip
    return (
        "Theorem 4.1's shares: median (quartiles) over units and seeds. What is removed is a share "
        "of ‖∇_y L‖²; a gradient of random direction would lose 1/m to each.\n\n"
        + markdown_table(head, rows)
    )


def summary(f: Found) -> dict[str, Any]:
    """Seed by seed: largest residuals, shares of violations, and the medians of each layer."""
    found: dict[str, Any] = {}
    for seed in f.units:
        one = Found({seed: f.heads[seed]}, {seed: f.units[seed]})
        parts = {"heads": one.all_heads, "units": one.all_units}
        found[str(seed)] = {part: _worst_and_shares(records) for part, records in parts.items()}
        found[str(seed)]["shares"] = {
            f"layer {layer}": {
                str(step): _digits({k: values(one.at(layer, step), k) for k in SHARES}, np.median)
                for step in one.steps
            }
            for layer in one.layers
        }
    return found


def _worst_and_shares(records: Records) -> dict[str, Any]:
    return {
        "n": len(records),
        "residual": _digits({name: residuals(records, name) for name in EXACT}, np.max),
        "violated": _digits({form: violations(records, form) for form in ORDERED}, np.mean),
    }


def _digits(found: dict[str, np.ndarray], of: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """{name: one number of the values}, without empty ones."""
    return {name: short(float(of(v))) for name, v in found.items() if v.size}
