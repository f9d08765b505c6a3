"""What a study trains and writes: the same on every call, and on every backend."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import (
    ONE,
    SMALL,
    STEPS,
    TWO,
    assert_same_study,
    killed,
    main,
    runs,
    settings,
)
from support.backends import DEVICES, chosen

from experiments.training import loop, provenance
from experiments.training.json_files import write_json
from experiments.training.loop import Progress, clock, one_step, train
from experiments.training.provenance import environment
from experiments.training.runner import Plan
from experiments.training.study import Run, Study
from experiments.vgg import runs as vgg_runs
from experiments.vgg.runs import load_data, network, sgd
from experiments.vgg.settings import FOUR, plans
from minibn.autograd.dispatch import mode
from minibn.backend import get_backend, use
from minibn.backend.strict import count_transfers
from minibn.data import Batches
from minibn.fast.cpu import threads

ALL = [*SMALL, "--variants", *FOUR, "--momentum", "0"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Four steps of all four variants, and what each step was given."""
    folder = tmp_path_factory.mktemp("all") / "study"
    given: list[dict[str, Any]] = []
    real = loop.one_step

    def seen(model: Any, optimizer: Any, images: Any, labels: Any, task: Any) -> Any:
        digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        weights = {n: a for n, a in model.state_dict().items() if n.startswith("conv")}
        given.append({"batch": digest, "weights": weights})
        return real(model, optimizer, images, labels, task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "one_step", seen)
        assert main(*ALL, "--steps", 4, "--out", folder) == 0
    return folder, given


def test_all_variants_start_from_the_same_weights_and_see_the_same_batches(
    watched: tuple[Path, list[dict[str, Any]]],
) -> None:
    steps = watched[1]
    given = [steps[start : start + 4] for start in (0, 4, 8, 12)]  # by variant
    batches = [[step["batch"] for step in variant] for variant in given]
    assert batches[0] == batches[1] == batches[2] == batches[3]
    assert len(set(batches[0])) == 4
    first = given[0][0]["weights"]
    for variant in (steps[0]["weights"] for steps in given[1:]):
        common = set(first) & set(variant)
        assert {n for n in common if n.endswith("weight")} == {
            f"conv{k}.weight" for k in range(1, 9)
        }
        for name in common:
            assert variant[name].tobytes() == first[name].tobytes()
    later = [variant[3]["weights"]["conv1.weight"].tobytes() for variant in given]
    assert len(set(later)) == 4, "each variant is trained by itself"


@pytest.mark.parametrize("device", DEVICES)
def test_every_variant_trains_to_the_same_numbers_on_each_backend(
    device: str, watched: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    on_numpy, there = watched[0], tmp_path / device
    with chosen(device):
        assert main(*ALL, "--steps", 4, "--backend", device, "--out", there) == 0
    assert len(runs(on_numpy)) == 4
    for ours, theirs in zip(runs(on_numpy), runs(there), strict=True):
        assert (ours.name, theirs.config["environment"]["backend"]) == (theirs.name, device)
        for stream, digits in (("metrics", 1e-5), ("test", 0.06), ("distributions", 1e-3)):
            a, b = ours.records(stream), theirs.records(stream)
            assert len(a) == len(b) > 0
            for mine, other in zip(a, b, strict=True):
                assert set(mine) == set(other)
                for key in ("step", "loss", "accuracy", "mean", "var"):
                    if key in mine:
                        assert mine[key] == pytest.approx(other[key], rel=digits, abs=digits)


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("variant", FOUR)
def test_a_training_step_transfers_nothing_from_the_device(variant: str, momentum: float) -> None:
    s = settings(*ALL, "--momentum", str(momentum))
    data = load_data(s)
    batches = Batches(data.train_images, data.train_labels, s.batch_size, 0)
    with use("strict"):
        model = network(s, variant, 0).train()
        optimizer = sgd(s, model, 0.05)
        for step in range(2):
            with count_transfers() as count:
                loss, accuracy = one_step(model, optimizer, *batches.batch(step))
            assert count.names == []
        with count_transfers() as count:
            assert np.isfinite(loss.item()) and 0 <= accuracy.item() <= 1
        assert count.n == 2, "the count would have seen a transfer"


def test_the_same_command_makes_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    assert main(*ONE, "--steps", STEPS, "--out", tmp_path / "again") == 0
    assert_same_study(tmp_path / "again", whole)


def test_another_process_makes_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    found = killed("never", *ONE, "--steps", STEPS, "--out", tmp_path / "again")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.endswith("plotted\n")
    assert_same_study(tmp_path / "again", whole)


def test_another_seed_makes_other_metrics(whole: Path, tmp_path: Path) -> None:
    assert main(*ONE, "--steps", 2, "--seed", 1, "--out", tmp_path / "study") == 0
    ours, theirs = runs(tmp_path / "study")[0], runs(whole)[0]
    assert ours.records("metrics")[0]["loss"] != theirs.records("metrics")[0]["loss"]


def test_metrics_have_a_line_for_every_step_and_nothing_of_the_clock(whole: Path) -> None:
    (run,) = runs(whole)
    metrics = run.records("metrics")
    assert [m["step"] for m in metrics] == list(range(STEPS))
    for line in metrics:
        assert set(line) == {"step", "loss", "accuracy", "lr"}
        assert line["lr"] == 0.05 and line["loss"] > 0
        assert line["accuracy"] * 8 == int(line["accuracy"] * 8)
    for stream in ("metrics", "test", "distributions"):
        assert not {"seconds", "time"} & {key for r in run.records(stream) for key in r}
    timings = run.records("timings")
    assert [t["updates"] for t in timings] == [3, 6, 8]
    assert all(0 <= t["recorders"] <= t["seconds"] > 0 for t in timings)
    assert any(t["recorders"] > 0 for t in timings)


def test_config_says_what_a_result_depends_on(whole: Path) -> None:
    (run,) = runs(whole)
    config = run.config
    assert (config["variant"], config["lr"], config["seed"]) == ("noisy-batchnorm", 0.05, 0)
    assert (config["norm"], config["noise"]) == ("batch", True)
    assert config["settings"]["steps"] == STEPS
    assert config["settings"]["batch_size"] == 8
    assert not {"out", "resume", "force"} & set(config["settings"])
    assert config["data_fingerprint"] == load_data(settings(*ONE)).fingerprint
    found = config["environment"]
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == 1
    assert (found["backend"], found["minibn"]) == ("numpy", "0.1.0")
    assert {"device", "platform"} <= set(found)
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", found["commit"])
    assert Study(whole).settings == config["settings"]


def test_a_run_that_names_no_threads_takes_and_keeps_minibns_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ONE.index("--threads")
    default = [*ONE[:at], *ONE[at + 2 :]]
    monkeypatch.setenv("MINIBN_NUM_THREADS", "1")
    assert main(*default, "--steps", 1, "--out", tmp_path / "study") == 0
    (run,) = runs(tmp_path / "study")
    assert run.config["environment"]["threads"] == run.config["settings"]["threads"] == 1
    monkeypatch.setenv("MINIBN_NUM_THREADS", "2")
    assert main("--resume", tmp_path / "study", "--steps", 2) == 0
    assert run.config["environment"]["threads"] == 1, "the study's number, not this process's"


@pytest.mark.parametrize("kernels", ["fast", "lean", "reference"])
def test_a_step_runs_with_the_threads_and_kernels_of_its_settings(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threadpool_info = pytest.importorskip("threadpoolctl").threadpool_info
    seen, real = [], loop.one_step

    def one_step(*arguments: Any) -> Any:
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        seen.append((mode(), threads.count(), *blas))
        return real(*arguments)

    before = mode(), threads.count(), threadpool_info()
    monkeypatch.setattr(loop, "one_step", one_step)
    arguments = [*ONE, "--steps", 1, "--kernels", kernels, "--threads", 3]
    assert main(*arguments, "--out", tmp_path / "study") == 0
    assert set(seen) == {(kernels, 3, 3)}
    assert (mode(), threads.count(), threadpool_info()) == before
    (run,) = runs(tmp_path / "study")
    assert (
        run.config["settings"]["kernels"]
        == kernels
        == Study(tmp_path / "study").settings["kernels"]
    )


def test_the_commit_is_unknown_outside_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **settings: Any) -> None:
        raise subprocess.CalledProcessError(128, "git")

    provenance.commit.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(provenance.subprocess, "run", fail)
        assert environment(get_backend("numpy"), 1)["commit"] == "unknown"
    provenance.commit.cache_clear()


def test_several_rates_and_seeds_make_a_run_of_each(tmp_path: Path) -> None:
    arguments = [*SMALL, "--variants", "standard", "--lr", "0.05", "0.5", "--seed", "0", "3"]
    assert main(*arguments, "--steps", 2, "--out", tmp_path / "study") == 0
    found = {run.name: run for run in runs(tmp_path / "study")}
    assert set(found) == {f"standard-lr{lr}-seed{s}" for lr in ("0.05", "0.5") for s in (0, 3)}
    for lr in ("0.05", "0.5"):
        for seed in (0, 3):
            run = found[f"standard-lr{lr}-seed{seed}"]
            assert (run.config["lr"], run.config["seed"]) == (float(lr), seed)
            assert run.records("metrics")[0]["lr"] == float(lr)
    losses = {name: [m["loss"] for m in run.records("metrics")] for name, run in found.items()}
    assert losses["standard-lr0.05-seed0"][0] == losses["standard-lr0.5-seed0"][0]
    assert losses["standard-lr0.05-seed0"][1] != losses["standard-lr0.5-seed0"][1]
    assert losses["standard-lr0.05-seed0"][0] != losses["standard-lr0.05-seed3"][0]


def test_a_diverging_run_is_recorded_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "study"
    arguments = [*SMALL, "--variants", "standard", "--lr", "1e9", "0.05", "--steps", 4]
    figures = ("--probe-every", 0, "--shift-every", 0, "--curvature-every", 0)  # few: each a second
    assert main(*arguments, *figures, "--out", folder, plot=True) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    wild, tame = runs(folder)[::-1]
    assert (wild.name, tame.name) == ("standard-lr1e+09-seed0", "standard-lr0.05-seed0")
    assert wild.result is not None and tame.result == {"status": "done", "steps": 4}
    step = wild.result["step"]
    assert wild.result == {"status": "diverged", "step": step}
    assert 1 <= step < 4
    assert [m["step"] for m in wild.records("metrics")] == list(range(step))
    for stream in ("metrics", "test", "distributions"):
        assert all(record["step"] < step for record in wild.records(stream))
    assert f"standard-lr1e+09-seed0: diverged at step {step}" in shown.out
    (row,) = [line for line in shown.out.splitlines() if line.startswith("| standard | 1e+09")]
    assert f"diverged at step {step}" in row
    assert (folder / "table.md").read_text().count(f"diverged at step {step}") == 1
    assert "Figures:" in shown.out and (folder / "figures" / "accuracy.png").exists()


def test_the_step_of_divergence_does_not_depend_on_when_it_is_noticed(tmp_path: Path) -> None:
    arguments = [*SMALL, "--variants", "standard", "--lr", "1e9", "--steps", 8]
    for every in ("1", "3", "100"):
        folder = tmp_path / every
        assert main(*arguments, "--checkpoint-every", every, "--out", folder) == 0
    first, second, third = (runs(tmp_path / every)[0] for every in ("1", "3", "100"))
    assert first.result == second.result == third.result
    for stream in ("metrics", "distributions"):
        assert first.records(stream) == second.records(stream) == third.records(stream)


def test_a_run_without_a_terminal_speaks_in_plain_lines(tmp_path: Path) -> None:
    found = killed("never", *TWO, "--steps", 3, "--out", tmp_path / "study")
    assert found.returncode == 0
    assert "\r" not in found.stdout + found.stderr
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert "2 of 2 runs to do, 6 steps on shapes, vgg11 width 0.03125, numpy" in lines[0]
    for place, line in enumerate(lines[1:3], start=1):
        number = r"\d+\.\d+"
        assert re.fullmatch(
            rf"[\w-]+ lr 0.05 seed 0: step 3/3, loss {number}, acc {number}, {number} steps/s, "
            rf"0 s left, run {place} of 2, \d+ s left in all",
            line,
        )
    assert lines[3:] == ["plotted"]


def test_progress_tells_the_rate_and_the_time_left(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    with Progress("mine", start=100, steps=1000) as progress:
        for _ in range(100):
            now[0] += 1.0
            progress.show(2.0, 0.5)
            progress.step()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mine: step 131/1000, loss 2.000, acc 0.50, 1.0 steps/s, 14 min left"
    assert lines[-1] == "mine: step 200/1000, loss 2.000, acc 0.50, 1.0 steps/s, 13 min left"
    assert len(lines) == 4, "a line now and then"


def test_a_terminal_gets_a_progress_line(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("mine", start=3, steps=8) as progress:
        for _ in range(5):
            progress.show(1.25, 0.5)
            progress.step()
    written = capsys.readouterr()
    assert written.out == ""
    last = written.err.split("\r")[-1]
    assert written.err.startswith("run 1 of 1: mine\n")
    assert "8/8" in last and "loss 1.250, acc 0.50, 0 s left" in last


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (3540, "59 min"), (3600, "1 h 00 min"),
     (7500, "2 h 05 min")],
)  # fmt: skip
def test_times_are_told_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_long_run_is_announced_with_a_pointer_to_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(vgg_runs, "seconds_a_step", lambda s, data: 3700 / 2)
    assert main(*ONE, "--steps", 2, "--out", tmp_path / "long") == 0
    assert "1 h 02 min" in (shown := capsys.readouterr().out) and "--quick" in shown
    monkeypatch.setattr(vgg_runs, "seconds_a_step", lambda s, data: 30.0)
    assert main(*ONE, "--steps", 2, "--out", tmp_path / "short") == 0
    assert "--quick" not in capsys.readouterr().out


def test_the_announcement_counts_only_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    study = tmp_path / "study"
    monkeypatch.setattr(vgg_runs, "seconds_a_step", lambda s, data: 3600.0)
    assert main(*ONE, "--steps", 3, "--out", study) == 0
    assert "1 of 1 runs to do, 3 steps" in (shown := capsys.readouterr().out)
    assert "3 h 00 min" in shown
    assert main("--resume", study, "--steps", 4) == 0
    assert "1 h 00 min" in capsys.readouterr().out
    assert main("--resume", study) == 0
    assert "0 of 1 runs to do" in (shown := capsys.readouterr().out) and "will take" not in shown


def test_another_numpy_is_told_when_a_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    study = tmp_path / "study"
    assert main(*ONE, "--steps", 2, "--out", study) == 0
    run = runs(study)[0]
    environment_then = {**run.config["environment"], "numpy": "2.0.0"}
    write_json(run.folder / "config.json", {**run.config, "environment": environment_then})
    assert main("--resume", study, "--steps", 3) == 0
    assert "numpy was 2.0.0" in capsys.readouterr().out


def test_training_goes_on_from_the_saved_optimizer_and_not_only_the_weights(
    tmp_path: Path,
) -> None:
    s = settings(*ONE)
    data = load_data(s)

    def go(run: Run, steps: int) -> None:
        model = network(s, "standard", 0)
        run.begin({})
        batches = Batches(data.train_images, data.train_labels, s.batch_size, 0)
        train(run, model, sgd(s, model, 0.05), batches, steps=steps, checkpoint_every=100)

    go(Run(tmp_path / "a"), 4)
    go(Run(tmp_path / "b"), 2)
    go(Run(tmp_path / "b"), 4)
    assert Run(tmp_path / "a").records("metrics") == Run(tmp_path / "b").records("metrics")
    (tmp_path / "c").mkdir()
    go(Run(tmp_path / "c"), 2)
    from minibn import checkpoint

    manifest, states = checkpoint.load(Run(tmp_path / "c").checkpoint_path)
    without = {"steps": states["optimizer"]["steps"]}
    checkpoint.save(Run(tmp_path / "c").checkpoint_path, manifest, {**states, "optimizer": without})
    go(Run(tmp_path / "c"), 4)
    assert Run(tmp_path / "a").records("metrics") != Run(tmp_path / "c").records("metrics")


def test_plans_name_their_runs_apart() -> None:
    s = settings("--lr", "0.1", "1", "1e-5", "--seed", "0", "10", "1")
    names = [plan.name for plan in plans(s)]
    assert len(set(names)) == len(names) == 36
    assert Plan("batchnorm", 0.1, 0).name == "batchnorm-lr0.1-seed0"


def test_json_of_a_study_is_text_that_people_can_read(whole: Path) -> None:
    text = (whole / "study.json").read_text()
    assert text.endswith("}\n") and len(text.splitlines()) > 10
    assert json.loads(text)["experiment"] == "vgg_cifar"
