"""A sitting of `gpu_check`: how its parts end, and what is kept when it is stopped or killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace

import numpy as np
import pytest

from experiments import gpu_check
from experiments.gpu import sitting
from experiments.gpu.sitting import Part, Sitting, WrongResult
from experiments.training.command_line import UsageError

REHEARSAL = ["--rehearse"]


def part(name, code, seconds=60.0, **more):
    return Part(
        name, "", seconds, lambda way: [sys.executable, "-c", f"way = {way!r}\n{code}"],
        lambda: "found it", **more,
    )  # fmt: skip


def outcomes(folder):
    return json.loads((folder / "gpu_check.json").read_text())["parts"]


def statuses(folder):
    return {name: outcome["status"] for name, outcome in outcomes(folder).items()}


def test_each_part_ends_as_it_does_and_takes_no_other_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "GRACE", 1)
    monkeypatch.setattr(sitting, "LEAST", 0.1)
    hangs = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    todo = [
        part("crashes", "import os; os.abort()"),
        part("fails", "print('first'); raise SystemExit('the reason')"),
        part("hangs", hangs, seconds=0.5),
        part("fills", "import time; time.sleep(60)", seconds=0.5, goes_on=True),
        part("measures", "import time; time.sleep(60)", seconds=0.5, partial=True),
        part("late", "", seconds=0.01),
        Part("impossible", "", 1, None, lambda: "", instead="no data"),
        Part("garbled", "", 60, lambda way: [sys.executable, "-c", ""], lambda: str(1 / 0)),
        part("right", "print('log')"),
    ]
    Sitting(tmp_path, {}).run(todo, sitting.SITTING)
    assert statuses(tmp_path) == {
        "crashes": "failed", "fails": "failed", "hangs": "out of time", "fills": "goes on",
        "measures": "cut off", "late": "skipped", "impossible": "skipped", "garbled": "failed",
        "right": "done",
    }  # fmt: skip
    summary = (tmp_path / "summary.md").read_text()
    assert "found it; the reason" in summary
    assert "0 s were left" in summary and "no data" in summary and "division" in summary
    assert (tmp_path / "right.log").read_text() == "log\n"


def test_after_a_crash_a_part_goes_on_in_the_next_way_and_so_do_those_after_it(tmp_path):
    crash = "import os, sys; print(way); sys.stdout.flush()\nif way == 'graph': os.abort()"
    todo = [
        part("first", crash, in_ways=True), part("next", "print(way)", in_ways=True),
        part("other", "print(way)"),
    ]  # fmt: skip
    place = Sitting(tmp_path, {})
    place.run(todo, sitting.SITTING)
    found = outcomes(tmp_path)
    assert [found[n]["way"] for n in ("first", "next", "other")] == ["launches", "launches", ""]
    assert found["first"]["failed_ways"] == ["graph: failed, found it; graph"]
    assert "before, graph: failed" in (tmp_path / "summary.md").read_text()
    assert read(tmp_path / "first.graph.log") == "graph\n"
    assert read(tmp_path / "next.log") == "launches\n"
    with tarfile.open(tmp_path / "gpu_check.tar.gz") as tar:
        assert {"first.log", "next.log", "other.log"} <= {*tar.getnames()}, "packed after each part"
    assert not place.outcomes["first"].is_right and place.outcomes["next"].is_right
    again = Sitting(tmp_path, {})
    assert again.last_way("graph", again=()) == "launches", "a later sitting begins there"
    assert again.last_way("graph", again=("first", "next")) == "graph"


def test_what_is_too_late_is_tried_again_with_warm_caches_before_another_way(tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "LEAST", 0.1)
    monkeypatch.setattr(sitting, "GRACE", 1)
    mark = tmp_path / "warm"
    slow = f"import pathlib, time\nm = pathlib.Path({str(mark)!r})\nw = m.exists()\nm.touch()\n"
    todo = [
        part("cold", slow + "time.sleep(0 if w else 60)", seconds=8, in_ways=True),
        part("hangs", "import time\nif way == 'graph': time.sleep(60)", seconds=6, in_ways=True),
    ]
    Sitting(tmp_path, {}).run(todo, sitting.SITTING)
    found = outcomes(tmp_path)
    assert (found["cold"]["status"], found["cold"]["way"]) == ("done", "graph")
    assert (found["hangs"]["status"], found["hangs"]["way"]) == ("done", "launches")
    late = [line.split(",")[0] for line in found["hangs"]["failed_ways"]]
    assert late == ["graph: out of time"] * 2


def test_a_part_that_has_results_is_not_run_in_another_way(tmp_path):
    todo = [
        part("case", "raise SystemExit(1)", in_ways=True, partial=True),
        part("rounded", f"raise SystemExit({sitting.PARTLY})", in_ways=True),
        part("next", "", in_ways=True),
    ]
    place = Sitting(tmp_path, {})
    place.run(todo, sitting.SITTING)
    assert statuses(tmp_path) == {"case": "partly", "rounded": "partly", "next": "done"}
    assert {outcome["way"] for outcome in outcomes(tmp_path).values()} == {"graph"}
    assert [place.outcomes[n].is_right for n in ("case", "rounded", "next")] == [False, False, True]


def test_what_an_earlier_sitting_left_is_not_taken_for_a_result(tmp_path):
    def line():
        return (tmp_path / "steps.json").read_text()

    write = f"open({str(tmp_path / 'steps.json')!r}, 'w').write('fast')"
    for code, status in ((write, "done"), ("raise SystemExit(1)", "failed")):
        steps = Part("steps", "", 60, lambda way, c=code: [sys.executable, "-c", c], line,
                     partial=True)  # fmt: skip
        Sitting(tmp_path, {}).run([steps], sitting.SITTING)
        assert statuses(tmp_path) == {"steps": status}
    assert read(tmp_path / "steps.before.json") == "fast"


def test_a_file_that_shows_a_failure_is_no_success_though_the_process_was_cut_off(tmp_path):
    def wrong():
        raise WrongResult("3 passed, 7 failed")

    laws = Part("laws", "", 60, lambda way: [sys.executable, "-c", ""], wrong, partial=True)
    Sitting(tmp_path, {}).run([laws], sitting.SITTING)
    assert statuses(tmp_path) == {"laws": "partly"}
    assert "3 passed, 7 failed" in (tmp_path / "summary.md").read_text()


def test_the_way_can_be_held(tmp_path):
    place = Sitting(tmp_path, {})
    place.holds_the_way = True
    place.run([part("crashes", "raise SystemExit(1)", in_ways=True)], sitting.SITTING)
    assert outcomes(tmp_path)["crashes"]["failed_ways"] == []


def test_what_fails_in_every_way_is_not_the_way(tmp_path):
    todo = [part("broken", "raise SystemExit(way)", in_ways=True), part("next", "", in_ways=True)]
    Sitting(tmp_path, {}).run(todo, sitting.SITTING)
    found = outcomes(tmp_path)
    assert (found["broken"]["status"], found["broken"]["way"]) == ("failed", "reference")
    assert [line.split(":")[0] for line in found["broken"]["failed_ways"]] == ["graph", "launches"]
    assert found["next"]["way"] == "graph"


def test_a_part_without_a_limit_takes_what_the_others_leave(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sitting, "LEAST", 0.1)
    todo = [part("one", "", seconds=300), part("fills", "", seconds=None), part("two", "", 100)]
    Sitting(tmp_path, {}).run(todo, sitting.SITTING)
    assert "fills: , at most 7 min" in capsys.readouterr().out, "540 s without 100"
    Sitting(tmp_path, {}).run(todo, 60)
    said = capsys.readouterr().out
    assert "one: , at most 33 s" in said and "two: , at most 11 s" in said
    Sitting(tmp_path, {}).run(todo, 60, patience=10)
    assert "one: , at most 6 min" in capsys.readouterr().out


def test_no_process_of_a_part_outlives_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "GRACE", 1)
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    Sitting(tmp_path, {}).run([part("parent", code, seconds=0.5)], sitting.SITTING)
    time.sleep(3)
    assert not mark.exists()


def test_too_large_files_stay_out_of_the_archive_and_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sitting, "SMALL", 1500)
    noise = np.random.default_rng(0)
    (tmp_path / "small.json").write_text("1")
    (tmp_path / "large.log").write_bytes(noise.bytes(2000))
    with tarfile.open(Sitting(tmp_path, {}).pack()) as tar:
        assert tar.getnames() == ["small.json"]
    assert "large.log" in capsys.readouterr().out


def test_what_compresses_well_is_not_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "SMALL", 3000)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' * 10_000)
    with tarfile.open(Sitting(tmp_path, {}).pack()) as tar:
        assert tar.getnames() == ["metrics.jsonl"]


def test_a_sitting_that_is_killed_keeps_what_it_found_and_goes_on(tmp_path):
    command = [sys.executable, "-m", "experiments.gpu_check", *REHEARSAL, "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("losses: done"):
                break
        os.kill(process.pid, signal.SIGTERM)
        said = process.stdout.read()
    assert process.returncode == 130
    assert "Stopped. The same command goes on." in said
    assert statuses(tmp_path)["losses"] == "done"
    again = gpu_check.main([*REHEARSAL, "--out", str(tmp_path), "--only", "kernels"])
    assert again == 0
    assert statuses(tmp_path)["kernels"] == statuses(tmp_path)["losses"] == "done"


def test_a_folder_of_a_rehearsal_is_not_taken_for_that_of_a_gpu(tmp_path):
    """Otherwise its parts would count as done."""
    rehearsal = gpu_check.Options(rehearse=True, backend="strict")
    Sitting(tmp_path, {"options": vars(rehearsal)}).write()
    gpu_check.same_as_before(rehearsal, tmp_path)
    gpu_check.same_as_before(replace(rehearsal, sitting="5m", only=("laws",)), tmp_path)
    for other, told in (
        (gpu_check.Options(backend="cupy"), "--backend strict, not cupy; --rehearse"),
        (replace(rehearsal, precision="bf16"), "--precision tf32, not bf16"),
    ):
        with pytest.raises(UsageError, match="Name another --out") as raised:
            gpu_check.same_as_before(other, tmp_path)
        assert told in str(raised.value) or "--rehearse True, not False" in str(raised.value)


def test_a_part_that_outlives_its_sitting_keeps_others_out(tmp_path):
    """It goes on after `kill -9`: measurements beside it would be wrong."""
    code = (
        "import sys; from pathlib import Path; from experiments.gpu.sitting import Part, Sitting\n"
        "wait = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)']\n"
        "part = Part('part', '', 60, lambda way: wait, lambda: '')\n"
        f"Sitting(Path({str(tmp_path)!r}), {{}}).run([part], 540)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as process:
        while "part" not in (held := read(tmp_path / ".lock")) or not read(tmp_path / "part.log"):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    child = int(held.split()[-1])
    try:
        with pytest.raises(UsageError, match=rf"is being filled by process .* part {child}\."):
            Sitting(tmp_path, {}).run([part("right", "")], 540)
    finally:
        os.kill(child, signal.SIGKILL)
    for _ in range(100):  # until the system has closed its files
        with contextlib.suppress(UsageError):
            Sitting(tmp_path, {}).run([part("right", "")], 540)
            break
        time.sleep(0.05)
    assert statuses(tmp_path) == {"right": "done"}


def read(path):
    return path.read_text() if path.exists() else ""


GOOD = {
    "name": "laws", "about": "", "status": "done", "line": "", "seconds": 1.0, "command": "",
    "way": "", "failed_ways": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "outcome",
    [
        *("3", '{"name": "tests"}', json.dumps(GOOD | {"way": "zzz"})),
        *(json.dumps(GOOD | {key: 3}) for key in ("status", "line", "failed_ways")),
        json.dumps(GOOD | {"seconds": "x"}),
    ],
)
def test_a_damaged_record_is_told_and_left(outcome, tmp_path, capsys):
    options = {"backend": "strict", "rehearse": True, "precision": "tf32"}
    text = f'{{"options": {json.dumps(options)}, "parts": {{"tests": {outcome}}}}}'
    (tmp_path / "gpu_check.json").write_text(text)
    assert gpu_check.main([*REHEARSAL, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "gpu_check.json is damaged" in said and said.count("\n") == 1
    assert (tmp_path / "gpu_check.json").read_text() == text
