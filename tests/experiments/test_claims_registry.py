"""The claims of claims.toml, and the numbers that studies give for them."""

import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_studies import add_run, study

from experiments import claims as command
from experiments.claiming import streams
from experiments.claiming.registry import FILE, Claims, Evidence, at_scale, find, load, parse
from experiments.training.study import Study
from minibn.errors import DataError

ROOT = Path(__file__).parent.parent.parent
ROW = """
[[claims]]
id = "{id}"
sentence = "BatchNorm trains faster"
source = "Fig. 1a"
scale = "{scale}"
runs = {runs}
lr = 0.1
metric = "train_accuracy"
options = {{ steps = [0, 10] }}
combine = "{combine}"
says = "more"
margin = {margin}
seeds = 3
why = "two points"
registered = "a"
"""
HEAD = """
[registrations.a]
commit = "c"
date = "d"
what = "w"
[at_scale.paper]
width = 1.0
[scales.half]
experiment = "vgg_cifar"
model = "vgg11"
width = 0.5
steps = 10
[scales.whole]
like = "half"
width = 1.0
"""
PLAIN = {"id": "a", "scale": "half", "runs": '["batchnorm", "standard"]', "margin": 0.02,
         "combine": "difference"}  # fmt: skip


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "claims.toml"
    path.write_text(HEAD + "".join(ROW.format(**{**PLAIN, **row}) for row in rows))
    return path


def found(claims: Claims, *studies: Study) -> Any:
    runs = [run for s in studies for run in streams.read_study(s)]
    return find(claims, Evidence(runs, claims.scales))


def pair(made: Study, ours: Sequence[float], theirs: Sequence[float]) -> Study:
    for variant, numbers in (("batchnorm", ours), ("standard", theirs)):
        for seed, accuracy in enumerate(numbers):
            add_run(made, variant, seed, accuracy)
    return made


def test_the_claims_can_be_judged_and_are_at_most_forty() -> None:
    claims = load()
    assert 30 <= len(claims.claims) <= 40
    assert all(claim.source and claim.why for claim in claims.claims)


def test_registered_claims_are_as_they_were_in_the_commit_that_is_named() -> None:
    now = load()
    for name, registration in now.registrations.items():
        if not registration["commit"]:
            continue
        where = f"{registration['commit']}:{FILE.relative_to(ROOT)}"
        done = subprocess.run(
            ["git", "show", where], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"this checkout has no history back to {registration['commit'][:12]}")
        then = parse(done.stdout, where)
        own = [claim for claim in then.claims if claim.registered == name]
        assert own
        rows = {claim.id: claim for claim in own if claim.id not in now.withdrawn}
        assert rows.items() <= {claim.id: claim for claim in now.claims}.items()
        for scale in {scale for claim in own for scale in claim.scales}:
            assert now.scales[scale] == then.scales[scale]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"scale": "third"}, "scale 'third'"),
        ({"combine": "sum"}, "combine 'sum'"),
        ({"runs": '["batchnorm"]'}, "1 runs"),
        ({"margin": -1}, "margin -1"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"a can't have {words}"):
        load(written(tmp_path, row))


def test_unknown_keys_and_ids_of_two_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the id of another"):
        load(written(tmp_path, {}, {}))
    path = written(tmp_path, {})
    path.write_text(path.read_text() + 'magrin = "0.1"\n')
    with pytest.raises(DataError, match="a has unknown keys: magrin"):
        load(path)


def test_runs_are_paired_by_seed_and_a_difference_is_judged(tmp_path: Path) -> None:
    claims = load(written(tmp_path, {}))
    made = pair(study(tmp_path / "s"), [0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 0.7])
    (finding,) = found(claims, made)
    assert finding.values == pytest.approx({0: 0.1, 1: 0.1, 2: 0.1})
    assert finding.verdict.word == "reproduced"


def test_a_quotient_is_judged_by_its_logarithm(tmp_path: Path) -> None:
    claims = load(written(tmp_path, {"combine": "quotient", "margin": 1.5}))
    (finding,) = found(claims, pair(study(tmp_path / "s"), [0.8, 0.4], [0.2, 0.2]))
    assert finding.values == pytest.approx({0: math.log(4), 1: math.log(2)})
    assert finding.claim.shown(math.log(4)) == pytest.approx(4)


def test_of_several_variants_the_worst_for_the_claim_counts(tmp_path: Path) -> None:
    runs = {"runs": '[["batchnorm", "l1"], ["standard", "linf"]]'}
    claims = load(written(tmp_path, runs))
    made = pair(study(tmp_path / "s"), [0.6, 0.6], [0.1, 0.1])
    for seed in (0, 1):
        add_run(made, "l1", seed, 0.5)
        add_run(made, "linf", seed, 0.3)
    (finding,) = found(claims, made)
    assert finding.values == pytest.approx({0: 0.2, 1: 0.2})


def test_runs_of_other_settings_are_of_another_scale(tmp_path: Path) -> None:
    claims = load(written(tmp_path, {}, {"id": "b", "scale": "whole"}))
    half = pair(study(tmp_path / "half"), [0.6] * 3, [0.5] * 3)
    whole = pair(study(tmp_path / "whole", width=1.0, steps=20), [0.9] * 3, [0.5] * 3)
    a, b = found(claims, half, whole)
    assert a.values == pytest.approx({0: 0.1, 1: 0.1, 2: 0.1})
    assert "10 of the 20" not in b.verdict.reason
    assert b.values == pytest.approx({0: 0.4, 1: 0.4, 2: 0.4})


def test_without_runs_a_claim_is_undecided(tmp_path: Path) -> None:
    (finding,) = found(load(written(tmp_path, {})), study(tmp_path / "s"))
    assert (finding.verdict.word, finding.verdict.reason) == ("undecided", "no runs")


def test_a_seed_without_a_number_is_named_with_the_reason(tmp_path: Path) -> None:
    claims = load(written(tmp_path, {}))
    made = pair(study(tmp_path / "s"), [0.6, 0.6], [0.5, 0.5])
    add_run(made, "standard", 2, 0.5, steps=7)
    add_run(made, "batchnorm", 2, 0.6)
    (finding,) = found(claims, made)
    assert finding.verdict.reason == (
        "2 of the 3 registered seeds (seed 2: standard at lr 0.1, seed 2 (s) has 7 of the 10 steps)"
    )


def test_the_same_run_twice_is_an_error(tmp_path: Path) -> None:
    claims = load(written(tmp_path, {}))
    with pytest.raises(DataError, match="are the same run"):
        found(claims, *(pair(study(tmp_path / name), [0.6], [0.5]) for name in "ab"))


def test_at_the_papers_scale_the_networks_are_wide_and_widths_are_not_compared() -> None:
    claims = at_scale(load(), "paper")
    assert claims.scales["he"]["width"] == 1.0
    assert claims.scales["he"]["steps"] == 15_000
    assert not any("full" in claim.scales for claim in claims.claims)


# -- kept studies, and the command


def test_a_kept_study_gives_the_same_numbers_as_the_study(tmp_path: Path) -> None:
    made = pair(study(tmp_path / "s"), [0.61, 0.7], [0.5, 0.6])
    (run, *_) = made.runs()
    assert run.records("metrics")
    kept = streams.load(streams.keep(made, tmp_path / "kept"))
    for own, live in zip(kept, streams.read_study(made), strict=True):
        assert vars(own).keys() == vars(live).keys()
        assert (own.settings, own.result, own.seed) == (live.settings, live.result, live.seed)
        for name, table in live.tables.items():
            for column, values in table.items():
                np.testing.assert_array_equal(own.tables[name][column], values)


def test_a_study_that_has_not_ended_is_not_kept(tmp_path: Path) -> None:
    made = pair(study(tmp_path / "s"), [0.6], [0.5])
    (made.folder / "runs/standard-lr0.1-seed0/result.json").unlink()
    with pytest.raises(DataError, match="has not ended"):
        streams.keep(made, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_a_damaged_kept_study_is_named(tmp_path: Path, damage: bytes | None) -> None:
    path = streams.keep(pair(study(tmp_path / "s"), [0.6], [0.5]), tmp_path / "kept")
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    with pytest.raises(DataError, match=r"s\.npz can't be read"):
        streams.load(path)


def test_the_command_writes_results_from_which_it_computes_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = pair(study(tmp_path / "s"), [0.6], [0.5])
    once, twice = str(tmp_path / "once"), str(tmp_path / "twice")
    assert command.main([str(made.folder), "--out", once]) == 0
    assert f"{len(load().claims)} claims:" in capsys.readouterr().out
    assert command.main(["--from", f"{once}/streams", "--out", twice]) == 0
    for name in ("claims.json", "forest.svg"):
        assert (Path(once) / name).read_text() == (Path(twice) / name).read_text()
    assert (Path(once) / "claims.md").read_text().count("| BatchNorm trains faster |") == 1


def test_the_command_names_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert command.main([]) == 2
    assert "--from FOLDER" in capsys.readouterr().err
    assert command.main(["--from", str(tmp_path)]) == 2
    assert "no kept study" in capsys.readouterr().err
