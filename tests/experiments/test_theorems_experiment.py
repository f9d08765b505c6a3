"""`experiments.theorems`: its records, continuing after a kill, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import synthetic
from studies import run_here

from experiments import plot, theorems
from experiments.theorems import NORMS, TASK, network
from experiments.theory.records import HEADS, is_due
from experiments.theory.settings import QUICK, Settings, check
from experiments.training.json_files import read_json, write_json
from experiments.training.session import preset
from experiments.training.study import Run, Study
from experiments.views import theorems as theorems_figures
from experiments.views.theorems_tables import EXACT, ORDERED, TARGET
from minibn import checkpoint
from minibn.analysis.theorems import shares
from minibn.analysis.units import dot, units_at
from minibn.data import Batches

STEPS = 6
MEASURED = [0, 1, 2, 3]  # at powers of two, and at multiples of 3 below STEPS
TINY = [
    *("--train-size", "20", "--batch-size", "6", "--channels", "2", "3", "--hidden", "4"),
    *("--measure-every", "3", "--m", "4", "9", "--eps", "0", "0.1", "--draws", "2"),
    *("--checkpoint-every", "2"),
]
UNITS = {1: 2, 2: 3, 3: 4}  # units of each layer
KILL = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import killed
killed.arrange(sys.argv.pop(1))
from experiments import theorems
from experiments.views import theorems as theorems_figures
theorems_figures.plot = lambda studies: None
sys.exit(theorems.main(sys.argv[1:]))
"""


main = partial(run_here, theorems, theorems_figures)


def killed(moment: str, *arguments: object) -> subprocess.CompletedProcess:
    """`main` in a process of its own, which is killed at `moment` (see killed.py)."""
    here = Path(__file__).parent
    command = [sys.executable, "-W", "error", "-c", KILL, here, moment, *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)


def only_run(folder: Path) -> Run:
    (run,) = Study(folder).runs()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted study."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    assert main(*TINY, "--steps", STEPS, "--out", folder) == 0
    return folder


def assert_same(one: Path, other: Path) -> None:
    a, b = only_run(one), only_run(other)
    assert a.result == b.result == {"status": "done", "steps": STEPS}
    for stream in ("metrics", "heads", "theorems"):
        assert a.records(stream) == b.records(stream), stream
        assert a.records(stream)
    (_, states), (_, others) = (checkpoint.load(run.checkpoint_path) for run in (a, b))
    for name, array in states["model"].items():
        assert array.tobytes() == others["model"][name].tobytes(), name


# -- what is recorded


def test_every_unit_is_measured_on_schedule(whole: Path) -> None:
    found = [(r["step"], r["layer"], r["unit"]) for r in only_run(whole).records("theorems")]
    expected = [(t, k, j) for t in MEASURED for k, n in UNITS.items() for j in range(n)]
    assert found == expected


def test_the_schedule_is_dense_at_first() -> None:
    assert [t for t in range(25) if is_due(t, 10)] == [0, 1, 2, 4, 8, 10, 20]
    assert [t for t in range(4) if is_due(t, 1)] == [0, 1, 2, 3]


def test_all_kinds_of_random_losses_are_drawn(whole: Path) -> None:
    found = [(r["m"], r["eps"], r["head"], r["draw"]) for r in only_run(whole).records("heads")]
    assert found == [(m, e, h, d) for m in (4, 9) for e in (0, 0.1) for h in HEADS for d in (0, 1)]
    cosines = {r["cosine"] for r in only_run(whole).records("heads")}
    assert len(cosines) > len(found) / 2, "draws differ"


@pytest.mark.parametrize("stream", ["heads", "theorems"])
def test_every_identity_meets_the_target(stream: str, whole: Path) -> None:
    seen = set()
    for record in only_run(whole).records(stream):
        for name in EXACT:
            if name in record["residual"]:
                assert record["residual"][name] < TARGET, (name, record)
                seen.add(name)
    assert seen == set(EXACT) - ({"4.5"} if stream == "heads" else {"4.4", "C.1"})


def test_what_is_printed_is_judged(whole: Path) -> None:
    run = only_run(whole)
    heads, units = run.records("heads"), run.records("theorems")
    assert all(set(r["exceeded"]) == set(ORDERED) for r in heads)
    assert all(set(r["exceeded"]) == set(ORDERED) - {"C.1 printed"} for r in units)
    assert all(r["exceeded"]["4.1 printed"] for r in heads if r["m"] == 9 and r["eps"] == 0)
    assert not any(r["exceeded"]["4.1 without eps"] for r in (*heads, *units))
    assert all(r["residual"]["4.2a printed"] < TARGET for r in heads if r["eps"] == 0)
    assert any(r["residual"]["4.2a printed"] > TARGET for r in heads if r["eps"] > 0)


def test_the_shares_are_those_of_the_networks_units_before_the_update(whole: Path) -> None:
    s = preset(Settings, QUICK, {**Study(whole).settings, "channels": (2, 3)})
    data = theorems.load_data(s)
    batch = TASK.prepare(*Batches(data.train_images, data.train_labels, 6, seed=0).batch(0))
    records = only_run(whole).records("theorems")
    for layer, norm in enumerate(NORMS, start=1):
        with units_at(network(s, 0), norm, batch) as u:
            removed, size = shares(u), dot(u.g, u.g)
            expected = {
                "scaling": removed.scaling,
                "mean": removed.mean,
                "correlation": removed.correlation,
                "reduction": dot(u.d, u.d) / size,
            }
        here = [r for r in records if (r["step"], r["layer"]) == (0, layer)]
        assert [r["m"] for r in here] == [u.m] * UNITS[layer]
        for key, values in expected.items():
            np.testing.assert_allclose([r[key] for r in here], values, rtol=1e-3)


def test_shares_multiply_to_the_reduction(whole: Path) -> None:
    for r in only_run(whole).records("theorems"):
        kept = 1 - r["mean"] - r["correlation"]
        assert r["reduction"] == pytest.approx(r["scaling"] * kept, rel=2e-3)


def test_the_lemma_begins_at_the_weights_themselves(whole: Path) -> None:
    records = only_run(whole).records("theorems")
    assert {r["multiple"] for r in records if r["step"] == 0} == {1.0}
    assert {r["multiple"] for r in records if r["step"] == 3} != {1.0}


def test_training_is_in_float64(whole: Path) -> None:
    _, states = checkpoint.load(only_run(whole).checkpoint_path)
    floats = {a.dtype for a in states["model"].values() if a.dtype.kind == "f"}
    assert floats == {np.dtype(np.float64)}
    images, _ = TASK.prepare(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.int64))
    assert images.dtype == np.float64


def test_measuring_leaves_the_training_as_it_is(whole: Path, tmp_path: Path) -> None:
    assert main(*TINY, "--steps", STEPS, "--measure-every", 1, "--out", tmp_path / "often") == 0
    often = only_run(tmp_path / "often")
    assert len(often.records("theorems")) == STEPS * sum(UNITS.values())
    assert often.records("metrics") == only_run(whole).records("metrics")


def test_the_strict_backend_gives_the_same(whole: Path, tmp_path: Path) -> None:
    few = ("--draws", 1, "--m", 4, "--steps", 2, "--measure-every", 5)
    assert main(*TINY, *few, "--backend", "strict", "--out", tmp_path / "strict") == 0
    where = {"heads": ("m", "eps", "head", "draw"), "theorems": ("step", "layer", "unit")}
    what = {"heads": ("cosine", "vanilla"), "theorems": ("scaling", "correlation")}
    for stream, names in where.items():
        known = {tuple(r[k] for k in names): r for r in only_run(whole).records(stream)}
        records = only_run(tmp_path / "strict").records(stream)
        assert len(records) == {"heads": 6, "theorems": 2 * sum(UNITS.values())}[stream]
        for record in records:
            same = known[tuple(record[k] for k in names)]
            for key in what[stream]:
                assert record[key] == pytest.approx(same[key], rel=1e-3, abs=1e-6), key


# -- stopping and going on

MOMENTS = ["before 2nd step", "before 4th step", "amid theorems", "amid heads", "amid checkpoint"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_continues_bit_for_bit(moment: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    stopped = killed(moment, *TINY, "--steps", STEPS, "--out", folder)
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert main("--resume", folder) == 0
    assert_same(folder, whole)


def test_ctrl_c_saves_and_says_how_to_go_on(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    stopped = killed("SIGINT: before 3rd step", *TINY, "--steps", STEPS, "--out", folder)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert f"python -m experiments.theorems --resume {folder}" in stopped.stdout
    assert main("--resume", folder) == 0
    assert_same(folder, whole)


def test_raising_the_steps_equals_having_asked_for_more(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    assert main(*TINY, "--steps", 3, "--out", folder) == 0
    assert main("--resume", folder, "--steps", STEPS) == 0
    assert_same(folder, whole)


def test_a_finished_study_can_be_resumed_and_nothing_changes(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "study")
    assert main("--resume", tmp_path / "study") == 0
    assert_same(tmp_path / "study", whole)


# -- what is drawn


def test_the_tables_and_the_figure_are_drawn_from_files(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(*TINY, "--steps", 3, "--seed", 1, "--out", tmp_path / "other") == 0
    out = tmp_path / "drawn"
    assert plot.main([str(whole), str(tmp_path / "other"), "--out", str(out)]) == 0
    text = (out / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert (out / "figures" / "theorems.png").stat().st_size > 10_000
    assert "48 random losses" in text and "(2 seeds)" in text
    assert all(f"| {name} |" in text for name in EXACT)
    assert all(f"| {what} |" in text for what in ORDERED.values())
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["seeds"]) == ["0", "1"]
    for seed in summary["seeds"].values():
        assert set(seed["heads"]["violated"]) == set(ORDERED)
        assert set(seed["units"]["residual"]) == set(EXACT) - {"4.4", "C.1"}
        assert max(seed["units"]["residual"].values()) < TARGET
        assert list(seed["shares"]) == ["layer 1", "layer 2", "layer 3"]
    assert list(summary["seeds"]["0"]["shares"]["layer 1"]) == [str(t) for t in MEASURED]
    assert "data_dir" not in summary["settings"]


def test_the_figure_has_no_text_over_text_and_says_how_many_units(whole: Path) -> None:
    with synthetic.catch_figures(theorems_figures) as figures:
        theorems_figures.plot([Study(whole)])
    figure = figures["theorems"]
    assert synthetic.texts_over_texts(figure) == synthetic.texts_cut_off(figure) == []
    assert all("n = " in axes.get_title() for axes in figure.axes[:3])
    assert "seed 0" in figure.get_suptitle()


def test_a_study_draws_its_own_figure_and_a_diverging_one_what_there_is(tmp_path: Path) -> None:
    few = ("--steps", 4, "--lr", "1e300", "--draws", 1)
    assert main(*TINY, *few, "--out", tmp_path / "study", plot=True) == 0
    assert only_run(tmp_path / "study").result["status"] == "diverged"
    assert (tmp_path / "study" / "figures" / "theorems.png").exists()


def test_studies_of_different_networks_are_not_drawn_together(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = shutil.copytree(whole, tmp_path / "other")
    content = read_json(other / "study.json")
    content["settings"]["channels"] = [3, 4]
    write_json(other / "study.json", content, sealed=True)
    out = tmp_path / "drawn"
    assert plot.main([str(whole), str(other), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has channels [3, 4]" in line and "like with like" in line
    assert not out.exists()


def test_plotting_nothing_is_one_line(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture
) -> None:
    for words, line in {
        (): "which study?",
        (str(tmp_path),): "there is no study",
        (str(whole), "--oot", "x"): "Did you mean '--out'?",
    }.items():
        assert plot.main(words) == 2
        (found,) = capsys.readouterr().err.splitlines()
        assert line in found
    shutil.copytree(whole, tmp_path / "study")
    for file in ("theorems.jsonl", "result.json"):  # as before the first measurement
        (only_run(tmp_path / "study").folder / file).unlink()
    only_run(tmp_path / "study").checkpoints.delete()
    assert plot.main([str(tmp_path / "study")]) == 2
    assert "no run with measurements yet" in capsys.readouterr().err


# -- bad input


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


REFUSED = {
    "--drawz 3": "Did you mean '--draws'?",
    "--backend cuda": "There are numpy, cupy, strict",
    "--data shape": "Did you mean 'shapes'?",
    "--kernels slow": "There are fast, lean, reference",
    "--steps 0": "--steps 0 must be at least 1",
    "--draws 0": "--draws 0 must be at least 1",
    "--draws 9223372036854775807": "--draws 9223372036854775807 must be at most 1e+06",
    "--measure-every 0": "--measure-every 0 must be at least 1",
    "--batch-size 2": "--batch-size 2 must be at least 3",
    "--m 8 2": "--m 2 must be at least 3",
    "--m 8 8": "--m names something twice: 8 8",
    "--eps -1": "--eps -1.0 must be at least 0",
    "--eps nan": "--eps nan must be a finite number",
    "--lr 0": "--lr 0.0 must be above 0",
    "--largest inf": "--largest inf must be a finite number",
    "--largest 1e308": "--largest 1e+308 must be at most 1e+06",
    "--channels 8": "--channels 8: there are two convolutions",
    "--channels 8 0": "--channels 0 must be at least 1",
    "--hidden 0": "--hidden 0 must be at least 1",
    "--seed 1 1": "--seed names something twice",
    "--seed -1": "--seed -1 must be at least 0",
    "--threads 0": "--threads 0 must be at least 1",
    "--m 1000000": "more than a machine holds",
    "--train-size 20 --batch-size 21": "--batch-size 21 is more than the 20 training images",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(
    given: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(*given.split(), "--out", "study") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.theorems: ") and REFUSED[given] in line
    assert os.listdir(here) == []


def test_resume_lists_what_differs(whole: Path, capsys: pytest.CaptureFixture) -> None:
    assert main("--resume", whole, "--draws", 3) == 2
    assert "--draws 3 (the study: 2)" in capsys.readouterr().err


def test_defaults_and_quick_pass_their_own_check() -> None:
    fits: Callable[[Settings], None] = check
    fits(Settings())
    fits(preset(Settings, QUICK, {"quick": True}))
    assert preset(Settings, QUICK, {"quick": True, "steps": 7}).steps == 7
