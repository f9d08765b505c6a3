"""Claims about the theorems (section 4 and appendix C), from studies of `experiments.theorems`.

An identity is judged by its largest residual, over random losses and over every unit of a network
along its training; an inequality by the share of cases that violate it by more than rounding. What
the paper prints has no eps, so it is judged where there is none; but the second line of Theorem
4.2, which rests on what is called mild in a network, on units, with their eps of 1e-5.

The theorems are about one BatchNorm behind a fully connected layer, so what is true of units only
as a rule is judged at the network's linear layer; at its convolutions, whose batch is that of all
positions, by claims of their own. Units were measured at steps 0, 1, 2, 4, ..., and then evenly,
and all count alike: early training weighs more than its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.claiming.claim import Claim, at
from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import Metric, Quantity, itself, numbers
from experiments.claiming.rules import Rule, at_least, at_most, times

KIND = "theorems"
STEPS = 2_000
NETWORK = at(0.1, "batchnorm")
ROUNDING = "float64 leaves 1e-12 or so; a wrong constant leaves 1e-3 and more"
LINEAR, CONVOLUTIONS = "the linear layer", "the convolutions"
FEW = 0.05  # of the units, which may have no numbers
NEVER = "a theorem holds always; one case in a hundred, beyond rounding, refutes it"


def records(run: Trace, theorem: str) -> list[dict[str, Any]]:
    """Random losses and the network's units, as far as they were measured for the theorem."""
    seen = [*run.between("heads", 0, 1), *run.between("theorems", 0, STEPS)]
    return [record for record in seen if theorem in record["residual"]]


def residual(theorem: str) -> Quantity:
    def of(run: Trace) -> float:
        return float(numbers([r["residual"][theorem] for r in records(run, theorem)]).max())

    return Quantity(f"largest residual of {theorem}, random losses and units in training", of)


def violated(theorem: str) -> Quantity:
    """Of the random losses at eps = 0, which is the paper's."""

    def of(run: Trace) -> float:
        return float(np.mean([r["exceeded"][theorem] for r in run.between("heads", 0, 1, eps=0)]))

    return Quantity(f"share that violates {theorem}, random losses at eps = 0", of)


def column(record: dict[str, Any], name: str) -> Any:
    """A number of a unit's record; "residual 4.5" and "exceeded 4.2b" by theorem. An inequality
    whose sides were no numbers is neither kept nor violated: null."""
    kind, _, theorem = name.partition(" ")
    if not theorem:
        return record[name]
    if kind == "exceeded" and record["residual"][theorem] is None:
        return None
    return record[kind][theorem]


def units(
    text: str,
    names: Sequence[str],
    reduce: Callable[..., Any],
    layers: str | None = None,
) -> Quantity:
    """`reduce` takes these columns, over all steps and the units of LINEAR or CONVOLUTIONS layers
    (None: all). A unit at a step at which one of them is null (a unit without a gradient has no
    directions) does not count; Missing if more than FEW are so."""

    def of(run: Trace) -> float:
        seen = run.between("theorems", 0, STEPS)
        if layers is not None:
            last = len(run.settings["channels"]) + 1  # a norm behind each convolution, then one
            seen = [r for r in seen if (r["layer"] == last) == (layers == LINEAR)]
        if not seen:
            raise Missing(f"{run} has no units of {layers} on record")
        rows = np.array([numbers([column(r, name) for name in names], np.nan) for r in seen])
        known = ~np.isnan(rows).any(axis=1)
        if (lost := 1 - known.mean()) > FEW:
            raise Missing(f"{run}: {', '.join(names)} is not finite in {lost:.0%} of the units")
        return float(reduce(*rows[known].T))

    where = f"units of {layers}" if layers else "units"
    return Quantity(f"{text}, {where} in training", of)


def identity(id: str, says: str, place: str, theorem: str, main: bool = False) -> Claim:
    return Claim(
        id, says, place, KIND, NETWORK, itself(residual(theorem)), at_most(1e-10, opposite=1e-6),
        ROUNDING, main=main,
    )  # fmt: skip


def always(id: str, says: str, place: str, theorem: str, main: bool = False) -> Claim:
    return Claim(
        id, says, place, KIND, NETWORK, itself(violated(theorem)),
        at_most(0, opposite=0.01), NEVER, main=main,
    )  # fmt: skip


IDENTITIES = [
    identity("fact-c2", "Facts C.1, C.2: the Jacobian of BatchNorm", "App. C", "C.2"),
    identity(
        "theorem-4.1", "Theorem 4.1, corrected: an equality", "§4.2, with 1/m and eps", "4.1",
        main=True,
    ),
    identity("theorem-4.2-hessian", "The Hessian of Theorem 4.2", "App. C, (41), (42)",
             "4.2 Hessian"),
    identity(
        "theorem-4.2a", "Theorem 4.2, first line: an equality", "§4.2, with eps", "4.2a",
        main=True,
    ),
    identity("observation-4.3", "Observation 4.3: BatchNorm can be the identity", "§4.2", "4.3"),
    identity(
        "theorem-4.4", "Theorem 4.4, corrected: an equality", "§4.3, with lambda² and 1/m",
        "4.4", main=True,
    ),
    identity("theorem-c1", "Theorem C.1, at the worst inputs of 4.4", "App. C", "C.1"),
    replace(
        identity("lemma-4.5", "Lemma 4.5's algebra", "§4.3", "4.5"),
        amended="it was called the lemma and a main claim, but it is true of any two vectors: the "
        "lemma is judged by lemma-4.5-holds. The verdict is as it was",
    ),
    identity("scale-invariance", "BatchNorm ignores the scale of its weights", "§4.3",
             "4.5 scale invariance"),
]  # fmt: skip

PRINTED = [
    always("theorem-4.1-printed", "Theorem 4.1 as printed in v3", "§4.2, with 1/√m",
           "4.1 printed", main=True),
    always("theorem-4.1-later", "Theorem 4.1 as in later versions", "§4.2, with 1/m",
           "4.1 without eps"),
    always("theorem-4.4-printed", "Theorem 4.4 as printed in v3", "§4.3", "4.4 printed",
           main=True),
    always("theorem-c1-printed", "Theorem C.1 as printed", "App. C",
           "C.1 printed"),
]  # fmt: skip


def of_units(
    id: str,
    says: str,
    text: str,
    names: Sequence[str],
    reduce: Callable[..., Any],
    rule: Rule,
    why: str,
    before: str,
    *,
    place: str = "§4.2",
    quotient: bool = False,
    main: bool = False,
    again: str = "",
) -> list[Claim]:
    """The claim at the linear layer, the paper's case, and at the convolutions. before: the verdict
    on all layers together; again: what else was amended."""
    claims = []
    for layers in (LINEAR, CONVOLUTIONS):
        ours = layers == LINEAR
        taken = units(text, names, reduce, layers)
        claims.append(Claim(
            id if ours else f"{id}-convolutions",
            says if ours else f"At convolutions: {says}",
            place if ours else "not in the paper: convolutions",
            KIND, NETWORK, Metric(taken, "{0}", lambda a: a, quotient=quotient), rule, why,
            main=main and ours,
            amended=f"by kind of layer, as opposite things are true of them; all together were "
            f"{before}{again}" if ours else f"added: see {id}",
        ))  # fmt: skip
    return claims


MOSTLY = at_least(0.75, opposite=0.5)
USUALLY = "three of four, to be called usual; half would be chance"


def positive(x: np.ndarray) -> Any:
    return np.mean(x > 0)


def lemma(algebra: np.ndarray, invariance: np.ndarray, multiple: np.ndarray) -> Any:
    return np.mean((algebra <= 1e-10) & (invariance <= 1e-10) & (multiple > 0))


READING = [
    *of_units(
        "theorem-4.2b", "Theorem 4.2, second line, its condition called mild",
        "share violated", ["exceeded 4.2b"], np.mean, at_most(0.05, opposite=0.25),
        "what rests on a mild condition should fail in one case of twenty at most",
        "contradicted (0.49)", main=True,
    ),
    *of_units(
        "gradient-flatter", "Theorem 4.1: activations' gradient is smaller",
        "median of ‖∇L̂‖²/‖∇L‖²", ["reduction"], np.median, at_most(0.9, opposite=1.1),
        "a tenth; the theorem alone allows more than 1, by its factor", "undecided (1.00)",
    ),
    *of_units(
        "sigma-above-gamma", "Theorem 4.1: sigma tends to be larger than gamma",
        "median of gamma²/sigma²", ["scaling"], np.median, at_most(0.9, opposite=1.1),
        "a tenth", "undecided (1.04)",
    ),
    *of_units(
        "gradient-loses-parts", "4.1: the gradient loses its mean and correlation",
        "median share of ‖∇L‖² removed × m / 2", ["mean", "correlation", "m"],
        lambda mean, correlation, m: np.median((mean + correlation) * m / 2), times(2),
        "twice what a gradient of random direction loses, 1 / m by each of the two",
        "undecided (0.0048)", quotient=True,
        again=", by the share itself, from 0.01 on, which chance fulfils at m below 200",
    ),
    *of_units(
        "hessian-positive", "Theorem 4.2's first condition: dᵀHd > 0",
        "share with dᵀHd > 0", ["along"], positive, MOSTLY, USUALLY, "reproduced (1.00)",
    ),
    *of_units(
        "correlation-positive", "Theorem 4.2's second condition: ⟨∇L, ŷ⟩ > 0",
        "share with ⟨∇L, ŷ⟩ > 0", ["cosine"], positive, MOSTLY, USUALLY, "contradicted (0.48)",
    ),
    *of_units(
        "curvature-smaller", "4.2: the loss curves less along its gradient",
        "share that curves less", ["curvature", "vanilla"],
        lambda normed, vanilla: np.mean(normed < vanilla), MOSTLY, USUALLY, "undecided (0.50)",
    ),
    *of_units(
        "lemma-condition", "Lemma 4.5's condition: ⟨W, W_0⟩ > 0, W as trained",
        "share with k > 0", ["multiple"], positive, MOSTLY, USUALLY, "reproduced (1.00)",
        place="§4.3",
    ),
    Claim(
        "lemma-4.5-holds", "Lemma 4.5: algebra, scale invariance, and k > 0 in every unit", "§4.3",
        KIND, NETWORK,
        itself(units("share with residuals ≤ 1e-10 and k > 0",
                     ["residual 4.5", "residual 4.5 scale invariance", "multiple"], lemma)),
        at_least(1, opposite=0.99),
        NEVER + "; scale invariance is exact with eps multiplied by the square of the scale",
        main=True, amended="added: lemma-4.5 alone is true of any two vectors",
    ),
]  # fmt: skip

CLAIMS = [*IDENTITIES, *PRINTED, *READING]
