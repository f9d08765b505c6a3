"""Whatever a solution does, the command ends in time, says why, and gives no points for it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minibn.testing.grading import Grade, grade, solution, wire

RIGHT = (Path(__file__).parent / "solutions" / "arrays.py").read_text(encoding="utf-8")
POSIX = pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")


def graded(folder: Path, source: str, spec: str = "softmax_cross_entropy", **limits) -> Grade:
    file = folder / "solution.py"
    file.write_text(source)
    return grade(spec, file, **({"explain": False} | limits))


@pytest.mark.parametrize(
    "source, why",
    [
        ("def f(:\n", "SyntaxError: .*solution.py, line 1"),
        ("x = 1\nraise ValueError('no')\n", r"ValueError: no \(solution.py, line 2: raise Val"),
        ("import sys\nsys.exit(0)\n", r"it ends the program .*line 2"),
        ("import no_such_module\n", "ModuleNotFoundError.*line 1"),
        ("import os\nos._exit(0)\n", r"its process ended \(exit code 0\)"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            "its process ended .*SIGSEGV",
        ),
        (
            "x = 1\n",
            "none of the functions that are asked for is defined. Define one of: softmax_",
        ),
        ("def softmax_los(x, y): ...\n", r"The solution defines softmax_los \(function\)"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_no_points_and_the_reason(tmp_path, source, why):
    result = graded(tmp_path, source)
    assert result.exit_code == 3 and result.points == 0 and result.max_points == 100
    assert re.search(why, result.error), result.error
    assert "Traceback" not in str(result) and "minibn/testing" not in str(result)


@pytest.mark.parametrize(
    "body, why",
    [
        (
            "raise NotImplementedError('your code')",
            "NotImplementedError: your code (solution.py, line",
        ),
        ("import sys; sys.exit(0)", "it ends the program"),
        ("import os; os._exit(0)", "its process ended (exit code 0)"),
        ("pass", "the output is None: is a `return` missing?"),
        ("return 'a string'", "the output is a str, not an array of numbers"),
        ("return [1, [2, 3]]", "not an array of numbers"),
        ("return f(", "SyntaxError"),
        ("return x[10**6]", "IndexError"),
        ("return softmax_cross_entropy(x, labels)", "RecursionError"),
        ("import numpy; return numpy.zeros(10**9)", "emory"),
    ],
)
def test_an_error_in_a_function_is_named_with_its_line(tmp_path, body, why):
    source = RIGHT + f"\ndef softmax_cross_entropy(x, labels):\n    {body}\n"
    result = graded(tmp_path, source, memory_limit=1500)
    assert result.points == 0 or result.points == 5  # its arguments are unchanged
    assert why in str(result) and "Traceback" not in str(result)
    assert result.exit_code == (3 if "SyntaxError" in why or "ended" in why else 1)


def test_an_error_is_told_once_with_its_example(tmp_path):
    source = RIGHT + "\ndef softmax_cross_entropy(x, labels):\n    raise OSError('no')\n"
    text = str(graded(tmp_path, source))
    assert text.count("OSError: no") == 8 and text.count("for example") == 1


@pytest.mark.parametrize(
    "place", ["while True: pass\n", RIGHT + "\nimport time; time.sleep(100)\n"]
)
def test_an_endless_loop_while_loading_is_stopped(tmp_path, place, monkeypatch):
    monkeypatch.setattr(solution, "START", 3.0)
    start = time.monotonic()
    result = graded(tmp_path, place, time_limit=2)
    assert result.exit_code == 3 and "endless loop?" in result.error
    assert time.monotonic() - start < 15


def test_an_endless_loop_in_a_function_costs_its_parts_alone(tmp_path):
    source = RIGHT + "\ndef softmax_cross_entropy_vjp(g, x, labels):\n    while True: pass\n"
    start = time.monotonic()
    result = graded(tmp_path, source, part_limit=1, time_limit=60)
    assert {part.name: part.points for part in result.parts}["values"] == 20
    assert result.exit_code == 1 and time.monotonic() - start < 30
    feedback = next(part.feedback for part in result.parts if part.name == "gradient of x")
    assert feedback[0] == "it was stopped after 1 s: an endless loop?"


def test_the_time_limit_in_all_ends_everything(tmp_path):
    source = (
        "import time\n" + RIGHT + "\ndef softmax_cross_entropy(x, labels):\n    time.sleep(99)\n"
    )
    start = time.monotonic()
    result = graded(tmp_path, source, part_limit=100, time_limit=2)
    assert result.exit_code == 3 and "it was stopped after 2 s in all" in result.error
    assert "the time limit of 2 s in all is used up" in str(result)
    assert time.monotonic() - start < 15


@POSIX
def test_processes_that_a_solution_started_end_with_it(tmp_path):
    mark = f"{os.getpid()}{time.monotonic_ns()}"
    source = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{mark}'])\n"
    )
    graded(tmp_path, source + RIGHT)
    running = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    assert mark not in running


@POSIX
def test_processes_without_end_do_not_outlive_the_grade(tmp_path, monkeypatch):
    """Few of them, as a test must not depend on the limit, which root does not have."""
    mark = f"{os.getpid()}{time.monotonic_ns()}"
    source = (
        "import os, sys, time\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        f"        os.execv(sys.executable, [sys.executable, '-c', 'while True: pass', '{mark}'])\n"
        "while True: time.sleep(1)\n"
    )
    monkeypatch.setattr(solution, "START", 3.0)
    start = time.monotonic()
    result = graded(tmp_path, source, time_limit=1)
    assert result.exit_code == 3 and time.monotonic() - start < 15
    running = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True).stdout
    assert mark not in running


def test_a_flood_of_prints_is_cut_and_changes_nothing(tmp_path):
    flood = (
        "def softmax_cross_entropy(x, labels):\n"
        "    print('spam' * 10**5)\n"
        "    return once(x, labels)\n"
    )
    result = graded(tmp_path, RIGHT + "\nonce = softmax_cross_entropy\n" + flood)
    assert result.passed
    assert 3000 < len(result.printed) < 5000 and "characters more" in result.printed
    assert len(str(result)) < 8000


CHEATS = {
    "prints a grade": 'print(\'{"points": 100, "passed": true}\')\n',
    "ends with success": "import atexit, os\natexit.register(os._exit, 0)\n",
    "replaces the check": (
        "import minibn.testing.check, minibn.testing.grading.judging as j\n"
        "minibn.testing.check.check_vjp = lambda *a, **k: None\n"
        "j.differences = lambda *a, **k: ([], 16.0)\n"
    ),
    "replaces functions of NumPy": (
        "np.allclose = lambda *a, **k: True\n"
        "np.testing.assert_allclose = lambda *a, **k: None\n"
        "np.abs = lambda x: np.zeros_like(x)\n"
    ),
    "replaces the answers": (
        "import minibn.testing.grading.calls as c\n"
        "c.answer = lambda names, request: {'steps': [{'passed': True, 'points': 100}]}\n"
    ),
    "writes into the channel": (
        "import os\n"
        "for fd in range(3, 12):\n"
        "    try: os.write(fd, b'{\"points\": 100}' * 99)\n"
        "    except OSError: pass\n"
    ),
    "an answer without its arrays": (
        "import minibn.testing.grading.wire as w\n"
        'text = b\'[{"__array__": ["<f8", [9999]]}]\'\n'
        "w.pack = lambda m: b'%08d%08d' % (len(text), 0) + text\n"
    ),
}
WRONG = RIGHT.replace("np.eye(x.shape[1])[labels]", "0").replace(
    "z[np.arange(len(x)), labels]", "0"
)


@pytest.mark.parametrize("cheat", CHEATS)
def test_points_are_not_to_be_had_by(tmp_path, cheat):
    assert WRONG != RIGHT
    result = graded(tmp_path, WRONG + CHEATS[cheat], part_limit=5)
    assert result.points <= 5 and result.exit_code in (1, 3)
    assert "Traceback" not in str(result)


def test_a_message_runs_no_code_and_holds_no_objects():
    message = {
        "a": [1, 2.5, None, "x", True],
        "b": np.arange(6.0).reshape(2, 3),
        "c": np.float32(2),
    }
    arrived = wire.copy(message)
    assert arrived["a"] == message["a"] and arrived["c"] == 2 and arrived["c"].dtype == np.float32
    assert np.array_equal(arrived["b"], message["b"])
    with pytest.raises(TypeError, match="is not numeric"):
        wire.pack(np.array([object()]))
    with pytest.raises(TypeError, match="a set can't be sent"):
        wire.pack({"a": {1}})
    bad = b'{"__array__": ["|O", [1]]}'
    for text in (b"rubbish", b"%08d%08d" % (len(bad), 0) + bad, b"9" * 16):
        with pytest.raises((wire.BadMessage, EOFError)):
            wire.read(io.BytesIO(text))


def test_the_solution_reads_nothing_and_leaves_no_files(tmp_path):
    source = "import sys\nassert sys.stdin.read() == ''\n" + RIGHT
    assert graded(tmp_path, source).passed
    assert [p.name for p in tmp_path.iterdir()] == ["solution.py"]


@POSIX
def test_ctrl_c_ends_the_command_and_the_solution(tmp_path):
    mark = f"m{time.monotonic_ns()}"
    file = tmp_path / f"{mark}.py"
    file.write_text("import time\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "minibn.testing", "grade", "conv2d", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    running = lambda: subprocess.run(  # noqa: E731
        ["ps", "-ewwo", "args"], capture_output=True, text=True
    ).stdout.count(str(file))
    start = time.monotonic()
    while running() < 2 and time.monotonic() - start < 20:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.strip() == "python -m minibn.testing grade: stopped."
    assert process.returncode == 130 and running() == 0


def test_the_grade_is_data_whatever_happens(tmp_path):
    for source in ("import os\nos._exit(7)\n", "def softmax_loss(x, y): return float('nan'), x\n"):
        result = graded(tmp_path, source)
        data = json.loads(result.to_json())
        assert data["points"] == result.points and data["exit_code"] == result.exit_code
        json.loads(result.to_gradescope())
