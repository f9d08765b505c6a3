"""l_p norms over the batch in one kernel, against the op."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.norm_kernels import agree, cut, cuts, poisoned_memory, read_only, run, same

from minibn import ops
from minibn.fast.cpu.lp_norm import FusedLpBatchNorm
from minibn.testing.commands.profiles import share
from minibn.testing.strategies import LAYOUTS

ORDERS = (1, 2, math.inf)
VARIANTS = list(itertools.product(ORDERS, (False, True), ("norm_of_mean", "mean_of_norm")))
variants = st.sampled_from(VARIANTS)
shapes = st.one_of(
    st.tuples(st.integers(2, 40), st.integers(1, 7)),
    st.tuples(st.integers(1, 7), st.integers(2, 7), st.integers(1, 7), st.integers(1, 5)),
)


def op(variant, eps=1e-3):
    p, center_first, reduce = variant
    return partial(ops.lp_batch_norm, p=p, eps=eps, center_first=center_first, reduce=reduce)


def arrays(seed, shape):
    """(x, gamma, beta), and a cotangent. Only in precision, not in ties, may float32 differ."""
    rng, C = np.random.default_rng(seed), shape[-1]
    x = (rng.permutation(math.prod(shape)).reshape(shape) + 0.7) / 16
    x = x * rng.choice([-1.0, 1.0], shape)
    return (x, rng.standard_normal(C), rng.standard_normal(C)), rng.standard_normal(shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_agrees_with_the_op(variant, dtype):
    for shape in ((5, 4, 6, 3), (37, 5), (4, 3, 2)):
        inputs, g = arrays(1, shape)
        for how in ({}, {"block": 40, "count": 2}):
            with cut(**how):
                agree(op(variant), inputs, g, FusedLpBatchNorm, dtype)


@settings(max_examples=share(40))
@given(variants, shapes, cuts, st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_ragged_shapes_blocks_and_threads_agree_too(variant, shape, how, seed, dtype):
    with cut(**how):
        agree(op(variant), *arrays(seed, shape), FusedLpBatchNorm, dtype)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ties_and_zeros_get_what_the_op_gives_them_also_across_blocks(variant):
    rng = np.random.default_rng(0)
    x = rng.choice([-3.0, -1.0, 0.0, 3.0], (8, 2, 2, 4))  # 32 a channel: their mean is exact
    x[..., 1], x[..., 2] = 0, 2  # a channel of zeros, and one of a single value
    x[::2, ..., 3] = -x[1::2, ..., 3]  # one with the mean 0
    inputs = (x, rng.standard_normal(4), rng.standard_normal(4))
    g = rng.standard_normal(x.shape)
    f = op(variant, eps=0.1)
    expected = run(f, inputs, g, "reference")
    for how in ({}, {"block": 30, "count": 2}):
        with cut(**how):
            for a, b in zip(run(f, inputs, g, kernel=FusedLpBatchNorm), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("p", ORDERS)
def test_the_layout_of_inputs_and_cotangent_changes_nothing(layout, p):
    inputs, g = arrays(2, (5, 4, 6, 3))
    f, lay = op((p, True, "norm_of_mean")), LAYOUTS[layout]
    found = run(f, [lay(a) for a in inputs], lay(g), kernel=FusedLpBatchNorm)
    same(found, run(f, inputs, g))


@settings(max_examples=share(15))
@given(variants, shapes, cuts)
def test_results_do_not_depend_on_what_was_in_the_memory(variant, shape, how):
    inputs, g = arrays(3, shape)
    with cut(**how):
        expected = run(op(variant), inputs, g)
        with poisoned_memory():
            same(run(op(variant), inputs, g), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_are_read_only_and_unwanted_gradients_change_nothing(variant):
    inputs, g = arrays(4, (6, 3, 3, 2))
    everything = run(op(variant), inputs, g)
    with read_only(*inputs, g):
        found = run(op(variant), inputs, g, wanted=(False, True, True))
        same(found, [everything[0], *everything[2:]])
        same(run(op(variant), inputs, g, wanted=(True, False, False)), everything[:2])


@pytest.mark.parametrize("p", ORDERS)
def test_a_nan_spoils_its_channel_and_no_other(p):
    inputs, g = arrays(5, (6, 3, 3, 2))
    clean = run(op((p, False, "norm_of_mean")), inputs, g)
    inputs[0][2, 1, 1, 0] = np.nan
    spoilt = run(op((p, False, "norm_of_mean")), inputs, g, kernel=FusedLpBatchNorm)
    for a, b in zip(spoilt, clean, strict=True):
        np.testing.assert_array_equal(a[..., 1], b[..., 1])
    assert np.isnan(spoilt[0][..., 0]).all() and np.isnan(spoilt[1][..., 0]).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_large_mean_costs_float32_no_more_digits_than_the_input_has_lost_already(variant):
    inputs, g = arrays(6, (64, 8, 8, 5))
    x = np.random.default_rng(0).standard_normal((64, 8, 8, 5)) + 1000
    agree(op(variant), (x, *inputs[1:]), g, FusedLpBatchNorm, np.float32)


@pytest.mark.parametrize("p", ORDERS)
def test_the_moments_for_the_layer_are_those_of_the_op(p):
    inputs, g = arrays(7, (6, 3, 3, 2))
    f = partial(op((p, True, "mean_of_norm")), return_moments=True)
    moments = []
    for mode in ("always", "reference"):
        run(lambda *v: moments.append(f(*v)) or moments[-1][0], inputs, g, mode)
    for ours, right in zip(moments[0][1:], moments[1][1:], strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-13, atol=1e-13)
