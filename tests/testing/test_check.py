"""check_vjp: what it finds, what it demands, and what it refuses to judge."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn.testing import GradientError, Vacuous, check_vjp

rng = np.random.default_rng(0)  # of what is random on purpose
X = np.array([[0.3, -1.2, 2.0], [0.7, 0.1, -0.4]])


def normal(*shape):
    """The same numbers whatever ran before."""
    return np.random.default_rng(0).standard_normal(shape)


def cube_slope(g, x):
    return 3 * g * x**2


def normalise(x):
    centred = x - x.mean(0)
    return centred / np.sqrt((centred**2).mean(0) + 1e-5)


def normalise_vjp(g, x):
    x_hat, s = normalise(x), 1 / np.sqrt(((x - x.mean(0)) ** 2).mean(0) + 1e-5)
    return s * (g - g.mean(0) - x_hat * (g * x_hat).mean(0))


def test_a_right_gradient_agrees_to_nearly_all_digits():
    report = check_vjp(normalise, normalise_vjp, normal(6, 3))
    assert report.passed
    assert report.digits > 13
    assert report.inputs[0].demanded > 11
    assert report.inputs[0].how == "complex step, every entry"


@pytest.mark.parametrize("error", [0.5, 1e-2, 1e-6, 1e-10])
def test_an_error_of_any_visible_size_is_found(error):
    with pytest.raises(GradientError, match="WRONG") as found:
        check_vjp(lambda x: x**3, lambda g, x: (1 + error) * cube_slope(g, x), X)
    assert found.value.report.digits == pytest.approx(-np.log10(error), abs=0.4)


def test_one_wrong_entry_in_a_million_is_found_along_random_directions():
    x = normal(100, 100)

    def vjp(g, x):
        dx = cube_slope(g, x)
        dx[17, 3] *= 1.001
        return dx

    report = check_vjp(lambda x: x**3, cube_slope, x)
    assert 0 < report.inputs[0].missed < 1e-20
    assert "missed with a chance" in str(report)
    with pytest.raises(GradientError, match=r"\(17, 3\)"):
        check_vjp(lambda x: x**3, vjp, x)


def test_a_function_that_forgets_the_imaginary_part_is_judged_by_differences():
    report = check_vjp(lambda x: np.abs(x) ** 3, lambda g, x: g * 3 * x * np.abs(x), X)
    assert report.passed
    assert report.inputs[0].how.startswith("differences")
    assert "not analytic" in report.inputs[0].oracles["complex step"]


def test_a_complex_step_that_is_silently_wrong_is_outvoted():
    def f(x):  # the imaginary part survives, but not the derivative of |x|
        return x**2 + np.abs(x)

    report = check_vjp(f, lambda g, x: g * (2 * x + np.sign(x)), X)
    assert report.passed
    assert "contradicts the differences" in report.inputs[0].oracles["complex step"]
    with pytest.raises(GradientError, match="Taylor order"):
        check_vjp(f, lambda g, x: g * 2 * x, X)


def test_a_small_part_that_is_not_analytic_is_outvoted_two_to_one():
    def f(x):
        return x**2 + 1e-5 * np.abs(x)

    report = check_vjp(f, lambda g, x: g * (2 * x + 1e-5 * np.sign(x)), X)
    assert "complex step against it: f is not analytic" in report.inputs[0].sides
    with pytest.raises(GradientError, match=r"INCONCLUSIVE|WRONG"):
        check_vjp(f, lambda g, x: g * 2 * x, X)


def test_a_function_of_reals_alone_is_judged_by_differences():
    def f(x):
        return np.array([float(v) ** 2 for v in x.flat]).reshape(x.shape)

    report = check_vjp(f, lambda g, x: 2 * g * x, X)
    assert report.digits > 9
    assert "does not take complex numbers" in report.inputs[0].oracles["complex step"]


def test_a_linear_function_that_takes_no_complex_numbers_is_judged_by_one_large_step():
    w = normal(3, 4)

    def f(x):
        return np.asarray(x, float) @ w if x.dtype.kind == "f" else None

    report = check_vjp(f, lambda g, x: g @ w.T, X)
    assert report.inputs[0].how.startswith("one large step")
    assert report.digits > 13


def test_a_failure_says_which_oracles_side_with_whom():
    with pytest.raises(GradientError) as found:
        check_vjp(lambda x: x**3, lambda g, x: 2 * cube_slope(g, x), X)
    sides = found.value.report.inputs[0].sides
    assert (
        sides == "differences, complex step and Taylor order against the gradient, and none with it"
    )


def test_the_reference_judges_values_and_derivatives():
    def loops(x):
        return np.array([[sum(row[: j + 1]) for j in range(len(row))] for row in x])

    def reversed_(g, x):
        return np.cumsum(g[:, ::-1], axis=1)[:, ::-1]

    report = check_vjp(lambda x: x.cumsum(1), reversed_, X, reference=loops)
    assert report.inputs[0].oracles["reference"] > 8
    with pytest.raises(GradientError, match=r"at \(0, 2\) f is .* and the reference"):
        check_vjp(lambda x: x.cumsum(1), reversed_, X, reference=lambda x: loops(x) + (x > 1))


# -- nothing passes for lack of anything to compare


@pytest.mark.parametrize(
    "f, vjp",
    [
        (lambda x: x * 0, lambda g, x: g * 0),
        (np.sign, lambda g, x: np.zeros_like(x)),
        (lambda x: normalise(x).sum(), lambda g, x: normalise_vjp(g * np.ones_like(x), x)),
        (lambda x: normalise(x).sum(), lambda g, x: np.zeros_like(x)),
    ],
    ids=["zero", "sign", "sum of normalised values", "the same, with no gradient at all"],
)
def test_a_comparison_of_nothing_with_nothing_fails(f, vjp):
    with pytest.raises(Vacuous, match="could not have failed"):
        check_vjp(f, vjp, X)
    assert check_vjp(f, vjp, X, zero_gradient=[0]).passed


def test_a_gradient_that_is_declared_zero_must_be_zero():
    with pytest.raises(GradientError, match="declared zero"):
        check_vjp(lambda x: x**3, cube_slope, X, zero_gradient=[0])
    with pytest.raises(GradientError, match="WRONG"):
        check_vjp(np.sign, lambda g, x: g, X, zero_gradient=[0])


def test_no_gradient_is_a_claim_that_it_is_zero():
    with pytest.raises(GradientError, match="WRONG"):
        check_vjp(lambda x, y: x * y, lambda g, x, y: (g * y, None), X, X + 1)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_arrays_without_entries_are_no_evidence_unless_they_are_meant(shape):
    empty = np.zeros(shape)
    with pytest.raises(Vacuous, match="no entries"):
        check_vjp(lambda x: x**3, cube_slope, empty)
    assert check_vjp(lambda x: x**3, cube_slope, empty, allow_empty=True).passed
    with pytest.raises(GradientError, match="a gradient of shape"):
        check_vjp(lambda x: x**3, lambda g, x: np.zeros(3), empty, allow_empty=True)


# -- what a vjp must be by form


FORMS = {
    "not zero": lambda g, x: cube_slope(g, x) + 1e-3,
    "not linear": lambda g, x: cube_slope(g, x) * np.abs(g),
    "modifies its cotangent": lambda g, x: np.multiply(g, 3 * x**2, out=g),
    "modifies input 0": lambda g, x: g * 3 * np.multiply(x, x, out=x),
    "a gradient of shape": lambda g, x: cube_slope(g, x).sum(0),
    "summed over the axes of broadcasting": lambda g, x: np.stack([cube_slope(g, x)] * 2),
    "the gradient of float64 is float32": lambda g, x: cube_slope(g, x).astype(np.float32),
    "returns 2 gradients for 1 inputs": lambda g, x: (cube_slope(g, x), None),
    "two gradients: it is random": lambda g, x: cube_slope(g, x) * rng.uniform(0.9, 1.1),
}


@pytest.mark.parametrize("message", FORMS)
def test_the_form_of_a_vjp_is_checked(message):
    with pytest.raises(GradientError, match=message):
        check_vjp(lambda x: x**3, FORMS[message], X)


def test_float32_that_leaks_into_float64_is_found():
    x = X.astype(np.float32)
    assert check_vjp(lambda x: x**3, cube_slope, x).passed
    with pytest.raises(GradientError, match="the gradient of float32 is float64"):
        check_vjp(lambda x: x**3, lambda g, x: g * 3 * x ** np.full(1, 2.0), x)


def test_a_random_function_must_be_frozen_first():
    with pytest.raises(GradientError, match="freeze its randomness"):
        check_vjp(lambda x: x * rng.random(x.shape), lambda g, x: g, X)


def test_a_function_that_writes_into_its_input_is_told_on():
    def f(x):
        x *= 1.0 + (x.dtype.kind == "f")
        return x * 1

    with pytest.raises(GradientError, match="f modifies its input 0 in place"):
        check_vjp(f, lambda g, x: 2 * g, X.copy())


# -- what cannot be differentiated is refused, with the remedy


def test_labels_are_named_as_constants():
    labels = np.array([0, 2])

    def f(x, labels):
        return x[np.arange(2), labels] ** 2

    def vjp(g, x, labels):
        dx = np.zeros_like(x)
        dx[np.arange(2), labels] = 2 * g * x[np.arange(2), labels]
        return dx, None

    with pytest.raises(TypeError, match=r"input 1 has dtype int64.*wrt=\[0\]"):
        check_vjp(f, vjp, X, labels)
    assert check_vjp(f, vjp, X, labels, wrt=[0]).passed


def test_points_and_functions_that_have_no_derivative_are_refused():
    with pytest.raises(ValueError, match="input 0 holds NaN"):
        check_vjp(lambda x: x**3, cube_slope, np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="not finite at this point"), np.errstate(all="ignore"):
        check_vjp(np.log, lambda g, x: g / x, np.array([1.0, 0.0]))
    with pytest.raises(TypeError, match="f gives int64"):
        check_vjp(lambda x: x.astype(int), lambda g, x: g, X)
    with pytest.raises(TypeError, match="at least one array"):
        check_vjp(lambda: np.ones(3), lambda g: ())
    with pytest.raises(TypeError, match="the first two arguments are functions"):
        check_vjp(np.tanh, np.ones(3))  # type: ignore[arg-type]  # on purpose
    with pytest.raises(TypeError, match="f gives <U32"):
        check_vjp(lambda x: x.astype(str), lambda g, x: g, X)


def test_the_edge_of_a_domain_is_approached_with_smaller_steps():
    x = np.array([1e-3, 1e-4, 2.0])
    assert check_vjp(np.log, lambda g, x: g / x, x).digits > 12
    assert check_vjp(lambda x: np.log(x.real), lambda g, x: g / x, x).digits > 5


def test_a_vjp_that_is_not_a_number_is_wrong():
    with pytest.raises(GradientError, match="NaN"):
        check_vjp(lambda x: x**3, lambda g, x: cube_slope(g, x) * np.nan, X)


# -- tolerances are measured


@pytest.mark.parametrize("dtype, low, high", [("f8", 11, 16), ("f4", 4, 9), ("f2", 1, 5)])
def test_each_precision_is_judged_by_its_own_rounding(dtype, low, high):
    x = normal(6, 3).astype(dtype)
    report = check_vjp(normalise, normalise_vjp, x)
    assert low < report.inputs[0].demanded <= report.digits < high
    factor = np.asarray(1 + 3 * 10 ** -report.inputs[0].demanded, x.dtype)
    with pytest.raises(GradientError):
        check_vjp(normalise, lambda g, x: normalise_vjp(g, x) * factor, x)


def test_digits_lost_to_cancellation_are_no_wrong_gradient():
    """Far out, s (1 - s) has few digits left. They are rounding, and a factor is still found."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def vjp(g, x):
        return g * sigmoid(x) * (1 - sigmoid(x))

    x = np.array([20.0, 21.5, 23.0])
    report = check_vjp(sigmoid, vjp, x)
    assert 5 < report.digits < 10
    with pytest.raises(GradientError):
        check_vjp(sigmoid, lambda g, x: 1.01 * vjp(g, x), x)


def test_an_offset_that_costs_digits_lowers_the_demand():
    def f(x):
        return normalise(x + 1e6)

    report = check_vjp(f, lambda g, x: normalise_vjp(g, x + 1e6), normal(6, 3))
    assert 7 < report.digits < 13


# -- kinks


def relu(x):
    return x * (x > 0)


TIES = np.array([0.0, 1.0, -2.0, 0.0])


@pytest.mark.parametrize("at_zero", [0.0, 0.5, 1.0])
def test_at_a_kink_every_value_between_the_sides_is_right(at_zero):
    report = check_vjp(relu, lambda g, x: g * np.where(x == 0, at_zero, x > 0), TIES)
    assert report.inputs[0].kinks == 2
    assert report.inputs[0].how.startswith("between the one-sided derivatives")


@pytest.mark.parametrize("at_zero", [-0.1, 1.1, np.nan, 5])
def test_at_a_kink_a_value_outside_is_wrong(at_zero):
    with pytest.raises(GradientError, match="not between the one-sided derivatives"):
        check_vjp(relu, lambda g, x: g * np.where(x == 0, at_zero, x > 0), TIES)


def test_a_promised_convention_at_a_kink_is_kept():
    def convention(g, x):
        return g * (x > 0)

    assert check_vjp(relu, convention, TIES, convention=convention).passed
    with pytest.raises(GradientError, match="the documented convention promises"):
        check_vjp(relu, lambda g, x: g * (x >= 0), TIES, convention=convention)


def test_an_error_beside_a_kink_is_not_excused_by_it():
    with pytest.raises(GradientError):
        check_vjp(relu, lambda g, x: g * np.where(x == 1.0, 1.01, x > 0), TIES)


def test_the_whole_cotangent_for_each_of_two_ties_is_wrong_and_half_is_right():
    x = np.array([1.0, 3.0, 3.0])

    def largest(x):
        return np.asarray(np.max(x.real) + 0 * x.sum())

    with pytest.raises(GradientError):
        check_vjp(largest, lambda g, x: g * (x == x.max()), x)
    assert check_vjp(largest, lambda g, x: g * (x == x.max()) / (x == x.max()).sum(), x).passed


@given(st.floats(1e-5, 1e-1))
def test_a_kink_nearby_is_not_a_kink_here(distance):
    x = np.array([distance, -distance, 1.0])
    report = check_vjp(np.abs, lambda g, x: g * np.sign(x), x, raises=False)
    assert report.passed
    assert report.inputs[0].kinks == 0


# -- the report


def test_the_report_is_data():
    with pytest.raises(GradientError) as found:
        check_vjp(lambda x: x**3, lambda g, x: -cube_slope(g, x), X, name="cube")
    data = json.loads(found.value.report.to_json())
    assert data["name"] == "cube"
    assert data["passed"] is False
    assert data["inputs"][0]["verdict"] == "wrong"
    assert data["sentences"] == ["The ratio analytic/numeric is -1 everywhere: the sign is wrong."]
    worst = data["inputs"][0]["worst"]
    assert worst["analytic"] == pytest.approx(-worst["numeric"])


def test_the_script_of_a_report_reproduces_the_failure():
    with pytest.raises(GradientError) as found:
        check_vjp(lambda x: x**3, lambda g, x: 3.01 * g * x**2, X)
    script = found.value.report.script
    assert len(script.splitlines()) <= 20
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the vjp is off by" in done.stderr


def test_a_report_can_be_had_without_an_exception():
    report = check_vjp(lambda x: x**3, lambda g, x: g, X, raises=False)
    assert not report.passed
    assert "FAILED" in str(report)


def test_the_same_seed_gives_the_same_report_and_another_another():
    texts = [str(check_vjp(normalise, normalise_vjp, X, seed=s)) for s in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert check_vjp(normalise, normalise_vjp, X, seed=2).seed == 2


def test_checking_a_vjp_needs_numpy_alone():
    code = (
        "import sys\n"
        "for name in ('hypothesis', 'pytest', 'matplotlib', 'tqdm'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from minibn.testing import check_vjp\n"
        "print(check_vjp(np.tanh, lambda g, x: g * (1 - np.tanh(x)**2), np.ones(3)).passed)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
