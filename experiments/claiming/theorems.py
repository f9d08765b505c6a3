"""Claims about the theorems (section 4 and appendix C), from studies of `experiments.theorems`.

An identity is judged by its largest residual, over random losses and over every unit of a network
along its training; an inequality by the share of cases that violate it by more than rounding. What
the paper prints has no eps, so it is judged where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.claiming.claim import Claim, at
from experiments.claiming.evidence import Trace
from experiments.claiming.metrics import Quantity, itself, numbers
from experiments.claiming.rules import Rule, at_least, at_most

KIND = "theorems"
STEPS = 2_000
NETWORK = at(0.1, "batchnorm")
ROUNDING = "float64 leaves 1e-12 or so; a wrong constant leaves 1e-3 and more"
NEVER = "a theorem holds always; one case in a hundred, beyond rounding, refutes it"


def records(run: Trace, theorem: str) -> list[dict[str, Any]]:
    """Random losses and the network's units, as far as they were measured for the theorem."""
    seen = [*run.between("heads", 0, 1), *run.between("theorems", 0, STEPS)]
    return [record for record in seen if theorem in record["residual"]]


def residual(theorem: str) -> Quantity:
    def of(run: Trace) -> float:
        return float(numbers([r["residual"][theorem] for r in records(run, theorem)]).max())

    return Quantity("largest residual, random losses and units in training", of)


def violated(theorem: str, stream: str) -> Quantity:
    """stream: of random losses, "heads", those at eps = 0, which is the paper's; or of "theorems",
    the network's units."""

    def of(run: Trace) -> float:
        if stream == "heads":
            seen = run.between("heads", 0, 1, eps=0)
        else:
            seen = run.between("theorems", 0, STEPS)
        return float(np.mean([r["exceeded"][theorem] for r in seen]))

    where = {"heads": "random losses at eps = 0", "theorems": "units in training"}[stream]
    return Quantity(f"share violated, {where}", of)


def units(text: str, reduce: Callable[[dict[str, np.ndarray]], Any]) -> Quantity:
    """`reduce` takes name -> values over all units and steps; the finite ones count."""
    names = ("scaling", "mean", "correlation", "reduction", "cosine", "vanilla", "along",
             "curvature", "multiple")  # fmt: skip

    def of(run: Trace) -> float:
        seen = run.between("theorems", 0, STEPS)
        return float(reduce({name: numbers([r[name] for r in seen]) for name in names}))

    return Quantity(f"{text}, units in training", of)


def identity(id: str, says: str, place: str, theorem: str, main: bool = False) -> Claim:
    return Claim(
        id, says, place, KIND, NETWORK, itself(residual(theorem)), at_most(1e-10, opposite=1e-6),
        ROUNDING, main=main,
    )  # fmt: skip


def always(id: str, says: str, place: str, theorem: str, main: bool = False) -> Claim:
    return Claim(
        id, says, place, KIND, NETWORK, itself(violated(theorem, "heads")), at_most(0,
        opposite=0.01),
        NEVER, main=main,
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
    identity("lemma-4.5", "Lemma 4.5: initialised no farther from an optimum", "§4.3", "4.5",
             main=True),
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
    Claim(
        "theorem-4.2b", "Theorem 4.2, second line, whose condition is said to be mild", "§4.2",
        KIND, NETWORK, itself(violated("4.2b", "theorems")), at_most(0.05, opposite=0.25),
        "what rests on a mild condition should fail in one case of twenty at most", main=True,
    ),
]  # fmt: skip


def of_units(
    id: str, says: str, text: str, reduce: Callable[[dict[str, Any]], Any], rule: Rule, why: str
) -> Claim:
    return Claim(id, says, "§4.2", KIND, NETWORK, itself(units(text, reduce)), rule, why)


MOSTLY = at_least(0.75, opposite=0.5)
USUALLY = "three of four, to be called usual; half would be chance"

READING = [
    of_units(
        "gradient-flatter", "Theorem 4.1: the gradient at the activations is smaller",
        "median of ‖∇L̂‖²/‖∇L‖²", lambda u: np.median(u["reduction"]), at_most(0.9, opposite=1.1),
        "a tenth; the theorem alone allows more than 1, by its factor",
    ),
    of_units(
        "sigma-above-gamma", "Theorem 4.1: sigma tends to be larger than gamma",
        "median of gamma²/sigma²", lambda u: np.median(u["scaling"]), at_most(0.9, opposite=1.1),
        "a tenth",
    ),
    of_units(
        "gradient-loses-parts", "Theorem 4.1: the gradient loses its mean and correlation",
        "median share of ‖∇L‖² removed", lambda u: np.median(u["mean"] + u["correlation"]),
        at_least(0.01, opposite=0.001), "one per cent, to be called an effect",
    ),
    of_units(
        "hessian-positive", "Theorem 4.2's first condition: dᵀHd > 0",
        "share with dᵀHd > 0", lambda u: np.mean(u["along"] > 0), MOSTLY, USUALLY,
    ),
    of_units(
        "correlation-positive", "Theorem 4.2's second condition: ⟨∇L, ŷ⟩ > 0",
        "share with ⟨∇L, ŷ⟩ > 0", lambda u: np.mean(u["cosine"] > 0), MOSTLY, USUALLY,
    ),
    of_units(
        "curvature-smaller", "Theorem 4.2: the loss curves less along its gradient",
        "share that curves less", lambda u: np.mean(u["curvature"] < u["vanilla"]), MOSTLY,
        USUALLY,
    ),
    of_units(
        "lemma-condition", "Lemma 4.5's condition: ⟨W, W_0⟩ > 0, W as trained",
        "share with k > 0", lambda u: np.mean(u["multiple"] > 0), MOSTLY, USUALLY,
    ),
]  # fmt: skip

CLAIMS = [*IDENTITIES, *PRINTED, *READING]
