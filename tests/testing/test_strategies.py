"""Strategies of arrays: each covers what it claims, and shrinks to something small.

Every claim is counted over 200 examples, always the same ones, and a share is demanded of it.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coverage import demand, examples, shares, smallest, ties

from minibn.testing import strategies
from minibn.testing.strategies import (
    LAYOUTS,
    SPECIAL,
    TEXTURES,
    Point,
    arrays,
    broadcast_problems,
    conv2d_problems,
    cotangents,
    full_shapes,
    gap_separated,
    layouts,
    nonzero,
    norm_problems,
    points,
    pool_problems,
    positive,
    real,
    shapes,
    with_ties,
    zero_stride_arrays,
)

# -- arrays


def test_arrays_have_negatives_ties_zeros_no_axes_and_no_values():
    claims = {
        "negative": lambda x: (x < 0).any(),
        "zero": lambda x: (x == 0).any(),
        "tie": ties,
        "0-d": lambda x: x.ndim == 0,
        "empty": lambda x: x.size == 0,
        "one value": lambda x: x.size == 1,
        "three axes": lambda x: x.ndim == 3,
        "whole": lambda x: x.size and (x == np.round(x)).all(),
        "not dyadic": lambda x: (x * 4 % 1 != 0).any(),
    }
    drawn = examples(arrays())
    demand(drawn, claims, at_least=0.02)
    heavy = examples(arrays(full_shapes, textures=("heavy",)))
    demand(heavy, {"heavy": lambda x: np.abs(x).max() > 4}, at_least=0.1)
    assert all(type(x) is np.ndarray and x.dtype == float for x in drawn), "a NumPy scalar is none"


def test_full_shapes_have_an_axis_and_no_empty_one():
    assert all(shape and all(shape) for shape in examples(full_shapes))


def test_special_textures_have_what_they_are_named_for():
    rng = np.random.default_rng(0)
    ties_, zeros, tiny, offset, wide = (real(rng, (50,), texture) for texture in SPECIAL)
    assert np.unique(ties_).size == 3
    assert 10 < (zeros == 0).sum() < 40
    assert 10 < (np.abs(tiny) < 1e-4).sum() < 40
    assert (np.abs(offset) > 1e3).all()
    assert offset.std() < 2
    assert np.log10(np.abs(wide)).std() > 5
    with pytest.raises(ValueError, match="'uniform' is unknown"):
        real(rng, (2,), "uniform")


@pytest.mark.parametrize("texture", TEXTURES)
@given(shape=shapes, seed=strategies.seeds)
def test_domains_keep_their_word_for_every_texture(texture, shape, seed):
    rng = np.random.default_rng(seed)
    assert (positive(rng, shape, texture) >= 0.25).all()
    assert (np.abs(nonzero(rng, shape, texture)) >= 0.25).all()
    for gap in (0.001, 0.2, 3.0):
        x = gap_separated(gap)(rng, shape, texture)
        sizes = np.sort(np.abs(x).ravel())
        assert x.shape == tuple(shape)
        assert (np.diff(sizes, prepend=0.0) >= gap * (1 - 1e-12)).all(), "a tie, or nearly"


@given(arrays(domain=with_ties))
def test_with_ties_always_has_a_tie_for_the_maximum_and_a_zero(x):
    if x.size:
        assert (x == 0).any()
    if x.size > 1:
        assert (x == x.max()).sum() > 1 or x.size == 2


def test_signs_of_every_domain_are_mixed():
    for domain in (real, nonzero, gap_separated(), with_ties):
        claims = {"negative": lambda x: (x < 0).any(), "positive": lambda x: (x > 0).any()}
        demand(examples(arrays(full_shapes, domain)), claims, at_least=0.25)


def test_a_point_binds_its_settings_and_leaves_f_alone_where_it_has_none():
    point = Point((np.ones((2, 3)),), {"axis": 1})
    assert point.problem(np.sum).f(*point.inputs).tolist() == [3, 3]
    assert Point((np.ones(2),)).bind(np.sum) is np.sum
    drawn = examples(points(full_shapes, axis=-1, keepdims=st.booleans()), 20)
    assert {p.settings["keepdims"] for p in drawn} == {True, False}


# -- broadcasting


@pytest.mark.parametrize("k", [1, 2, 3])
def test_broadcast_problems_stretch_each_operand_and_the_result_may_be_empty(k):
    drawn = [(p, np.broadcast_shapes(*(x.shape for x in p.inputs))) for p in examples(
        broadcast_problems(k)
    )]  # fmt: skip
    claims = {"empty": lambda d: 0 in d[1], "result 0-d": lambda d: d[1] == ()}
    for i in range(k if k > 1 else 0):
        claims[f"{i} has fewer axes"] = lambda d, i=i: d[0].inputs[i].ndim < len(d[1])
        claims[f"{i} is 0-d, others not"] = lambda d, i=i: d[1] and d[0].inputs[i].ndim == 0
        claims[f"{i} has an axis of 1 that is stretched"] = lambda d, i=i: any(
            n == 1 != m
            for n, m in zip(d[0].inputs[i].shape[::-1], d[1][::-1], strict=False)
        )  # fmt: skip
    demand(drawn, claims, at_least=0.02)
    for point, result in drawn:
        assert (len(point.flat) == k) == (0 in result)


# -- memory


def memory(x):
    return {
        "Fortran": x.flags.f_contiguous and not x.flags.c_contiguous,
        "non-contiguous": not (x.flags.f_contiguous or x.flags.c_contiguous),
        "negative stride": any(s < 0 for s in x.strides),
        "step 2": x.ndim and x.strides[-1] == 2 * x.itemsize,
        "read-only": not x.flags.writeable,
        "stride 0": 0 in x.strides,
    }


def test_layouts_are_of_every_kind_and_never_change_a_value():
    x = np.repeat(np.arange(6.0).reshape(1, 2, 3), 2, axis=0)
    drawn = examples(layouts(x), 60)
    for y in drawn:
        np.testing.assert_array_equal(y, x)
        assert not np.shares_memory(x, y) or not y.flags.writeable
    claims = {name: lambda y, name=name: memory(y)[name] for name in memory(x)}
    assert all(shares(drawn, **claims).values()), shares(drawn, **claims)


@given(arrays(), st.data())
def test_any_array_has_layouts_of_its_own_shape(x, data):
    y = data.draw(layouts(x))
    np.testing.assert_array_equal(y, x)
    assert y.shape == x.shape


def test_a_layout_with_stride_zero_is_offered_only_where_values_repeat():
    assert all(0 not in y.strides for y in examples(layouts(np.arange(6.0).reshape(2, 3)), 60))


@given(zero_stride_arrays())
def test_zero_stride_arrays_have_one_and_cannot_be_written(x):
    assert any(s == 0 and n > 1 for s, n in zip(x.strides, x.shape, strict=True))
    assert not x.flags.writeable


def test_every_layout_takes_arrays_without_axes_and_without_values():
    for way, shape in itertools.product(LAYOUTS.values(), [(), (0,), (2, 0), (1,)]):
        assert way(np.ones(shape)).shape == shape


# -- cotangents


def test_cotangents_have_full_support_both_signs_and_are_never_constant():
    drawn = examples(cotangents((3, 4)))
    for c in drawn:
        assert c.all()
        assert np.unique(c).size == c.size
    demand(drawn, {"both signs": lambda c: (c < 0).any() and (c > 0).any()}, at_least=0.99)
    along_ones = [abs(c.sum()) / np.sqrt(c.size * (c * c).sum()) for c in drawn]
    assert np.mean(along_ones) < 0.4, "a positive direction has a cosine of 0.87 with ones"
    assert examples(cotangents(()), 1)[0].shape == ()


# -- shrinking, and cost


def test_arrays_shrink_to_a_few_small_integers():
    x = smallest(arrays(), lambda x: x.size > 1 and (x < 0).any())
    assert x.size <= 4
    np.testing.assert_array_equal(x, np.round(x))
    assert np.abs(x).max() <= 3
    assert smallest(arrays(), lambda x: True).size <= 1


@pytest.mark.parametrize(
    "strategy",
    [points(), broadcast_problems(), conv2d_problems(), pool_problems(), norm_problems()],
)
def test_the_simplest_problem_is_small_and_has_seed_zero(strategy):
    point = smallest(strategy, lambda p: True)
    assert point.seed == 0
    assert sum(x.size for x in point.inputs) <= 6
    if "eps" not in point.settings:
        assert all((x * 4 == np.round(x * 4)).all() for x in point.inputs)


def test_a_wide_kernel_shrinks_to_the_narrowest_one_that_shows_it():
    point = smallest(conv2d_problems(), lambda p: p.inputs[1].shape[1] > 1)
    assert point.inputs[1].shape == (1, 2, 1, 2)
    assert point.inputs[0].shape == (1, 1, 2, 1)
    assert point.settings == {"stride": (1, 1), "padding": (0, 0)}


def test_nothing_is_drawn_and_thrown_away():
    parts = Path(strategies.__file__).parent.glob("*.py")
    source = "".join(part.read_text(encoding="utf-8") for part in parts)
    assert "def conv2d_problems" in source
    assert "assume(" not in source
    assert ".filter(" not in source


def test_large_arrays_are_drawn_with_all_values_different():
    """Element by element, hypothesis can't draw this shape at all."""
    x = examples(arrays((4, 3, 16, 16), textures=("normal",)), 1)[0]
    assert np.unique(x).size == x.size
