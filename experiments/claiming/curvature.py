"""Claims about the Hessian of VGG. None is the paper's: its beta is of steps of finite length."""

from __future__ import annotations

from experiments.claiming.claim import BN, END, LEAD, STD, VGG, Claim, at
from experiments.claiming.metrics import itself, quotient
from experiments.claiming.probes import along_gradient, hessian
from experiments.claiming.rules import close, times

SMALLER = [
    Claim(
        "bn-hessian-smaller",
        "The Hessian's largest eigenvalue is smaller with BatchNorm",
        place="Page 2018; doubted by Yao et al. 2020",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=quotient(hessian(*LEAD)),
        rule=times(2),
        why="twice, as for the other measures; Page found one to two orders",
    ),
    Claim(
        "bn-curves-less-along-the-gradient",
        "Along the gradient itself the loss curves less with BatchNorm",
        place="not in the paper: beta's least value for short steps",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=quotient(along_gradient(*LEAD, signed=False)),
        rule=times(1.2),
        why="the rule of bn-beta. Most of BatchNorm's beta is that of the smallest step, so that a "
        "shorter one shows more; for ever shorter steps it becomes ‖Hg‖ / ‖g‖, which is no less "
        "than this. Three steps a run, without the kinks",
        amended="added: bn-beta compares bounds; both networks' curvatures had been seen (medians "
        "of 0.62 and 0.49 times 2 / lr at one seed)",
    ),
]


def at_the_edge(variant: str) -> list[Claim]:
    place = "Andreyev & Beneventano 2024"
    kinks = "a quarter around 1; kinks, by which most of the gradient changes, are in no Hessian"
    return [
        Claim(
            f"batch-curvature-at-the-edge-{variant}",
            f"{variant}: early, curvature along the gradient is 2 / lr",
            place=f"{place}, of where it settles",
            kind=VGG,
            runs=at(0.1, variant),
            metric=itself(along_gradient(*LEAD, over_edge=True)),
            rule=close(0.25, to=1),
            why=kinks,
            amended="the claim was added three minutes after the first runs had begun; "
            "then, after part of the evidence was seen, its sentence was restricted to early "
            "training, where the curvature still rises. The verdict is as it was: "
            f"{'contradicted (0.49)' if variant == BN else 'undecided (0.62)'}",
        ),
        Claim(
            f"batch-curvature-settles-at-the-edge-{variant}",
            f"{variant}: late, curvature along the gradient is 2 / lr",
            place=place,
            kind=VGG,
            runs=at(0.1, variant),
            metric=itself(along_gradient(10_000, END[1], over_edge=True, over="mean")),
            rule=close(0.25, to=1),
            why=kinks,
            amended="added: they speak of the mean over batches, and of where it settles",
        ),
    ]


CLAIMS = [*SMALLER, *(claim for variant in (STD, BN) for claim in at_the_edge(variant))]
