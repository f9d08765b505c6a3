"""Claims about noise behind BatchNorm: how the network trains, how stable its distributions are
(Figs. 2, 8)."""

from __future__ import annotations

from experiments import paper
from experiments.claiming.claim import BN, END, LATEST, LEAD, MOST, NOISY, STD, VGG, Claim, at
from experiments.claiming.distributions import DOUBLE, MEAN, SHOWN, VARIANCE, fig8
from experiments.claiming.evidence import Key
from experiments.claiming.layers import drift
from experiments.claiming.metrics import Metric, difference, quotient, train_accuracy
from experiments.claiming.rules import at_most, more_by, times
from experiments.claiming.training import ONE_SIDED, TWO_POINTS, lead, stays_at_chance

RELATIVE_MEAN = drift("mean", "activation", *MOST, SHOWN, relative=True)

TRAINING = [
    Claim(
        "noisy-bn-beats-std",
        "Noisy BatchNorm still trains faster than the standard network",
        place="§2.1, Fig. 2",
        kind=VGG,
        runs=at(0.1, NOISY, STD),
        metric=difference(train_accuracy(*LEAD)),
        rule=more_by(0.02),
        why=TWO_POINTS,
        paper=lead(0.1, NOISY, STD, 500, 1000, 2000),
        main=True,
    ),
    Claim(
        "noisy-bn-nears-bn",
        "Noisy BatchNorm trains almost as well as BatchNorm",
        place="§2.1, Fig. 2",
        kind=VGG,
        runs=at(0.1, BN, NOISY),
        metric=difference(train_accuracy(*LATEST)),
        rule=at_most(0.06, opposite=0.12),
        why="the paper's own curves are 5.5 points apart at step 2,000",
        paper=lead(0.1, BN, NOISY, 2000),
        main=True,
        amended=f"{ONE_SIDED}, by 0.06. The verdict is as it was: undecided (0.075)",
    ),
    Claim(
        "noisy-bn-nears-bn-at-the-end",
        "At the end noisy BatchNorm trains as well as BatchNorm",
        place="§2.1, Fig. 2",
        kind=VGG,
        runs=at(0.1, BN, NOISY),
        metric=difference(train_accuracy(*END)),
        rule=at_most(0.02, opposite=0.04),
        why="the paper's late means are 0.6 to 1.1 points apart",
        paper=lead(0.1, BN, NOISY, 15_000),
        amended=f"{ONE_SIDED}, by 0.02. The verdict is as it was: undecided (too few steps)",
    ),
    Claim(
        "noise-slows-bn",
        "Noise slows BatchNorm down at first",
        place="Fig. 2",
        kind=VGG,
        runs=at(0.1, BN, NOISY),
        metric=difference(train_accuracy(0, 500)),
        rule=more_by(0.02),
        why="as for the other differences of training accuracy",
        paper=lead(0.1, BN, NOISY, 100, 500),
    ),
    stays_at_chance(
        "noise-stops-std",
        "Noise as large in absolute units stops the standard network",
        place="§2.1",
        key=Key("noisy-standard", 0.1),
        window=LATEST,
        of_paper=None,
        main=True,
        amended="in words: the noise is not in the activations' own scale, which may be smaller. "
        "The verdict was undecided (run not ended)",
    ),
    Claim(
        "noise-costs-std-more",
        "The same noise costs the standard network more than BatchNorm",
        place="§2.1",
        kind=VGG,
        runs=at(0.1, STD, "noisy-standard", BN, NOISY),
        metric=Metric(
            train_accuracy(*LEAD),
            "({0} - {1}) - ({2} - {3})",
            lambda std, noised, bn, noisy: (std - noised) - (bn - noisy),
        ),
        rule=more_by(0.02),
        why="weaker than noise-stops-std: it may hold where that fails",
    ),
]

DISTRIBUTIONS = [
    Claim(
        "noisy-bn-least-stable",
        "Noisy BatchNorm's means are less stable than the standard net's",
        place="§2.1, Figs. 2, 8a",
        kind=VGG,
        runs=at(0.1, NOISY, STD),
        metric=quotient(MEAN),
        rule=times(2),
        why=DOUBLE,
        paper=fig8(paper.DRIFT, NOISY, STD),
        main=True,
    ),
    Claim(
        "noisy-bn-least-stable-variance",
        "Noisy BatchNorm's variances are less stable, too",
        place="§2.1, Figs. 2, 8a",
        kind=VGG,
        runs=at(0.1, NOISY, STD),
        metric=quotient(VARIANCE),
        rule=times(2),
        why=DOUBLE,
        paper=fig8(paper.VARIANCE_DRIFT, NOISY, STD),
    ),
    Claim(
        "noisy-bn-least-stable-relative",
        "Noisy BatchNorm's means are less stable in their own sd",
        place="§2.1, Figs. 2, 8a",
        kind=VGG,
        runs=at(0.1, NOISY, STD),
        metric=quotient(drift("mean", "activation", *MOST, SHOWN, relative=True)),
        rule=times(2),
        why=DOUBLE,
        amended="added: noise moves the mean by about 1/3 by design, in absolute units, which the "
        "standard network's means need not have",
    ),
    Claim(
        "noisy-bn-less-stable-than-bn",
        "Noisy BatchNorm's means are less stable than BatchNorm's",
        place="§2.1, Figs. 2, 8a",
        kind=VGG,
        runs=at(0.1, NOISY, BN),
        metric=quotient(MEAN),
        rule=times(2),
        why=DOUBLE,
        paper=fig8(paper.DRIFT, NOISY, BN),
        amended="added: the least stable of the three",
    ),
    Claim(
        "noisy-bn-less-stable-than-bn-variance",
        "Noisy BatchNorm's variances are less stable than BatchNorm's, too",
        place="§2.1, Figs. 2, 8a",
        kind=VGG,
        runs=at(0.1, NOISY, BN),
        metric=quotient(VARIANCE),
        rule=times(2),
        why=DOUBLE,
        paper=fig8(paper.VARIANCE_DRIFT, NOISY, BN),
        amended="added: the least stable of the three",
    ),
    Claim(
        "noisy-bn-less-stable-than-bn-relative",
        "Noisy BatchNorm's means are less stable than BatchNorm's in their sd",
        place="§2.1, Figs. 2, 8a",
        kind=VGG,
        runs=at(0.1, NOISY, BN),
        metric=quotient(RELATIVE_MEAN),
        rule=times(2),
        why=DOUBLE,
        amended="added: the least stable of the three, also by the measure of "
        "noisy-bn-least-stable-relative",
    ),
]

CLAIMS = [*TRAINING, *DISTRIBUTIONS]
