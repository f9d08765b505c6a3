"""Claims about the landscape of the deep linear network (Figs. 10, 11b, 13)."""

from __future__ import annotations

from experiments import paper
from experiments.claiming.claim import BN, LP_NORMS, STD, Claim, at
from experiments.claiming.deep_linear import DLN, LR, SECOND_HALF, WHOLE
from experiments.claiming.metrics import difference, itself, quotient
from experiments.claiming.probes import (
    beta,
    beta_over_edge,
    decades,
    gradient_change,
    hessian,
    probe_quantity,
)
from experiments.claiming.rules import close, more_by, times

SMOOTHER = [
    Claim(
        "dln-loss-band-early",
        "Deep linear: early, the loss varies less with BatchNorm",
        place="Fig. 10a",
        kind=DLN,
        runs=at(LR, STD, BN),
        metric=difference(probe_quantity(decades, 100, 500)),
        rule=more_by(1),
        why="one order of magnitude; the paper's standard probes end at 1e10 to 1e14",
    ),
    Claim(
        "dln-loss-band",
        "Deep linear: over training the loss varies less with BatchNorm",
        place="App. B, Fig. 10a",
        kind=DLN,
        runs=at(LR, STD, BN),
        metric=difference(probe_quantity(decades, *WHOLE)),
        rule=more_by(0.1),
        why="a quarter; the paper's own curve says the opposite",
        paper=paper.DEEP_LINEAR_LOSS_BAND[STD] - paper.DEEP_LINEAR_LOSS_BAND[BN],
    ),
    Claim(
        "dln-change",
        "Deep linear: gradients are more predictive with BatchNorm",
        place="App. B, Figs. 10b, 11b",
        kind=DLN,
        runs=at(LR, STD, BN),
        metric=quotient(probe_quantity(gradient_change, *WHOLE)),
        rule=times(2),
        why="twice, as for VGG",
        paper=paper.DEEP_LINEAR_CHANGE_BY_STEP_SIZE[STD][-1]
        / paper.DEEP_LINEAR_CHANGE_BY_STEP_SIZE[BN][-1],
    ),
    Claim(
        "dln-beta",
        "Deep linear: effective beta is smaller with BatchNorm",
        place="App. B, Fig. 10c",
        kind=DLN,
        runs=at(LR, STD, BN),
        metric=quotient(probe_quantity(beta, *WHOLE)),
        rule=times(1.2),
        why="a fifth, as for VGG",
        paper=paper.DEEP_LINEAR_BETA[STD] / paper.DEEP_LINEAR_BETA[BN],
        main=True,
    ),
    Claim(
        "dln-beta-peak",
        "Deep linear: the peak of beta is smaller with BatchNorm",
        place="Fig. 10c",
        kind=DLN,
        runs=at(LR, STD, BN),
        metric=quotient(probe_quantity(beta, *WHOLE, over="largest")),
        rule=times(10),
        why="an order of magnitude",
        paper=paper.DEEP_LINEAR_LARGEST_BETA[STD] / paper.DEEP_LINEAR_LARGEST_BETA[BN],
    ),
]


def lp_smoother(norm: str) -> list[Claim]:
    return [
        Claim(
            f"dln-{norm}-loss-band",
            f"Deep linear: over training the loss varies less with {norm}",
            place="§3.3, Fig. 13b",
            kind=DLN,
            runs=at(LR, STD, norm),
            metric=difference(probe_quantity(decades, *WHOLE)),
            rule=more_by(0.1),
            why="the rule for BatchNorm; the paper's curves are not digitised",
            amended="added: Fig. 13b had no claim",
        ),
        Claim(
            f"dln-{norm}-change",
            f"Deep linear: gradients are more predictive with {norm}",
            place="§3.3, Fig. 13c",
            kind=DLN,
            runs=at(LR, STD, norm),
            metric=quotient(probe_quantity(gradient_change, *WHOLE)),
            rule=times(2),
            why="the rule for BatchNorm; the paper's curves are not digitised",
            amended="added: Fig. 13c had no claim",
        ),
    ]


def beta_at_the_edge(norm: str) -> Claim:
    return Claim(
        f"dln-beta-at-the-edge-{norm}",
        f"Deep linear: {norm}'s effective beta settles at 2 / lr",
        place="Figs. 10c, 13d, digitised",
        kind=DLN,
        runs=at(LR, norm),
        metric=itself(probe_quantity(beta_over_edge, *SECOND_HALF)),
        rule=close(0.25, to=1),
        why="a quarter around 1",
        paper=paper.DEEP_LINEAR_BETA[norm] * LR / 2,
        main=norm == BN,
    )


def sharpness_at_the_edge(variant: str) -> Claim:
    return Claim(
        f"dln-sharpness-at-the-edge-{variant}",
        f"Deep linear: {variant}'s largest Hessian eigenvalue is 2 / lr",
        place="Cohen et al. 2021",
        kind=DLN,
        runs=at(LR, variant),
        metric=itself(hessian(*SECOND_HALF, over_edge=True)),
        rule=close(0.25, to=1),
        why="a quarter around 1",
    )


CLAIMS = [
    *SMOOTHER,
    *(claim for norm in LP_NORMS for claim in lp_smoother(norm)),
    *(beta_at_the_edge(norm) for norm in (BN, *LP_NORMS)),
    *(sharpness_at_the_edge(variant) for variant in (STD, BN)),
]
