"""Claims: the verdicts of rules, on studies with known numbers."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from claim_studies import (
    ACCURACY,
    BETTER,
    KINDS,
    add_run,
    claim,
    judge,
    named,
    pair,
    study,
)

from experiments import claims
from experiments.claiming import layers, rules, verdict_tables
from experiments.claiming.claim import FIGURES, OTHERS, TEXT, Claim, at, find
from experiments.claiming.evidence import Evidence, Key
from experiments.claiming.metrics import difference, itself
from minibn.errors import DataError

# The verdict


def test_a_rule_that_holds_at_every_seed_is_reproduced(tmp_path: Path) -> None:
    finding = judge(BETTER, pair(tmp_path / "s", [0.8, 0.7, 0.9], [0.5, 0.5, 0.6]))
    assert str(finding.verdict) == "reproduced"
    assert finding.values == pytest.approx({0: 0.3, 1: 0.2, 2: 0.3})
    assert finding.mean == pytest.approx(0.8 / 3)


def test_an_opposite_that_holds_at_every_seed_is_contradicted(tmp_path: Path) -> None:
    finding = judge(BETTER, pair(tmp_path / "s", [0.5, 0.5], [0.8, 0.7]))
    assert str(finding.verdict) == "contradicted"


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        ([0.51, 0.49], "within the margin"),
        ([0.6, 0.4], "seeds disagree: 1 of 2 hold, 1 the opposite"),
        ([0.9, 0.9, 0.51], "2 of 3 hold, the rest lies within the margin"),
        ([0.2, 0.49], "1 of 2 hold the opposite, the rest lies within the margin"),
        ([0.9], "n = 1"),
        ([0.1], "n = 1"),
    ],
)
def test_anything_else_is_undecided_and_says_why(
    tmp_path: Path, ours: list[float], reason: str
) -> None:
    finding = judge(BETTER, pair(tmp_path / "s", ours, [0.5] * len(ours)))
    assert str(finding.verdict) == f"undecided: {reason}"


@pytest.mark.parametrize("what", claims.CLAIMS, ids=lambda c: c.id)
def test_no_claim_is_decided_by_one_seed(what: Claim) -> None:
    for x in (-math.inf, -1e9, -1, 0, 1e-9, 0.1, 1, 1e9, math.inf):
        assert rules.judge(what.rule, {0: x}, {}, what.metric.quotient).word == "undecided"


def test_a_seed_without_a_number_leaves_the_claim_undecided(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    add_run(made, "batchnorm", 2, 0.9, steps=7)
    add_run(made, "standard", 2, 0.5)
    finding = judge(BETTER, made)
    assert set(finding.values) == {0, 1}
    assert str(finding.verdict) == "undecided: batchnorm at lr 0.1, seed 2 has 7 of the 10 steps"


def test_a_mean_is_geometric_for_quotients_only() -> None:
    assert rules.mean({0: 1.0, 1: 100.0}, quotient=True) == pytest.approx(10)
    assert rules.mean({0: 1.0, 1: 100.0}, quotient=False) == pytest.approx(50.5)


@pytest.mark.parametrize(
    ("rule", "holds", "opposite", "neither"),
    [
        (rules.more_by(0.1), [0.1, 5], [-0.1, -5], [0, 0.09, -0.09]),
        (rules.times(2), [2, math.inf], [0.5, 0], [1, 1.9, 0.51]),
        (rules.at_most(0.15, opposite=0.3), [0.15, 0], [0.3, 1], [0.2]),
        (rules.close(0.1, to=1), [0.95, 1.05], [0.79, 1.21], [0.85, 1.15]),
        (rules.within_factor(2), [0.5, 1, 2], [0.25, 4], [0.3, 3]),
    ],
)
def test_a_rule_its_opposite_and_the_margin_between(
    rule: rules.Rule, holds: list[float], opposite: list[float], neither: list[float]
) -> None:
    for x in [*holds, *opposite, *neither]:
        assert (rule.holds(x), rule.opposite(x)) == (x in holds, x in opposite), x


# Which runs


def test_missing_runs_are_named(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    l1 = claim(difference(ACCURACY), rules.more_by(0.02), *at(0.1, "l1", "standard"))
    assert judge(l1, made).verdict.reason == "no run of l1 at lr 0.1 in these studies"
    faster = claim(difference(ACCURACY), rules.more_by(0.02), *at(0.5, "batchnorm", "standard"))
    assert judge(faster, made).verdict.reason == "no run of batchnorm at lr 0.5 in these studies"
    linear = claim(itself(ACCURACY), rules.more_by(0.02), Key("l1", 1e-6), kind="deep_linear")
    assert judge(linear, made).verdict.reason == "no study of deep_linear was given"


def test_runs_are_paired_by_seed_and_others_do_not_count(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    for seed, accuracy in ((0, 0.9), (1, 0.8), (2, 0.1)):
        add_run(made, "batchnorm", seed, accuracy)
    for seed, accuracy in ((1, 0.5), (0, 0.4), (7, 0.99)):
        add_run(made, "standard", seed, accuracy)
    assert judge(BETTER, made).values == pytest.approx({0: 0.5, 1: 0.3})
    other = study(tmp_path / "other")
    add_run(other, "batchnorm", 0)
    add_run(other, "standard", 1)
    assert "have no seed in common" in judge(BETTER, other).verdict.reason


def test_seeds_may_lie_in_several_studies(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1", record_every=5), study(tmp_path / "2", record_every=9)
    for made, seed in ((one, 0), (two, 1)):
        add_run(made, "batchnorm", seed, 0.9)
        add_run(made, "standard", seed, 0.5)
    assert judge(BETTER, one, two).verdict.word == "reproduced"


@pytest.mark.parametrize("changed", [{"width": 1.0}, {"steps": 20}, {"weight_decay": 4e-4}])
def test_studies_of_another_scale_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    one, two = pair(tmp_path / "1", [0.9], [0.5]), pair(tmp_path / "2", [0.9], [0.5], **changed)
    with pytest.raises(DataError, match=f"{next(iter(changed))} .*like with like"):
        judge(BETTER, one, two)


def test_runs_that_saw_other_data_are_refused(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    add_run(one, "batchnorm", data="original")
    add_run(two, "standard", data="recompressed")
    with pytest.raises(DataError, match="was trained on other data"):
        judge(BETTER, one, two)


def test_data_may_belong_to_the_seed_but_not_to_the_variant(tmp_path: Path) -> None:
    made = study(tmp_path / "s", "deep_linear")
    for seed in (0, 1):
        add_run(made, "batchnorm", seed, data=f"drawn {seed}")
    Evidence([made.folder], KINDS)
    add_run(made, "standard", 1, data="drawn 7")
    with pytest.raises(DataError, match="was trained on other data"):
        Evidence([made.folder], KINDS)


def test_one_training_in_two_studies_counts_once_with_what_each_measured(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    for seed in (0, 1):
        add_run(one, "batchnorm", seed, 0.9)
        add_run(two, "batchnorm", seed, 0.9, shift=[{"step": 0, "layer": 4, "l2": 3.0}])
    what = claim(itself(layers.shift("l2", 0, 1, [5])), rules.at_least(2, 1), Key("batchnorm", 0.1))
    assert judge(what, one).verdict.reason.endswith("has no records of shift, 3 at step 0")
    # layer 5 of 13 lies as deep as layer 3 of 8, which was not measured; layer 4 is the paper's 6
    what = claim(itself(layers.shift("l2", 0, 1, [6])), rules.at_least(2, 1), Key("batchnorm", 0.1))
    assert judge(what, one, two).values == {0: 3.0, 1: 3.0}


def test_two_trainings_of_one_name_that_differ_are_refused(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    add_run(one, "batchnorm", 0, 0.9)
    add_run(two, "batchnorm", 0, 0.8)
    with pytest.raises(DataError, match="different trainings of one variant"):
        judge(BETTER, one, two)


def test_a_claim_of_one_scale_is_not_judged_by_another(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    full = claim(BETTER.metric, BETTER.rule, *BETTER.runs, scale={"width": 1.0})
    reason = judge(full, made).verdict.reason
    assert reason == "it is about width 1.0, these studies have 0.5"


# The claims themselves


@pytest.mark.parametrize("what", claims.CLAIMS, ids=lambda c: c.id)
def test_every_claim_has_a_source_a_metric_a_rule_and_its_reason(what: Claim) -> None:
    assert what.says and what.place and what.why and not what.why.endswith(".")
    assert len(what.says) <= 70
    assert what.kind in KINDS and what.runs
    rule = what.rule
    assert rule.opposite_text and rule.low <= rule.high
    for x in (rule.low, rule.high, rule.below, rule.above):
        assert not (rule.holds(x) and rule.opposite(x))
    assert "{" not in what.measurement and all(key.variant in what.measurement for key in what.runs)


def test_ids_are_unique_and_every_claim_stands_in_one_section() -> None:
    ids = [what.id for what in claims.CLAIMS]
    assert len(set(ids)) == len(ids) == sum(map(len, claims.SECTIONS.values()))


# The paper's text says so, and its figures don't (digitised).
AGAINST_ITSELF = {
    "mean-as-stable", "variance-as-stable", "bn-predictiveness-two-orders", "dln-loss-band",
    "dln-std-without-ics-1e-6",
}  # fmt: skip


def test_the_papers_own_curves_fulfil_every_rule_but_those_its_figures_contradict() -> None:
    numbers = {c.id: c for c in claims.CLAIMS if c.paper is not None}
    assert {i for i, c in numbers.items() if not c.rule.holds(c.paper or 0)} == AGAINST_ITSELF
    assert all(numbers[i].rule.opposite(numbers[i].paper or 0) for i in AGAINST_ITSELF)


@pytest.mark.parametrize(
    ("id", "source"),
    [
        ("noise-stops-std", TEXT),
        ("bn-change", TEXT),
        ("bn-loss-worse-at-0", FIGURES),
        ("bn-mean-drifts-less", FIGURES),
        ("dln-l2-as-bn", FIGURES),
        ("bn-hessian-smaller", OTHERS),
        ("gain-is-by-rates", OTHERS),
        ("theorem-4.2b-convolutions", OTHERS),
    ],
)
def test_who_says_so_is_told_by_the_place(id: str, source: str) -> None:
    assert named(id).source == source


def test_what_was_amended_is_marked_in_the_table_and_told_with_the_rules(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    changed = claim(BETTER.metric, BETTER.rule, *BETTER.runs, amended="the margin was 7")
    before, after = (judge(what, made) for what in (BETTER, changed))
    assert "†" in verdict_tables.row(after)[0] and "†" not in verdict_tables.row(before)[0]
    assert verdict_tables.amendments([before, after]) == "- id: the margin was 7."
    assert "†: amended after part of the evidence was seen" in verdict_tables.NOTE


def test_the_page_shows_main_claims_first_and_once_and_remarks_below_their_table(
    tmp_path: Path,
) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    evidence = Evidence([made.folder], KINDS)
    first, other = (named(id) for id in ("bn-beta", "bn-gradient-smaller"))
    findings = [find(other, evidence), replace(find(first, evidence), remark="a bound")]
    page = verdict_tables.document(findings, evidence, {"The landscape": [other, first]})
    titles = [line for line in page.splitlines() if line.startswith("#")]
    assert titles == [
        "# Claims and verdicts",
        "## The main claims",
        "## What was trained",
        "## The landscape: the other claims",
        "## How each is measured, and why",
        "### The landscape",
        "## Amended †",
    ]
    main, rest = page.split("## What was trained")
    assert f"| {first.says} †" in main and f"| {first.says}" not in rest
    assert f"| {other.says} |" not in main and f"| {other.says} |" in rest
    assert main.index(f"| {first.says}") < main.index(f"- {first.says}: a bound.")
    assert "| ≥ 1.2 times |" in main


def test_what_was_trained_is_told_by_the_runs(tmp_path: Path) -> None:
    made = study(tmp_path / "s", lr=[0.1, 0.5], seed=[0, 1])
    add_run(made, "l1", 1, lr=0.5)
    told = verdict_tables.scale(Evidence([made.folder], KINDS))
    assert told.startswith("- **vgg_cifar**, 1 run: variants l1; rates 0.5; seeds 1.")
    assert "width 0.5" in told and "record_every" not in told


def test_a_claim_about_vgg_is_not_judged_on_other_data(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5], data="shapes")
    assert judge(BETTER, made).verdict.reason == (
        "it is about data cifar10, these studies have shapes"
    )


def test_one_number_that_two_claims_share_is_counted_as_one_measurement(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    ids = ("mean-as-stable", "bn-mean-drifts-less", "theorem-4.1", "theorem-4.2a")
    said = verdict_tables.counts([judge(named(id), made) for id in ids])
    assert "| all | 4 | 0 | 0 | 4 |" in said and "| the paper's sentences | 3 |" in said
    assert "rest on 3 measurements" in said
