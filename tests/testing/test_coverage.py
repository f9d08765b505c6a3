"""The line that says what many checks covered; the default strategies cover what is promised."""

import numpy as np
import pytest
from hypothesis import given, settings
from support.coverage import demand, examples

from minibn.testing import check_vjp
from minibn.testing.commands.coverage import Coverage, events
from minibn.testing.memory_layouts import LAYOUTS, layout_of
from minibn.testing.strategies import arrays, broadcast_problems, full_shapes, points, shapes


def check(x, **more):
    return check_vjp(
        lambda x: x * x, lambda g, x: 2 * g * x, x, zero_gradient=[0] if not x.any() else (), **more
    )


def test_nothing_was_covered_before_the_first_check():
    assert str(Coverage()) == "covered: nothing"
    assert Coverage().as_data()["magnitudes"] is None


def test_the_line_names_axes_sides_magnitudes_layouts_and_kinks():
    coverage = Coverage()
    for x in (np.array(2e-9), np.ones((2, 0)), np.full((1, 2, 1, 3, 7), 3e5).T):
        coverage.add(check(x, allow_empty=True))
    coverage.add(check_vjp(np.abs, lambda g, x: g * np.sign(x), np.array([0.0, 1.0])))
    assert str(coverage) == (
        "covered: 0-d, empty, up to 5 axes, sides to 7, magnitudes 2e-09 to 3e+05, "
        "layouts C, Fortran, kinks in 1 gradients"
    )
    assert coverage.as_data()["axes"] == [0, 1, 2, 5]


def test_zeros_have_no_magnitude():
    coverage = Coverage()
    coverage.add(check(np.zeros(3)))
    assert str(coverage) == "covered: 1 axis, sides to 3, layouts C"
    assert "magnitude 0 of an input" in events(check(np.zeros(3)))


def test_every_layout_has_a_name():
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    names = [layout_of(way(x)) for way in LAYOUTS.values()]
    assert names == ["C", "Fortran", "reversed", "gapped", "C"]
    assert layout_of(x.transpose(0, 2, 1)) == "of other order"
    assert layout_of(np.broadcast_to(1.0, (2, 3))) == "broadcast"


def log_of_largest(x):
    size = np.abs(x).max(initial=0)
    return np.log10(size) if size else 0.0


@pytest.mark.parametrize("strategy", [arrays(), points(), broadcast_problems()])
def test_default_strategies_draw_tiny_and_huge_numbers_up_to_five_axes_and_sides_to_nine(strategy):
    drawn = [getattr(x, "inputs", (x,)) for x in examples(strategy, 400)]
    claims = {
        "1e-9 and below": lambda inputs: any(log_of_largest(x) <= -9 for x in inputs),
        "1e9 and above": lambda inputs: any(log_of_largest(x) >= 9 for x in inputs),
        "five axes": lambda inputs: any(x.ndim == 5 for x in inputs),
        "four axes": lambda inputs: any(x.ndim == 4 for x in inputs),
        "a side of 7 to 9": lambda inputs: any(n in (7, 8, 9) for x in inputs for n in x.shape),
        "0-d": lambda inputs: any(x.ndim == 0 for x in inputs),
        "empty": lambda inputs: any(x.size == 0 for x in inputs),
    }
    demand(drawn, claims, at_least=0.01)
    assert max(log_of_largest(x) for inputs in drawn for x in inputs) < 13.5
    assert max(x.size for inputs in drawn for x in inputs) <= 144


@pytest.mark.parametrize("strategy", [shapes, full_shapes])
def test_shapes_stay_small(strategy):
    @settings(max_examples=300)
    @given(strategy)
    def look(shape):
        assert np.prod(shape, dtype=int) <= 144
        assert len(shape) <= 5

    look()


@pytest.mark.parametrize(
    "f, vjp",
    [
        (lambda x: 3 * x, lambda g, x: 3 * g),
        (lambda x: x * x, lambda g, x: 2 * g * x),
        (lambda x: x.sum(), lambda g, x: np.full(x.shape, g)),
        (lambda x: x**3, lambda g, x: 3 * g * x**2),
    ],
    ids=["linear", "square", "sum", "cube"],
)
def test_a_right_gradient_passes_at_every_magnitude(f, vjp):
    for power in range(-12, 13):
        x = np.random.default_rng(power + 12).standard_normal((2, 3)) * 10.0**power
        assert check_vjp(f, vjp, x).passed
