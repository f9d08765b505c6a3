"""The verdicts, the report and the README are what the kept streams say."""

import functools
import subprocess
from pathlib import Path

import pytest

from experiments import claims as command
from experiments.claiming.registry import find, load
from experiments.training.json_files import read_json
from experiments.views import claims_tables, report
from minibn.errors import DataError

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "experiments/results/paper"
MADE_BY = (
    "python -m experiments.claims --from experiments/results/paper/streams --out "
    "experiments/results/paper"
)


@pytest.fixture(scope="module")
def judged():
    claims = load()
    evidence = command.evidence_of([], RESULTS / "streams", claims)
    return claims, evidence, find(claims, evidence)


def test_every_verdict_follows_from_the_kept_streams(judged):
    _, _, findings = judged
    kept = read_json(RESULTS / "claims.json")["claims"]
    for name, own in claims_tables.content(findings)["claims"].items():
        for key in ("verdict", "direction", "reason", "firm", "sentence"):
            assert own[key] == kept[name][key], name
        assert own["seeds"] == pytest.approx(kept[name]["seeds"], rel=1e-9)
    assert set(kept) == {finding.claim.id for finding in findings}


def test_table_and_report_are_made_of_them(judged):
    claims, evidence, findings = judged
    table = claims_tables.document(findings, claims, evidence, MADE_BY)
    assert (RESULTS / "claims.md").read_text() == table
    assert (RESULTS / "REPORT.md").read_text() == report.report(findings, evidence, MADE_BY)


def test_the_runs_were_trained_at_clean_commits_and_at_one_data_set(judged):
    _, evidence, _ = judged
    assert evidence.all
    for run in evidence.all:
        assert "+" not in run.environment["commit"], run
    assert len({run.data for run in evidence.all if run.settings.get("data") == "cifar10"}) <= 1


def test_the_rules_were_committed_before_the_runs_that_they_judge(judged):
    claims, evidence, _ = judged
    for claim in claims.claims:
        rules = claims.registrations[claim.registered]["commit"]
        for scale, slot in zip(claim.scales, claim.runs, strict=True):
            for variant in [slot] if isinstance(slot, str) else slot:
                for run in evidence.seeds(scale, variant, claim.lr).values():
                    for own in run if isinstance(run, list) else [run]:
                        assert _is_ancestor(rules, own.environment["commit"]), (claim.id, own)


@functools.cache
def _is_ancestor(commit: str, of: str) -> bool:
    """Whether a commit comes before another, or is it. Skips in a checkout without history."""
    known = [
        subprocess.run(["git", "cat-file", "-e", f"{c}^{{commit}}"], cwd=ROOT, check=False)
        for c in (commit, of)
    ]
    if any(done.returncode for done in known):
        pytest.skip("this checkout has no history back to the rules or the runs")
    done = subprocess.run(["git", "merge-base", "--is-ancestor", commit, of], cwd=ROOT, check=False)
    return done.returncode == 0


def test_a_report_that_names_no_claim_is_refused(judged, tmp_path, monkeypatch):
    _, evidence, findings = judged
    template = tmp_path / "report.md"
    template.write_text("{{loss-band}} and {{loss-bend}}")
    monkeypatch.setattr(report, "TEMPLATE", template)
    with pytest.raises(DataError, match=r"\{\{loss-bend\}\} is no claim"):
        report.report(findings, evidence, "")
