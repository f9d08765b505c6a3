"""`skip_init`: what is measured at step 0, records, figures and tables, kills, bad input."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import leftovers, run_here, runs, signalled

from experiments import skip_init
from experiments.residual.gradients import (
    LAGS,
    NETWORKS,
    correlations,
    gradient_correlations,
    network,
    slopes,
)
from experiments.residual.paths import mean_square, path_variances, standardise
from experiments.skip_init import START, VARIANTS, Settings
from experiments.training.session import preset
from experiments.views import skip_init as skip_init_figures
from minibn import nn, to_numpy, use

TINY = [
    *("--data", "shapes", "--train-size", "40", "--test-size", "20", "--model", "resnet20"),
    *("--width", "0.125", "--batch-size", "8", "--threads", "1", "--checkpoint-every", "2"),
    *("--eval-every", "3", "--seed", "0", "--path-blocks", "3", "--path-channels", "4"),
    *("--path-images", "4", "--path-draws", "2", "--gradient-depth", "4"),
    *("--gradient-units", "8", "--gradient-draws", "2"),
]
GRID = [*TINY, "--lr", "0.01", "--steps", "3"]

main = partial(run_here, skip_init, skip_init_figures, plot=True)
main_without_figures = partial(run_here, skip_init, skip_init_figures)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted study of GRID, with its figures."""
    folder = tmp_path_factory.mktemp("skip_init") / "study"
    assert main(*GRID, "--out", folder) == 0
    return folder


# Paths

NOISE = np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)
paths = partial(path_variances, NOISE, blocks=4, channels=32, draws=6, seed=0)


def test_with_batch_norm_a_branch_is_one_lth_of_its_skip_path() -> None:
    residual, skip = paths(norm="batch", skip_init=False)
    assert skip[0] == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(np.arange(1, 5) * residual / skip, 1, atol=0.15)


def test_without_a_norm_a_branch_is_as_large_as_its_skip_path() -> None:
    residual, skip = paths(norm="none", skip_init=False)
    np.testing.assert_allclose(residual / skip, 1, atol=0.35)
    assert 5 < skip[3] < 12, "doubled three times"


def test_with_skip_init_there_is_no_branch() -> None:
    residual, skip = paths(norm="none", skip_init=True)
    assert (residual == 0).all() and skip == pytest.approx(np.ones(4), rel=1e-5)


def test_each_seed_has_networks_of_its_own() -> None:
    ours, theirs = (paths(norm="batch", skip_init=False, seed=s)[0] for s in (0, 1))
    assert abs(ours / theirs - 1).min() > 1e-4


def test_what_enters_the_first_block_is_standardised_by_channel() -> None:
    h = standardise(3 + 2 * NOISE)
    assert h.mean(axis=(0, 1, 2)) == pytest.approx(0, abs=1e-5)
    assert h.var(axis=(0, 1, 2)) == pytest.approx(1, rel=1e-5)
    assert mean_square(np.array([1.0, 3.0], np.float32)) == 5


# Gradients


def test_correlations_of_slopes_are_those_of_the_formula() -> None:
    assert correlations(np.ones(100)) == dict.fromkeys(LAGS, pytest.approx(1))
    alternating = correlations((-1.0) ** np.arange(100))
    assert alternating[1] == pytest.approx(-1) and alternating[2] == pytest.approx(1)
    g = np.random.default_rng(0).standard_normal(50)
    expected = sum(g[i] * g[i + 4] for i in range(46))
    expected /= np.sqrt(sum(g[i] ** 2 for i in range(46)) * sum(g[i] ** 2 for i in range(4, 50)))
    assert correlations(g)[4] == pytest.approx(expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_slope_at_an_input_is_that_of_a_difference_with_the_statistics_held(name: str) -> None:
    net, x = network(name, 4, 16), np.linspace(-2, 2, 64)[:, None]
    g = slopes(net, x, seed=3)
    with net.mode(training=False):
        up, down = (to_numpy(net(x + d).data)[:, 0] for d in (1e-7, -1e-7))
    numeric = (up - down) / 2e-7
    near = np.isclose(g, numeric, rtol=1e-4, atol=1e-6)
    assert near.mean() > 0.95, "but for inputs at a kink"
    assert np.ptp(g) > 0, "a function that is not linear"


def test_a_network_has_its_layers_and_what_its_name_says() -> None:
    for name, (residual, norm, scaled) in NETWORKS.items():
        kinds = [type(m).__name__ for _, m in network(name, 6, 8).named_modules()]
        assert kinds.count("Linear") == 6 + 2
        assert kinds.count("ReLU") == 7
        assert kinds.count("BatchNorm") == 7 * norm
        assert kinds.count("ResidualBlock") == 3 * residual
        assert kinds.count("Scale") == 3 * scaled


def test_skip_paths_keep_gradients_alike_where_batch_norm_shatters_them() -> None:
    found = {
        name: gradient_correlations(name, depth=24, units=64, draws=4, seed=0)[1]
        for name in ("feedforward-batchnorm", "residual-batchnorm", "residual-skipinit")
    }
    assert found["feedforward-batchnorm"] < 0.2
    assert found["residual-batchnorm"] > found["feedforward-batchnorm"] + 0.1
    assert found["residual-skipinit"] > 0.9


def test_what_is_measured_is_the_same_on_the_strict_backend() -> None:
    ours = gradient_correlations("residual-batchnorm", depth=4, units=8, draws=1, seed=0)
    small = {"norm": "batch", "skip_init": False, "blocks": 2, "channels": 4, "draws": 1, "seed": 0}
    paths_here = path_variances(NOISE[:2], **small)
    with use("strict") as backend:
        theirs = gradient_correlations("residual-batchnorm", depth=4, units=8, draws=1, seed=0)
        paths_there = path_variances(backend.asarray(NOISE[:2]), **small)
    assert theirs == pytest.approx(ours, rel=1e-6)
    np.testing.assert_allclose(paths_here, paths_there, rtol=1e-4)


# A study


def test_the_networks_that_are_trained_differ_in_norm_and_scale_alone() -> None:
    s = Settings(model="resnet20", width=0.25)
    plans = {v: skip_init.Plan(v, 0.1, 1) for v in VARIANTS}
    weights = {}
    for variant, plan in plans.items():
        net = skip_init.network(s, plan)
        kinds = [type(m).__name__ for _, m in net.named_modules()]
        assert kinds.count("BatchNorm") == 19 * (variant == "batchnorm")
        assert kinds.count("Scale") == 9 * (variant == "skipinit")
        weights[variant] = to_numpy(net.block3.branch.conv6.weight.data)
        assert isinstance(net, nn.Sequential)
    for other in weights.values():
        np.testing.assert_array_equal(weights["none"], other)


def test_a_study_ends_with_records_figures_tables_and_a_summary(whole: Path) -> None:
    found = {run.config["variant"]: run for run in runs(whole)}
    assert set(found) == {START, *VARIANTS}
    start = found[START]
    assert start.name == f"{START}-lr0-seed0" and not start.records("metrics")
    blocks = [(r["variant"], r["block"]) for r in start.records("paths")]
    assert blocks == [(v, l) for v in VARIANTS for l in (1, 2, 3)]  # noqa: E741
    lags = [(r["network"], r["lag"]) for r in start.records("gradients")]
    assert lags == [(n, lag) for n in NETWORKS for lag in LAGS]
    for variant in VARIANTS:
        assert len(found[variant].records("metrics")) == 3
        assert found[variant].records("test")[-1]["updates"] == 3
    for name in ("start", "training"):
        assert (whole / "figures" / f"{name}.png").stat().st_size > 10_000
    content = json.loads((whole / "summary.json").read_text())
    r = [p for p in start.records("paths") if p["variant"] == "batchnorm"]
    expected = max(abs(p["block"] * p["residual"] / p["skip"] - 1) for p in r)
    assert content["largest_deviation"] == [pytest.approx(expected, rel=1e-3)]
    g = {r["network"]: r["correlation"] for r in start.records("gradients") if r["lag"] == 1}
    expected = g["residual-batchnorm"] - g["feedforward-batchnorm"]
    assert content["contrast_of_gradients"] == [pytest.approx(expected, rel=1e-3)]
    assert set(content["difference"]) == {"skipinit minus none", "skipinit minus batchnorm"}
    table = (whole / "table.md").read_text()
    assert "| block l | 1/l | none | batchnorm | skipinit |" in table
    assert "| residual-skipinit |" in table and "| skipinit | 0.01 (best) |" in table


@pytest.mark.parametrize(
    ("at", "name", "code"), [(2, "SIGKILL", -signal.SIGKILL), (5, "SIGTERM", 130)]
)
def test_a_study_that_is_stopped_and_continued_equals_one_that_nobody_disturbed(
    at: int, name: str, code: int, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    stopped = signalled(skip_init, skip_init_figures, at, name, *GRID, "--out", folder)
    assert stopped.returncode == code, stopped.stderr
    assert sum(run.result is not None for run in runs(folder)) < 4
    assert main_without_figures("--resume", folder) == 0
    for ours, theirs in zip(runs(folder), runs(whole), strict=True):
        assert (ours.name, ours.result) == (theirs.name, theirs.result)
        for file in ("paths.jsonl", "gradients.jsonl", "metrics.jsonl", "test.jsonl"):
            a, b = ours.folder / file, theirs.folder / file
            assert a.exists() == b.exists(), file
            assert not a.exists() or a.read_text() == b.read_text(), file
    assert leftovers(folder) == []


REFUSED = {
    "--variants standard": "'standard' is unknown. There are none, batchnorm, skipinit",
    "--model resnet21": "'resnet21' is unknown",
    "--width 0.01": "a stage of 3 blocks with 0 channels",
    "--path-draws 0": "--path-draws 0 must be at least 1",
    "--path-images 41": "--path-images 41 is more than the 40 training images. Take fewer.",
    "--gradient-depth 5": "--gradient-depth 5 must be even",
    "--lr 0": "--lr 0.0 must be above 0",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_arguments_are_refused_in_one_line_and_nothing_is_written(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(*TINY, "--out", "study", *given.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.skip_init: ") and REFUSED[given] in line
    assert os.listdir(tmp_path) == []


def test_the_quick_preset_is_small_and_flags_go_before_it() -> None:
    quick: Any = preset(Settings, skip_init.QUICK, {"quick": True, "width": 0.5})
    assert (quick.data, quick.width, quick.seed) == ("shapes", 0.5, (0,))
    assert len(quick.variants) * len(quick.lr) * quick.steps <= 1000, "steps in all"
