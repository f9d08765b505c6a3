"""The deep linear network's experiment: problem, measurements, kill and resume, bad input."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import synthetic
from studies import run_here, runs

from experiments import deep_linear, plot
from experiments.linear import allocator, problem
from experiments.linear.settings import QUICK, Settings, check, plans
from experiments.training.command_line import parse
from experiments.training.json_files import read_json, write_json
from experiments.training.session import preset
from experiments.training.study import Run, Study
from experiments.views import curvature, deep_linear_probes, gradient_change
from experiments.views import deep_linear as deep_linear_figures
from experiments.views.deep_linear_tables import in_one_line, loss_at, make_tables
from experiments.views.series import group_runs

SMALL = [
    *("--depth", "4", "--width", "3", "--samples", "20", "--lr", "1e-3", "1e-4"),
    *("--variants", "standard", "batchnorm", "linf", "--probe-every", "3", "--shift-every", "2"),
    *("--record-every", "3", "--checkpoint-every", "3"),
]
STEPS = 8
HERE = Path(__file__).parent


def settings(*arguments: object) -> Settings:
    words = [str(a) for a in arguments]
    return preset(Settings, QUICK, parse(Settings, words, program="test", description=""))


main = partial(run_here, deep_linear, deep_linear_figures)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted study, with its figures."""
    folder = tmp_path_factory.mktemp("deep_linear") / "study"
    assert main(*SMALL, "--steps", STEPS, "--out", folder, plot=True) == 0
    return folder


# -- the problem


def test_the_default_runs_are_the_papers_seven() -> None:
    assert [plan.name for plan in plans(Settings())] == [
        "standard-lr1e-06-seed0", "batchnorm-lr1e-06-seed0", "l1-lr1e-06-seed0",
        "l2-lr1e-06-seed0", "linf-lr1e-06-seed0", "standard-lr1e-07-seed0",
        "batchnorm-lr1e-07-seed0",
    ]  # fmt: skip
    s = Settings()
    assert (s.depth, s.width, s.samples, s.steps) == (25, 10, 1000, 10_000)
    assert settings("--quick").steps == QUICK["steps"] and settings("--quick").depth == 25


def test_targets_are_a_linear_map_of_the_samples_with_the_wanted_spread() -> None:
    s = settings("--samples", 5000, "--width", 8, "--target-std", 3)
    data = problem.make_problem(s, 0)
    A = np.linalg.lstsq(data.x, data.targets, rcond=None)[0]
    np.testing.assert_allclose(data.x @ A, data.targets, atol=1e-10)
    assert data.x.dtype == data.targets.dtype == np.float64
    assert data.x.std() == pytest.approx(1, rel=0.02)
    spread = [problem.make_problem(s, seed).targets.std() for seed in range(20)]
    assert np.mean(spread) == pytest.approx(3, rel=0.05)


def test_the_problem_belongs_to_the_seed_and_is_one_batch_at_every_step() -> None:
    s = settings(*SMALL)
    one, again, other = (problem.make_problem(s, seed) for seed in (0, 0, 1))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    for step in (0, 7):
        assert one.batch(step)[0] is one.x and one.batch(step)[1] is one.targets


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_loss_is_the_sum_of_squared_errors_times_its_scale(scale: float) -> None:
    s = settings(*SMALL, "--loss-scale", scale)
    data, of = problem.make_problem(s, 0), problem.task(s)
    model = problem.network(s, "standard", 0)
    x, targets = of.prepare(data.x, data.targets)
    product = np.linalg.multi_dot([p.numpy() for p in model.parameters()])
    expected = scale * ((data.x @ product - data.targets) ** 2).sum()
    assert of.loss(model(x), targets).item() == pytest.approx(expected, rel=1e-12)
    assert of.score is None


def test_no_map_of_a_rank_has_less_than_its_loss_and_one_has_just_that() -> None:
    s = settings(*SMALL, "--loss-scale", 2)
    data = problem.make_problem(s, 0)
    levels = problem.rank_losses(s, data)
    assert levels[0] == pytest.approx(2 * (data.targets**2).sum()) and len(levels) == 4
    u, sizes, v = np.linalg.svd(data.targets, full_matrices=False)
    for rank in range(4):
        best = (u[:, :rank] * sizes[:rank]) @ v[:rank]  # of that rank, and in the span of x
        assert levels[rank] == pytest.approx(2 * ((best - data.targets) ** 2).sum(), abs=1e-9)
        P = np.linalg.lstsq(data.x, best, rcond=None)[0]
        np.testing.assert_allclose(data.x @ P, best, atol=1e-10)
        rng = np.random.default_rng(0)
        for _ in range(20):
            near = (P + 0.1 * rng.normal(size=P.shape))[:, :rank] @ rng.normal(size=(rank, 3))
            assert 2 * ((data.x @ near - data.targets) ** 2).sum() >= levels[rank] - 1e-9


# -- what a run leaves


def test_the_probes_step_of_the_rate_itself_is_the_next_steps_loss(whole: Path) -> None:
    for run in runs(whole):
        losses = [r["loss"] for r in run.records("metrics")]
        assert len(losses) == STEPS and "accuracy" not in run.records("metrics")[0]
        probes = run.records("landscape")
        assert [r["step"] for r in probes] == [0, 1, 2, 3, 6]
        for probe in probes:
            lr = run.config["lr"]
            np.testing.assert_allclose(probe["step_sizes"], np.array(Settings().probe_sizes) * lr)
            assert probe["loss"] == pytest.approx(losses[probe["step"]], rel=1e-6)
            assert probe["losses"][2] == pytest.approx(losses[probe["step"] + 1], rel=1e-6)


def test_covariate_shift_is_of_every_layer_and_none_in_the_first(whole: Path) -> None:
    for run in runs(whole):
        records = run.records("shift")
        assert [r["layer"] for r in records if r["step"] == 2] == [1, 2, 3, 4]
        assert all(r["l2"] == 0 and r["cosine"] == 1 for r in records if r["layer"] == 1)
        assert all(r["l2"] > 0 for r in records if r["layer"] > 1)
        assert all(("wasserstein" in r) == (r["layer"] < 4) for r in records)


def test_activations_are_what_a_layer_hands_to_the_next(whole: Path) -> None:
    s = settings(*SMALL)
    data = problem.make_problem(s, 0)
    state = problem.network(s, "standard", 0).state_dict()
    run = Run(whole / "runs" / "standard-lr0.001-seed0")
    records = [r for r in run.records("distributions") if r["step"] == 0]
    assert [r["layer"] for r in records] == list(deep_linear.recorded_layers(4)) == [1, 2, 3]
    z = data.x
    for record in records:
        z = z @ state[f"linear{record['layer']}.weight"]
        values = z[:, record["unit"]]
        assert record["mean"] == pytest.approx(values.mean(), rel=1e-9)
        assert record["var"] == pytest.approx(values.var(), rel=1e-9)
        assert sum(record["histogram"]) == 20


def test_the_papers_layers_are_shown_at_the_papers_depth() -> None:
    assert deep_linear.recorded_layers(25) == {1: 1, 11: 11, 24: 24}
    assert deep_linear.recorded_layers(1) == {}


def test_figures_have_no_text_over_text_and_name_unit_and_seed(whole: Path) -> None:
    modules = (deep_linear_figures, deep_linear_probes, gradient_change, curvature)
    with synthetic.catch_figures(*modules) as figures:
        deep_linear_figures.plot([Study(whole)])
    assert len(figures) == 10
    for name, figure in figures.items():
        assert synthetic.texts_over_texts(figure) == [], name
        assert synthetic.texts_cut_off(figure) == [], name
        assert synthetic.legends_over_panels(figure) == [], name
    assert "seed 0" in figures["distributions"].get_suptitle()
    labels = [axes.get_ylabel() for axes in figures["distributions"].axes]
    assert any(label.startswith("layer 1, unit ") for label in labels)
    assert "not here: linf (shift-layers.png)" in figures["shift"].get_suptitle()


def test_figures_table_and_summary_are_drawn_from_the_files(whole: Path) -> None:
    names = {p.name for p in (whole / "figures").glob("*.png")}
    assert names == {
        "loss.png", "shift.png", "shift-layers.png", "distributions.png",
        "landscape-lr0.001.png", "landscape-lr0.0001.png",
        "gradient-change-lr0.001.png", "gradient-change-lr0.0001.png",
        "curvature-lr0.001.png", "curvature-lr0.0001.png",
    }  # fmt: skip
    summary = json.loads((whole / "summary.json").read_text())
    assert sorted(summary["runs"]) == [run.name for run in runs(whole)]
    metrics = runs(whole)[0].records("metrics")
    ours = summary["runs"][runs(whole)[0].name]
    assert ours["loss"] == pytest.approx([metrics[0]["loss"], metrics[-1]["loss"]], rel=1e-3)
    table = (whole / "table.md").read_text()
    assert f"| standard | 0.001 | 1 | {metrics_of(whole, 'standard'):.3g}" in table
    assert "At lr 0.001, 1 seed: " in table


def metrics_of(study: Path, variant: str) -> float:
    run = Run(study / "runs" / f"{variant}-lr0.001-seed0")
    return run.records("metrics")[0]["loss"]


def test_several_studies_are_drawn_together_and_only_if_alike(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("shift_figure", "layers_figure", "distribution_figure"):  # they take seconds
        monkeypatch.setattr(deep_linear_figures, name, lambda *arguments: [])
    monkeypatch.setattr(deep_linear_probes, "plot", lambda *arguments: [])
    other, third = tmp_path / "other", tmp_path / "third"
    few = ["--steps", 4, "--variants", "standard", "--variants-elsewhere", "standard"]
    assert main(*SMALL, *few, "--seed", 1, "--out", other) == 0
    assert main(*SMALL, *few, "--target-std", 2, "--out", third) == 0
    both = [str(whole), str(other), "--out", str(tmp_path / "drawn")]
    assert plot.main(both) == 0
    assert "| standard | 0.001 | 2 |" in (tmp_path / "drawn" / "table.md").read_text()
    capsys.readouterr()
    assert plot.main([str(whole), str(third)]) == 2
    assert "target_std 2.0" in capsys.readouterr().err
    assert plot.main([]) == 2
    assert plot.main([str(tmp_path / "none")]) == 2


# -- killed, raised, diverged


def killed(moment: str, *arguments: object) -> int:
    """The exit status of a process of its own, which is killed (see killed.py)."""
    text = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import killed;"
        "from experiments import deep_linear; killed.arrange(sys.argv[1]);"
        "sys.exit(deep_linear.main(sys.argv[2:]))"
    )
    command = [sys.executable, "-W", "error", "-c", text, moment, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=300).returncode


@pytest.mark.parametrize("moment", ["before 6th step", "before 14th step", "amid 2nd checkpoint"])
def test_a_killed_study_goes_on_to_the_same_bits(moment: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    assert killed(moment, *SMALL, "--steps", STEPS, "--out", folder) == -9
    assert main("--resume", folder) == 0
    assert_same_runs(folder, whole)


def assert_same_runs(one: Path, other: Path) -> None:
    for a, b in zip(runs(one), runs(other), strict=True):
        assert a.name == b.name and a.result == b.result
        for stream in ("metrics", "landscape", "shift", "distributions"):
            assert a.records(stream) == b.records(stream), (a.name, stream)


def test_steps_may_be_raised_afterwards(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    assert main(*SMALL, "--steps", 5, "--out", folder) == 0
    assert main("--resume", folder, "--steps", STEPS) == 0
    assert_same_runs(folder, whole)


def test_a_run_that_overflows_is_diverged_and_its_figures_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    arguments = [*SMALL, "--steps", 30, "--lr", "0.1", "--variants", "standard"]
    assert main(*arguments, "--out", folder, plot=True) == 0
    run = Run(folder / "runs" / "standard-lr0.1-seed0")
    assert run.result is not None and run.result["status"] == "diverged"
    assert "standard-lr0.1-seed0: diverged at step" in capsys.readouterr().out
    assert "1 of 1 diverged" in (folder / "table.md").read_text()
    assert None in run.records("landscape")[-1]["losses"]


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--variants", "bacthnorm"],
            "--variants 'bacthnorm' is unknown. Did you mean 'batchnorm'",
        ),
        (["--variants", "noisy-batchnorm"], "--variants 'noisy-batchnorm' is unknown"),
        (["--variants-elsewhere", "l3"], "--variants-elsewhere 'l3' is unknown"),
        (["--init", "glorott"], "--init 'glorott' is unknown. Did you mean 'glorot_"),
        (["--depth", "0"], "--depth 0 must be at least 1"),
        (["--samples", "1"], "--samples 1 must be at least 2"),
        (["--target-std", "0"], "--target-std 0.0 must be above 0"),
        (["--target-std", "1e155"], "--target-std 1e+155 must be at most 1e+06"),
        (["--loss-scale", "nan"], "--loss-scale nan must be a finite number"),
        (["--loss-scale", "1e308"], "--loss-scale 1e+308 must be at most 1e+06"),
        (["--lr", "1e-6", "-1"], "--lr -1.0 must be above 0"),
        (["--lr", "1e-6", "1e-6"], "--lr names something twice"),
        (["--lr", "1e-6", "1.0000001e-6"], "rates of a study must differ in six digits"),
        (["--seed", "-1"], "--seed -1 must be at least 0"),
        (["--probe-sizes", "0"], "--probe-sizes 0.0 must be above 0"),
        (
            ["--lr", "1e-6", "1e308"],
            "--lr 1e+308 times --probe-sizes 30.0 must be a finite number. Take a smaller one",
        ),
        (["--lr", "1e200", "--probe-sizes", "1e200"], "times --probe-sizes 1e+200 must be a fin"),
        (["--width", "1"], "--width 1 must be at least 2: one unit is no layer to normalise"),
        (["--width", "2", "--variants", "groupnorm"], "--width 2 with groupnorm: each of its two"),
        (["--probe-every", "-1"], "--probe-every -1 must be at least 0"),
        (["--width", "100000"], "Take a smaller network"),
        (["--steps", "0"], "--steps 0 must be at least 1"),
        (["--stesp", "5"], "Did you mean '--steps'?"),
        (["--backend", "torch"], "--backend 'torch' is unknown"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    assert main(*arguments, "--out", folder) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not folder.exists()


def test_a_rate_that_no_probe_could_multiply_is_accepted_where_there_are_no_probes() -> None:
    check(settings("--lr", "1e308", "--probe-every", 0))


def test_other_data_does_not_go_on_in_an_old_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    assert killed("before 6th step", *SMALL, "--steps", STEPS, "--out", folder) == -9
    config = next(iter(Study(folder).runs())).folder / "config.json"
    write_json(config, {**read_json(config), "data_fingerprint": "another"}, sealed=True)
    assert main("--resume", folder) == 2
    assert "the data" in capsys.readouterr().err


# -- plotting what is extreme


@pytest.mark.parametrize("depth", [1, 2])
def test_a_network_too_shallow_for_both_of_the_papers_layers_is_drawn(
    depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--depth", depth, "--width", 2, "--samples", 5, "--steps", 2, "--lr", 1e-3)
    folder = tmp_path / "study"
    arguments = (*small, "--variants", "standard", "batchnorm", "--shift-every", 1)
    assert main(*arguments, "--out", folder, plot=True) == 0
    assert (folder / "figures" / "shift.png").exists()
    said = capsys.readouterr().out
    assert "layer 17, median" in said and "layer 9, median" not in said


def test_runs_that_passed_all_bounds_before_they_diverged_are_drawn(tmp_path: Path) -> None:
    wild = ("--depth", 3, "--width", 3, "--samples", 10, "--steps", 6, "--lr", 1)
    every = [word for what in ("probe", "shift", "curvature") for word in (f"--{what}-every", 1)]
    folder = tmp_path / "study"
    arguments = (*wild, *every, "--variants", "standard", "batchnorm", "l1", "linf")
    assert main(*arguments, "--out", folder, plot=True) == 0
    (run,) = (run for run in runs(folder) if run.config["variant"] == "standard")
    assert run.result and run.result["status"] == "diverged"
    assert max(x or 0 for r in run.records("landscape") for x in r["losses"]) > 1e200
    assert (folder / "figures" / "landscape-lr1.png").stat().st_size > 1000


# -- tables


def run_with(folder: Path, variant: str, losses: list[float], result: dict) -> Run:
    """A run of these losses, of which nothing else was recorded."""
    run = Run(folder / f"{variant}-lr1e-06-seed0")
    run.folder.mkdir()
    config = {"variant": variant, "lr": 1e-6, "seed": 0, "data_fingerprint": ""}
    config |= {
        "settings": {"depth": 25, "kernels": "fast", "precision": "fp32"},
        "environment": {"threads": 1},
    }
    config |= {"rank_losses": [40.0, 4.0, 0.4, 0.0]}
    (run.folder / "config.json").write_text(json.dumps(config))
    lines = [json.dumps({"step": i, "loss": loss}) for i, loss in enumerate(losses)]
    (run.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run.folder / "result.json").write_text(json.dumps(result))
    return run


def test_a_loss_at_a_step_is_the_median_of_the_steps_up_to_it(tmp_path: Path) -> None:
    losses = [float(loss) for loss in range(1000, 880, -1)]
    done = run_with(tmp_path, "standard", losses, {"status": "done", "steps": 120})
    assert loss_at(done, 0) == 1000
    assert loss_at(done, 100) == np.median(losses[51:101])
    assert np.isnan(loss_at(done, 200)), "it did not get there"
    gone = run_with(tmp_path, "l1", losses, {"status": "diverged", "step": 120})
    assert loss_at(gone, 200) == np.inf


def test_the_numbers_in_one_line_are_of_each_variant_and_decide_nothing(tmp_path: Path) -> None:
    result = {"status": "done", "steps": 100}
    made = {"standard": 3.0, "batchnorm": 2.0, "l1": 4.0}
    groups = group_runs(run_with(tmp_path, v, [loss] * 100, result) for v, loss in made.items())
    assert in_one_line(groups) == (
        "At lr 1e-06, 1 seed: loss at step 100: standard 3, batchnorm 2, l1 4. "
        "One seed decides nothing; see experiments.claims."
    )


def test_the_papers_losses_stand_beside_ours_at_its_steps(tmp_path: Path) -> None:
    run = run_with(tmp_path, "batchnorm", [5.0] * 2001, {"status": "done", "steps": 2001})
    assert (
        "| batchnorm | 1e-06 | 1 | 5 | 5; 1.4e+03 | 5; 1.2e+03 | 5 |"
        in make_tables(group_runs([run]))[0]
    )


def test_keeping_freed_memory_changes_no_number_and_is_refused_quietly_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s = Settings(depth=3, samples=20)
    before = problem.make_problem(s, 0)
    kept = allocator.keep_freed_memory()
    assert kept in (True, False) and problem.make_problem(s, 0).fingerprint == before.fingerprint

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(allocator.ctypes, "CDLL", missing)
    assert allocator.keep_freed_memory() is False
