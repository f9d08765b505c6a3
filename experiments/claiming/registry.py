"""Claims: rows of claims.toml, and the numbers that the runs give for them."""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claiming.judging import SAYS, Verdict, judge
from experiments.claiming.quantities import QUANTITIES
from experiments.claiming.streams import Missing, RunStreams
from minibn.errors import DataError

FILE = Path(__file__).parent / "claims.toml"
WIDE = "full"  # the scale of the paper's width, at few steps
MOST = 40  # a table that is read to its end
Slot = str | list[str]  # a variant, or several of which the worst for the claim counts

# From the numbers of the runs, in order, to the number that is judged. Of quotients it is the
# logarithm: then a quotient and its inverse are alike, and their mean is the geometric one.
COMBINE: dict[str, Callable[..., Any]] = {
    "value": lambda a, reference: a - reference,
    "value below": lambda a, reference: reference - a,
    "difference": lambda a, b: a - b,
    "quotient": lambda a, b: a - b,
    "difference of differences": lambda a, b, c, d: (a - b) - (c - d),
    "quotient of quotients": lambda a, b, c, d: (a - b) - (c - d),
}


@dataclass(frozen=True)
class Claim:
    """A row. sentence: the claim; source: who makes it; scale: the settings of the runs, by a name
    of the file (or one for each run); runs: variants, in the order of `combine`; lr: their rate;
    metric and options: of QUANTITIES; says: more, not less or alike (see `judging`); margin: the
    least effect that matters, a factor for quotients; seeds: how many are needed; why: of the
    margin; paper: the same number from the paper's curves, where it has them; reference: what a
    value is compared with; registered: a row of the file's `registrations`; amends: the claim that
    this one corrects, which stays in the table."""

    id: str
    sentence: str
    source: str
    scale: str | list[str]
    runs: list[Slot]
    metric: str
    says: str
    margin: float
    seeds: int
    why: str
    registered: str
    lr: float | None = None
    combine: str = "difference"
    options: Mapping[str, Any] = field(default_factory=dict)
    paper: float | None = None
    reference: float = 0.0
    amends: str = ""

    @property
    def is_quotient(self) -> bool:
        return self.combine.startswith("quotient")

    @property
    def limit(self) -> float:
        """The margin as it is judged: the logarithm of a factor."""
        return math.log(self.margin) if self.is_quotient else self.margin

    @property
    def scales(self) -> list[str]:
        """The scale of each run."""
        return self.scale if isinstance(self.scale, list) else [self.scale] * len(self.runs)

    def shown(self, x: float) -> float:
        """A judged number as it is read: a quotient, a difference, the value itself."""
        if self.is_quotient:
            return math.exp(x)
        return self.reference - x if self.combine == "value below" else self.reference + x


@dataclass(frozen=True)
class Claims:
    """The file. scales: name -> the settings that a run must have; registrations: name -> commit
    and date of the rules, before the runs; at_scale: see the function; withdrawn: id -> why a
    registered claim was taken back before any of its runs."""

    scales: Mapping[str, Mapping[str, Any]]
    registrations: Mapping[str, Mapping[str, str]]
    claims: tuple[Claim, ...]
    at_scale: Mapping[str, Mapping[str, Any]]
    withdrawn: Mapping[str, str]


@dataclass(frozen=True)
class Finding:
    """A claim, its numbers (one a seed, as they are judged) and the verdict."""

    claim: Claim
    values: Mapping[int, float]
    verdict: Verdict


def load(path: Path = FILE) -> Claims:
    """The claims of a file. Raises DataError for a row that can't be judged, with its id."""
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, where: str) -> Claims:
    """The claims of a text. where: its name, for errors."""
    content = tomllib.loads(text)
    scales = {}
    for name, own in content["scales"].items():
        base = content["scales"].get(own.get("like", ""), {})
        scales[name] = {k: v for k, v in {**base, **own}.items() if k != "like"}
    claims: list[Claim] = []
    for row in content["claims"]:
        full = {**content.get("defaults", {}), **row}
        full["lr"] = None if full.get("lr", "all") == "all" else full["lr"]
        if unknown := sorted(set(full) - {f.name for f in fields(Claim)}):
            raise DataError(f"{where}: {row.get('id')} has unknown keys: {', '.join(unknown)}.")
        claim = Claim(**full)
        if wrong := _wrong(claim, content, [c.id for c in claims]):
            raise DataError(f"{where}: {claim.id} can't have {', '.join(wrong)}.")
        claims.append(claim)
    if len(claims) > MOST:
        raise DataError(f"{where} has {len(claims)} claims, of at most {MOST}.")
    extra = (content.get(name, {}) for name in ("at_scale", "withdrawn"))
    return Claims(scales, content["registrations"], tuple(claims), *extra)


def _wrong(claim: Claim, content: Mapping[str, Any], before: Sequence[str]) -> list[str]:
    """What of a row can't be judged, in words."""
    if claim.combine not in COMBINE:
        return [f"combine {claim.combine!r}"]
    arguments = len(inspect.signature(COMBINE[claim.combine]).parameters)
    arguments -= claim.combine.startswith("value")  # whose last one is the reference
    checks = {
        f"metric {claim.metric!r}": claim.metric in QUANTITIES,
        f"says {claim.says!r}": claim.says in SAYS,
        f"scale {claim.scale!r}": set(claim.scales) <= set(content["scales"]),
        f"registered {claim.registered!r}": claim.registered in content["registrations"],
        f"{len(claim.runs)} runs": len(claim.runs) == arguments,
        f"margin {claim.margin}": claim.margin >= (1 if claim.is_quotient else 0),
        "the id of another": claim.id not in before,
        f"amends {claim.amends!r}": claim.amends in ("", *before),
    }
    return [what for what, is_right in checks.items() if not is_right]


def at_scale(claims: Claims, name: str) -> Claims:
    """The same claims about runs at the paper's scale: the settings `at_scale` of the file replace
    those of VGG's trainings, and claims that compare widths are left out."""
    if name == "cpu":
        return claims
    changed = {
        key: {**own, **claims.at_scale[name]} if own["experiment"] == "vgg_cifar" else own
        for key, own in claims.scales.items()
    }
    kept = tuple(claim for claim in claims.claims if WIDE not in claim.scales)
    return replace(claims, scales=changed, claims=kept)


class Evidence:
    """The runs that there are, by scale, variant and rate. A run belongs to each scale whose
    settings it has; `steps` is at least the scale's."""

    def __init__(self, runs: Sequence[RunStreams], scales: Mapping[str, Mapping[str, Any]]) -> None:
        self.all = runs
        self._of: dict[tuple[str, str, str], dict[int, RunStreams]] = {}
        for run in runs:
            for name, settings in scales.items():
                if run.result is not None and fits(run, settings):
                    key = name, run.variant, f"{run.lr:g}"
                    seeds = self._of.setdefault(key, {})
                    if seeds.setdefault(run.seed, run) is not run:
                        raise DataError(
                            f"{run} and {seeds[run.seed]} are the same run. Give one of them."
                        )

    def seeds(self, scale: str, variant: str, lr: float | None) -> Mapping[int, Any]:
        """seed -> run, of those that have ended; without a rate, the runs at all rates."""
        if lr is not None:
            return self._of.get((scale, variant, f"{lr:g}"), {})
        grid: dict[int, list[RunStreams]] = {}
        for (its_scale, its_variant, _), seeds in self._of.items():
            if (its_scale, its_variant) == (scale, variant):
                for seed, run in seeds.items():
                    grid.setdefault(seed, []).append(run)
        return grid


def fits(run: RunStreams, settings: Mapping[str, Any]) -> bool:
    """Whether a run has the settings of a scale."""
    own = {**run.settings, "experiment": run.kind}
    return all(
        own.get(name, 0) >= value if name == "steps" else own.get(name) == value
        for name, value in settings.items()
    )


def find(claims: Claims, evidence: Evidence) -> list[Finding]:
    """The numbers of every claim, and its verdict."""
    return [_find(claim, evidence, len(claims.claims)) for claim in claims.claims]


def _find(claim: Claim, evidence: Evidence, together: int) -> Finding:
    slots = [[slot] if isinstance(slot, str) else slot for slot in claim.runs]
    found = [
        [evidence.seeds(scale, variant, claim.lr) for variant in slot]
        for scale, slot in zip(claim.scales, slots, strict=True)
    ]
    seeds = sorted(set.intersection(*(set(runs) for slot in found for runs in slot)))
    values, missing = {}, {}
    for seed in seeds:
        try:
            values[seed] = number(claim, [[runs[seed] for runs in slot] for slot in found])
        except Missing as reason:
            missing[seed] = str(reason)
    if not values:
        why_not = next(iter(missing.values()), "no runs")
        return Finding(claim, {}, Verdict("undecided", "", why_not))
    verdict = judge(claim.says, claim.limit, values, runs=claim.seeds, claims=together)
    if missing and len(values) < claim.seeds:
        lacking = "; ".join(f"seed {seed}: {reason}" for seed, reason in missing.items())
        verdict = replace(verdict, reason=f"{verdict.reason} ({lacking})")
    return Finding(claim, values, verdict)


def number(claim: Claim, slots: Sequence[Sequence[Any]]) -> float:
    """What is judged, of the runs of one seed: of layers the mean, of training losses the mean over
    those that all the runs pass. Raises Missing if there is none."""
    quantity = QUANTITIES[claim.metric]
    numbers = []
    for i, slot in enumerate(slots):
        with np.errstate(all="ignore"):
            found = [np.asarray(quantity(run, **claim.options), np.float64) for run in slot]
            found = [np.log(x) for x in found] if claim.is_quotient else found
        # The worst for the claim: the least of what it calls larger, the largest of the other.
        numbers.append(np.min(found, axis=0) if i == 0 else np.max(found, axis=0))
    if claim.combine.startswith("value"):
        numbers.append(np.asarray(claim.reference))
    with np.errstate(all="ignore"):
        entries = np.atleast_1d(COMBINE[claim.combine](*numbers))
    known = entries[~np.isnan(entries)]
    if not known.size or (known.size < entries.size and not claim.options.get("at_loss")):
        raise Missing("no training loss that all the runs pass" if claim.options.get("at_loss")
                      else "not a number")  # fmt: skip
    return float(known.mean())
