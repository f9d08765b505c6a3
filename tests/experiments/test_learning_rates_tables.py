"""The grid of learning rates on synthetic records: definitions, tables, figures."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments import learning_rates
from experiments import plot as draw_again
from experiments.training.json_files import write_json
from experiments.training.study import Run, Study
from experiments.views.learning_rates import diverged_and_other, divergence_figure, plot
from experiments.views.learning_rates_gains import gains, gains_table
from experiments.views.learning_rates_outcomes import (
    Outcome,
    barrier,
    best_rate,
    largest,
    largest_stable,
    outcome,
    outcomes,
    outcomes_of,
    smallest_common_rate,
)
from experiments.views.learning_rates_tables import grid_table, stable_table
from minibn.errors import DataError

STEPS = 20


def write_run(
    folder: Path,
    name: tuple[str, float, int],
    losses: Iterable[float] = (1.0,) * STEPS,
    diverged: int | None = None,
    accuracy: float | Sequence[float] = 0.4,
) -> Run:
    """A run with synthetic records."""
    variant, lr, seed = name
    run = Run(folder / "runs" / f"{variant}-lr{lr:g}-seed{seed}")
    run.folder.mkdir(parents=True)
    config = {
        "variant": variant, "lr": lr, "seed": seed, "data_fingerprint": "0",
        "settings": {"kernels": "fast", "precision": "fp32"},
        "environment": {"threads": 1},
    }  # fmt: skip
    write_json(run.folder / "config.json", config)
    losses = list(losses)[:diverged]
    accuracies = np.broadcast_to(accuracy, STEPS).tolist()
    for step, loss in enumerate(losses):
        record = {"step": step, "loss": loss, "accuracy": accuracies[step], "lr": lr}
        run.stream("metrics").append(record)
    run.stream("timings").append({"step": 0, "seconds": 1.5})
    if diverged is None:
        run.stream("test").append(
            {"step": STEPS - 1, "updates": STEPS, "accuracy": accuracies[-1] / 2}
        )
    run.finish(
        {"status": "done", "steps": STEPS}
        if diverged is None
        else {"status": "diverged", "step": diverged}
    )
    return run


def of(variant: str, lr: float, seed: int, status: str, train: float = 0.1) -> Outcome:
    return Outcome(variant, lr, seed, status, 1.0, train, train / 2, 7)


def a_study(
    folder: Path, *, steps: int = STEPS, grid: tuple[float, ...] = (0.1, 0.2, 0.4)
) -> Study:
    settings = {
        "model": "vgg11", "width": 0.25, "head": "linear", "data": "cifar10", "batch_size": 128,
        "steps": steps, "lr": list(grid), "data_dir": "/somewhere", "kernels": "fast",
        "precision": "fp32",
    }  # fmt: skip
    folder.mkdir(parents=True)
    write_json(folder / "study.json", {"experiment": "learning_rates", "settings": settings})
    return Study(folder)


# The definitions


@pytest.mark.parametrize(
    ("accuracy", "status"), [(0.9, "learns"), (0.2, "learns"), (0.19, "at chance")]
)
def test_a_run_learns_if_its_accuracy_ends_at_twice_chance(
    accuracy: float, status: str, tmp_path: Path
) -> None:
    found = outcome(write_run(tmp_path, ("standard", 0.1, 3), accuracy=accuracy))
    assert found == Outcome(
        "standard", 0.1, 3, status, 1.0, pytest.approx(accuracy), pytest.approx(accuracy / 2)
    )


def test_only_the_last_quarter_of_the_steps_decides(tmp_path: Path) -> None:
    late = outcome(
        write_run(tmp_path / "late", ("standard", 0.1, 0), accuracy=[0.1] * 15 + [0.4] * 5)
    )
    lost = outcome(
        write_run(tmp_path / "lost", ("standard", 0.1, 0), accuracy=[0.9] * 15 + [0.1] * 5)
    )
    assert late is not None and lost is not None
    assert (late.status, late.train) == ("learns", pytest.approx(0.4))
    assert (lost.status, lost.train) == ("at chance", pytest.approx(0.1))


def test_a_diverged_run_counts_as_chance_and_tells_its_step(tmp_path: Path) -> None:
    found = outcome(write_run(tmp_path, ("standard", 6.4, 0), diverged=12))
    assert found == Outcome("standard", 6.4, 0, "diverged", math.inf, 0.1, 0.1, 12)


def test_a_run_without_an_end_has_no_outcome(tmp_path: Path) -> None:
    run = write_run(tmp_path, ("standard", 0.1, 0))
    (run.folder / "result.json").unlink()
    assert outcome(run) is None and outcomes([run]) == [] and largest_stable([run]) == {}


def test_the_largest_rate_that_learns_does_not_ask_what_smaller_rates_do() -> None:
    found = [
        of("standard", 0.1, 0, "at chance"), of("standard", 0.2, 0, "learns"),
        of("standard", 0.4, 0, "diverged"), of("standard", 0.8, 0, "learns"),
        of("standard", 1.6, 0, "at chance"), of("standard", 0.1, 1, "at chance"),
    ]  # fmt: skip
    assert largest(found) == {"standard": {0: 0.8, 1: 0.0}}


def test_behind_a_rate_that_diverged_no_rate_counts_as_without_divergence() -> None:
    found = [
        of("standard", 0.1, 0, "learns"), of("standard", 0.2, 0, "at chance"),
        of("standard", 0.4, 0, "diverged"), of("standard", 0.8, 0, "at chance"),
        of("standard", 0.1, 1, "diverged"), of("batchnorm", 0.8, 0, "at chance"),
    ]  # fmt: skip
    expected = {"standard": {0: 0.2, 1: 0.0}, "batchnorm": {0: 0.8}}
    assert largest(found, learns=False) == expected


def test_largest_stable_reads_runs(tmp_path: Path) -> None:
    found = [
        write_run(tmp_path, ("standard", 0.1, 0)),
        write_run(tmp_path, ("standard", 0.2, 0), accuracy=0.1),
        write_run(tmp_path, ("standard", 0.4, 0), diverged=2),
        write_run(tmp_path, ("batchnorm", 0.4, 0)),
    ]
    assert largest_stable(found) == {"standard": {0: 0.1}, "batchnorm": {0: 0.4}}
    assert largest_stable(found, learns=False) == {"standard": {0: 0.2}, "batchnorm": {0: 0.4}}


def test_the_barrier_is_the_smallest_rate_at_which_every_run_diverged() -> None:
    assert barrier([]) == math.inf
    assert barrier([(0.1, False), (0.2, True), (0.2, False)]) == math.inf
    assert barrier([(0.8, True), (0.1, False), (0.4, True), (0.2, True), (0.2, False)]) == 0.4


def test_the_best_rate_is_chosen_by_training_accuracy_over_all_seeds() -> None:
    found = [
        Outcome("l1", 0.1, 0, "learns", 1.0, 0.5, 0.9), Outcome("l1", 0.1, 1, "learns", 1.0, 0.5),
        Outcome("l1", 0.2, 0, "learns", 1.0, 0.8, 0.1), Outcome("l1", 0.2, 1, "learns", 1.0, 0.3),
        Outcome("l1", 0.4, 0, "diverged", train=0.7),
    ]  # fmt: skip
    assert best_rate(found, "l1") == 0.2
    assert best_rate(found[:2] + found[4:], "l1") == 0.1
    assert best_rate(found[4:], "l1") is None, "no run learns"


def test_the_small_common_rate_needs_every_run_of_both_to_learn() -> None:
    found = [
        of("standard", 0.1, 0, "learns"), of("standard", 0.1, 1, "at chance"),
        of("standard", 0.2, 0, "learns"), of("batchnorm", 0.1, 0, "learns"),
        of("batchnorm", 0.2, 0, "learns"), of("batchnorm", 0.05, 0, "learns"),
    ]  # fmt: skip
    assert smallest_common_rate(found, ("standard", "batchnorm")) == 0.2
    assert smallest_common_rate(found[:3] + found[5:], ("standard", "batchnorm")) is None


def both() -> list[Outcome]:
    """standard is best at 0.2, batchnorm at 0.8."""
    table: dict[str, dict[float, float | None]] = {
        "standard": {0.1: 0.3, 0.2: 0.4, 0.8: None},
        "batchnorm": {0.1: 0.35, 0.2: 0.5, 0.8: 0.7},
    }
    return [
        of(v, lr, seed, "diverged" if train is None else "learns", (train or 0.1) + seed / 100)
        for v, row in table.items()
        for lr, train in row.items()
        for seed in (0, 1)
    ]


def test_the_gain_at_equal_rate_and_by_the_own_rate_add_up_to_best_against_best() -> None:
    gain = gains(both(), "batchnorm")
    assert gain is not None
    assert (gain["small_rate"], gain["base_rate"], gain["rate"]) == (0.1, 0.2, 0.8)
    assert gain["at_small_rate"] == {0: pytest.approx(0.05), 1: pytest.approx(0.05)}
    assert gain["equal_rate"] == {0: pytest.approx(0.1), 1: pytest.approx(0.1)}
    assert gain["own_rate"] == {0: pytest.approx(0.2), 1: pytest.approx(0.2)}
    text = gains_table(both())
    assert "| batchnorm | +0.050 at 0.1 | +0.100 at 0.2 | +0.200 at 0.8 |" in text
    assert "| standard |" not in text


def test_there_is_no_gain_over_a_network_that_never_learns_or_was_not_trained() -> None:
    dead = [of("standard", 0.1, 0, "at chance"), of("l1", 0.1, 0, "learns", 0.4)]
    assert gains(dead, "l1") is None and gains(dead[1:], "l1") is None
    assert gains_table(dead) == gains_table(dead[1:]) == ""


def test_a_variant_that_never_learns_has_only_what_it_loses_at_equal_rate() -> None:
    found = [*both(), of("noisy-standard", 0.2, 0, "at chance", 0.1)]
    assert "| noisy-standard | none | -0.300 at 0.2 | none |" in gains_table(found)


def test_the_tables_tell_edges_of_the_grid_failures_and_what_was_not_run() -> None:
    grid = (0.1, 0.2, 0.8, 1.6)
    found = [*both(), of("batchnorm", 1.6, 0, "learns", 0.2), of("batchnorm", 1.6, 1, "at chance")]
    found += [of("l1", 0.1, 0, "at chance")]
    stable = stable_table(found, grid)
    assert "| standard | 0.2 | 0.2 | 0.2 | 0.405 (0.400 to 0.410) | 0.203" in stable
    assert "| batchnorm | ≥ 1.6 | 0.8 (0.8 to ≥ 1.6) | 0.8 | 0.705" in stable
    assert "| l1 | 0.1 | none | none |  |  |" in stable
    rows = grid_table(found, grid).splitlines()
    assert rows[0] == "| variant | 0.1 | 0.2 | 0.8 | 1.6 |"
    assert rows[2] == "| standard | 0.305 | 0.405 | diverged at step 7 |  |"
    assert rows[3] == "| batchnorm | 0.355 | 0.505 | 0.705 | 0.150 (1 at chance) |"
    assert rows[4] == "| l1 | 0.100 (1 at chance) |  |  |  |", "not yet"


def seed_by_seed(tmp_path: Path) -> list[Study]:
    """A study a seed: seed 0 diverged at 0.2 and was not run at 0.4; seeds 1 and 2 learn there."""
    studies = [a_study(tmp_path / f"seed{seed}") for seed in range(3)]
    for seed, study in enumerate(studies):
        write_run(study.folder, ("batchnorm", 0.1, seed), accuracy=0.4)
        write_run(
            study.folder, ("batchnorm", 0.2, seed), diverged=None if seed else 5, accuracy=0.4
        )
        if seed:
            write_run(study.folder, ("batchnorm", 0.4, seed), accuracy=0.5)
    return studies


def test_a_rate_left_out_because_a_lower_one_diverged_counts_as_diverged(tmp_path: Path) -> None:
    found = outcomes_of(seed_by_seed(tmp_path))
    (missing,) = [o for o in found if not o.has_run]
    assert (missing.lr, missing.seed, missing.train) == (0.4, 0, 0.1)
    row = grid_table(found, (0.1, 0.2, 0.4)).splitlines()[2]
    assert row == "| batchnorm | 0.400 | 0.300 (1 diverged) | 0.367 (1 not run) |"
    assert best_rate(found, "batchnorm") == 0.1, "the mean of the survivors is best at 0.4"
    assert largest(found, learns=False) == {"batchnorm": {0: 0.1, 1: 0.4, 2: 0.4}}


def test_what_one_study_left_out_and_another_ran_counts_as_it_ended(tmp_path: Path) -> None:
    studies = seed_by_seed(tmp_path)
    other = a_study(tmp_path / "other")
    write_run(other.folder, ("batchnorm", 0.4, 0), accuracy=0.6)
    found = outcomes_of([*studies, other])
    assert all(o.has_run for o in found) and len(found) == 9


def test_a_rate_that_is_still_to_be_run_is_not_counted(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    write_run(study.folder, ("batchnorm", 0.1, 0), diverged=2)
    write_run(study.folder, ("batchnorm", 0.1, 1))
    assert len(outcomes_of([study])) == 2, "seed 1 did not diverge: 0.2 and 0.4 are to be run"


@pytest.mark.parametrize("command", ["--resume", "figures"])
def test_a_study_of_another_kind_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = a_study(tmp_path / "study").folder
    write_json(folder / "study.json", {"experiment": "cooking", "settings": {}})
    if command == "figures":
        assert draw_again.main([str(folder)]) == 2
    else:
        assert learning_rates.main(["--resume", str(folder)]) == 2
    assert "is a study of cooking" in capsys.readouterr().err


def test_figures_need_a_study_with_a_run_that_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    a_study(tmp_path / "empty")
    assert draw_again.main([str(tmp_path / "empty")]) == 2
    assert "has no run that ended. Continue it with --resume" in capsys.readouterr().err
    assert draw_again.main([]) == 2
    assert "which study?" in capsys.readouterr().err


# Figures


def test_studies_are_drawn_together_and_runs_in_both_count_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one, two = a_study(tmp_path / "one"), a_study(tmp_path / "two", grid=(0.1, 0.8))
    write_run(one.folder, ("standard", 0.1, 0))
    write_run(one.folder, ("standard", 0.2, 0), diverged=3)
    write_run(two.folder, ("standard", 0.1, 0))
    write_run(two.folder, ("noisy-batchnorm", 0.8, 0))
    command = [str(one.folder), str(two.folder), "--out", str(tmp_path / "out")]
    assert draw_again.main(command) == 0
    content = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(content["runs"]) == 3 and content["grid"] == [0.1, 0.2, 0.4, 0.8]
    assert content["seconds"] == 4.5
    assert (
        "| standard | 0.400 | diverged at step 3 | not run | not run |" in capsys.readouterr().out
    )
    assert not (one.folder / "table.md").exists()


def test_studies_of_different_lengths_are_not_drawn_together(tmp_path: Path) -> None:
    one, two = a_study(tmp_path / "one"), a_study(tmp_path / "two", steps=STEPS + 1)
    write_run(one.folder, ("standard", 0.1, 0))
    with pytest.raises(DataError, match="like with like"):
        plot([one, two])


def with_moments(run: Run, steps: Iterable[int]) -> Run:
    for step in steps:
        run.stream("moments").append({"step": step, "mean": [1.0, None], "var": [2.0**step, 1e30]})
    run.finish(run.result)  # which states every stream
    return run


def test_divergence_is_drawn_only_where_the_step_before_it_was_recorded(tmp_path: Path) -> None:
    late = with_moments(write_run(tmp_path, ("standard", 0.4, 0), diverged=9), range(3))
    assert divergence_figure([late], outcomes([late]), tmp_path) == []
    early = with_moments(write_run(tmp_path, ("l1", 0.8, 0), diverged=3), range(3))
    other = with_moments(write_run(tmp_path, ("batchnorm", 0.8, 0)), range(3))
    found = [late, other, early]
    (path,) = divergence_figure(found, outcomes(found), tmp_path)
    assert path.name == "divergence.png"
    chosen = diverged_and_other(found, outcomes(found))
    assert chosen == (early, [other], 3)
