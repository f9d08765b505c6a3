"""Norm or bias, noise, ReLU and pooling in one kernel, against the ops one after another."""

import itertools
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suite.registry.fused_blocks import AFFINE, apart, undo
from support.norm_kernels import cut, cuts

import minibn
from minibn import Tensor, grad, nn, ops
from minibn.autograd.dispatch import find_kernel, kernels
from minibn.fast.cpu import memory
from minibn.fast.cpu.fused_block import FusedBlockKernel
from minibn.fast.cpu.rows import Rows, moments
from minibn.fast.fused_ops import FusedBlock, fused_block
from minibn.testing.commands.profiles import share
from minibn.testing.strategies import LAYOUTS

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
SHAPES = st.one_of(
    st.tuples(st.integers(2, 40), st.integers(1, 7)),
    st.tuples(st.integers(1, 9), st.integers(2, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 7), st.integers(2, 7), st.integers(1, 7), st.integers(1, 5)),
)
POOLED = st.tuples(*(st.integers(1, n) for n in (7, 3, 3, 5))).map(
    lambda s: (s[0], 2 * s[1], 2 * s[2], s[3])
)


class Problem:
    """An fused_block with inputs in float64, away from its kinks, and a cotangent."""

    def __init__(self, seed, shape, kind="norm", noisy=False, relu=True, pool=0, eps=1e-3):
        rng = np.random.default_rng(seed)
        z = apart(rng, shape, "normal")
        self.noise = (1 + rng.random(shape), rng.standard_normal(shape)) if noisy else None
        self.settings = (eps if kind == "norm" else None, relu, pool)
        self.inputs = undo(z, rng, kind, self.noise, eps)
        self.g = rng.standard_normal(ops.max_pool2d(z, pool).shape if pool else shape)

    def op(self, dtype=np.float64, draws=None):
        def noise(x):
            if draws is not None:
                draws.append(1)
            return tuple(a.astype(dtype) for a in self.noise)

        eps, relu, pool = self.settings
        return FusedBlock(eps, noise if self.noise else None, relu, pool)

    def sizes(self):
        """The natural scale of the value and of each gradient: what is added up, in size."""
        (x, *affine), (eps, _, pool) = self.inputs, self.settings
        rows = x.reshape(-1, x.shape[-1])
        s, m = (1.0, 0.0) if self.noise is None else self.noise
        scale, shift, mean = np.ones(1), np.zeros(1), np.zeros(1)
        sigma = np.ones(1)
        if eps is not None:
            mean, sigma = rows.mean(0), np.sqrt(rows.var(0) + eps)
            scale, shift = affine[0] / sigma, affine[1]
        elif affine:
            scale = affine[0] if len(affine) == 2 else scale
            shift = affine[-1]
        reach = (np.abs(x) + np.abs(mean)) / sigma  # what x̂ is made of
        value = (reach * np.abs(scale * sigma) + np.abs(shift)) * np.abs(s) + np.abs(m)
        g = np.abs(self.g).max() * np.abs(s).max()
        through = g * np.abs(scale).max() * (1 + (eps is not None) * (1 + reach.max() ** 2))
        per_channel = g * len(rows) / (4 if pool else 1)
        sums = {2: [per_channel * reach.max(), per_channel], 1: [per_channel], 0: []}[len(affine)]
        return [value.max(), through, *sums]


@st.composite
def problems(draw, **fixed):
    pool = draw(st.sampled_from([0, 2]))
    relu = bool(pool) or draw(st.booleans())
    shape = draw(POOLED if pool else SHAPES)
    if shape[0] == 1 and np.prod(shape[:-1]) < 3:
        shape = (3, *shape[1:])
    return Problem(
        draw(st.integers(0, 2**32)),
        shape,
        draw(st.sampled_from(AFFINE)),
        draw(st.booleans()),
        relu,
        pool,
        draw(st.sampled_from([1e-1, 1e-5])),
    )


def by_kernel(problem, dtype=np.float64, keep=True, wants=None, layout=None, draws=None):
    """(value, *gradients)"""
    lay = (lambda a: a) if layout is None else lambda a: LAYOUTS[layout](a).astype(dtype, "K")
    inputs = [lay(a.astype(dtype)) for a in problem.inputs]
    op = problem.op(dtype, draws)
    assert FusedBlockKernel.fits(op, *inputs)
    kernel = FusedBlockKernel(op)
    kernel.needs_input_grad, kernel.keep = wants or (True,) * len(inputs), keep
    y = kernel.forward(*inputs)
    return y, *kernel.vjp(lay(problem.g.astype(dtype)), y, *inputs)


def by_definition(problem):
    op = problem.op()
    op.needs_input_grad = (True,) * len(problem.inputs)
    with kernels("reference"):
        y = op.forward(*problem.inputs)
        return y, *op.vjp(problem.g, y, *problem.inputs)


def check(found, problem, dtype=np.float64):
    expected = by_definition(problem)
    for i, (a, b, size) in enumerate(zip(found, expected, problem.sizes(), strict=True)):
        assert (a.shape, a.dtype) == (b.shape, dtype), i
        error = np.abs(a - b).max() / size
        assert error <= TOLERANCE[np.dtype(dtype).name], f"result {i}: {error:.1e} of {size:.1e}"


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# -- agreement


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind, noisy, relu, pool", [
    (kind, noisy, relu, pool)
    for kind, noisy, relu, pool in itertools.product(AFFINE, (False, True), (False, True), (0, 2))
    if relu or not pool
])  # fmt: skip
def test_every_combination_agrees_with_the_ops_one_after_another(kind, noisy, relu, pool, dtype):
    for shape in ((5, 4, 6, 3), (7, 2, 2, 1)) if pool else ((5, 4, 6, 3), (37, 5), (4, 3, 2)):
        problem = Problem(1, shape, kind, noisy, relu, pool)
        for how in ({}, {"block": 40, "count": 2}):
            with cut(**how):
                check(by_kernel(problem, dtype), problem, dtype)


@settings(max_examples=share(60))
@given(problem=problems(), how=cuts, dtype=st.sampled_from([np.float32, np.float64]))
def test_ragged_shapes_blocks_and_threads_agree_too(problem, how, dtype):
    with cut(**how):
        check(by_kernel(problem, dtype), problem, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape, pool", [((5, 4, 6, 3), 2), ((9, 3), 0)])
def test_the_layout_of_inputs_and_cotangent_changes_nothing(layout, shape, pool):
    problem = Problem(2, shape, noisy=True, pool=pool)
    check(by_kernel(problem, layout=layout), problem)


def test_strides_of_zero_change_nothing():
    x = np.broadcast_to(np.linspace(-1, 2, 6).reshape(6, 1, 1, 1), (6, 4, 4, 3))
    g, v = np.broadcast_to(0.5, (6, 2, 2, 3)), np.broadcast_to(1.5, 3)

    def run(*arrays, mode):
        with kernels(mode):
            leaves = [Tensor(a, requires_grad=True) for a in arrays[1:]]
            y = fused_block(*leaves, eps=1e-3, relu=True, pool=2)
            return [y.data, *(d.data for d in grad(y, leaves, arrays[0]))]

    for a, b in zip(run(g, x, v, v, mode="always"), run(g, x, v, v, mode="reference"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@settings(max_examples=share(20))
@given(problem=problems(), how=cuts)
def test_results_do_not_depend_on_what_was_in_the_memory(problem, how):
    """A number that nobody wrote would be NaN here, and a byte no place in a window."""

    def poisoned(shape, dtype, waste=0.25):
        return np.full(shape, 99 if dtype == np.uint8 else np.nan, dtype)

    with cut(**how):
        expected = by_kernel(problem)
        with patch.object(memory, "empty", poisoned):
            same(by_kernel(problem), expected)


# -- what is kept, and what is wanted


@settings(max_examples=share(20))
@given(problem=problems(), how=cuts)
def test_noise_that_was_kept_and_noise_drawn_again_give_the_same_bits(problem, how):
    kept, again = [], []
    with cut(**how):
        same(by_kernel(problem, draws=kept), by_kernel(problem, keep=False, draws=again))
    assert (len(kept), len(again)) == ((1, 2) if problem.noise else (0, 0))


@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("pool", [0, 2])
def test_the_gradients_that_are_wanted_do_not_depend_on_the_others(kind, pool):
    problem = Problem(3, (3, 4, 4, 2), kind, True, True, pool)
    everything = by_kernel(problem)
    n = len(problem.inputs)
    for wants in list(itertools.product([True, False], repeat=n))[:-1]:
        y, *found = by_kernel(problem, wants=wants)
        same([y], everything[:1])
        for wanted, ours, right in zip(wants, found, everything[1:], strict=True):
            if wanted:
                np.testing.assert_array_equal(ours, right)


def kept(kernel):
    """The arrays of images that a kernel keeps, itself or in its passes."""
    found = []
    for a in (*vars(kernel).values(), *vars(kernel.passes).values()):
        found += [a] if isinstance(a, np.ndarray) else []
        found += [v for v in a if isinstance(v, np.ndarray)] if isinstance(a, tuple) else []
    return [a for a in found if a.ndim > 1]


@pytest.mark.parametrize("pool", [0, 2])
def test_only_a_byte_a_pooled_value_is_kept(pool):
    problem = Problem(3, (3, 4, 4, 2), "norm", False, True, pool)
    kernel = FusedBlockKernel(problem.op())
    kernel.needs_input_grad = (True, True, True)
    y = kernel.forward(*problem.inputs)
    arrays = [a for a in kept(kernel) if a is not y]  # y is the tape's, and its memory is shared
    assert [(a.dtype, a.shape) for a in arrays] == ([(np.uint8, y.shape)] if pool else [])


@pytest.mark.parametrize("mode", ["always", "lean"])
def test_a_second_walk_over_a_retained_graph_gives_the_same_bits(mode, monkeypatch):
    monkeypatch.setattr(FusedBlockKernel, "pays", lambda *_: True)
    problem = Problem(3, (3, 4, 4, 2), "norm", True, True, 2)
    eps, relu, pool = problem.settings
    with kernels(mode):
        leaves = [Tensor(a, requires_grad=True) for a in problem.inputs]
        y = fused_block(*leaves, eps=eps, noise=problem.op().noise, relu=relu, pool=pool)
        assert isinstance(y.node.kernel, FusedBlockKernel)
        first = [d.data for d in grad(y, leaves, problem.g, retain_graph=True)]
        same([d.data for d in grad(y, leaves, problem.g)], first)


@pytest.mark.parametrize("kind", AFFINE)
def test_inputs_and_cotangent_may_be_read_only_and_are_not_written_to(kind):
    for shape, pool in (((3, 4, 4, 2), 2), ((9, 3), 0)):
        problem = Problem(4, shape, kind, True, True, pool)
        arrays = [*problem.inputs, problem.g, *problem.noise]
        before = [a.copy() for a in arrays]
        for a in arrays:
            a.flags.writeable = False
        found = by_kernel(problem, layout=None)
        same(arrays, before)
        assert not any(np.shares_memory(a, b) for a in found for b in arrays)


@settings(max_examples=share(15))
@given(problem=problems(), how=cuts)
def test_a_result_repeats_bit_for_bit_at_one_number_of_threads(problem, how):
    with cut(**how):
        same(by_kernel(problem), by_kernel(problem))


# -- numbers that are hard


def with_mean(mean, shape=(64, 8, 8, 5), seed=0):
    x = (np.random.default_rng(seed).standard_normal(shape) + mean).astype(np.float32)
    rows = x.astype(float).reshape(-1, shape[-1])
    return x, rows.mean(0), rows.var(0)


@pytest.mark.parametrize("block", [100, 5000, 1 << 18])
@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_moments_keep_their_digits_under_a_large_mean(mean, block):
    x, exact, variance = with_mean(mean)
    with cut(block=block, count=2):
        found, spread = moments(Rows(x.shape), x)
    assert np.abs(found - exact).max() <= 1e-6
    np.testing.assert_allclose(spread, variance, rtol=1e-5)


@pytest.mark.parametrize("shape", [(65537, 3), (4099, 1), (99991, 2), (16, 16, 16, 64)])
def test_moments_of_many_values_in_awkward_numbers_keep_their_digits(shape):
    x, exact, variance = with_mean(3.0, shape)
    found, spread = moments(Rows(x.shape), x)
    assert np.abs(found - exact).max() <= 1e-6
    np.testing.assert_allclose(spread, variance, rtol=4e-5)


@settings(max_examples=share(25))
@given(SHAPES, cuts, st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32))
def test_moments_are_those_of_the_op(shape, how, dtype, seed):
    x = (np.random.default_rng(seed).standard_normal(shape) * 3 + 1).astype(dtype)
    with cut(**how):
        found = moments(Rows(x.shape), x)
    for ours, right in zip(found, ops.moments(x.astype(float)), strict=True):
        np.testing.assert_allclose(ours, right, rtol=0, atol=20 * TOLERANCE[np.dtype(dtype).name])


def test_a_constant_channel_has_variance_zero_and_finite_gradients():
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    x[:, 1] = 1234.567
    _, variance = moments(Rows(x.shape), x)
    assert abs(variance[1]) <= 1e-9
    with kernels("always"):
        leaves = [Tensor(a, requires_grad=True) for a in (x, np.ones(3, "f"), np.ones(3, "f"))]
        y = fused_block(*leaves, eps=1e-5)
        slopes = grad(y, leaves, x)
    rounded = 1.2e-7 * 1234.567 / 1e-5**0.5  # x · scale loses that much, and shift takes it back
    np.testing.assert_allclose(y.data[:, 1], 1, atol=rounded)
    assert all(np.isfinite(s.data).all() for s in slopes)


@pytest.mark.parametrize("gamma", [[0.0, 1.0], [-2.0, 0.0], [-1.0, -0.5]])
@pytest.mark.parametrize("pool", [0, 2])
def test_gammas_of_zero_and_below_agree(gamma, pool):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((3, 4, 4, 2)), np.array(gamma), np.array([0.3, -0.2])

    def run(mode):
        with kernels(mode):
            leaves = [Tensor(a, requires_grad=True) for a in inputs]
            y = fused_block(*leaves, eps=1e-5, relu=True, pool=pool)
            g = np.cos(np.arange(y.size)).reshape(y.shape)
            return [y.data, *(d.data for d in grad(y, leaves, g))]

    for ours, right in zip(run("always"), run("reference"), strict=True):
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["norm", "scale and shift"])
@pytest.mark.parametrize("pool", [0, 2])
def test_a_bad_number_stays_in_its_channel(bad, kind, pool):
    problem = Problem(5, (4, 4, 4, 3), kind, False, True, pool)
    right = by_kernel(problem)
    problem.inputs[0][1, 2, 3, 1] = bad
    with np.errstate(all="ignore"):
        found = by_kernel(problem)
    for ours, before in zip(found, right, strict=True):
        np.testing.assert_array_equal(ours[..., [0, 2]], before[..., [0, 2]])
    if kind == "norm":
        assert np.isnan(found[0][..., 1]).all()


def test_ties_in_windows_go_to_the_first_and_zeros_to_nobody():
    x = np.zeros((2, 2, 2, 3))
    x[0, :, :, 0] = [[1, 1], [1, 1]]
    x[0, :, :, 1] = [[-1, 2], [2, 0]]
    x[0, :, :, 2] = [[-1, -1], [-2, 3]]
    x[1, :, :, 0] = [[-1, -2], [-1, -2]]
    x[1, :, :, 1] = [[0, 0], [4, 4]]
    problem = Problem(0, x.shape, "nothing", pool=2)
    problem.inputs, problem.g = (x,), 1 + np.arange(6.0).reshape(2, 1, 1, 3)
    y, dx = by_kernel(problem)
    np.testing.assert_array_equal(y[:, 0, 0], [[1, 2, 3], [0, 4, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 1], [[0, 2], [0, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 2], [[0, 0], [0, 3]])
    np.testing.assert_array_equal(dx[1, :, :, 0], np.zeros((2, 2)))
    np.testing.assert_array_equal(dx[1, :, :, 1], [[0, 0], [5, 0]])
    same((y, dx), by_definition(problem))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_infinite_cotangent_stays_in_its_window(bad):
    problem = Problem(6, (2, 4, 4, 2), "shift", pool=2)
    problem.g[0, 0, 0, 0] = bad
    problem.g[1, 1, 0, 1] = -bad
    with np.errstate(invalid="ignore"):
        found, expected = by_kernel(problem)[1], by_definition(problem)[1]
    reached = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found)[0, 2:], reached[0, 2:])
    np.testing.assert_array_equal(np.isfinite(found)[0, :2, 2:], reached[0, :2, 2:])


# -- where it does not fit


@pytest.mark.parametrize(
    "shape, settings, dtypes",
    [
        ((2, 5, 4, 3), {"relu": True, "pool": 2}, "ddd"),
        ((2, 6, 6, 3), {"relu": True, "pool": 3}, "ddd"),
        ((2, 4, 4, 3), {"pool": 2}, "ddd"),
        ((4, 3), {"relu": True}, "dff"),
        ((4, 3), {"relu": True}, "eee"),
        ((4, 3), {"relu": True}, "DDD"),
        ((0, 3), {"relu": True}, "ddd"),
    ],
    ids=str,
)
def test_odd_images_other_pools_and_dtypes_get_the_ops_themselves(shape, settings, dtypes):
    rng = np.random.default_rng(0)
    x, scale, shift = (
        rng.standard_normal(s).astype(d) for s, d in zip((shape, 3, 3), dtypes, strict=True)
    )
    op = FusedBlock(None, None, settings.get("relu", False), settings.get("pool", 0))
    with kernels("always"):
        assert find_kernel(op, [x, scale, shift]) is None
        y = fused_block(x, scale, shift, **settings)
    np.testing.assert_array_equal(y, op.compose(x, scale, shift))


def test_another_byte_order_gets_the_ops_themselves():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(">f4")
    with kernels("always"):
        assert fused_block(x, relu=True).dtype == np.float32


# -- behind the op


def through_the_op(problem, mode, second=False):
    eps, relu, pool = problem.settings
    with kernels(mode):
        leaves = [Tensor(a, requires_grad=True) for a in problem.inputs]
        y = fused_block(*leaves, eps=eps, noise=problem.op().noise, relu=relu, pool=pool)
        slopes = grad(y, leaves, problem.g, create_graph=second)
        if second:
            slopes = grad(sum((s * s).sum() for s in slopes), leaves, unused="zeros")
        return [y.data, *(s.data for s in slopes)]


@settings(max_examples=share(25))
@given(problem=problems())
def test_second_derivatives_are_those_of_the_definition(problem):
    modes = ("always", "reference")
    found, expected = (through_the_op(problem, mode, second=True) for mode in modes)
    for ours, right in zip(found, expected, strict=True):
        size = np.abs(right).max() + np.abs(problem.inputs[0]).max() + 1
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-9 * size)


def test_the_moments_that_the_op_returns_are_those_of_the_definition():
    problem = Problem(8, (5, 4, 4, 3))
    results = []
    for mode in ("always", "reference"):
        with kernels(mode):
            y, *rest = fused_block(*problem.inputs, eps=1e-3, relu=True, return_moments=True)
            results.append((y, *rest))
    for ours, right in zip(*results, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-12, atol=1e-12)
        assert ours.dtype == right.dtype


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_equal_with_and_without_the_kernel(momentum):
    states = []
    for mode in ("always", "reference"):
        net = nn.Sequential(norm=nn.BatchNorm(3, momentum=momentum), relu=nn.ReLU())
        net.initialize(0, np.float64)
        with kernels(mode):
            for k in range(3):
                net(np.random.default_rng(k).standard_normal((4, 4, 4, 3)) * (k + 1) + k)
        states.append(net.state_dict())
    assert states[0]["norm.batches"] == 3
    for name, ours in states[0].items():
        np.testing.assert_allclose(ours, states[1][name], rtol=1e-13)


def test_profile_says_that_it_ran():
    problem = Problem(9, (3, 4, 4, 2), pool=2)
    with minibn.profile() as profile:
        through_the_op(problem, "always")
    rows = {(row.name, row.phase) for row in profile.rows}
    assert {("FusedBlock (FusedBlockKernel)", phase) for phase in ("forward", "backward")} <= rows


def test_where_no_kernel_runs_the_graph_is_that_of_the_ops():
    problem = Problem(9, (3, 4, 4, 2), pool=2)
    with minibn.profile() as profile:
        through_the_op(problem, "reference")
    names = {row.name for row in profile.rows}
    assert {"BatchNorm", "Relu", "MaxPool2d"} <= names
    assert not any("FusedBlock" in name for name in names)
