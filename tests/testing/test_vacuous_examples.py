"""What `@gradient_test` does with examples that show nothing, and with hypothesis' settings."""

import asyncio
import datetime
import inspect
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn.testing import GradientError, Problem, Vacuous
from minibn.testing.decorator import DrawnProblem, gradient_test

anything = hnp.arrays(float, hnp.array_shapes(), elements=st.floats(-2, 2))
wide = hnp.arrays(float, hnp.array_shapes(), elements=st.floats(-50, 50))
once = settings(max_examples=30, database=None, derandomize=True)


def square_vjp(g, x):
    return 2 * g * x


FUNCTIONS = {
    "square": (np.square, square_vjp),
    "relu": (lambda x: x * (x > 0), lambda g, x: g * (x > 0)),
    "cumsum": (lambda x: np.cumsum(x, -1), lambda g, x: np.cumsum(g[..., ::-1], -1)[..., ::-1]),
    "sine": (np.sin, lambda g, x: g * np.cos(x)),
    "sum of squares": (lambda x: (x * x).sum(), square_vjp),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_stranger_writes_first_passes_though_zeros_are_drawn(name):
    f, vjp = FUNCTIONS[name]

    @once
    @gradient_test(anything, f=f, vjp=vjp)
    def body(problem, report):
        assert report.passed

    body()


def test_a_wrong_gradient_is_not_hidden_by_vacuous_examples():
    @once
    @gradient_test(anything, f=np.square, vjp=lambda g, x: 3 * g * x)
    def body():
        pass

    with pytest.raises(GradientError) as caught:
        body()
    assert not isinstance(caught.value, Vacuous)
    assert "3/2" in str(caught.value)


def zero(problem):
    return not problem.inputs[0].any()


def test_the_body_does_not_run_at_a_vacuous_example():
    seen = []

    @once
    @gradient_test(st.sampled_from([np.zeros(2), np.ones(2)]), f=np.square, vjp=square_vjp)
    def body(problem):
        seen.append(problem)

    body()
    assert seen
    assert not any(map(zero, seen))


def test_all_examples_vacuous_is_vacuous_and_says_how_many():
    ran = []

    @once
    @gradient_test(st.just(np.zeros(3)), f=np.square, vjp=square_vjp)
    def body():
        ran.append(1)

    with pytest.raises(Vacuous, match=r"\d+ of \d+ examples are vacuous: the gradient of input 0"):
        body()
    assert not ran


def test_an_input_whose_gradient_is_always_zero_is_found_beside_others():
    @once
    @gradient_test(
        st.tuples(st.just(np.ones(2)), st.just(np.zeros(2))),
        f=lambda x, y: x * x + y * y, vjp=lambda g, x, y: (2 * g * x, 2 * g * y),
    )  # fmt: skip
    def body():
        pass

    with pytest.raises(Vacuous, match="the gradient of input 1"):
        body()


def test_inputs_that_are_zero_in_turn_are_no_failure():
    pairs = st.sampled_from([(np.ones(2), np.zeros(2)), (np.zeros(2), np.ones(2))])

    @once
    @gradient_test(
        pairs, f=lambda x, y: x * x + y * y, vjp=lambda g, x, y: (2 * g * x, 2 * g * y)
    )  # fmt: skip
    def body():
        pass

    body()


def test_the_count_starts_anew_in_each_run():
    points = [np.ones(2)]

    @settings(max_examples=3, database=None)
    @gradient_test(st.builds(lambda: points[0]), f=np.square, vjp=square_vjp)
    def body():
        pass

    body()
    points[0] = np.zeros(2)
    with pytest.raises(Vacuous):
        body()
    points[0] = np.ones(2)
    body()


def test_an_explicit_example_that_is_vacuous_is_left_out_too():
    seen = []
    at_zero = DrawnProblem(np.square, (np.zeros(2),), vjp=square_vjp)
    at_one = DrawnProblem(np.square, (np.ones(2),), vjp=square_vjp)

    def test_of(*problems):
        @settings(phases=[Phase.explicit], database=None)
        @gradient_test(st.just(np.ones(2)), f=np.square, vjp=square_vjp)
        def body(problem):
            seen.append(problem)

        for problem in problems:
            body = example(problem=problem)(body)
        return body

    test_of(at_zero, at_one)()
    assert seen == [at_one]
    with pytest.raises(Vacuous):
        test_of(at_zero)()


def test_empty_arrays_are_no_failure():
    @once
    @gradient_test(hnp.arrays(float, st.sampled_from([(0,), (2, 0)])), f=np.sin, vjp=np.multiply)
    def body(report):
        assert report.inputs[0].verdict == "empty"

    body()


@pytest.mark.parametrize("factor", [1.0, 3.0])
@settings(max_examples=5, derandomize=True)
@gradient_test(anything, f=np.square, vjp=square_vjp)
def test_parametrize_reaches_the_body(problem, factor):
    assert factor in (1.0, 3.0)


class TestOfAClass:
    @settings(max_examples=5, derandomize=True)
    @gradient_test(anything, f=np.square, vjp=square_vjp)
    def test_methods_work(self, problem):
        assert isinstance(self, TestOfAClass)
        assert isinstance(problem, Problem)


def test_a_coroutine_is_awaited_after_its_check():
    seen = []

    @once
    @gradient_test(anything, f=np.square, vjp=square_vjp)
    async def body(problem):
        seen.append(problem)

    inner = body.hypothesis.inner_test
    assert inspect.iscoroutinefunction(inner)  # what the plugins for asyncio look for
    body.hypothesis.inner_test = lambda **known: asyncio.run(inner(**known))
    body()
    assert seen


def test_a_check_inside_of_another_property_test_counts_for_itself():
    @settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.booleans())
    def outer(flat):
        @settings(max_examples=2, database=None)
        @gradient_test(st.just(np.full(2, 1.0 - flat)), f=np.square, vjp=square_vjp)
        def body():
            pass

        if flat:
            with pytest.raises(Vacuous):
                body()
        else:
            body()

    outer()


# -- settings


def slow(x):
    time.sleep(0.004)
    return np.sin(x)


def cosine_vjp(g, x):
    return g * np.cos(x)


def test_there_is_no_deadline_unless_the_test_sets_one():
    strategy = st.just(np.ones(2))

    @settings(max_examples=2, database=None)
    @gradient_test(strategy, f=slow, vjp=cosine_vjp)
    def without():
        pass

    without()  # 0.3 s, where hypothesis allows 0.2 s

    @settings(max_examples=2, deadline=50, database=None)
    @gradient_test(strategy, f=slow, vjp=cosine_vjp)
    def above():
        pass

    @gradient_test(strategy, f=slow, vjp=cosine_vjp)
    @settings(max_examples=2, deadline=50, database=None)
    def below():
        pass

    for limited in (above, below):
        with pytest.raises(Exception, match=r"[Dd]eadline"):
            limited()


def test_settings_above_and_examples_work_together():
    ran = []

    @settings(deadline=datetime.timedelta(seconds=9), database=None)
    @gradient_test(anything, f=np.sin, vjp=cosine_vjp, examples=4)
    def body():
        ran.append(1)

    body()
    assert 0 < len(ran) <= 4


# -- misuse


def test_a_function_of_arrays_without_a_vjp_is_refused_with_the_remedy():
    @once
    @gradient_test(anything, f=np.square)
    def body():
        pass

    with pytest.raises(
        TypeError, match=r"square raises TypeError: .*\. Write .*minibn\.ops, or pass"
    ):
        body()


def test_a_function_that_gives_no_tensor_is_refused_with_the_remedy():
    @once
    @gradient_test(anything, f=lambda x: x.numpy() ** 2)
    def body():
        pass

    with pytest.raises(TypeError, match=r"gives ndarray\. Write .*pass vjp="):
        body()


def test_a_point_outside_of_the_domain_stays_a_clear_error():
    @once
    @gradient_test(anything, f=np.log, vjp=lambda g, x: g / x)
    def body():
        pass

    with (
        pytest.raises(ValueError, match="f is not finite at this point"),
        np.errstate(all="ignore"),
    ):
        body()
