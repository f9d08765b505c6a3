"""Winograd's convolution against its definition: value and both gradients, however it is cut."""

from contextlib import ExitStack, contextmanager
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minibn
from minibn import Tensor, grad, ops
from minibn.autograd.dispatch import find_kernel, kernels
from minibn.fast.cpu import memory, threads, tiling, winograd
from minibn.fast.cpu.conv import WinogradConv2d, WinogradInputGrad, WinogradWeightGrad
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.testing.commands.profiles import share
from minibn.testing.strategies import LAYOUTS

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # of the largest conv(|x|, |w|)
SCHEMES = winograd.schemes(np.dtype(float))


def laid_out(x, how):
    """The same numbers, elsewhere in memory."""
    return np.asarray(LAYOUTS[how](x), x.dtype) if how != "every second value" else spread(x)


def spread(x):
    """Every second channel of a larger array, between NaN."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


@st.composite
def problems(draw, dtypes=("float32", "float64"), most=(5, 13, 9, 5)):
    """(op, x, w, g): a convolution of 3×3 filters, its inputs and a cotangent, in any layout."""
    N, C, F = draw(st.integers(1, most[0])), draw(st.integers(1, 5)), draw(st.integers(1, most[3]))
    padding = draw(st.tuples(*2 * [st.integers(0, 2)]))
    H, W = (
        draw(st.integers(max(1, 3 - 2 * p), n)) for p, n in zip(padding, most[1:], strict=False)
    )
    op = Conv2d((1, 1), padding, (N, H, W, C), (3, 3, C, F))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(dtypes))
    arrays = (rng.standard_normal(s).astype(dtype) for s in (op.x_shape, op.w_shape, op.y_shape))
    return op, *(laid_out(a, draw(st.sampled_from(sorted(LAYOUTS)))) for a in arrays)


@contextmanager
def cut(tiles=256, group=256, filters=3 << 20, count=1, m=2):
    """Blocks of so many tiles, or with filters=0 stages; so many threads; tiles of m×m outputs."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(tiling.Plan, "_cost", lambda self, s, _: abs(s.m - m)))
        for name, size in (("TILES", tiles), ("GROUP", group), ("FILTERS", filters)):
            stack.enter_context(patch.object(tiling, name, size))
        stack.enter_context(threads.limit_threads(count))
        yield


cuts = st.fixed_dictionaries(
    {
        "tiles": st.sampled_from([1, 7, 256]),
        "group": st.sampled_from([1, 5, 256]),
        "filters": st.sampled_from([0, 3 << 20]),
        "count": st.integers(1, 3),
        "m": st.sampled_from([4, 2]),
    }
)


def by_kernel(op, x, w, g, wants=(True, True), keep=True, kernel=None):
    """y, dx, dw"""
    kernel = kernel or WinogradConv2d(op)
    assert kernel.fits(op, x, w)
    kernel.needs_input_grad, kernel.keep = wants, keep
    y = kernel.forward(x, w)
    return y, *kernel.vjp(g, y, x, w)


def by_definition(op, x, w, g):
    three = (Conv2d, (x, w)), (Conv2dInputGrad, (g, w)), (Conv2dWeightGrad, (x, g))
    return [Op(*op.settings).forward(*inputs) for Op, inputs in three]


def check(found, op, x, w, g, dtype=None):
    """Elementwise within the tolerance of the largest that the sizes of the inputs give."""
    exact = by_definition(op, *(a.astype(np.float64) for a in (x, w, g)))
    sizes = by_definition(op, *(np.abs(a.astype(np.float64)) for a in (x, w, g)))
    for name, ours, right, size in zip(("y", "dx", "dw"), found, exact, sizes, strict=True):
        if ours is not None:
            assert ours.shape == right.shape and ours.dtype == (dtype or x.dtype), name
            error = np.abs(ours - right).max() / size.max()
            assert error <= TOLERANCE[x.dtype.name], f"{name}: {error:.1e}"


def some(shape=(3, 6, 5, 3), F=4, padding=(1, 1), dtype="float32", seed=0):
    op = Conv2d((1, 1), padding, shape, (3, 3, shape[3], F))
    rng = np.random.default_rng(seed)
    return op, *(rng.standard_normal(s).astype(dtype) for s in (shape, op.w_shape, op.y_shape))


# -- agreement


@settings(max_examples=share(60))
@given(problem=problems(), how=cuts)
def test_value_and_both_gradients_agree_with_the_definition(problem, how):
    op, x, w, g = problem
    with cut(**how):
        check(by_kernel(op, x, w, g), op, x, w, g)


@settings(max_examples=share(15))
@given(problem=problems(dtypes=("float32",), most=(2, 40, 40, 40)), how=cuts)
def test_larger_images_and_more_filters_agree_too(problem, how):
    op, x, w, g = problem
    with cut(**how):
        check(by_kernel(op, x, w, g), op, x, w, g)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scheme, side, m", [("4x4", 8, 4), ("2x2", 8, 2), ("pair", 2, 4)])
def test_many_channels_and_tiles_stay_within_the_tolerance(dtype, scheme, side, m):
    op, x, w, g = some((9, side, side, 160), 96, dtype=dtype)
    with cut(m=m):
        kernel = WinogradConv2d(op)
        check(by_kernel(op, x, w, g, kernel=kernel), op, x, w, g)
        np.testing.assert_array_equal(kernel.plan.s.At, SCHEMES[scheme].At.astype(dtype))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("m", [4, 2])
def test_an_offset_under_filters_that_sum_to_zero_stays_within_the_tolerance(dtype, m):
    op, x, w, g = some((4, 12, 12, 8), 8, dtype=dtype)
    x, w = x + x.dtype.type(1e3), w - w.mean((0, 1, 2))
    with cut(m=m):
        check(by_kernel(op, x, w, g), op, x, w, g)


def test_large_batches_of_large_images_get_large_tiles_and_others_small_ones():
    for shape, m in (((32, 16, 16, 8), 4), ((1, 4, 4, 8), 2), ((32, 3, 3, 8), 2)):
        plan = tiling.Plan(Conv2d((1, 1), (1, 1), shape, (3, 3, 8, 8)), np.dtype(np.float32))
        assert plan.s.m == m, shape


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 2), (0, 2), (4, 3)])
@pytest.mark.parametrize("broadcast", ["x", "w", "g"])
def test_strides_of_zero_change_nothing(padding, broadcast):
    op, x, w, g = some(padding=padding)
    x, w, g = (
        np.broadcast_to(a[:1, :, :1], a.shape) if name == broadcast else a
        for name, a in zip("xwg", (x, w, g), strict=True)
    )
    check(by_kernel(op, x, w, g), op, x, w, g)


@settings(max_examples=share(20))
@given(problem=problems(), how=cuts)
def test_results_do_not_depend_on_what_was_in_the_memory(problem, how):
    """A number that nobody wrote would be NaN here."""

    def poisoned(shape, dtype, waste=0.25):
        return np.full(shape, np.nan, dtype)

    op, x, w, g = problem
    with cut(**how):
        expected = by_kernel(op, x, w, g)
        with patch.object(memory, "empty", poisoned):
            found = by_kernel(op, x, w, g)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# -- one gradient, one twice, and what is kept


def kept_by(kernel):
    """The arrays that it holds, by themselves or in a tuple."""
    held = list(vars(kernel).values())
    held += [v for several in held if isinstance(several, tuple) for v in several]
    return [a for a in held if isinstance(a, np.ndarray)]


@pytest.mark.parametrize("filters", [0, 3 << 20])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("wants", [(True, False), (False, True), (False, False)])
def test_only_the_wanted_gradients_are_computed_and_they_are_the_same(wants, keep, filters):
    op, x, w, g = some()
    with cut(tiles=4, filters=filters):
        both = by_kernel(op, x, w, g)
        found = by_kernel(op, x, w, g, wants, keep)
    for wanted, ours, right in zip((True, *wants), found, both, strict=True):
        if wanted:
            np.testing.assert_array_equal(ours, right)
        else:
            assert ours is None


@pytest.mark.parametrize("filters", [0, 3 << 20])
@pytest.mark.parametrize("later", [(True, False), (False, True)])
def test_a_walk_to_one_input_of_a_graph_that_wants_both(later, filters):
    """What was kept for the other gradient must not get in the way."""
    _, x, w, g = some()
    with kernels("always"), cut(tiles=4, filters=filters):
        leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
        y = ops.conv2d(*leaves, padding=1)
        assert isinstance(y.node.kernel, WinogradConv2d)
        both = grad(y, leaves, g, retain_graph=True)
        i = later.index(True)
        np.testing.assert_array_equal(grad(y, leaves[i], g).data, both[i].data)


@settings(max_examples=share(15))
@given(problem=problems(), how=cuts)
def test_tiles_that_were_kept_and_tiles_computed_again_give_the_same_bits(problem, how):
    op, x, w, g = problem
    with cut(**how):
        for a, b in zip(by_kernel(op, x, w, g), by_kernel(op, x, w, g, keep=False), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("filters", [0, 3 << 20])
@pytest.mark.parametrize("mode", ["always", "lean"])
def test_a_second_walk_over_a_retained_graph_gives_the_same_bits(mode, filters, monkeypatch):
    monkeypatch.setattr(WinogradConv2d, "pays", lambda *_: True)
    _, x, w, g = some()
    with kernels(mode), cut(tiles=4, filters=filters):
        leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
        y = ops.conv2d(*leaves, padding=1)
        assert bool(kept_by(y.node.kernel)) == (mode == "always" and filters == 0)
        first = grad(y, leaves, g, retain_graph=True)
        for a, b in zip(grad(y, leaves, 2 * g, retain_graph=True), first, strict=True):
            np.testing.assert_array_equal(a.data, 2 * b.data)  # 2 is exact
        for a, b in zip(grad(y, leaves, g), first, strict=True):
            np.testing.assert_array_equal(a.data, b.data)


def test_nothing_is_kept_when_no_filter_gradient_can_follow():
    op, x, w, g = some()
    for wants in ((True, False), (False, False)):
        kernel = WinogradConv2d(op)
        by_kernel(op, x, w, g, wants, keep=True, kernel=kernel)
        assert not kept_by(kernel)


# -- purity


@pytest.mark.parametrize("filters", [0, 3 << 20])
@pytest.mark.parametrize("shape", [(3, 6, 5, 3), (4, 2, 2, 3), (2, 8, 8, 2)])
def test_inputs_and_cotangent_may_be_read_only_and_are_not_written_to(shape, filters):
    op, x, w, g = some(shape)
    for a in (x, w, g):
        a.flags.writeable = False
    before = [a.copy() for a in (x, w, g)]
    with cut(tiles=4, filters=filters):
        found = by_kernel(op, x, w, g)
    for a, b in zip((x, w, g), before, strict=True):
        np.testing.assert_array_equal(a, b)
    for a in found:
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in (x, w, g))


# -- threads


@settings(max_examples=share(20))
@given(problem=problems(), how=cuts)
def test_a_result_repeats_bit_for_bit_at_one_number_of_threads(problem, how):
    op, x, w, g = problem
    with cut(**how):
        for a, b in zip(by_kernel(op, x, w, g), by_kernel(op, x, w, g), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("filters", [0, 3 << 20])
def test_another_number_of_threads_changes_rounding_only(filters, dtype):
    op, x, w, g = some((7, 9, 6, 5), 7, dtype=dtype)
    results = []
    for count in (1, 2, 3, 5):
        with cut(tiles=12, filters=filters, count=count):
            results.append(by_kernel(op, x, w, g))
            check(results[-1], op, x, w, g)
    sizes = by_definition(op, *(np.abs(a) for a in (x, w, g)))
    for other in results[1:]:
        for a, b, size in zip(other, results[0], sizes, strict=True):
            assert np.abs(a - b).max() <= TOLERANCE[dtype] * size.max()


def test_threads_may_change_between_the_passes():
    op, x, w, g = some((7, 9, 6, 5), 7)
    for filters in (0, 3 << 20):
        kernel = WinogradConv2d(op)
        kernel.needs_input_grad, kernel.keep = (True, True), True
        with cut(tiles=12, filters=filters, count=3):
            y = kernel.forward(x, w)
        with cut(tiles=5, filters=3 << 20, count=2):
            check((y, *kernel.vjp(g, y, x, w)), op, x, w, g)


def test_a_gradient_with_respect_to_all_three_agrees_through_the_adjoint_ops():
    for op, x, w, g in (some(), some(padding=(0, 2), dtype="float64")):
        for Kernel, Op, inputs in (
            (WinogradInputGrad, Conv2dInputGrad, (g, w)),
            (WinogradWeightGrad, Conv2dWeightGrad, (x, g)),
        ):
            other = Op(*op.settings)
            kernel = Kernel(other)
            assert isinstance(find_always(other, inputs), Kernel)
            exact, size = other.forward(*inputs), other.forward(*map(np.abs, inputs)).max()
            assert np.abs(kernel.forward(*inputs) - exact).max() <= TOLERANCE[x.dtype.name] * size


def find_always(op, inputs):
    with kernels("always"):
        return find_kernel(op, list(inputs))


# -- where it does not fit, and unusual values


@pytest.mark.parametrize(
    "change",
    [
        {"x_shape": (0, 6, 5, 3)},
        {"w_shape": (3, 2, 3, 4)},
        {"stride": (1, 2)},
        {"dtype": np.float16},
        {"dtype": np.complex64},
        {"other": np.float64},
        {"dtype": np.int64},
    ],
    ids=str,
)
def test_it_does_not_fit_empty_batches_other_filters_strides_and_dtypes(change):
    of = {"x_shape": (2, 6, 5, 3), "w_shape": (3, 3, 3, 4), "stride": (1, 1), "dtype": np.float32}
    of |= change
    op = Conv2d(of["stride"], (1, 1), of["x_shape"], of["w_shape"])
    x, w = np.ones(op.x_shape, of["dtype"]), np.ones(op.w_shape, of.get("other", of["dtype"]))
    assert not WinogradConv2d.fits(op, x, w)
    with kernels("always"):
        y = ops.conv2d(x, w, stride=of["stride"], padding=1)
    np.testing.assert_array_equal(y, op.forward(x, w))


def test_an_empty_batch_has_gradients_of_zeros():
    x, w = Tensor(np.ones((0, 4, 4, 2)), requires_grad=True), Tensor(np.ones((3, 3, 2, 2)), True)
    with kernels("always"):
        y = ops.conv2d(x, w, padding=1)
        dx, dw = grad(y, (x, w), np.ones(y.shape))
    assert dx.shape == x.shape
    assert not dw.data.any()


def test_a_cotangent_of_another_dtype_gets_the_definition():
    op, x, w, g = some()
    kernel = WinogradConv2d(op)
    kernel.needs_input_grad, kernel.keep = (True, True), True
    y = kernel.forward(x, w)
    found = kernel.vjp(g.astype(np.float64), y, x, w)
    for ours, right in zip(found, by_definition(op, x, w, g)[1:], strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-4)


def test_another_byte_order_gives_the_same_numbers():
    _, x, w, _ = some()
    with kernels("always"):
        expected = ops.conv2d(x, w, padding=1)
        y = ops.conv2d(x.astype(">f4"), w.astype(">f4"), padding=1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert y.dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("filters", [0, 3 << 20])
def test_a_bad_number_in_one_image_stays_in_that_image(bad, filters):
    op, x, w, g = some((5, 7, 6, 3))
    with cut(tiles=4, filters=filters, count=2), np.errstate(invalid="ignore"):
        y = by_kernel(op, x, w, g)[0]
        x[2, 3, 3, 1] = bad
        found = by_kernel(op, x, w, g, (False, False))[0]
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(found[others], y[others])
    assert not np.isfinite(found[2, 2:5, 2:5]).any()


def test_it_is_the_first_choice_and_profile_says_so():
    _, x, w, g = some()
    leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
    with kernels("always"), minibn.profile() as profile:
        grad(ops.conv2d(*leaves, padding=1), leaves, g)
    rows = {(row.name, row.phase) for row in profile.rows}
    assert {("Conv2d (WinogradConv2d)", "forward"), ("Conv2d (WinogradConv2d)", "backward")} <= rows


def test_second_derivatives_are_those_of_the_definition():
    _, x, w, _ = some(dtype="float64")

    def second(mode):
        with kernels(mode):
            leaves = [Tensor(a, requires_grad=True) for a in (x, w)]
            slopes = grad((ops.conv2d(*leaves, padding=1) ** 3).sum(), leaves, create_graph=True)
            return [h.data for h in grad(sum((s * s).sum() for s in slopes), leaves)]

    for ours, right in zip(second("always"), second("reference"), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-11, atol=1e-11 * np.abs(right).max())


# -- the mathematics


points = st.lists(st.fractions(-3, 3, max_denominator=2), min_size=2, max_size=4, unique=True).map(
    lambda others: (0, *(p for p in others if p))
)


@given(points, st.data())
def test_cook_tooms_scheme_is_the_filter_for_any_points(points, data):
    m = len(points) - 1
    if m < 1:
        return
    s = winograd.cook_toom(m, points)
    numbers = st.integers(-9, 9)
    d, g = ([data.draw(numbers) for _ in range(k)] for k in (m + 2, 3))
    exact = [float(sum(Fraction(d[i + k]) * g[k] for k in range(3))) for i in range(m)]
    terms = np.abs(s.At) @ ((np.abs(s.G) @ np.abs(g)) * (np.abs(s.Bt) @ np.abs(d)))
    found = s.At @ ((s.G @ g) * (s.Bt @ d))
    assert (np.abs(found - exact) <= 1e-13 * (terms + 1)).all()


@pytest.mark.parametrize("name", ["4x4", "2x2"])
def test_the_schemes_in_use_are_the_filter_with_overlaps_of_weight_one(name):
    s, rng = SCHEMES[name], np.random.default_rng(0)
    assert s.overlap and s.n == s.m + 2
    for _ in range(20):
        d, g = rng.standard_normal(s.n), rng.standard_normal(3)
        np.testing.assert_allclose(
            s.At @ ((s.G @ g) * (s.Bt @ d)), np.correlate(d, g, "valid"), atol=1e-13
        )
    np.testing.assert_allclose(s.Bt[:, 0], np.eye(s.n)[0], atol=1e-15)
    np.testing.assert_allclose(s.Bt[:, -1], np.eye(s.n)[-1], atol=1e-15)


def test_the_pair_is_the_filter_between_zeros():
    s, rng = SCHEMES["pair"], np.random.default_rng(0)
    assert not s.overlap
    for _ in range(20):
        d, g = rng.standard_normal(2), rng.standard_normal(3)
        expected = np.correlate(np.pad(d, 1), g, "valid")
        np.testing.assert_allclose(s.At @ ((s.G @ g) * (s.Bt @ d)), expected, atol=1e-13)


def transforms(s, b, th, tw, C, rng):
    """(T, its adjoint, x's shape, y's shape) of the two transforms of tiles."""
    m, n, border = s.m, s.n, int(s.overlap)
    image, tiles = (b, m * th, m * tw, C), (n, n, b, th, tw, C)

    def run(f, x, shape, rows):
        y = np.full(shape, np.nan)
        f(s, x, y, np.full((b, rows, n, tw, C), np.nan))
        return y

    def bordered(x):
        return np.pad(x, ((0, 0), (border,) * 2, (border,) * 2, (0, 0)))

    more, rows = m * th + 2 * border, m * th
    yield (
        lambda x: run(winograd.input_tiles, bordered(x), tiles, more),
        lambda V: run(winograd.input_tiles_adjoint, V, image, rows),
        image,
        tiles,
    )
    yield (
        lambda M: run(winograd.output_tiles, M, image, rows),
        lambda y: run(winograd.output_tiles_adjoint, y, tiles, rows),
        tiles,
        image,
    )


@pytest.mark.parametrize("name", SCHEMES)
@given(st.tuples(*4 * [st.integers(1, 3)]), st.integers(0, 2**32))
def test_each_transform_of_tiles_has_its_adjoint(name, sizes, seed):
    s, rng = SCHEMES[name], np.random.default_rng(seed)
    if name == "pair":
        sizes = (sizes[0], 1, 1, sizes[3])
    for T, adjoint, x_shape, y_shape in transforms(s, *sizes, rng):
        x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
        image, back = T(x), adjoint(y)
        size = np.abs(image * y).sum() + np.abs(x * back).sum()
        assert abs((image * y).sum() - (x * back).sum()) <= 1e-13 * size


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_the_transform_of_filters_has_its_adjoint(C, F, seed):
    rng = np.random.default_rng(seed)
    plan = tiling.Plan(Conv2d((1, 1), (1, 1), (2, 5, 5, C), (3, 3, C, F)), np.dtype(float))
    w, dU = rng.standard_normal((3, 3, C, F)), rng.standard_normal((plan.products, C, F))
    U, back = np.full_like(dU, np.nan), np.full_like(w, np.nan)
    for rows in (slice(0, C // 2), slice(C // 2, C)):  # as two threads share them
        tiling.transform_filters(plan, w, U, rows)
        tiling.gather_filters(plan, dU, back, rows)
    size = np.abs(U * dU).sum() + np.abs(w * back).sum()
    assert abs((U * dU).sum() - (w * back).sum()) <= 1e-13 * size
