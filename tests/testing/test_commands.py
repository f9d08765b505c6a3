"""`python -m minibn.testing`: what it prints, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from suite import registry
from suite.laws import LAWS
from suite.laws.row_law import about
from suite.registry import CASES, Case

from minibn.testing.commands import checkout, conventions
from minibn.testing.commands import main as command_line
from minibn.testing.commands.main import main, shape_of
from minibn.testing.laws import LAWS as LAWS_ABOUT_ANYTHING
from minibn.testing.laws import laws_page
from minibn.testing.strategies import points, real

ROOT = Path(__file__).parent.parent.parent

LAYERS = """
import numpy as np
from minibn import ops

def forward(x, b):
    return np.tanh(x) + b

def backward(g, x, b):
    return g * (1 - np.tanh(x) ** 2), g.sum(0)

def mean_for_sum(g, x, b):
    return g * (1 - np.tanh(x) ** 2), g.mean(0)

def of_tensors(x, b):
    return ops.tanh(x) + b

def fragile(x):
    raise ArithmeticError("not today")

size = 3
"""


@pytest.fixture
def layers(tmp_path, monkeypatch):
    """A module of somebody's own, in the working directory."""
    (tmp_path / "somebodys_layers.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "somebodys_layers"
    sys.modules.pop("somebodys_layers", None)


def test_check_prints_a_line_for_each_row(capsys):
    assert main(["check", "matmul", "BatchNorm", "--examples", "4"]) == 0
    header, *lines, covered = capsys.readouterr().out.splitlines()
    assert covered.startswith("covered: ")
    assert header.split()[2:] == ["checks", "least", "median", "demanded", "verdicts", "oracles"]
    assert {line.split()[0] for line in lines} == {"matmul", "BatchNorm"}
    assert all("agrees" in line for line in lines)


def test_precision_backend_and_order_change_what_is_checked(capsys, tmp_path):
    file = tmp_path / "found.json"
    flags = ["--dtype", "float32", "--backend", "strict", "--order", "2", "--examples", "2"]
    assert main(["check", "softmax", *flags, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert (found["dtype"], found["backend"], found["order"]) == ("float32", "strict", 2)
    (check,) = found["checks"]
    assert check["checks"] == 2 and check["passed"]
    assert check["report"]["inputs"][0]["dtype"] == "float32"
    assert check["report"]["name"] == "softmax, second derivatives"
    assert check["digits"]["least"] < 9


def test_the_same_seed_finds_the_same_and_another_something_else(capsys):
    found = []
    for seed in ("3", "3", "4"):
        assert main(["check", "softmax", "--examples", "5", "--seed", seed]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] != found[2]


def test_all_rows_are_checked(capsys, monkeypatch):
    for name in list(CASES)[3:]:
        monkeypatch.delitem(CASES, name)
    monkeypatch.setattr(registry, "LAYERS", {})
    assert main(["check", "all", "--examples", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 + 1


def test_a_wrong_row_is_shrunk_shown_and_exits_with_1(capsys, monkeypatch):
    from minibn import ops
    from minibn.testing import Problem

    def doubled(x):  # tanh whose gradient is twice as large
        y = ops.tanh(x)
        return y + (y - getattr(y, "detach", lambda: y)())

    at = points((2, 3), real, ("integers", "normal"))
    wrong = Case(at.map(lambda p: Problem(doubled, p.inputs, p.seed)))
    monkeypatch.setitem(CASES, "wrong", wrong)
    assert main(["check", "wrong", "tanh", "--examples", "10"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith("wrong"), "the worst is first"
    assert "wrong: FAILED" in out and "ratio" in out and "To reproduce it" in out


def test_a_function_with_its_vjp_is_checked(capsys, layers):
    at = ["--shapes", "4,3", "3"]
    assert main(["check", f"{layers}:forward", "--vjp", f"{layers}:backward", *at]) == 0
    assert "agrees 20" in capsys.readouterr().out
    assert main(["check", f"{layers}:forward", "--vjp", f"{layers}:mean_for_sum", *at]) == 1
    out = capsys.readouterr().out
    assert "gradient of input 1" in out and "ratio" in out
    assert "from somebodys_layers import" in out, "the script imports what it can"


def test_a_function_of_tensors_needs_no_vjp(capsys, layers):
    flags = ["--shapes", "4,3", "3", "--order", "2", "--backend", "strict", "--examples", "2"]
    assert main(["check", f"{layers}:of_tensors", *flags]) == 0
    assert "agrees 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("check cov2d", "Did you mean 'conv2d'"),
        ("check conv2d --backend cupi", "Did you mean 'cupy'"),
        ("check conv2d --examples 0", "at least 1"),
        ("check conv2d --seed -1", "seeds are 0, 1"),
        ("check batch_norm --dtype float16", "try --dtype float32"),
        ("check conv2d --shapes 3", "'conv2d' has no colon"),
        ("check relu --examples 1 --json no/such/folder/x.json", "No such file"),
        ("check {m}:forwad --shapes 3", "Did you mean 'forward'"),
        ("check {m}:nothing --shapes 3", "There are forward, backward"),
        ("check {m}:size --shapes 3", "is a int: name a function"),
        ("check no_such_module:f --shapes 3", "file of the working directory"),
        ("check {m}:forward --vjp {m}:backward", "--shapes 4,3 3"),
        ("check {m}:forward --vjp {m}:backward --shapes 4,x", "sizes joined by commas"),
        ("check {m}:forward --vjp {m}:backward --shapes 3 3 --order 2", "function of Tensors"),
        ("check {m}:forward conv2d --shapes 3 3", "one after the other"),
        ("check {m}:fragile --shapes 3", "shapes (3,): ArithmeticError: not today"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_the_remedy(argv, message, capsys, layers):
    assert main(argv.format(m=layers).split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("python -m minibn.testing check: ") and message in said[-1]
    assert len(said) == 1 or "float16 its row promises nothing" in said[0]


@pytest.mark.parametrize("argv", ["", "chek", "check", "check relu --dtype float8"])
def test_a_command_that_is_none_shows_the_usage(argv, capsys):
    assert main(argv.split()) == 2
    assert "usage: python -m minibn.testing" in capsys.readouterr().err


@pytest.mark.parametrize("argv", ["--help", "check --help", "kill --help", "laws --help"])
def test_every_command_has_its_help(argv, capsys):
    assert main(argv.split()) == 0
    assert "usage: python -m minibn.testing" in capsys.readouterr().out


def test_a_shape_may_have_no_sizes():
    assert shape_of("()") == () and shape_of("(4, 3)") == (4, 3) and shape_of("0,2") == (0, 2)


def test_conventions_are_printed_and_a_broken_one_exits_with_1(capsys, monkeypatch):
    assert main(["conventions"]) == 0
    assert capsys.readouterr().out == conventions.conventions_table() + "\n"
    monkeypatch.setattr(command_line, "broken_promises", lambda: ["relu at 0"])
    assert main(["conventions"]) == 1
    assert "Not as promised: relu at 0" in capsys.readouterr().out


def test_laws_are_printed(capsys):
    assert main(["laws"]) == 0
    assert capsys.readouterr().out == laws_page(LAWS.values(), about)


def test_without_a_checkout_the_suite_is_missed_with_the_remedy(capsys, layers, monkeypatch):
    monkeypatch.setattr(checkout, "TESTS", Path("nowhere"))
    for argv in (["kill"], ["check", "conv2d"], ["check", "all"]):
        assert main(argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is not installed: clone minibn's repository" in line
    assert main(["laws"]) == 0
    said = capsys.readouterr()
    assert said.out == laws_page(LAWS_ABOUT_ANYTHING.values())
    assert "clone minibn's repository" in said.err
    at = ["--shapes", "4,3", "3"]
    assert main(["check", f"{layers}:forward", "--vjp", f"{layers}:backward", *at]) == 0
    assert main(["conventions"]) == 0


def test_kill_gets_its_own_arguments(capsys):
    assert main(["kill", "--mutant", "no such mutant"]) == 2
    assert "no such mutant" in capsys.readouterr().err


WITHOUT_HYPOTHESIS = """
import sys
sys.modules["hypothesis"] = None
from minibn.testing.commands.main import main
function = "check somebodys_layers:forward --vjp somebodys_layers:backward --shapes 4,3 3"
for argv in (function, "conventions", "check relu", "laws", "kill"):
    print(argv.split()[0], main(argv.split()))
"""


def test_without_hypothesis_functions_are_checked_and_the_rest_names_the_extra(layers, tmp_path):
    done = run(WITHOUT_HYPOTHESIS, tmp_path)
    codes = [line for line in done.stdout.splitlines() if line[-2:] in (" 0", " 2")]
    assert codes == ["check 0", "conventions 0", "check 2", "laws 2", "kill 2"]
    assert done.stderr.count("pip install 'minibn[test]'") == 3


def run(source, folder):
    path = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", path + source],
        capture_output=True,
        text=True,
        cwd=folder,
    )


def test_the_module_runs_and_its_exit_code_is_that_of_main():
    call = [sys.executable, "-W", "error", "-m", "minibn.testing"]
    done = subprocess.run([*call, "check", "nothing"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "no row of the registry 'nothing'" in done.stderr
