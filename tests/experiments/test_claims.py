"""Claims: rules give the verdicts they promise, on studies whose numbers the test knows."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from claim_studies import (
    ACCURACY,
    BETTER,
    KINDS,
    claim,
    found,
    pair,
    study,
    trained,
)

from experiments import claims
from experiments.claiming import layers, rules
from experiments.claiming.claim import Claim, at
from experiments.claiming.evidence import Evidence, Key
from experiments.claiming.metrics import difference, itself
from minibn.errors import DataError

# The verdict


def test_a_rule_that_holds_at_every_seed_is_reproduced(tmp_path: Path) -> None:
    finding = found(BETTER, pair(tmp_path / "s", [0.8, 0.7, 0.9], [0.5, 0.5, 0.6]))
    assert str(finding.verdict) == "reproduced"
    assert finding.values == pytest.approx({0: 0.3, 1: 0.2, 2: 0.3})
    assert finding.mean == pytest.approx(0.8 / 3)


def test_an_opposite_that_holds_at_every_seed_is_contradicted(tmp_path: Path) -> None:
    finding = found(BETTER, pair(tmp_path / "s", [0.5, 0.5], [0.8, 0.7]))
    assert str(finding.verdict) == "contradicted"


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        ([0.51, 0.49], "within the margin"),
        ([0.6, 0.4], "seeds disagree (1 of 2 hold, 1 hold the opposite)"),
        ([0.9, 0.9, 0.51], "seeds disagree (2 of 3 hold, 0 hold the opposite)"),
        ([0.2, 0.49], "seeds disagree (0 of 2 hold, 1 hold the opposite)"),
        ([0.9], "n = 1"),
        ([0.1], "n = 1"),
    ],
)
def test_anything_else_is_undecided_and_says_why(
    tmp_path: Path, ours: list[float], reason: str
) -> None:
    finding = found(BETTER, pair(tmp_path / "s", ours, [0.5] * len(ours)))
    assert str(finding.verdict) == f"undecided: {reason}"


@pytest.mark.parametrize("what", claims.CLAIMS, ids=lambda c: c.id)
def test_no_claim_is_decided_by_one_seed(what: Claim) -> None:
    for x in (-math.inf, -1e9, -1, 0, 1e-9, 0.1, 1, 1e9, math.inf):
        assert rules.judge(what.rule, {0: x}, {}, what.metric.quotient).word == "undecided"


def test_a_seed_without_a_number_leaves_the_claim_undecided(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    trained(made, "batchnorm", 2, 0.9, steps=7)
    trained(made, "standard", 2, 0.5)
    finding = found(BETTER, made)
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
        (rules.alike(2), [0.5, 1, 2], [0.25, 4], [0.3, 3]),
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
    assert found(l1, made).verdict.reason == "no run of l1 at lr 0.1 in these studies"
    faster = claim(difference(ACCURACY), rules.more_by(0.02), *at(0.5, "batchnorm", "standard"))
    assert found(faster, made).verdict.reason == "no run of batchnorm at lr 0.5 in these studies"
    linear = claim(itself(ACCURACY), rules.more_by(0.02), Key("l1", 1e-6), kind="deep_linear")
    assert found(linear, made).verdict.reason == "no study of deep_linear was given"


def test_runs_are_paired_by_seed_and_others_do_not_count(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    for seed, accuracy in ((0, 0.9), (1, 0.8), (2, 0.1)):
        trained(made, "batchnorm", seed, accuracy)
    for seed, accuracy in ((1, 0.5), (0, 0.4), (7, 0.99)):
        trained(made, "standard", seed, accuracy)
    assert found(BETTER, made).values == pytest.approx({0: 0.5, 1: 0.3})
    other = study(tmp_path / "other")
    trained(other, "batchnorm", 0)
    trained(other, "standard", 1)
    assert "have no seed in common" in found(BETTER, other).verdict.reason


def test_seeds_may_lie_in_several_studies(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1", record_every=5), study(tmp_path / "2", record_every=9)
    for made, seed in ((one, 0), (two, 1)):
        trained(made, "batchnorm", seed, 0.9)
        trained(made, "standard", seed, 0.5)
    assert found(BETTER, one, two).verdict.word == "reproduced"


@pytest.mark.parametrize("changed", [{"width": 1.0}, {"steps": 20}, {"weight_decay": 4e-4}])
def test_studies_of_another_scale_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    one, two = pair(tmp_path / "1", [0.9], [0.5]), pair(tmp_path / "2", [0.9], [0.5], **changed)
    with pytest.raises(DataError, match=f"{next(iter(changed))} .*like with like"):
        found(BETTER, one, two)


def test_runs_that_saw_other_data_are_refused(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    trained(one, "batchnorm", data="original")
    trained(two, "standard", data="recompressed")
    with pytest.raises(DataError, match="saw other data"):
        found(BETTER, one, two)


def test_data_may_belong_to_the_seed_but_not_to_the_variant(tmp_path: Path) -> None:
    made = study(tmp_path / "s", "deep_linear")
    for seed in (0, 1):
        trained(made, "batchnorm", seed, data=f"drawn {seed}")
    Evidence([made.folder], KINDS)
    trained(made, "standard", 1, data="drawn 7")
    with pytest.raises(DataError, match="saw other data"):
        Evidence([made.folder], KINDS)


def test_one_training_in_two_studies_counts_once_with_what_each_measured(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    for seed in (0, 1):
        trained(one, "batchnorm", seed, 0.9)
        trained(two, "batchnorm", seed, 0.9, shift=[{"step": 0, "layer": 4, "l2": 3.0}])
    what = claim(itself(layers.shift("l2", 0, 1, [5])), rules.at_least(2, 1), Key("batchnorm", 0.1))
    assert found(what, one).verdict.reason.endswith("has no records of shift, 3 at step 0")
    # layer 5 of 13 lies as deep as layer 3 of 8, which nobody measured; layer 4 is the paper's 6
    what = claim(itself(layers.shift("l2", 0, 1, [6])), rules.at_least(2, 1), Key("batchnorm", 0.1))
    assert found(what, one, two).values == {0: 3.0, 1: 3.0}


def test_two_trainings_of_one_name_that_differ_are_refused(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    trained(one, "batchnorm", 0, 0.9)
    trained(two, "batchnorm", 0, 0.8)
    with pytest.raises(DataError, match="different trainings of one variant"):
        found(BETTER, one, two)


def test_a_claim_of_one_scale_is_not_judged_by_another(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    full = claim(BETTER.metric, BETTER.rule, *BETTER.runs, scale={"width": 1.0})
    reason = found(full, made).verdict.reason
    assert reason == "it is about width 1.0, these studies have 0.5"


# The claims themselves


@pytest.mark.parametrize("what", claims.CLAIMS, ids=lambda c: c.id)
def test_every_claim_has_a_source_a_metric_a_rule_and_its_reason(what: Claim) -> None:
    assert what.says and what.place and what.why and not what.why.endswith(".")
    assert len(what.says) <= 70
    assert what.kind in KINDS and what.runs
    rule = what.rule
    assert rule.refuted and rule.low <= rule.high
    for x in (rule.low, rule.high, rule.below, rule.above):
        assert not (rule.holds(x) and rule.opposite(x))
    assert "{" not in what.measured and all(key.variant in what.measured for key in what.runs)


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


# The program


def test_the_command_prints_the_table_and_writes_it_without_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = study(tmp_path / "s", steps=2000, data_dir=str(tmp_path))
    for seed in (0, 1):
        trained(made, "batchnorm", seed, 0.9, steps=2000)
        trained(made, "standard", seed, 0.5, steps=2000)
        trained(made, "noisy-batchnorm", seed, 0.5, steps=2000)
    linear = study(tmp_path / "linear", "deep_linear")
    trained(linear, "batchnorm", lr=1e-6, diverged=4)
    out = tmp_path / "out"
    assert claims.main([str(made.folder), str(linear.folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "BatchNorm trains faster at lr 0.1" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == ["0.26", "0.4 (0.4 to 0.4), n = 2", "**reproduced**"]
    assert "| **contradicted** |" in said  # noisy BatchNorm is far from BatchNorm here
    text = (out / "claims.md").read_text()
    content = json.loads((out / "claims.json").read_text(), parse_constant=lambda c: 1 / 0)
    for written in (text, json.dumps(content)):
        assert str(tmp_path) not in written
    assert f"{len(claims.CLAIMS)} claims: " in text and row in text
    for what in claims.CLAIMS:
        assert text.count(f"`{what.id}`") == 1
    entry = content["claims"][0]
    assert entry["seeds"] == {"0": pytest.approx(0.4), "1": pytest.approx(0.4)}
    assert (entry["n"], entry["verdict"]) == (2, "reproduced")
    described = content["studies"]["deep_linear"]["runs"]["batchnorm-lr1e-06-seed0"]
    assert described == {"result": {"status": "diverged", "step": 4}, "commit": "c"}
    assert content["studies"]["vgg_cifar"]["settings"]["steps"] == 2000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which study?"),
        (["nowhere"], "there is no study"),
        (["s", "wide"], "like with like"),
        (["s", "other"], "is a study of cooking. There are claims about deep_linear, "),
        (["s", "--outt", "x"], "Did you mean --out?"),
    ],
)
def test_what_cannot_be_judged_ends_in_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    study(Path("s"))
    study(Path("wide"), width=1.0)
    study(Path("other"), "cooking")
    assert claims.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.claims: ") and says in line


def test_a_record_without_its_key_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = study(tmp_path / "s", steps=1)
    for variant in ("batchnorm", "standard"):
        trained(made, variant, steps=1, landscape=[{"step": 0, "direction": "gradient"}])
    assert claims.main([str(made.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("lack 'losses'. Restore them, or train that run again.")


def test_claims_need_no_matplotlib(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9], [0.5])
    program = (
        "import sys; sys.modules['matplotlib'] = None; from experiments import claims; "
        f"sys.exit(claims.main([{str(made.folder)!r}]))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr
