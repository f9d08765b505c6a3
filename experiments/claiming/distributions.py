"""Claims about distributions and internal covariate shift in VGG (Figs. 1c, 2, 3a, 6, 8).

Moments are compared at two places: at the activation, as the paper does, where a BatchNorm's
unit has its learnt mean and variance by definition; and at the norm's input, where nothing is
fixed by definition, which is the fair comparison.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiments import paper
from experiments.claiming.claim import EARLY, MOST, Claim, at, geometric
from experiments.claiming.layers import drift, moment, shift, spread
from experiments.claiming.metrics import Quantity, difference, itself, quotient
from experiments.claiming.rules import Rule, alike, at_least, at_most, more_by, times
from experiments.claiming.training import BN, NOISY, STD, VGG

SHOWN = (2, 9, 13)  # the layers of Fig. 8
ICS = paper.SHIFT_LAYERS
START = (0, 1)
FACTOR_TWO = "a factor of two is little beside the paper's 4 to 130; four is the opposite"
DOUBLE = "twice as much: more than two seeds, or two units of a layer, differ"


def fig8(table: Mapping[tuple[str, int], float], one: str, other: str) -> float:
    """The quotient of two of the paper's variants, the geometric mean over the layers."""
    return geometric([table[one, layer] / table[other, layer] for layer in SHOWN])


MEAN = drift("mean", "activation", *MOST, SHOWN)
VARIANCE = drift("var", "activation", *MOST, SHOWN)
INPUT = drift("mean", "norm_input", *MOST, SHOWN, relative=True)
INPUT_VARIANCE = drift("var", "norm_input", *MOST, SHOWN, relative=True)

MOMENTS = [
    Claim(
        "distributions-differ-little",
        "Activations' distributions move alike with and without BatchNorm", "§2, Fig. 1c",
        VGG, at(0.1, STD, BN), quotient(spread(*MOST, (3, 11))), alike(2),
        "within a factor of two; where BatchNorm pins mean and variance by definition",
        amended="no longer a main claim; its reason said that each histogram is judged on its own "
        "scale, which it is not. The verdict is as it was: contradicted (4.76)",
    ),
    Claim(
        "distributions-differ-little-at-input",
        "Compared fairly: distributions at the norm's input move alike", "§2, Fig. 1c",
        VGG, at(0.1, STD, BN), quotient(spread(*MOST, (3, 11), "norm_input")), alike(2),
        "within a factor of two, where no norm pins mean and variance", main=True,
        amended="added, and main in the place of distributions-differ-little: that one measures "
        "what BatchNorm fixes by definition",
    ),
    Claim(
        "distributions-differ-little-in-shape",
        "As the eye sees histograms, distributions move alike", "§2, Fig. 1c",
        VGG, at(0.1, STD, BN), quotient(spread(*MOST, (3, 11), own_scale=True)), alike(2),
        "judged as the eye does, each histogram on its own scale; within a factor of two",
        amended="added: what the reason of distributions-differ-little had promised",
    ),
    Claim(
        "mean-as-stable", "Units' means are about as stable with and without BatchNorm",
        "§2", VGG, at(0.1, STD, BN), quotient(MEAN), alike(2),
        FACTOR_TWO, fig8(paper.DRIFT, STD, BN),
    ),
    Claim(
        "variance-as-stable", "Units' variances are about as stable with and without BatchNorm",
        "§2",
        VGG, at(0.1, STD, BN), quotient(VARIANCE), alike(2), FACTOR_TWO,
        fig8(paper.VARIANCE_DRIFT, STD, BN),
    ),
    Claim(
        "mean-as-stable-at-input", "Compared fairly: means at the norm's input are about as stable",
        "§2", VGG, at(0.1, STD, BN), quotient(INPUT), alike(2),
        FACTOR_TWO,
    ),
    Claim(
        "bn-mean-drifts-less", "With BatchNorm units' means drift less", "Fig. 8a", VGG,
        at(0.1, STD, BN), quotient(MEAN), times(2), DOUBLE, fig8(paper.DRIFT, STD, BN), main=True,
    ),
    Claim(
        "bn-variance-drifts-less", "With BatchNorm units' variances drift less", "Fig. 8a", VGG,
        at(0.1, STD, BN),
        quotient(VARIANCE), times(2), DOUBLE, fig8(paper.VARIANCE_DRIFT, STD, BN),
    ),
    Claim(
        "bn-mean-drifts-less-at-input", "Compared fairly: means at the norm's input drift less",
        "Fig. 8a", VGG, at(0.1, STD, BN), quotient(INPUT), times(2),
        DOUBLE, main=True,
    ),
    Claim(
        "bn-variance-drifts-less-at-input",
        "Compared fairly: variances at the norm's input drift less",
        "Fig. 8a", VGG, at(0.1, STD, BN), quotient(INPUT_VARIANCE),
        times(2), DOUBLE,
    ),
    Claim(
        "noisy-bn-least-stable", "Noisy BatchNorm's means are less stable than the standard net's",
        "§2.1, Figs. 2, 8a", VGG, at(0.1, NOISY, STD), quotient(MEAN), times(2), DOUBLE,
        fig8(paper.DRIFT, NOISY, STD), main=True,
    ),
    Claim(
        "noisy-bn-least-stable-variance", "Noisy BatchNorm's variances are less stable, too",
        "§2.1, Figs. 2, 8a", VGG,
        at(0.1, NOISY, STD), quotient(VARIANCE), times(2), DOUBLE,
        fig8(paper.VARIANCE_DRIFT, NOISY, STD),
    ),
    Claim(
        "noisy-bn-least-stable-relative", "Noisy BatchNorm's means are less stable in their own sd",
        "§2.1, Figs. 2, 8a", VGG, at(0.1, NOISY, STD),
        quotient(drift("mean", "activation", *MOST, SHOWN, relative=True)), times(2), DOUBLE,
        amended="added: noise moves the mean by about 1/3 by design, in absolute units, which the "
        "standard network's means need not have",
    ),
    Claim(
        "noisy-bn-less-stable-than-bn", "Noisy BatchNorm's means are less stable than BatchNorm's",
        "§2.1, Figs. 2, 8a", VGG, at(0.1, NOISY, BN), quotient(MEAN), times(2), DOUBLE,
        fig8(paper.DRIFT, NOISY, BN), amended="added: the least stable of the three",
    ),
    Claim(
        "bn-holds-the-mean", "BatchNorm keeps activations' means near 0",
        "§1; notes", VGG, at(0.1, BN), itself(moment("mean", *MOST, SHOWN)),
        at_most(0.5, opposite=1), "beta is learnt: near 0 is under half a standard deviation",
    ),
    Claim(
        "bn-holds-the-sd", "BatchNorm keeps activations' standard deviations near 1",
        "§1; notes", VGG, at(0.1, BN), itself(moment("sd", *MOST, SHOWN)),
        Rule(0.5, 2, 0.25, 4), "gamma is learnt: near 1 is within a factor of two",
    ),
]  # fmt: skip


def larger_shifts(norm: str, before: str) -> list[Claim]:
    """Three readings of Fig. 6: as drawn, compared fairly, and in shape alone."""

    def claim(id: str, says: str, taken: Quantity, why: str, amended: str, main: bool) -> Claim:
        return Claim(
            id, says, "§3.3, Fig. 6", VGG, at(0.1, norm, STD), quotient(taken), times(1.25),
            f"layer 11, as in the figure; a quarter more, {why}", main=main, amended=amended,
        )  # fmt: skip

    return [
        claim(
            f"{norm}-shifts-more", f"{norm} shifts distributions more than no norm",
            spread(*MOST, (11,)), "at the activation, where the norm pins what it measures by",
            "not main; its reason said that each histogram is judged on its own scale, which it is "
            f"not. The verdict is as it was: contradicted ({before})", False,
        ),
        claim(
            f"{norm}-shifts-more-at-input",
            f"Compared fairly: {norm} shifts the norm's input more than no norm",
            spread(*MOST, (11,), "norm_input"), "where no norm pins anything",
            f"added, for the reason of distributions-differ-little-at-input; {norm}-shifts-more "
            "was contradicted", norm == "l1",
        ),
        claim(
            f"{norm}-shifts-more-in-shape",
            f"As the eye sees histograms, {norm} shifts them more than no norm",
            spread(*MOST, (11,), own_scale=True), "each histogram on its own scale",
            f"added: what the reason of {norm}-shifts-more had promised", False,
        ),
    ]  # fmt: skip


def ics(lr: float) -> float:
    """The paper's BatchNorm over standard, ‖G - G'‖ at layer 5."""
    bn, std = (paper.SHIFT[variant, lr, 5][0] for variant in (BN, STD))
    assert bn and std  # None stands where the axis has no numbers: not here
    return bn / std


COSINE_GAP = (
    sum(paper.SHIFT[STD, 0.1, k][1] - paper.SHIFT[BN, 0.1, k][1] for k in ICS) / 2
)  # fmt: skip

WINDOWS = "in words: the windows of steps, ours and the paper's"

SHIFT = [
    Claim(
        "bn-does-not-lower-ics", "BatchNorm does not reduce covariate shift (Definition 2.1)",
        "§2.2, Fig. 3a", VGG, at(0.1, BN, STD), quotient(shift("l2", *MOST, ICS)),
        at_least(0.9, opposite=0.5),
        "what reduces it would halve it; the paper's is layer 5's, over all its training; up to "
        "step 300 or so the standard network sits on its plateau, which makes our quotient larger",
        ics(0.1), main=True, amended=WINDOWS,
    ),
    Claim(
        "bn-raises-ics", "BatchNorm often increases covariate shift", "§2.2, Fig. 3a", VGG, at(0.1,
        BN, STD),
        quotient(shift("l2", *MOST, ICS)), times(1.1),
        "half of what the paper's layer 5 shows, over all its training; that our window begins on "
        "the standard network's plateau makes the quotient larger", ics(0.1), amended=WINDOWS,
    ),
    Claim(
        "bn-does-not-lower-relative-ics",
        "Relative to the gradient BatchNorm does not reduce it either",
        "§2.2", VGG, at(0.1, BN, STD), quotient(shift("relative", *MOST, ICS)),
        at_least(0.9, opposite=0.5), "the same rule: ‖G‖ differs between the networks",
    ),
    Claim(
        "bn-lowers-the-cosine", "G and G' are less correlated with BatchNorm", "§2.2, Fig. 3a",
        VGG, at(0.1, STD, BN), difference(shift("cosine", *EARLY, ICS)), more_by(0.03),
        "under half of the paper's difference (over its second half)", COSINE_GAP,
    ),
    Claim(
        "bn-lowers-the-cosine-at-100", "At step 100 G and G' are less correlated with BatchNorm",
        "Fig. 3a", VGG, at(0.1, STD, BN), difference(shift("cosine", 100, 101, (10,))),
        more_by(0.03), "the rule of bn-lowers-the-cosine, where the paper's number is of this step",
        paper.SHIFT_COSINE_AT_100[STD] - paper.SHIFT_COSINE_AT_100[BN],
        amended="added: bn-lowers-the-cosine compares our steps 500 to 2,000 with the second half "
        "of the paper's 15,000 (it was contradicted, -0.18)",
    ),
    Claim(
        "bn-ics-at-the-start", "At the start BatchNorm's covariate shift is far larger", "Fig. 3a",
        VGG,
        at(0.1, BN, STD), quotient(shift("l2", *START, ICS)), times(10),
        "an order of magnitude; the paper shows more than two",
        paper.SHIFT_AT_START[BN, 0.1, 5] / paper.SHIFT_AT_START[STD, 0.1, 5],
    ),
    Claim(
        "bn-ics-at-the-start-0.01", "At the start it is far larger at lr 0.01, too", "Fig. 3a", VGG,
        at(0.01, BN, STD),
        quotient(shift("l2", *START, ICS)), times(10), "as at lr 0.1",
    ),
    Claim(
        "bn-ics-falls-with-convergence",
        "At lr 0.01 BatchNorm's is smaller late, having converged", "Fig. 3, caption", VGG,
        at(0.01, STD, BN), quotient(shift("l2", 10_000, 15_000, ICS)), times(2), DOUBLE,
        1 / ics(0.01),
    ),
    Claim(
        "updates-move-inputs-alike",
        "An update moves activations as far with BatchNorm (which pins them)",
        "§2, on one batch", VGG, at(0.1, STD, BN), quotient(shift("wasserstein", *MOST, SHOWN)),
        alike(2), "the original notion on the batch of the update, at the activation alone: at the "
        "norm's input it is not on record; " + FACTOR_TWO,
        amended="in words: that it is not the fair comparison",
    ),
]  # fmt: skip

LP = {"l1": "0.34", "l2": "0.31", "linf": "0.47"}  # norm -> what was measured before the change
CLAIMS = [*MOMENTS, *(claim for norm in LP for claim in larger_shifts(norm, LP[norm])), *SHIFT]
