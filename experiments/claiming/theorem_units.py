"""Claims about what the theorems mean in a network in training: conditions that the paper calls
mild, quantities that it says tend to be small.

The theorems are about one BatchNorm after a fully connected layer, so claims about most units are
judged at the network's linear layer; those at its convolutions, whose batch is that of all
positions, are claims of their own. Units have an eps of 1e-5. They were measured at steps 0, 1, 2,
4, ..., and then evenly, and all count alike: early training weighs more than its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.claiming.claim import Claim
from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import Metric, Quantity, itself
from experiments.claiming.rules import Rule, at_least, at_most, times
from experiments.claiming.theorems import KIND, NETWORK, NEVER, STEPS
from experiments.training.json_files import float_array

LINEAR, CONVOLUTIONS = "the linear layer", "the convolutions"
FEW = 0.05  # share of the units that may lack numbers


def column(record: dict[str, Any], name: str) -> Any:
    """A number of a unit's record; "residual 4.5" and "exceeded 4.2b" by theorem. An inequality
    whose sides were nan is neither satisfied nor violated: None."""
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
    directions) does not count. Raises Missing if more than FEW do not."""

    def of(run: Trace) -> float:
        seen = run.between("theorems", 0, STEPS)
        if layers is not None:
            last = len(run.settings["channels"]) + 1  # a norm behind each convolution, then one
            seen = [r for r in seen if (r["layer"] == last) == (layers == LINEAR)]
        if not seen:
            raise Missing(f"{run} has no units of {layers} on record")
        rows = np.array(
            [float_array([column(r, name) for name in names], null=np.nan) for r in seen]
        )
        known = ~np.isnan(rows).any(axis=1)
        if (lost := 1 - known.mean()) > FEW:
            raise Missing(f"{run}: {', '.join(names)} is not finite in {lost:.0%} of the units")
        return float(reduce(*rows[known].T))

    where = f"units of {layers}" if layers else "units"
    return Quantity(f"{text}, {where} in training", of)


def of_units(
    id: str,
    says: str,
    *,
    text: str,
    names: Sequence[str],
    reduce: Callable[..., Any],
    rule: Rule,
    why: str,
    before: str,
    place: str = "§4.2",
    quotient: bool = False,
    main: bool = False,
) -> list[Claim]:
    """The claim at the linear layer, the paper's case, and at the convolutions. before: the verdict
    on all layers together."""

    def metric(layers: str) -> Metric:
        quantity = units(text, names, reduce, layers)
        return Metric(quantity, "{0}", lambda a: a, quotient=quotient)

    return [
        Claim(
            id,
            says,
            place=place,
            kind=KIND,
            runs=NETWORK,
            metric=metric(LINEAR),
            rule=rule,
            why=why,
            main=main,
            amended="by kind of layer, as opposite things are true of them; all together were "
            f"{before}",
        ),
        Claim(
            f"{id}-convolutions",
            f"At convolutions: {says}",
            place="not in the paper: convolutions",
            kind=KIND,
            runs=NETWORK,
            metric=metric(CONVOLUTIONS),
            rule=rule,
            why=why,
            amended=f"added: see {id}",
        ),
    ]


MOSTLY = at_least(0.75, opposite=0.5)
USUALLY = "three of four, to be called usual; half would be chance"


def positive(x: np.ndarray) -> Any:
    return np.mean(x > 0)


def lemma(algebra: np.ndarray, invariance: np.ndarray, multiple: np.ndarray) -> Any:
    return np.mean((algebra <= 1e-10) & (invariance <= 1e-10) & (multiple > 0))


def removed_over_chance(mean: np.ndarray, correlation: np.ndarray, m: np.ndarray) -> Any:
    return np.median((mean + correlation) * m / 2)


def curves_less(normed: np.ndarray, vanilla: np.ndarray) -> Any:
    return np.mean(normed < vanilla)


CLAIMS = [
    *of_units(
        "theorem-4.2b",
        "Theorem 4.2, second line, its condition called mild",
        text="share violated",
        names=["exceeded 4.2b"],
        reduce=np.mean,
        rule=at_most(0.05, opposite=0.25),
        why="what rests on a mild condition should fail in one case of twenty at most",
        before="contradicted (0.49)",
        main=True,
    ),
    *of_units(
        "gradient-flatter",
        "Theorem 4.1: activations' gradient is smaller",
        text="median of ‖∇L̂‖²/‖∇L‖²",
        names=["reduction"],
        reduce=np.median,
        rule=at_most(0.9, opposite=1.1),
        why="a tenth; the theorem alone allows more than 1, by its factor",
        before="undecided (1.00)",
    ),
    *of_units(
        "sigma-above-gamma",
        "Theorem 4.1: sigma tends to be larger than gamma",
        text="median of gamma²/sigma²",
        names=["scaling"],
        reduce=np.median,
        rule=at_most(0.9, opposite=1.1),
        why="a tenth",
        before="undecided (1.04)",
    ),
    *of_units(
        "gradient-loses-parts",
        "4.1: the gradient loses its mean and correlation",
        text="median share of ‖∇L‖² removed × m / 2",
        names=["mean", "correlation", "m"],
        reduce=removed_over_chance,
        rule=times(2),
        why="twice what a gradient of random direction loses, 1 / m by each of the two",
        before="undecided (0.0048), by the share itself, from 0.01 on, which chance fulfils at m "
        "below 200",
        quotient=True,
    ),
    *of_units(
        "hessian-positive",
        "Theorem 4.2's first condition: dᵀHd > 0",
        text="share with dᵀHd > 0",
        names=["along"],
        reduce=positive,
        rule=MOSTLY,
        why=USUALLY,
        before="reproduced (1.00)",
    ),
    *of_units(
        "correlation-positive",
        "Theorem 4.2's second condition: ⟨∇L, ŷ⟩ > 0",
        text="share with ⟨∇L, ŷ⟩ > 0",
        names=["cosine"],
        reduce=positive,
        rule=MOSTLY,
        why=USUALLY,
        before="contradicted (0.48)",
    ),
    *of_units(
        "curvature-smaller",
        "4.2: the loss curves less along its gradient",
        text="share that curves less",
        names=["curvature", "vanilla"],
        reduce=curves_less,
        rule=MOSTLY,
        why=USUALLY,
        before="undecided (0.50)",
    ),
    *of_units(
        "lemma-condition",
        "Lemma 4.5's condition: ⟨W, W_0⟩ > 0, W as trained",
        text="share with k > 0",
        names=["multiple"],
        reduce=positive,
        rule=MOSTLY,
        why=USUALLY,
        before="reproduced (1.00)",
        place="§4.3",
    ),
    Claim(
        "lemma-4.5-holds",
        "Lemma 4.5: algebra, scale invariance, and k > 0 in every unit",
        place="§4.3",
        kind=KIND,
        runs=NETWORK,
        metric=itself(
            units(
                "share with residuals ≤ 1e-10 and k > 0",
                ["residual 4.5", "residual 4.5 scale invariance", "multiple"],
                lemma,
            )
        ),
        rule=at_least(1, opposite=0.99),
        why=NEVER + "; scale invariance is exact with eps multiplied by the square of the scale",
        main=True,
        amended="added: lemma-4.5 alone is true of any two vectors",
    ),
]
