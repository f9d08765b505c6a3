"""Norms of each example in one kernel, against the ops."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.norm_kernels import agree, cut, cuts, poisoned_memory, read_only, run, same

from minibn import ops
from minibn.fast.cpu import layer_norm
from minibn.fast.cpu.layer_norm import FusedExampleNorm, Layout
from minibn.testing.commands.profiles import share
from minibn.testing.strategies import LAYOUTS

EPS = 1e-3
NORMS = {
    "layer": partial(ops.layer_norm, axes="example", eps=EPS),
    "group": partial(ops.group_norm, groups=2, eps=EPS),
    "instance": partial(ops.instance_norm, eps=EPS),
    "rms": partial(ops.rms_norm, axes="example", eps=EPS),
}
norms = st.sampled_from(list(NORMS))
shapes = st.tuples(
    st.integers(1, 9), st.integers(2, 7), st.integers(1, 7), st.sampled_from([2, 4, 6])
)


def arrays(seed, shape, norm):
    rng, C = np.random.default_rng(seed), shape[-1]
    inputs = (3 * rng.standard_normal(shape) + 1, rng.standard_normal(C), rng.standard_normal(C))
    return inputs[: 2 if norm == "rms" else 3], rng.standard_normal(shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_agrees_with_its_op(norm, dtype):
    for shape in ((5, 4, 6, 4), (9, 7, 2), (3, 2, 1, 8), (2, 2, 2, 3, 4)):
        for how in ({}, {"block": 40, "count": 2}):
            with cut(**how):
                agree(NORMS[norm], *arrays(1, shape, norm), FusedExampleNorm, dtype)


@settings(max_examples=share(40))
@given(norms, shapes, cuts, st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_ragged_shapes_blocks_and_threads_agree_too(norm, shape, how, seed, dtype):
    with cut(**how):
        agree(NORMS[norm], *arrays(seed, shape, norm), FusedExampleNorm, dtype)


@pytest.mark.parametrize("row", [1, 6, 4096])
def test_the_length_of_rows_changes_nothing_but_rounding(row, monkeypatch):
    monkeypatch.setattr(layer_norm, "ROW", row)
    for norm in NORMS:
        agree(NORMS[norm], *arrays(2, (3, 4, 6, 2), norm), FusedExampleNorm)


def test_vectors_are_normalised_by_layer_and_group_norm():
    for norm in ("layer", "group", "rms"):
        agree(NORMS[norm], *arrays(3, (5, 12), norm), FusedExampleNorm)


@pytest.mark.parametrize("shape, axes, vector", [
    ((4, 3, 3, 6), (3,), (6,)),           # each pixel by itself
    ((4, 3, 3, 6), (0, 1, 2), (6,)),      # filters, or a batch
    ((4, 3, 3, 6), (1, 2, 3), (3, 3, 6)), # a gamma for each feature
    ((4, 3, 3, 2, 3), (1, 2, 4), (6,)),
    ((0, 3, 3, 6), (1, 2, 3), (6,)),
])  # fmt: skip
def test_other_axes_and_vectors_are_left_to_the_definition(shape, axes, vector):
    assert Layout.of(shape, axes, vector) is None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_layout_of_inputs_and_cotangent_changes_nothing(layout, norm):
    inputs, g = arrays(4, (5, 4, 6, 4), norm)
    lay = LAYOUTS[layout]
    found = run(NORMS[norm], [lay(a) for a in inputs], lay(g), kernel=FusedExampleNorm)
    same(found, run(NORMS[norm], inputs, g))


@settings(max_examples=share(15))
@given(norms, shapes, cuts)
def test_results_do_not_depend_on_what_was_in_the_memory(norm, shape, how):
    inputs, g = arrays(5, shape, norm)
    with cut(**how):
        expected = run(NORMS[norm], inputs, g)
        with poisoned_memory():
            same(run(NORMS[norm], inputs, g), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_inputs_are_read_only_and_unwanted_gradients_change_nothing(norm):
    inputs, g = arrays(6, (6, 3, 3, 4), norm)
    everything = run(NORMS[norm], inputs, g)
    rest = (True,) * (len(inputs) - 1)
    with read_only(*inputs, g):
        same(run(NORMS[norm], inputs, g, wanted=(False, *rest)), [everything[0], *everything[2:]])
        only_x = run(NORMS[norm], inputs, g, wanted=(True, *(not w for w in rest)))
        same(only_x, everything[:2])


@pytest.mark.parametrize("norm", NORMS)
def test_a_nan_spoils_its_example_and_no_other(norm):
    inputs, g = arrays(7, (6, 3, 3, 4), norm)
    clean = run(NORMS[norm], inputs, g)
    inputs[0][2, 1, 1, 0] = np.nan
    spoilt = run(NORMS[norm], inputs, g, kernel=FusedExampleNorm)
    others = np.arange(6) != 2
    for a, b in zip(spoilt[:2], clean[:2], strict=True):
        np.testing.assert_array_equal(a[others], b[others])
        assert np.isnan(a[2, ..., 0]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_large_mean_costs_float32_no_more_digits_than_the_input_has_lost_already(norm):
    inputs, g = arrays(8, (16, 8, 8, 6), norm)
    agree(NORMS[norm], (inputs[0] + 1000, *inputs[1:]), g, FusedExampleNorm, np.float32)
