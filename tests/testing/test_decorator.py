"""`@gradient_test`: the check comes first, then the body, at every problem that is drawn."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, example, settings, target
from hypothesis import strategies as st

from minibn import Tensor, ops
from minibn.autograd.tensor import value
from minibn.backend import backend_of
from minibn.testing import GradientError, GradReport, Problem
from minibn.testing import decorator as decorating
from minibn.testing.decorator import gradient_test
from minibn.testing.report import FULL
from minibn.testing.strategies import Point, arrays, norm_problems, points, shapes

smooth = points(shapes).map(lambda point: point.problem(ops.tanh))


def tanh_vjp(g, x):
    return g * (1 - np.tanh(x) ** 2)


def scaled(x, by):
    return by * x


def scaled_vjp(g, x, by):
    return by * g


def test_the_body_runs_for_each_example_and_gets_problem_and_report():
    seen = []

    @gradient_test("tanh", examples=12)
    def body(problem, report):
        seen.append((problem, report))

    body()
    assert 0 < len(seen) <= 12
    assert all(isinstance(p, Problem) and isinstance(r, GradReport) for p, r in seen)
    assert {report.name for _, report in seen} == {"tanh"}
    assert len({problem.inputs[0].shape for problem, _ in seen}) > 3


@gradient_test("softmax", examples=3)
def test_a_body_may_be_empty():
    pass


@settings(max_examples=3)
@gradient_test("BatchNorm")
def test_a_layer_is_checked_together_with_its_parameters(problem, report):
    assert len(problem.inputs) == 3
    assert report.digits > 8


def test_what_the_body_asserts_counts():
    @settings(max_examples=5, database=None, phases=[Phase.generate])
    @gradient_test("tanh")
    def body(problem):
        assert problem.inputs[0].size < 0, "the body's own"

    with pytest.raises(AssertionError, match="the body's own"):
        body()


def test_a_wrong_vjp_fails_before_the_body_and_is_explained():
    bodies = []

    @settings(max_examples=10, derandomize=True, database=None, phases=[Phase.generate])
    @gradient_test(arrays(shapes), f=np.tanh, vjp=lambda g, x: 2 * tanh_vjp(g, x))
    def body(problem):
        bodies.append(problem.inputs[0].size)

    with pytest.raises(GradientError) as caught:
        body()
    assert not any(bodies), "only empty arrays have no gradient that could be wrong"
    assert "2 times" in caught.value.report.screen or "ratio" in caught.value.report.screen


@pytest.mark.parametrize("strategy", [arrays(shapes), st.tuples(arrays(shapes)), points(shapes)])
def test_arrays_tuples_and_points_are_problems_once_there_is_a_function(strategy):
    @gradient_test(strategy, f=np.tanh, vjp=tanh_vjp, examples=4)
    def with_vjp(problem):
        assert problem.f(*problem.inputs).shape == problem.inputs[0].shape

    @gradient_test(strategy, f=ops.tanh, examples=4)
    def of_tensors(problem):
        assert isinstance(problem.f(Tensor(problem.inputs[0])), Tensor)

    with_vjp()
    of_tensors()


@gradient_test(points(shapes, by=st.integers(2, 5)), f=scaled, vjp=scaled_vjp, examples=5)
def test_the_settings_of_a_point_reach_the_function_and_its_vjp(problem):
    assert set(problem.f.keywords) == {"by"}


@gradient_test(norm_problems().map(lambda p: p.problem(ops.batch_norm)), order=2, examples=2)
def test_second_derivatives_are_checked_on_request(report):
    assert report.name.endswith("second derivatives")


class Asked:
    """A function that notes where it ran."""

    def __init__(self):
        self.backends = Counter()

    def __call__(self, x):
        self.backends[backend_of(value(x)).name] += 1
        return ops.tanh(x)


asked = Asked()


@pytest.mark.parametrize("backend", ["numpy", "strict"])
@settings(max_examples=3)
@gradient_test(points(shapes), f=asked)
def test_parameters_of_pytest_come_through_and_one_named_backend_is_used(
    problem, backend, tmp_path_factory
):
    assert tmp_path_factory.getbasetemp().is_dir()
    assert asked.backends[backend] > 0


@settings(max_examples=2)
@example(problem=Problem(ops.exp, (np.array([1.5]),)))
@gradient_test(smooth)
def test_an_explicit_example_is_checked_too(problem, report):
    assert report.passed


class TestMethods:
    @gradient_test("sigmoid", examples=2)
    def test_a_method_keeps_its_self(self, problem):
        assert isinstance(self, TestMethods)


def test_hypothesis_is_told_of_digits_lost_and_of_branches(monkeypatch):
    climbed, branches, reports = [], Counter(), []
    monkeypatch.setattr(decorating, "target", lambda lost, label: climbed.append((lost, label)))
    monkeypatch.setattr(decorating, "event", lambda seen: branches.update([seen]))

    @settings(max_examples=40, derandomize=True, database=None)
    @gradient_test("relu")
    def body(report):
        reports.append(report)
        target(report.digits, label="a target of the body's own")

    body()
    assert climbed == [(FULL - report.digits, "digits lost") for report in reports]
    assert {"oracle: complex step", "nothing to compare: empty", "a gradient that is zero"} <= set(
        branches
    )


def test_a_kink_is_an_event(monkeypatch):
    branches = Counter()
    monkeypatch.setattr(decorating, "event", lambda seen: branches.update([seen]))

    @gradient_test(st.just(Problem(ops.abs, (np.array([0.0, 1.0]),))), examples=1)
    def body():
        pass

    body()
    assert branches["at a kink"] == 1
    assert not any("oracle" in seen for seen in branches)


def test_an_unknown_row_is_refused_with_the_near_miss():
    with pytest.raises(
        LookupError, match=r"no row of the registry 'conv2'\. Did you mean 'conv2d'"
    ):
        gradient_test("conv2")
    with pytest.raises(LookupError, match="There are abs, add"):
        gradient_test("xyzzy")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (3, {}, "name of a row of the registry"),
        ("conv2d", {"f": np.tanh}, "name of a row of the registry alone"),
        (smooth, {"vjp": tanh_vjp}, "vjp= needs f="),
        (arrays(shapes), {"f": np.tanh, "vjp": tanh_vjp, "order": 2}, "functions of Tensors"),
    ],
)
def test_misuse_is_refused_in_words(source, options, message):
    with pytest.raises(TypeError, match=message):
        gradient_test(source, **options)


def test_points_without_a_function_are_refused():
    @gradient_test(st.just(Point((np.ones(2),))))
    def body():
        pass

    with pytest.raises(TypeError, match="draws a Point, not a Problem: give f="):
        body()
