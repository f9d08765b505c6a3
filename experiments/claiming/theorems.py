"""Claims about the theorems as such (section 4 and appendix C), from studies of
`experiments.theorems`.

An identity is judged by its largest residual, over random losses and over every unit of a network
along its training; an inequality by the share of cases that violate it by more than rounding. What
the paper prints has no eps, so it is judged where there is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.claiming.claim import Claim, at
from experiments.claiming.evidence import Trace
from experiments.claiming.metrics import INF, Quantity, itself
from experiments.claiming.rules import at_most
from experiments.training.json_files import float_array

KIND = "theorems"
STEPS = 2_000
NETWORK = at(0.1, "batchnorm")
ROUNDING = "float64 leaves 1e-12 or so; a wrong constant leaves 1e-3 and more"
NEVER = "a theorem holds always; one case in a hundred, beyond rounding, refutes it"


def records(run: Trace, theorem: str) -> list[dict[str, Any]]:
    """The records of random losses and of the network's units that have this theorem."""
    seen = [*run.between("heads", 0, 1), *run.between("theorems", 0, STEPS)]
    return [record for record in seen if theorem in record["residual"]]


def residual(theorem: str) -> Quantity:
    def of(run: Trace) -> float:
        return float(
            float_array([r["residual"][theorem] for r in records(run, theorem)], null=INF).max()
        )

    return Quantity(f"largest residual of {theorem}, random losses and units in training", of)


def violation_share(theorem: str) -> Quantity:
    """Of the random losses at eps = 0, which is the paper's."""

    def of(run: Trace) -> float:
        return float(np.mean([r["exceeded"][theorem] for r in run.between("heads", 0, 1, eps=0)]))

    return Quantity(f"share that violates {theorem}, random losses at eps = 0", of)


def identity(
    id: str, says: str, *, place: str, theorem: str, main: bool = False, amended: str = ""
) -> Claim:
    return Claim(
        id,
        says,
        place=place,
        kind=KIND,
        runs=NETWORK,
        metric=itself(residual(theorem)),
        rule=at_most(1e-10, opposite=1e-6),
        why=ROUNDING,
        main=main,
        amended=amended,
    )


def always(
    id: str, says: str, *, place: str, theorem: str, main: bool = False, amended: str = ""
) -> Claim:
    return Claim(
        id,
        says,
        place=place,
        kind=KIND,
        runs=NETWORK,
        metric=itself(violation_share(theorem)),
        rule=at_most(0, opposite=0.01),
        why=NEVER,
        main=main,
        amended=amended,
    )


IDENTITIES = [
    identity("fact-c2", "Facts C.1, C.2: the Jacobian of BatchNorm", place="App. C", theorem="C.2"),
    identity(
        "theorem-4.1",
        "Theorem 4.1, corrected: an equality",
        place="§4.2, with 1/m and eps",
        theorem="4.1",
        main=True,
    ),
    identity(
        "theorem-4.2-hessian",
        "The Hessian of Theorem 4.2",
        place="App. C, (41), (42)",
        theorem="4.2 Hessian",
    ),
    identity(
        "theorem-4.2a",
        "Theorem 4.2, first line: an equality",
        place="§4.2, with eps",
        theorem="4.2a",
        main=True,
    ),
    identity(
        "observation-4.3",
        "Observation 4.3: BatchNorm can be the identity",
        place="§4.2",
        theorem="4.3",
    ),
    identity(
        "theorem-4.4",
        "Theorem 4.4, corrected: an equality",
        place="§4.3, with lambda² and 1/m",
        theorem="4.4",
        main=True,
    ),
    identity(
        "theorem-c1", "Theorem C.1, at the worst inputs of 4.4", place="App. C", theorem="C.1"
    ),
    identity(
        "lemma-4.5",
        "Lemma 4.5's algebra",
        place="§4.3",
        theorem="4.5",
        amended="it was called the lemma and a main claim, but it is true of any two vectors: the "
        "lemma is judged by lemma-4.5-holds. The verdict is as it was",
    ),
    identity(
        "scale-invariance",
        "BatchNorm ignores the scale of its weights",
        place="§4.3",
        theorem="4.5 scale invariance",
    ),
]

PRINTED = [
    always(
        "theorem-4.1-printed",
        "Theorem 4.1 as printed in v3",
        place="§4.2, with 1/√m",
        theorem="4.1 printed",
        main=True,
    ),
    always(
        "theorem-4.1-later",
        "Theorem 4.1 as in later versions",
        place="§4.2, with 1/m",
        theorem="4.1 without eps",
    ),
    always(
        "theorem-4.2a-printed",
        "Theorem 4.2, first line, as printed",
        place="§4.2, without eps",
        theorem="4.2a printed",
        amended="added: it stood in the table of the theorems, where no random loss violates it "
        "without eps, and was no claim",
    ),
    always(
        "theorem-4.4-printed",
        "Theorem 4.4 as printed in v3",
        place="§4.3",
        theorem="4.4 printed",
        main=True,
    ),
    always("theorem-c1-printed", "Theorem C.1 as printed", place="App. C", theorem="C.1 printed"),
]

CLAIMS = [*IDENTITIES, *PRINTED]
