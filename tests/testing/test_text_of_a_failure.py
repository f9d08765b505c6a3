"""What a failure costs and shows: calls of f, one screen, an explanation at a larger problem."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minibn
from minibn.testing import GradientError, check_vjp
from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.commands.search import search_failure
from minibn.testing.diagnosis.budget import CALLS
from minibn.testing.problem import Problem
from minibn.testing.report import MEASURED
from minibn.testing.strategies import arrays

# Under CI pytest repeats the whole message at the end, and hypothesis prints how to reproduce it.
HERE = {k: v for k, v in os.environ.items() if k not in ("CI", "BUILD_NUMBER", "GITHUB_ACTIONS")}
HERE |= {"PYTHONPATH": str(Path(minibn.__file__).parents[1])}
SCRIPT = 120  # calls at most, to choose the script's oracle


class Counted:
    def __init__(self, f):
        self.f, self.calls = f, 0

    def __call__(self, *args):
        self.calls += 1
        return self.f(*args)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shape", [(1,), (20,), (7, 9), (40, 50), (100_000,)])
@pytest.mark.parametrize(
    "function", [np.tanh, np.abs, lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True))]
)
def test_the_text_costs_a_bounded_number_of_calls_and_says_how_many(shape, function):
    f = Counted(function)
    report = check_vjp(f, lambda g, x: np.where(x > 1, 2, 0.3) * g, normal(*shape), raises=False)
    assert f.calls == report.calls + 1  # to see what f gives: one array, or several outputs
    text = str(report)
    spent = f.calls - report.calls - 1
    assert spent <= CALLS + SCRIPT
    assert spent == report.text_calls
    assert f"f was called {report.calls} times for the check, {spent} times for this text" in text


def test_the_slopes_of_the_check_are_not_measured_again():
    f = Counted(lambda x: np.cumsum(x * x))
    report = check_vjp(f, lambda g, x: 3 * x * g, normal(20), raises=False)
    assert report.calls > 40
    assert report.diagnosis.text_calls <= 25  # the script's oracle


def test_all_of_a_large_elementwise_input_is_measured_at_once():
    report = check_vjp(
        np.sin, lambda g, x: g * np.where(x > 2, 0, np.cos(x)), normal(100_000), raises=False
    )
    assert "only where input 0 is above 2" in report.diagnosis.sentences[0]
    assert report.diagnosis.text_calls < 150


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)


def without_variance_term(g, x):
    centred = x - x.mean(-1, keepdims=True)
    std = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
    return (g - g.mean(-1, keepdims=True)) / std


TEST = """
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from minibn.testing import check_vjp
from minibn.testing.decorator import gradient_test

def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)

def without_variance_term(g, x):
    centred = x - x.mean(-1, keepdims=True)
    std = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
    return (g - g.mean(-1, keepdims=True)) / std

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6)

@gradient_test(
    hnp.arrays(float, shapes, elements=st.integers(-8, 8)), f=layer_norm, vjp=without_variance_term
)
def test_drawn():
    pass

def test_plain():
    check_vjp(np.tanh, lambda g, x: g * (1 - np.tanh(x)), np.array([[0.3, -1.0], [2.0, 1.0]]))
"""


@pytest.mark.parametrize("name", ["test_drawn", "test_plain"])
def test_a_failing_test_shows_one_screen_and_no_frames_of_libraries(name, tmp_path):
    (tmp_path / "test_it.py").write_text(TEST)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--hypothesis-seed=1",
        f"test_it.py::{name}",
    ]
    for _ in range(2):  # the second run starts with the failure that hypothesis has stored
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=HERE, check=False
        )
        assert done.returncode == 1, done.stdout + done.stderr
        shown = done.stdout
        lines = [line for line in shown.splitlines() if line.startswith(("E", ">"))]
        assert len(lines) <= 48, shown
        assert len(shown.splitlines()) <= 62, shown
        assert "check.py" not in shown
        assert "decorator.py" not in shown
        assert "core.py" not in shown
        if name == "test_drawn":
            assert "At a larger failing problem" in shown
            assert "the variance term is" in " ".join(shown.replace("E  ", "").split())


def test_the_search_explains_the_largest_failure_as_well():
    def ask(problem, diagnose):
        return check_vjp(
            problem.f, without_variance_term, *problem.inputs, seed=problem.seed, raises=False,
            diagnose=diagnose,
        )  # fmt: skip

    from hypothesis import strategies as st

    shapes = st.tuples(st.integers(1, 9), st.integers(2, 9))
    problems = shapes.flatmap(arrays).map(lambda x: Problem(layer_norm, (x,)))
    report = search_failure("layer_norm", problems, ask, DigitsTable(), examples=60, seed=0)
    assert report is not None
    assert report.larger is not None
    assert report.entries < report.larger.entries <= MEASURED
    assert "the variance term" in report.larger.diagnosis.sentences[0]
    data = json.loads(report.to_json())
    assert data["larger"]["shapes"] == [list(report.larger.inputs[0].shape)]
    assert data["calls"] == report.calls
    assert "At a larger failing problem" in str(report)


def test_a_shrunk_failure_that_explains_itself_has_no_second_explanation():
    large = check_vjp(np.tanh, lambda g, x: -g, normal(5, 5), raises=False)
    small = check_vjp(np.exp, lambda g, x: -g * np.exp(x), normal(4), raises=False)
    small.larger = large
    assert small.explained_larger is None
    assert json.loads(small.to_json())["larger"] is None


def test_a_vjp_that_raises_for_its_order_of_arguments_gets_a_note():
    def vjp(x, w, g):
        return g @ w.T, x.T @ g

    with pytest.raises(ValueError, match=r".*") as caught:
        check_vjp(np.matmul, vjp, normal(2, 3), normal(3, 4))
    assert "the cotangent comes first here" in caught.value.__notes__[0]


def test_a_vjp_that_raises_in_any_order_gets_no_note():
    with pytest.raises(ZeroDivisionError) as caught:
        check_vjp(np.sin, lambda *given: 1 / 0, normal(3))
    assert not hasattr(caught.value, "__notes__")


def test_gradients_in_another_order_are_named_by_their_shape():
    with pytest.raises(GradientError, match="the shape of input 1: are the gradients in another"):
        check_vjp(np.matmul, lambda g, x, w: (x.T @ g, g @ w.T), normal(2, 3), normal(3, 4))
