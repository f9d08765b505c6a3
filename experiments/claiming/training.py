"""Claims about how VGG trains and generalises (Figs. 1, 3a)."""

from __future__ import annotations

from experiments import paper
from experiments.claiming.claim import BN, END, LATEST, LEAD, STD, VGG, Claim, at, point
from experiments.claiming.evidence import Key
from experiments.claiming.metrics import difference, itself, test_accuracy, train_accuracy
from experiments.claiming.rules import at_least, at_most, close, more_by

FULL = {"width": 1.0, "data": "cifar10", "augment": False}
TWO_POINTS = "two points are several times what the mean over 1,500 batches moves by chance"
NO_CHANCE = "chance is 0.10; 0.15 has learnt next to nothing, 0.30 clearly something"
ONE_SIDED = "the rule was two-sided, so that being better would have counted against it"


def train(key: Key, *steps: int) -> float:
    """The paper's training accuracy, as a share."""
    return point(paper.TRAIN, key, paper.STEPS, *steps) / 100


def test(key: Key, updates: int) -> float:
    return point(paper.TEST, key, paper.STEPS, updates) / 100


def lead(lr: float, one: str, other: str, *steps: int) -> float:
    """By how much the paper's `one` has the higher training accuracy."""
    return train(Key(one, lr), *steps) - train(Key(other, lr), *steps)


def trains_faster(lr: float, *, place: str, of_paper: float | None, main: bool = False) -> Claim:
    return Claim(
        f"bn-trains-faster-{lr:g}",
        f"BatchNorm trains faster at lr {lr:g}",
        place=place,
        kind=VGG,
        runs=at(lr, BN, STD),
        metric=difference(train_accuracy(*LEAD)),
        rule=more_by(0.02),
        why=TWO_POINTS,
        paper=of_paper,
        main=main,
    )


def ahead_on_the_test_set(
    updates: int, says: str, *, margin: float, why: str, amended: str, main: bool = False
) -> Claim:
    return Claim(
        f"bn-generalises-better-{updates}",
        says,
        place="Fig. 1b; §2",
        kind=VGG,
        runs=at(0.1, BN, STD),
        metric=difference(test_accuracy(updates)),
        rule=more_by(margin),
        why=why,
        paper=test(Key(BN, 0.1), updates) - test(Key(STD, 0.1), updates),
        main=main,
        amended=amended,
    )


def ends_at(variant: str, share: float) -> Claim:
    return Claim(
        f"test-accuracy-{variant}",
        f"{variant} reaches {share:.0%} on the test set",
        place="App. A",
        kind=VGG,
        runs=at(0.1, variant),
        metric=itself(test_accuracy(15_000)),
        rule=close(0.02, to=share),
        why="two points: depth and head of the paper's network are not known",
        paper=test(Key(variant, 0.1), 15_000),
        scale=FULL,
    )


def stays_at_chance(
    id: str,
    says: str,
    *,
    place: str,
    key: Key,
    window: tuple[int, int],
    of_paper: float | None,
    main: bool = False,
    amended: str = "",
) -> Claim:
    return Claim(
        id,
        says,
        place=place,
        kind=VGG,
        runs=(key,),
        metric=itself(train_accuracy(*window)),
        rule=at_most(0.15, opposite=0.30),
        why=NO_CHANCE,
        paper=of_paper,
        main=main,
        amended=amended,
    )


CLAIMS = [
    trains_faster(0.1, place="Fig. 1a", of_paper=lead(0.1, BN, STD, 500, 1000, 2000), main=True),
    trains_faster(0.5, place="Fig. 1a", of_paper=lead(0.5, BN, STD, 500, 1000, 2000)),
    trains_faster(0.01, place="Fig. 3a, left", of_paper=None),
    ahead_on_the_test_set(
        2_000,
        "At an equal rate BatchNorm is ahead on the test set at step 2,000",
        margin=0.02,
        why="two points: more than two seeds of one network differ; BatchNorm is then far ahead in "
        "training, too",
        amended="it was called better generalisation and a main claim; it is speed, seen on the "
        "test set. The verdict is as it was: reproduced (0.20)",
    ),
    ahead_on_the_test_set(
        15_000,
        "At an equal rate BatchNorm generalises better, at step 15,000",
        margin=0.01,
        why="a third of the gap of 2.9 points that the paper shows",
        amended="main, in the place of bn-generalises-better-2000",
        main=True,
    ),
    ends_at(BN, 0.83),
    ends_at(STD, 0.80),
    stays_at_chance(
        "std-fails-at-0.5",
        "At lr 0.5 the standard network fails",
        place="Fig. 1a, b",
        key=Key(STD, 0.5),
        window=LATEST,
        of_paper=train(Key(STD, 0.5), 2000),
        main=True,
    ),
    stays_at_chance(
        "std-fails-at-0.5-to-the-end",
        "At lr 0.5 the standard network never leaves chance",
        place="Fig. 1a, b",
        key=Key(STD, 0.5),
        window=END,
        of_paper=train(Key(STD, 0.5), 15_000),
    ),
    Claim(
        "bn-trains-at-0.5",
        "At lr 0.5 BatchNorm trains",
        place="Fig. 1a",
        kind=VGG,
        runs=at(0.5, BN),
        metric=itself(train_accuracy(*LATEST)),
        rule=at_least(0.5, opposite=0.2),
        why="half of the batch right is five times chance; below 0.2 it would not train",
        paper=train(Key(BN, 0.5), 2000),
        main=True,
    ),
    Claim(
        "bn-0.5-below-0.1",
        "BatchNorm generalises worse at lr 0.5 than at 0.1",
        place="Fig. 1b",
        kind=VGG,
        runs=(Key(BN, 0.1), Key(BN, 0.5)),
        metric=difference(test_accuracy(15_000)),
        rule=more_by(0.01),
        why="under half of the 2.7 points that the paper shows",
        paper=test(Key(BN, 0.1), 15_000) - test(Key(BN, 0.5), 15_000),
    ),
]
