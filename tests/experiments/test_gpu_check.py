"""`gpu_check`: a rehearsal of its parts on the strict double, and how a sitting of parts ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import gpu_check
from experiments.benchmarking.device import device_of
from experiments.gpu import sitting
from experiments.gpu import tiles as tiles_module
from experiments.gpu.choices import Call
from experiments.gpu.measure import Sizes, agreement, apart
from experiments.gpu.parts import NAMES, all_parts
from experiments.gpu.sitting import Part, Sitting
from experiments.training.command_line import UsageError
from experiments.vgg.settings import Settings
from minibn import use
from minibn.backend import available
from minibn.fast.cuda import program
from minibn.fast.cuda.emulator import emulate
from minibn.fast.precision import MANTISSA
from minibn.ops.conv import Conv2d

REHEARSAL = ["--backend", "strict", "--quick"]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    code = gpu_check.main([*REHEARSAL, "--out", str(folder)])
    return code, folder, json.loads((folder / "gpu_check.json").read_text())["parts"]


def test_a_rehearsal_runs_all_parts_on_the_cpu_within_two_minutes(rehearsed):
    code, _, found = rehearsed
    assert list(found) == [name for name in NAMES if name != "all-tests"]
    wrong = {n: (o["status"], o["line"]) for n, o in found.items() if o["status"] != "done"}
    wrong.pop("reproduce", None)  # it fills the time
    assert (code, wrong) == (0, {})
    assert sum(outcome["seconds"] for outcome in found.values()) < 120


def test_a_rehearsal_finds_what_can_be_found_on_the_strict_double(rehearsed):
    _, folder, found = rehearsed
    assert "0 passed, 0 failed" in found["tests"]["line"], "they need a GPU"
    assert "differ by at most" in found["agreement"]["line"]
    assert "4 steps in" in found["paper"]["line"]
    assert "fast: 0." in found["large"]["line"] and "lean: 0." in found["large"]["line"]
    calls = json.loads((folder / "choices.json").read_text())["calls"]
    assert {"Conv2d", "MatMul"} <= {call["op"] for call in calls}
    assert {call["precision"] for call in calls} == {"fp32", "tf32", "bf16"}


def test_a_rehearsal_packs_what_is_small(rehearsed):
    _, folder, _ = rehearsed
    with tarfile.open(folder / "gpu_check.tar.gz") as tar:
        names = tar.getnames()
    assert {"gpu_check.json", "summary.md", "tests.xml", "agreement.json", "paper.log"} <= {*names}
    assert any(name.endswith("metrics.jsonl") for name in names)
    assert not any(name.endswith("npz") for name in names)
    assert "| agreement" in (folder / "summary.md").read_text()


def test_what_was_done_is_not_done_again_unless_it_is_named(rehearsed, capsys):
    _, folder, before = rehearsed
    again = [*REHEARSAL, "--out", str(folder), "--only", "environment"]
    assert gpu_check.main(again) == 0
    after = json.loads((folder / "gpu_check.json").read_text())["parts"]
    assert [after[n] == before[n] for n in ("agreement", "large")] == [True, True]
    assert "environment: the device" in capsys.readouterr().out


def test_backends_that_part_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.gpu.measure.measurements", lambda b, few: [1.0])
    monkeypatch.setattr(
        "experiments.gpu.measure.losses",
        lambda s, variant, b, few: [1.0, 1.01 if b == "strict" and variant == "l1" else 1.0],
    )
    s = Sizes("strict", ("batchnorm", "l1"), batch=2)
    assert not agreement(s, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["agree"] for each in found.values()] == [True, False, True]
    assert apart([1.0, 2.0], [1.0, float("nan")]) == float("inf")


def test_every_plan_of_every_product_is_timed_and_the_best_is_told(monkeypatch, capsys):
    monkeypatch.setattr(program, "_kernel", lambda *_: lambda *_, **__: None)  # launches do nothing
    rng = np.random.default_rng(0)

    def timed(device_of, call, way, repeats=10):
        out = way.forward(*call.inputs)
        way.needs_input_grad = (True, True)
        way.vjp(out, out, *call.inputs)
        return {"forward": rng.uniform(1, 9), "vjp": 1.0}

    with use("strict") as backend, emulate():
        x, w = (backend.xp.ones(s, np.float32) for s in ((8, 16, 16, 64), (3, 3, 64, 64)))
        call = Call(Conv2d((1, 1), (1, 1), x.shape, w.shape), (x, w))
        monkeypatch.setattr(tiles_module, "calls_of", lambda settings, batch: [call])
        monkeypatch.setattr(tiles_module, "time_call", timed)
        record = list(tiles_module.compare_plans(device_of(backend), Settings(), 8))[-1]
    found = {tuple(each["sizes"]) for each in record["products"]}
    sides = {(2048, 64, 576), (576, 64, 2048)}  # its gradient by x is as large as itself
    assert found == {(*side, p) for side in sides for p in MANTISSA}
    for each in record["products"]:
        took = {json.dumps({k: v for k, v in plan.items() if k != "ms"}): plan["ms"]
                for plan in each["ms"]}  # fmt: skip
        assert min(took, key=lambda plan: took[plan]) == json.dumps(each["best"])
        assert json.dumps(each["chosen"]) in took
    assert "For products.TUNED_PLANS:" in capsys.readouterr().out


# -- sittings


def part(name, code, seconds=60.0, least=0.0, **more):
    return Part(name, "", seconds, least, [sys.executable, "-c", code], lambda: "found it", **more)


def statuses(folder):
    found = json.loads((folder / "gpu_check.json").read_text())["parts"]
    return {name: outcome["status"] for name, outcome in found.items()}


def test_each_part_ends_as_it_does_and_takes_no_other_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "GRACE", 1)
    hangs = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    todo = [
        part("crashes", "import os; os.abort()"),
        part("fails", "print('first'); raise SystemExit('the reason')"),
        part("hangs", hangs, seconds=0.5),
        part("fills", "import time; time.sleep(60)", seconds=0.5, goes_on=True),
        part("long", "", least=1e6),
        Part("impossible", "", 1, 0, None, lambda: "", instead="no data"),
        Part("garbled", "", 60, 0, [sys.executable, "-c", ""], lambda: str(1 / 0)),
        part("right", "print('log')"),
    ]
    Sitting(tmp_path, {}).run(todo, minutes=sitting.SITTING)
    assert statuses(tmp_path) == {
        "crashes": "failed", "fails": "failed", "hangs": "out of time", "fills": "goes on",
        "long": "skipped", "impossible": "skipped", "garbled": "failed", "right": "done",
    }  # fmt: skip
    summary = (tmp_path / "summary.md").read_text()
    assert "found it; the reason" in summary
    assert "it needs 1000000" in summary and "no data" in summary and "division" in summary
    assert (tmp_path / "right.log").read_text() == "log\n"


def test_no_process_of_a_part_outlives_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "GRACE", 1)
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    Sitting(tmp_path, {}).run([part("parent", code, seconds=0.5)], minutes=sitting.SITTING)
    time.sleep(3)
    assert not mark.exists()


def test_too_large_files_stay_out_of_the_archive_and_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sitting, "SMALL", 1000)
    (tmp_path / "small.json").write_text("1" * 600)
    (tmp_path / "large.log").write_text("1" * 700)
    with tarfile.open(Sitting(tmp_path, {}).pack()) as tar:
        assert tar.getnames() == ["small.json"]
    assert "large.log" in capsys.readouterr().out


def test_a_sitting_that_is_killed_keeps_what_it_found_and_goes_on(tmp_path):
    command = [sys.executable, "-m", "experiments.gpu_check", *REHEARSAL, "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("environment: done"):
                break
        os.kill(process.pid, signal.SIGTERM)
        said = process.stdout.read()
    assert process.returncode == 130
    assert "Stopped. The same command goes on." in said
    assert statuses(tmp_path)["environment"] == "done"
    again = gpu_check.main([*REHEARSAL, "--out", str(tmp_path), "--only", "machine"])
    assert again == 0
    assert statuses(tmp_path)["machine"] == statuses(tmp_path)["environment"] == "done"


def test_a_folder_of_a_rehearsal_is_not_taken_for_that_of_a_gpu(tmp_path, capsys):
    """Otherwise its parts would count as done."""
    assert gpu_check.main([*REHEARSAL, "--only", "environment", "--out", str(tmp_path)]) == 0
    before = (tmp_path / "gpu_check.json").read_bytes()
    capsys.readouterr()
    for other in (["--backend", "strict"], [*REHEARSAL, "--precision", "bf16"]):
        assert gpu_check.main([*other, "--out", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert other[-2] in said or "--quick True, not False" in said
        assert "Name another --out" in said and said.count("\n") == 1
    assert (tmp_path / "gpu_check.json").read_bytes() == before


def test_a_part_that_outlives_its_sitting_keeps_others_out(tmp_path):
    """It goes on after `kill -9`: measurements beside it would be wrong."""
    code = (
        "import sys; from pathlib import Path; from experiments.gpu.sitting import Part, Sitting\n"
        "wait = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)']\n"
        "part = Part('part', '', 60, 0, wait, lambda: '')\n"
        f"Sitting(Path({str(tmp_path)!r}), {{}}).run([part], 25)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as process:
        while "part" not in (held := read(tmp_path / ".lock")) or not read(tmp_path / "part.log"):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    child = int(held.split()[-1])
    try:
        with pytest.raises(UsageError, match=rf"is being filled by process .* part {child}\."):
            Sitting(tmp_path, {}).run([part("right", "")], minutes=25)
    finally:
        os.kill(child, signal.SIGKILL)
    for _ in range(100):  # until the system has closed its files
        with contextlib.suppress(UsageError):
            Sitting(tmp_path, {}).run([part("right", "")], minutes=25)
            break
        time.sleep(0.05)
    assert statuses(tmp_path) == {"right": "done"}


def read(path):
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("outcome", ["3", '{"name": "tests"}'])
def test_a_damaged_record_is_told_and_left(outcome, tmp_path, capsys):
    options = {
        "backend": "strict", "quick": True, "data": "shapes", "precision": "tf32", "seed": 0
    }  # fmt: skip
    text = f'{{"options": {json.dumps(options)}, "parts": {{"tests": {outcome}}}}}'
    (tmp_path / "gpu_check.json").write_text(text)
    assert gpu_check.main([*REHEARSAL, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "gpu_check.json is damaged" in said and said.count("\n") == 1
    assert (tmp_path / "gpu_check.json").read_text() == text


# -- what can't work


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--only", "test"], "Did you mean 'tests'"),
        (["--backend", "numpy"], "Did you mean 'cupy'"),
        (["--minutes", "0"], "--minutes 0"),
        (["--data", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        (["--precision", "fp64"], "--precision"),
    ],
)
def test_what_cant_work_is_one_line_and_writes_nothing(arguments, told, tmp_path, capsys):
    folder = tmp_path / "out"
    assert gpu_check.main(["--backend", "strict", *arguments, "--out", str(folder)]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
    assert not folder.exists()


@pytest.mark.skipif("cupy" in available(), reason="CuPy and a GPU are here")
def test_without_a_gpu_it_says_what_is_missing(tmp_path, capsys):
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 2
    assert "backend 'cupy'" in capsys.readouterr().err


def test_on_a_gpu_tests_that_are_all_skipped_prove_nothing(tmp_path):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite name="pytest" errors="0" failures="0" skipped="3" tests="3">'
    )
    (tests,) = (p for p in all_parts(gpu_check.Options(), tmp_path) if p.name == "tests")
    with pytest.raises(ValueError, match="no test ran"):
        tests.line()


def test_the_names_that_help_lists_are_those_of_the_parts():
    assert tuple(part.name for part in all_parts(gpu_check.Options(), Path("out"))) == NAMES
