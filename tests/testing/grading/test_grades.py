"""What a grade is, the command, notebooks, and a teacher's own spec."""

import json
import subprocess
import sys
from pathlib import Path

import course_mutants
import numpy as np
import pytest

from minibn.testing.commands.main import main
from minibn.testing.grading import PointsLost, SpecError, grade
from minibn.testing.grading.judging import PartResult
from minibn.testing.grading.result import Grade

RIGHT = Path(__file__).parent / "solutions" / "arrays.py"
OWN_SPEC = '''
"""A cube, with an offset."""

import numpy as np
from minibn.testing.grading import *


def forward(x, offset):
    return x**3 + offset


def cases(rng):
    return [Case("numbers", {"x": rng.standard_normal(n)}, {"offset": 2.0}) for n in (3, 5)]


SPEC = Spec(
    title="a cube",
    forward=forward,
    cases=cases,
    styles=[on_arrays("cube", "offset"), cs231n("cube_forward", "cube_backward",
            arguments=lambda settings, mode: [settings["offset"]])],
    parts=[Values(2), Gradient(3), Unmodified(1), KeepsFloat32(4)],
    follow_through=FOLLOW,
)
'''
CUBE = """def cube(x, offset):
    return x**3 + offset


def cube_vjp(g, x, offset):
    return 3 * g * x**2
"""


@pytest.fixture
def spec(tmp_path):
    file = tmp_path / "cube_spec.py"
    file.write_text(OWN_SPEC.replace("FOLLOW", "False"))
    return file


@pytest.fixture
def solution(tmp_path):
    file = tmp_path / "cube.py"
    file.write_text(CUBE)
    return file


def notebook(path: Path, *cells: str) -> Path:
    made = [{"cell_type": "code", "source": text.splitlines(keepends=True)} for text in cells]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["#"]}, *made]}))
    return path


def test_a_teachers_own_spec_is_a_file(spec, solution, capsys):
    assert main(["grade", str(spec), str(solution)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("a cube: 10 of 10 points for cube.py (arrays)")
    assert "[4/4] keeps float32" in text


def test_points_are_lost_with_code_1_and_the_same_command_as_data(spec, solution, capsys, tmp_path):
    solution.write_text(CUBE.replace("3 * g", "2.0 * g"))
    data = tmp_path / "grade.json"
    assert main(["grade", str(spec), str(solution), "--json", str(data)]) == 1
    text, found = capsys.readouterr().out, json.loads(data.read_text())
    assert "7 of 10 points" in text and found["points"] == 7 and found["exit_code"] == 1
    lost = [part for part in found["parts"] if not part["passed"]]
    assert [part["name"] for part in lost] == ["gradient of x"]
    assert "analytic/numeric" in "".join(lost[0]["feedback"]) and lost[0]["digits"] < 1
    assert main(["grade", str(spec), str(solution), "--json", "-"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["parts"] == found["parts"]


def test_gradescope_reads_the_grade(spec, solution, capsys):
    solution.write_text(CUBE.replace("3 * g", "2.0 * g"))
    main(["grade", str(spec), str(solution), "--json", "-", "--format", "gradescope"])
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == 7 == sum(test["score"] for test in found["tests"])
    assert sum(test["max_score"] for test in found["tests"]) == 10
    assert [t["name"] for t in found["tests"] if t["status"] == "failed"] == ["gradient of x"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["batchnorm", "x.py"], "Did you mean 'batch_norm'?"),
        (["nothing", "x.py"], "There are batch_norm, layer_norm"),
        (["no_such_spec.py", "x.py"], "there is no file no_such_spec.py"),
        (["conv2d", "no_such_file.py"], "there is no file no_such_file.py"),
        (["conv2d", str(RIGHT), "--time-limit", "0"], "--time-limit 0.0: it must be above 0."),
        (["conv2d", str(RIGHT), "--seed", "-1"], "seeds are 0, 1, 2"),
        (["conv2d", str(RIGHT), "--format", "gradescope"], "--json FILE"),
        (["conv2d", str(RIGHT), "--json", "/no/such/folder/x"], "No such file or directory"),
        (
            ["conv2d", str(RIGHT), "--style", "keras"],
            "there is no style 'keras' in this spec. There are cs231n",
        ),
        ([__file__, str(RIGHT)], "must set SPEC"),
    ],
)
def test_a_command_that_cannot_be_run_is_code_2_with_the_remedy(arguments, message, capsys):
    assert main(["grade", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    "change, message",
    [
        (("Values(2)", 'Values(2, on="a number")'), "a part is about 'a number'"),
        (("Gradient(3)", 'Gradient(3, of="y")'), "a part is about 'y'"),
        (("Values(2)", "Values(-2)"), "points"),
        (("parts=[", "parts=[] and ["), "points"),
        (("(3, 5)", "()"), "no case"),
        (("SPEC =", "OTHER ="), "must set SPEC"),
        (("import numpy", "import nampy"), "nampy"),
    ],
)
def test_a_spec_that_is_none_says_why(spec, change, message):
    spec.write_text(spec.read_text().replace(*change))
    with pytest.raises(SpecError, match=message):
        grade(spec, RIGHT)


def test_the_help_explains_the_exit_codes():
    command = [sys.executable, "-m", "minibn.testing", "grade", "--help"]
    text = " ".join(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )
    for part in ("0: all points", "1: points are lost", "2: the command", "3: the solution"):
        assert part in text


def test_a_style_can_be_demanded(spec, solution):
    solution.write_text(
        CUBE + "def cube_forward(x, offset): return x**3 + offset, x\n"
        "def cube_backward(dout, x): return 0 * x\n"
    )
    assert grade(spec, solution).style == "arrays"
    assert grade(spec, solution, style="cs231n").points < 10
    with pytest.raises(SpecError, match="no style 'torch' in this spec"):
        grade(spec, solution, style="torch")
    solution.write_text(CUBE)
    result = grade(spec, solution, style="cube_forward")
    assert result.exit_code == 3 and "Define one of" in result.error


def test_follow_through_gives_the_points_of_a_right_gradient_of_a_wrong_function(spec, solution):
    solution.write_text(CUBE.replace("x**3", "x**4").replace("3 * g * x**2", "4 * g * x**3"))
    strict = grade(spec, solution)
    assert strict.points == 5 and "your own forward pass" in str(strict)
    spec.write_text(OWN_SPEC.replace("FOLLOW", "True"))
    assert grade(spec, solution).points == 8


def test_float32_in_float64_out_loses_the_points_of_that_part_alone(spec, solution):
    solution.write_text(
        CUBE.replace("offset\n", "np.float64(offset)\n", 1).replace("np.", "__import__('numpy').")
    )
    result = grade(spec, solution)
    assert [part.name for part in result.parts if not part.passed] == ["keeps float32"]
    assert result.parts[-1].feedback[0] == "the output of float32 inputs is float64"


def test_float64_in_float32_out_is_a_finding(spec, solution):
    solution.write_text(
        "import numpy as np\n" + CUBE.replace("3 * g * x**2", "(3 * g * x**2).astype(np.float32)")
    )
    result = grade(spec, solution)
    assert [part.name for part in result.parts if not part.passed] == ["gradient of x"]
    assert "float32" in str(result)


# -- notebooks


def test_of_a_notebook_the_definitions_are_graded_and_nothing_else_runs(spec, tmp_path):
    definitions = CUBE.split("\n\n\n")
    file = notebook(
        tmp_path / "solution.ipynb",
        "%matplotlib inline\nimport numpy as np\npower = 3",
        definitions[0].replace("x**3", "x**power") + "\nprint(undefined)\ncube(np.ones(3), 1)",
        "!pip install something\nraise SystemExit",
        definitions[1],
    )
    assert grade(spec, file).passed


def test_an_error_in_a_notebook_names_the_cell_and_its_line(spec, tmp_path):
    broken = notebook(tmp_path / "a.ipynb", "import numpy", "def cube(:\n    pass")
    assert "(code cell 2, line 1: def cube(:)" in grade(spec, broken).error
    raising = notebook(
        tmp_path / "b.ipynb", "def cube(x, offset):\n    y = x\n    return y.nothing"
    )
    assert "(code cell 1, line 3 in cube: return y.nothing)" in str(grade(spec, raising))
    (tmp_path / "c.ipynb").write_text("{}")
    assert "is no notebook" in grade(spec, tmp_path / "c.ipynb").error


def test_a_test_cell_fails_with_the_feedback_or_gives_a_number(spec, capsys):
    names = course_mutants.names_of(CUBE)
    grade(spec, names).assert_full()
    names = course_mutants.names_of(CUBE.replace("3 * g", "print('spam') or 2.0 * g"))
    result = grade(spec, names)
    assert repr(result.scaled(to=5)) == "3.5"  # what nbgrader reads from the cell's output
    with pytest.raises(AssertionError, match="gradient of x") as error:
        result.assert_full()
    assert isinstance(error.value, PointsLost) and "spam" in str(error.value)
    out, err = capsys.readouterr()
    assert out == "" and err == ""  # nbgrader takes an output on standard error for a failure


def test_names_of_a_notebook_are_left_as_they_are(spec):
    names = course_mutants.names_of(CUBE) | {"data": np.arange(3)}
    before = dict(names)
    grade(spec, names)
    assert names == before


def test_points_are_the_sum_of_the_parts():
    result = Grade(
        "a", "b", parts=[PartResult("x", 1, 2), PartResult("y", 0, 2), PartResult("z", 4, 4)]
    )
    assert (result.points, result.max_points, result.scaled(4), result.passed) == (5, 8, 2.5, False)
