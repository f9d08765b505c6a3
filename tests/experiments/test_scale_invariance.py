"""`experiments.scale_invariance`: what is recorded, its equations, kills, the rule, bad input."""

import json
import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import leftovers, run_here, runs

from experiments import plot, scale_invariance
from experiments.scale_invariance import (
    QUICK,
    Rotation,
    Settings,
    check,
    plans,
    turn,
    weights_before_norms,
)
from experiments.training.loop import update
from experiments.training.session import preset
from experiments.training.step import Step
from experiments.training.study import Run, Study
from experiments.views import scale_invariance as scale_invariance_figures
from experiments.views.scale_invariance_tables import (
    Training,
    equilibrium_table,
    find_trainings,
    summary,
    trainings_of,
)
from minibn import nn, ops, optim
from reference_models.vgg import vgg

TINY = [
    *("--data", "shapes", "--train-size", "40", "--test-size", "20", "--width", "0.03125"),
    *("--batch-size", "8", "--threads", "1", "--checkpoint-every", "2", "--eval-every", "3"),
    *("--angle-every", "1"),
]
TWO = [*TINY, "--decays", "0", "0.05", "--steps", "5"]

main = partial(run_here, scale_invariance, scale_invariance_figures)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted study of two decays."""
    folder = tmp_path_factory.mktemp("scale") / "study"
    assert main(*TWO, "--out", folder) == 0
    return folder


# The equations, in float64


def one_update(eps: float, lr: float, decay: float) -> list[tuple[Any, Any, Any]]:
    """(w, g, w') of each layer before a norm, of one update of a small VGG in float64."""
    norm = partial(nn.BatchNorm, eps=eps)
    model = vgg("vgg11", width=1 / 32, norm=norm).initialize(0, np.float64)
    rng = np.random.default_rng(0)
    for p in model.parameters():
        if p.ndim == 1:  # gammas and betas as in training, not 1 and 0
            p.data += 0.3 * rng.standard_normal(p.shape)
    x, labels = rng.standard_normal((16, 32, 32, 3)), rng.integers(0, 10, 16)
    groups = optim.decay_groups(model, decay)
    optimizer = optim.SGD(groups, lr)
    ops.softmax_cross_entropy(model(x), labels).backward()
    weights = weights_before_norms(model)
    before = [(p.data.copy(), p.grad.data.copy()) for p in weights if p.grad is not None]
    optimizer.step()
    return [(w, g, p.data) for (w, g), p in zip(before, weights, strict=True)]


def test_without_decay_the_square_of_a_norm_grows_by_that_of_the_step() -> None:
    found = one_update(eps=0.0, lr=0.3, decay=0.0)
    assert len(found) == 8
    for w, g, after in found:
        growth = (after**2).sum() - (w**2).sum()
        assert growth == pytest.approx(0.3**2 * (g**2).sum(), rel=1e-9)


def test_with_decay_it_shrinks_by_the_decay_as_well() -> None:
    for w, g, after in one_update(eps=0.0, lr=0.3, decay=0.1):
        expected = (1 - 0.3 * 0.1) ** 2 * (w**2).sum() + 0.3**2 * (g**2).sum()
        assert (after**2).sum() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("eps", "least", "most"), [(0.0, 0.0, 1e-12), (1e-2, 1e-5, 0.3)])
def test_the_gradient_is_orthogonal_to_the_weights_but_for_eps(
    eps: float, least: float, most: float
) -> None:
    for w, g, _ in one_update(eps, lr=0.1, decay=0.0):
        cosine = abs((w * g).sum()) / np.sqrt((w**2).sum() * (g**2).sum())
        assert least <= cosine < most


def test_a_network_is_the_same_and_its_gradient_half_as_large_at_twice_the_weights() -> None:
    norm = partial(nn.BatchNorm, eps=0.0)
    model = vgg("vgg11", width=1 / 32, norm=norm).initialize(0, np.float64)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((16, 32, 32, 3)), rng.integers(0, 10, 16)
    losses, gradients = [], []
    for scale in (1, 2):
        for p in weights_before_norms(model):
            p.data[...] *= scale
        loss = ops.softmax_cross_entropy(model(x), labels)
        model.zero_grad()
        loss.backward()
        losses.append(float(loss.data))
        gradients.append([p.grad.data for p in weights_before_norms(model) if p.grad is not None])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for g, half in zip(*gradients, strict=True):
        np.testing.assert_allclose(half, g / 2, rtol=1e-6, atol=1e-12)


# What is recorded


def test_a_turn_is_that_of_the_vectors() -> None:
    rng = np.random.default_rng(1)
    w, g = rng.standard_normal((2, 3, 4, 5))
    lr, decay = 0.1, 0.2
    after = w - lr * (g + decay * w)
    found = turn(w, after, lr, decay)
    cosine = (w * after).sum() / np.sqrt((w**2).sum() * (after**2).sum())
    assert found["angle"] == pytest.approx(math.acos(cosine), rel=1e-7)
    assert found["norm"] == pytest.approx(np.sqrt((w**2).sum()))
    assert found["rate"] == pytest.approx(lr / (w**2).sum())
    expected = (w * g).sum() / np.sqrt((w**2).sum() * (g**2).sum())
    assert found["cosine"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("angle", [1e-8, 1e-3, 1.0, 3.0])
def test_angles_are_exact_from_tiny_to_obtuse(angle: float) -> None:
    after = 1.001 * np.array([math.cos(angle), math.sin(angle)])
    assert turn(np.array([1.0, 0.0]), after, 0.1, 0.0)["angle"] == pytest.approx(angle, rel=1e-6)


def test_weights_that_stay_have_no_angle_and_no_cosine() -> None:
    found = turn(np.ones((2, 3)), np.ones((2, 3)), 0.1, 0.0)
    assert found["angle"] == 0 and math.isnan(found["cosine"])


def test_records_are_of_the_weights_before_and_after_the_update(tmp_path: Path) -> None:
    model = vgg("vgg11", width=1 / 32, norm="batch").initialize(0)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    optimizer = optim.SGD(optim.decay_groups(model, 0.1), 0.2)
    children = dict(model.children())
    before = [children[f"conv{k}"].weight.data.copy() for k in range(1, 9)]
    update(Step(run, model, optimizer, 4, images, np.arange(8)), [Rotation(2, 0.1)])
    update(Step(run, model, optimizer, 5, images, np.arange(8)), [Rotation(2, 0.1)])
    run.stream("rotation").flush()
    (record,) = run.records("rotation")
    assert record["step"] == 4 and all(len(record[k]) == 8 for k in ("norm", "angle", "rate"))
    assert record["norm"] == pytest.approx([np.linalg.norm(w) for w in before], rel=1e-4)
    assert max(map(abs, record["cosine"])) < 1e-3, "the gradient of the loss is orthogonal"


def test_every_step_is_recorded_with_the_decay_of_its_run(whole: Path) -> None:
    without, decayed = runs(whole)
    assert [r.name for r in (without, decayed)] == ["decay0-lr0.1-seed0", "decay0.05-lr0.1-seed0"]
    assert [r.config["weight_decay"] for r in (without, decayed)] == [0, 0.05]
    for run in (without, decayed):
        assert [r["step"] for r in run.records("rotation")] == list(range(5))
    grows = np.array([r["norm"] for r in without.records("rotation")])
    assert (np.diff(grows, axis=0) >= 0).all(), "without decay no norm shrinks"
    shrinks = np.array([r["norm"] for r in decayed.records("rotation")])
    assert (shrinks[-1] < grows[-1]).all()
    assert (shrinks[0] == grows[0]).all(), "the same weights at the start"


def test_recorded_norms_and_angles_obey_the_equation(whole: Path) -> None:
    """‖w'‖² = (1 - ηλ)² ‖w‖² (1 + tan² angle)."""
    for run in runs(whole):
        shrink = 1 - 0.1 * run.config["weight_decay"]
        norms, angles = (
            np.array([r[k] for r in run.records("rotation")]) for k in ("norm", "angle")
        )
        growth = (norms[1:] / norms[:-1]) ** 2
        np.testing.assert_allclose(growth, (shrink / np.cos(angles[:-1])) ** 2, atol=2e-4)
        assert np.abs(growth / shrink**2 - 1).max() > 1e-2, "the angles matter"


def test_the_strict_backend_records_the_same(whole: Path, tmp_path: Path) -> None:
    assert main(*TWO, "--steps", 2, "--backend", "strict", "--out", tmp_path / "strict") == 0
    for ours, theirs in zip(runs(tmp_path / "strict"), runs(whole), strict=True):
        assert [r["step"] for r in ours.records("rotation")] == [0, 1]
        pairs = zip(ours.records("rotation"), theirs.records("rotation")[:2], strict=True)
        for record, other in pairs:
            assert record["norm"] == pytest.approx(other["norm"], rel=1e-4)
            assert record["angle"] == pytest.approx(other["angle"], rel=1e-2)


def test_recording_leaves_the_training_as_it_is(whole: Path, tmp_path: Path) -> None:
    assert main(*TWO, "--angle-every", 3, "--out", tmp_path / "seldom") == 0
    for ours, theirs in zip(runs(tmp_path / "seldom"), runs(whole), strict=True):
        assert [r["step"] for r in ours.records("rotation")] == [0, 3]
        assert ours.records("metrics") == theirs.records("metrics")


# Kill and resume

KILL = """
import os, signal, sys
from experiments import scale_invariance
from experiments.views import scale_invariance as figures
from experiments.training import loop
real, left = loop.one_step, int(sys.argv[1])
def one_step(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
loop.one_step = one_step
figures.plot = lambda studies: None
sys.exit(scale_invariance.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("at", [4, 9])
def test_a_study_that_was_killed_continues_bit_for_bit(
    at: int, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    command = [sys.executable, "-W", "error", "-c", KILL, str(at), *TWO, "--out", folder]
    stopped = subprocess.run([str(c) for c in command], capture_output=True, timeout=300)
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr.decode()
    assert main("--resume", folder) == 0
    for ours, theirs in zip(runs(folder), runs(whole), strict=True):
        assert ours.result == theirs.result == {"status": "done", "steps": 5}
        for stream in ("metrics", "rotation", "test"):
            file = f"{stream}.jsonl"
            assert (ours.folder / file).read_text() == (theirs.folder / file).read_text(), file
    assert leftovers(folder) == [".lock"] or leftovers(folder) == []


# The rule, and what is drawn


def training(angles: list[float], *, steps: int, decay: float = 0.02, lr: float = 0.1) -> Training:
    """One whose angles over √(2ηλ) are 3 before the last quarter, and there, by layer, these."""
    layers, scale = len(angles), math.sqrt(2 * lr * decay) or 1.0
    angle = np.full((steps, layers), 3 * scale)
    angle[-(steps // 4) :] = np.array(angles) * scale
    columns = {"angle": angle, "norm": np.ones((steps, layers)), "cosine": np.zeros((1, layers))}
    run: Any = type("Run", (), {"name": "x", "records": lambda self, stream: []})()
    return Training(run, decay, lr, 0, steps, True, np.arange(steps), columns)


def test_a_layer_is_in_equilibrium_within_ten_percent_over_the_last_quarter() -> None:
    found = training([0.88, 0.91, 1.0, 1.09, 1.12], steps=2500)
    assert found.in_equilibrium.tolist() == [False, True, True, True, False]
    assert summary([found])["x"]["share_in_equilibrium"] == 0.6


def test_the_angle_is_the_root_mean_square() -> None:
    found = training([1.0], steps=8, lr=0.5, decay=1.0)
    found.columns["angle"][-2:, 0] = 0.6, 0.8
    assert found.angles.tolist() == [pytest.approx(math.sqrt(0.5))]


def test_a_decay_counts_from_ten_time_constants() -> None:
    assert training([1.0], steps=2500).counts  # 1/(2 · 0.1 · 0.02) = 250 steps
    assert not training([1.0], steps=2499).counts
    assert training([1.0], steps=10_000, decay=0.005).counts
    assert not training([1.0], steps=10_000, decay=0.0).counts
    assert "does not count" in equilibrium_table([training([1.0], steps=100)])
    assert "does not count" not in equilibrium_table([training([1.0], steps=2500)])


def test_figure_table_and_summary_are_made_from_files(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other"
    words = [*TINY, "--decays", "0.05", "0.2", "--steps", "5", "--seed", "1"]
    assert main(*words, "--out", other) == 0
    out = tmp_path / "drawn"
    assert plot.main([str(whole), str(other), "--out", str(out)]) == 0
    text = (out / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert "2 seeds" in text and "| 0.05 | 0.1 | 2 of 2 |" in text
    assert (out / "figures" / "scale_invariance-lr0.1.png").stat().st_size > 10_000
    content = json.loads((out / "summary.json").read_text())["runs"]
    (first, *_) = trainings_of(runs(whole))
    ours = content["decay0-lr0.1-seed0"]
    assert ours["angles"] == pytest.approx(first.angles.tolist(), rel=1e-3)
    assert len(content) == 4 and ours["share_in_equilibrium"] == 0


def test_a_study_draws_what_there_is_when_a_run_diverges(tmp_path: Path) -> None:
    words = [*TINY, "--decays", "0", "--lr", "1e38", "--steps", "4"]
    assert main(*words, "--out", tmp_path / "study", plot=True) == 0
    (run,) = runs(tmp_path / "study")
    assert run.result and run.result["status"] == "diverged"
    (found,) = find_trainings([Study(tmp_path / "study")])
    assert not found.is_done and "0 of 1" in equilibrium_table([found])


# Bad input

REFUSED = {
    "--decay 0.1": "Did you mean '--decays'?",
    "--decays -0.1": "--decays -0.1 must be at least 0",
    "--decays 0.1 nan": "--decays nan must be a finite number",
    "--decays 0.1 0.1": "--decays names something twice: 0.1 0.1",
    "--decays 0.1 0.10000001": "--decays of a study must differ in six digits.",
    "--decays 20": "--decays 20 times --lr 0.1 must be below 1",
    "--weight-decay 0.1": "unknown argument '--weight-decay'",
    "--momentum 0.9": "unknown argument '--momentum'",
    "--variants standard": "unknown argument '--variants'",
    "--angle-every 0": "--angle-every 0 must be at least 1",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(*TINY, "--out", "study", *given.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.scale_invariance: ") and REFUSED[given] in line
    assert os.listdir(tmp_path) == []


def test_defaults_and_quick_pass_their_own_check_and_name_each_run() -> None:
    check(Settings())
    quick = preset(Settings, QUICK, {"quick": True})
    check(quick)
    names = [plan.name for plan in plans(Settings(seed=(0, 1)))]
    assert len(set(names)) == len(names) == 8
    assert names[1] == "decay0.0005-lr0.1-seed0"
