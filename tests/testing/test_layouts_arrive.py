"""The memory layout that a strategy draws is the one in which a function and its vjp get it."""

import numpy as np
import pytest
from hypothesis import find, settings

from minibn.testing import Problem, check_vjp
from minibn.testing.checking.layouts import copy_in
from minibn.testing.decorator import gradient_test
from minibn.testing.memory_layouts import LAYOUTS, laid_out_as
from minibn.testing.strategies import Point, arrays, full_shapes, layouts, zero_stride_arrays

SHAPES = [(), (0,), (1,), (5,), (2, 3), (2, 1, 3), (2, 3, 2)]
KINDS = [*LAYOUTS.values(), lambda x: np.broadcast_to(x[..., :1] if x.ndim else x, x.shape)]


def seen(x):
    """What a function sees of a layout: strides in numbers, of the axes that have a second one."""
    strides = [s // x.itemsize for s, n in zip(x.strides, x.shape, strict=True) if n > 1]
    return strides if x.size else [], x.flags.writeable


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_another_precision_keeps_values_and_layout(kind, dtype):
    for shape in SHAPES:
        x = kind(np.random.default_rng(0).standard_normal(shape))
        problem = Problem(np.sum, (x,)).astype(dtype)
        (y,) = problem.inputs
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, x.astype(dtype))
        if x.size:
            assert seen(y) == seen(x)


@pytest.mark.parametrize("kind", KINDS)
def test_points_and_problems_keep_the_array_that_they_get(kind):
    x = kind(np.ones((2, 3)))
    point = Point((x,))
    assert point.inputs[0] is x
    assert point.problem(np.sum).inputs[0] is x
    assert point.problem(np.sum).astype(float).inputs[0] is x


def test_a_field_of_a_record_which_has_no_strides_in_numbers_keeps_its_values():
    x = np.zeros(3, dtype=[("a", "i1"), ("b", "f8")])["b"]
    assert laid_out_as(x.astype(np.float32), x).tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("other", [np.complex128, np.float64, np.float32, np.float16])
def test_a_copy_in_another_dtype_has_the_same_values_and_the_same_layout(kind, dtype, other):
    for shape in SHAPES:
        x = kind(np.random.default_rng(0).standard_normal(shape)).astype(dtype, order="K")
        y = copy_in(x.astype(other), x)
        np.testing.assert_array_equal(y, x.astype(other))
        assert seen(y)[0] == seen(x)[0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_right_gradient_agrees_by_the_complex_step_in_every_layout(kind, dtype):
    x = np.asfortranarray(kind(np.random.default_rng(0).standard_normal((3, 4))).astype(dtype))
    for at in (x, x[::-1], x[:, ::2]):
        (entry,) = check_vjp(np.sin, lambda g, x: g * np.cos(x), at).inputs
        assert entry.how.startswith("complex step")


def strides_of_sum_of_squares(strategy, examples=60):
    """What f and its vjp saw in a gradient test of drawn layouts."""
    of_f, of_vjp = [], []

    def f(x):
        of_f.append((x.shape, seen(x)))
        return (x * x).sum()

    def vjp(g, x):
        of_vjp.append((x.shape, seen(x)))
        return 2 * g * x

    drawn = []

    @gradient_test(strategy, f=f, vjp=vjp, examples=examples)
    def test(problem):
        drawn.append((problem.inputs[0].shape, seen(problem.inputs[0])))

    test()
    return drawn, of_f, of_vjp


@pytest.mark.parametrize(
    "strategy",
    [arrays(full_shapes, textures=("normal",)).flatmap(layouts), zero_stride_arrays()],
)
@pytest.mark.parametrize("who", [1, 2], ids=["f", "vjp"])
def test_a_layout_that_is_drawn_arrives(strategy, who):
    drawn, *asked = strides_of_sum_of_squares(strategy)
    several = [layout for layout in drawn if np.prod(layout[0]) > 1]
    assert len({str(layout) for layout in several}) > 5
    missing = [layout for layout in several if layout not in asked[who - 1]]
    assert not missing


def test_a_vjp_that_reads_memory_in_its_order_is_found_with_layouts():
    def wrong(g, x):
        return g * 2 * x.ravel("K").reshape(x.shape)

    shapes = arrays((2, 3), textures=("normal",))

    @gradient_test(shapes.flatmap(layouts), f=lambda x: x * x, vjp=wrong, examples=40)
    def test(problem):
        pass

    with pytest.raises(AssertionError, match="FAILED"):
        test()


def test_every_layout_is_drawn_soon():
    x = np.arange(6.0).reshape(2, 3)
    quick = settings(max_examples=200, derandomize=True, database=None)
    for way in LAYOUTS.values():
        find(layouts(x), lambda y, way=way: seen(y) == seen(way(x)), settings=quick)
