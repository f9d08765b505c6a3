"""Claims about learning rates: their numbers from the grid of a seed's runs."""

from pathlib import Path

import pytest
from claim_studies import add_run, forget_streams, judge, named, study

from experiments.training.study import Study

RATES = (0.1, 0.2, 0.4)


def sweep(folder: Path, start: float = 0.75, **best: list[float]) -> Study:
    """A study of learning rates in which a variant learns up to its rate, by seed, the better the
    larger (from `start` on), and diverges at larger ones."""
    made = study(folder, "learning_rates", lr=list(RATES))
    for variant, rates in best.items():
        for seed, largest in enumerate(rates):
            for i, lr in enumerate(RATES):
                bad = None if lr <= largest else 3
                var = [{"step": t, "var": [1.0, 10.0**t, x]} for t, x in ((0, 5.0), (1, 700.0))]
                moments = [*var, {"step": 2, "var": [1.0, None, None]}]
                accuracy = start + i / 10 + (0.02 if variant == "batchnorm" else 0.0)
                add_run(made, variant, seed, accuracy, lr=lr, diverged=bad, moments=moments)
    return made


def test_the_largest_rate_is_compared_by_seed(tmp_path: Path) -> None:
    made = sweep(tmp_path / "s", 0.9, batchnorm=[0.4, 0.2], standard=[0.1, 0.1], l1=[0.1, 0.1])
    larger = judge(named("bn-larger-rates"), made)
    assert larger.values == pytest.approx({0: 4, 1: 2})
    assert larger.verdict.word == "reproduced"
    assert "standard" in larger.claim.measurement and "lr 0" not in larger.claim.measurement
    assert judge(named("bn-stable-at-larger-rates"), made).values == pytest.approx({0: 4, 1: 2})
    assert judge(named("l1-larger-rates"), made).verdict.reason == "within the margin"
    small = judge(named("equal-at-small-rates"), made)
    assert small.values == pytest.approx({0: 0.02, 1: 0.02})
    share = judge(named("gain-is-by-rates"), made)
    assert share.values == pytest.approx({0: 0.2 / 0.22, 1: 0.1 / 0.12})
    assert judge(named("explodes-with-depth"), made).values == pytest.approx({0: 700, 1: 700})


def test_runs_too_short_to_train_say_nothing_about_trained_networks(tmp_path: Path) -> None:
    made = sweep(tmp_path / "s", 0.3, batchnorm=[0.4, 0.4], standard=[0.1, 0.1])
    for id, accuracy in (("equal-at-small-rates", 0.32), ("gain-is-by-rates", 0.52)):
        finding = judge(named(id), made)
        assert finding.values == {}
        assert f"ends at {accuracy} of the training set, below 0.9" in finding.verdict.reason


def test_an_explosion_is_read_where_moments_reach_the_step_before_divergence(
    tmp_path: Path,
) -> None:
    made = sweep(tmp_path / "s", standard=[0.1, 0.1])
    assert judge(named("explodes-with-depth"), made).values == pytest.approx({0: 700, 1: 700})
    forget_streams(made.run("standard-lr0.2-seed1"))
    path = made.run("standard-lr0.2-seed1").folder / "moments.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    reason = judge(named("explodes-with-depth"), made).verdict.reason
    assert reason.endswith("moments of the step before divergence are not on record")


def test_where_nothing_learns_there_is_no_largest_or_best_rate(tmp_path: Path) -> None:
    made = sweep(tmp_path / "s", batchnorm=[0.4, 0.2], standard=[0.05, 0.05])
    share = judge(named("gain-is-by-rates"), made).verdict.reason
    assert share == "standard learns at no rate of the grid"
    larger = judge(named("bn-larger-rates"), made).verdict.reason
    assert larger == "standard, seed 0: none of the grid's rates is one"


def test_a_sweep_that_has_not_ended_decides_nothing(tmp_path: Path) -> None:
    made = sweep(tmp_path / "s", batchnorm=[0.4, 0.2], standard=[0.1, 0.1])
    (made.run("standard-lr0.2-seed1").folder / "result.json").unlink()
    reason = judge(named("bn-larger-rates"), made).verdict.reason
    assert reason == "standard, seed 1 has not ended at lr 0.2"
    assert judge(named("l1-larger-rates"), made).verdict.reason.startswith("no run of l1 in")


def test_each_study_decides_alone_which_rates_it_leaves_out(tmp_path: Path) -> None:
    one, two = (study(tmp_path / n, "learning_rates", lr=list(RATES)) for n in ("1", "2"))
    for made, seed, largest in ((one, 0, 0.1), (two, 1, 0.2)):
        for lr in RATES:
            add_run(made, "batchnorm", seed, 0.3, lr=lr)
            if lr <= 2 * largest:  # in study 1 nothing is run at 0.4, though study 2 bears 0.2
                diverged = None if lr <= largest else 3
                add_run(made, "standard", seed, 0.3, lr=lr, diverged=diverged)
    assert judge(named("bn-larger-rates"), one, two).values == pytest.approx({0: 4, 1: 2})
    stable = named("bn-stable-at-larger-rates")
    assert judge(stable, one, two).values == pytest.approx({0: 4, 1: 2})
    add_run(one, "standard", 2, 0.3, lr=0.2)  # in that study another seed bears 0.2
    reason = judge(named("bn-larger-rates"), one, two).verdict.reason
    assert reason == "standard, seed 0 has not ended at lr 0.4"


def test_a_rate_that_was_left_out_counts_as_chance_in_accuracies(tmp_path: Path) -> None:
    studies = [study(tmp_path / n, "learning_rates", lr=list(RATES)) for n in ("1", "2")]
    for seed, made in enumerate(studies):
        add_run(made, "batchnorm", seed, 0.95, lr=0.1)
        add_run(made, "batchnorm", seed, 0.5, lr=0.2, diverged=3)
        for lr, accuracy in zip(RATES, (0.5, 0.6, 0.92), strict=True):
            add_run(made, "standard", seed, accuracy, lr=lr)
    share = judge(named("gain-is-by-rates"), *studies)
    assert share.values == pytest.approx(dict.fromkeys((0, 1), (0.95 - 0.1) / (0.95 - 0.92)))


def test_a_seed_of_a_smaller_grid_has_not_ended_at_the_rates_of_the_larger(tmp_path: Path) -> None:
    one = sweep(tmp_path / "1", batchnorm=[0.4], standard=[0.1])
    two = study(tmp_path / "2", "learning_rates", lr=[0.1, 0.2])
    for variant in ("batchnorm", "standard"):
        for lr in (0.1, 0.2):
            add_run(two, variant, 1, 0.75, lr=lr)
    finding = judge(named("bn-larger-rates"), one, two)
    assert finding.values == {0: 4}
    assert finding.verdict.reason == "batchnorm, seed 1 has not ended at lr 0.4"


def test_norms_that_were_not_trained_leave_their_claims_undecided(tmp_path: Path) -> None:
    made = sweep(tmp_path / "s", 0.3, batchnorm=[0.4, 0.4], standard=[0.1, 0.1])
    reasons = {
        id: judge(named(id), made).verdict.reason for id in ("l2-larger-rates", "linf-larger-rates")
    }
    assert reasons == {
        "l2-larger-rates": "no run of l2 in these studies",
        "linf-larger-rates": "no run of linf in these studies",
    }
