"""A convolution and its fused_block in one kernel, against the ops one after another."""

import itertools
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minibn
from minibn import Tensor, grad, nn, ops
from minibn.autograd.dispatch import find_kernel, kernels
from minibn.fast.cpu import im2col, memory, rows, threads, tiling
from minibn.fast.cpu.fused_block import FusedBlockPasses
from minibn.fast.cpu.fused_conv_block import FusedConvBlockKernel
from minibn.fast.cpu.pool import corners
from minibn.fast.fused_ops import FusedConvBlock, fused_block
from minibn.testing.commands.profiles import share
from minibn.testing.strategies import LAYOUTS

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
STEP = 1e-6  # by which inputs are moved to see how much a result depends on their size
MARGIN = 1e-4  # between numbers whose order decides something

# kernels' mode, images, filters, stride, padding, and sizes of blocks
GEOMETRIES = {
    "3x3 in blocks": ("always", (5, 8, 6, 4), (3, 3, 4, 5), 1, 1, {"tiles": 9}),
    "3x3 in stages": ("always", (3, 4, 4, 5), (3, 3, 5, 6), 1, 1, {}),
    "3x3 without padding": ("always", (3, 8, 6, 3), (3, 3, 3, 2), 1, 0, {"tiles": 7}),
    "3x3 with padding 2": ("always", (3, 4, 6, 2), (3, 3, 2, 3), 1, 2, {"group": 20}),
    "3x3 in columns, 3 channels": ("fast", (5, 6, 6, 3), (3, 3, 3, 4), 1, 1, {"columns": 2000}),
    "5x5, stride 2": ("fast", (3, 8, 12, 2), (5, 5, 2, 3), 2, 2, {"columns": 1}),
    "1x1": ("fast", (4, 4, 6, 3), (1, 1, 3, 4), 1, 0, {"block": 150, "columns": 300}),
    "2x3, stride (2, 1)": ("fast", (3, 8, 4, 2), (2, 3, 2, 3), (2, 1), (0, 1), {"row": 7}),
}
COMBINED = [
    (kind, noisy, relu, pool)
    for kind in ("nothing", "shift", "norm")
    for noisy in (False, True)
    for relu, pool in ((False, 0), (True, 0), (True, 2))
]


@contextmanager
def cut(block=1 << 18, row=1 << 14, columns=1 << 18, tiles=256, group=1 << 14, count=1):
    with ExitStack() as stack:
        stack.enter_context(patch.object(rows, "BLOCK", block))
        stack.enter_context(patch.object(rows, "ROW", row))
        stack.enter_context(patch.object(im2col, "BLOCK", columns))
        stack.enter_context(patch.object(tiling, "TILES", tiles))
        stack.enter_context(patch.object(tiling, "GROUP", group))
        stack.enter_context(threads.limit_threads(count))
        yield


class Layer:
    """A layer with inputs in float64, away from its kinks, and a cotangent.

    `noise`, `g` and `inputs` are arrays; the definition's results are worked out once.
    """

    def __init__(
        self, how="3x3 in blocks", kind="norm", noisy=False, relu=True, pool=0, seed=0, N=None,
        gamma=None, beta=None, mean=0.3, filters=1.0,
    ):  # fmt: skip
        self.mode, x_shape, w_shape, stride, padding, self.cuts = GEOMETRIES[how]
        x_shape = (N or x_shape[0], *x_shape[1:])
        self.geometry = {"stride": stride, "padding": padding}
        conv = ops.conv.conv2d_op(np.empty(x_shape), np.empty(w_shape), stride, padding)
        self.conv, self.y_shape, F = conv, conv.y_shape, w_shape[3]
        self.eps, self.relu, self.pool = 1e-3 if kind == "norm" else None, relu, pool
        rng = np.random.default_rng(seed)
        while True:
            x, w = rng.standard_normal(x_shape) + mean, filters * rng.standard_normal(w_shape)
            vectors = {
                "nothing": [],
                "shift": [rng.standard_normal(F)],
                "scale and shift": [rng.standard_normal(F), rng.standard_normal(F)],
                "norm": [rng.uniform(0.5, 2, F) * rng.choice([-1, 1], F), rng.standard_normal(F)],
            }[kind]
            for i, given_one in enumerate((gamma, beta)):
                if given_one is not None:
                    vectors[i] = np.resize(np.array(given_one, float), F)
            self.inputs = [x, w, *vectors]
            self.noise = None
            if noisy:
                self.noise = [1 + rng.random(self.y_shape), rng.standard_normal(self.y_shape)]
            if self._is_away_from_kinks():
                break
        self.g = rng.standard_normal(self.op().compose(*self.inputs).shape)

    def _is_away_from_kinks(self):
        """No number near 0 before a ReLU; in a window, no two near each other above 0. Numbers that
        are exactly so (where gamma = 0) stay so."""
        if not self.relu:
            return True
        before = FusedConvBlock(self.conv, self.eps, self.draw, False, 0)
        z = before.compose(*self.inputs)
        if ((abs(z) < MARGIN) & (z != 0)).any():
            return False
        if not self.pool:
            return True
        pixels = np.sort(corners(z, 2), axis=0)
        gap = pixels[-1] - pixels[-2]
        return bool(((gap > MARGIN) | (gap == 0) | (pixels[-1] < 0)).all())

    @property
    def draw(self):
        if self.noise is None:
            return None
        return lambda x: tuple(a.astype(x.dtype) for a in self.noise)

    def op(self):
        return FusedConvBlock(self.conv, self.eps, self.draw, self.relu, self.pool)

    def settings(self):
        return {
            **self.geometry, "eps": self.eps, "noise": self.draw, "relu": self.relu,
            "pool": self.pool,
        }  # fmt: skip

    def arrays(self):
        return [*self.inputs, self.g, *(self.noise or [])]

    def by_definition(self):
        """[value, *gradients]"""
        op = self.op()
        op.needs_input_grad = (True,) * len(self.inputs)
        with kernels("reference"):
            y = op.forward(*self.inputs)
            return [y, *op.vjp(self.g, y, *self.inputs)]

    def sizes(self):
        """The natural scale of the value and each gradient: its change where every number that goes
        in moves by one part in itself, up or down."""
        expected, rng, kept = self.by_definition(), np.random.default_rng(0), self.arrays()
        sizes = [abs(a).max() for a in expected]
        for _ in range(3):
            moved = [a * (1 + STEP * rng.choice([-1.0, 1.0], a.shape)) for a in kept]
            self._take(moved)
            changed = [
                abs(a - b).max() / STEP for a, b in zip(self.by_definition(), expected, strict=True)
            ]
            sizes = list(map(max, sizes, changed))
        self._take(kept)
        return sizes

    def _take(self, arrays):
        n = len(self.inputs)
        self.inputs, self.g, self.noise = arrays[:n], arrays[n], arrays[n + 1 :] or None

    def kernel(self, dtype=np.float64, keep=True, wants=None, lay=np.asarray):
        """(the kernel after its forward pass, its inputs, y)"""
        inputs = [lay(a.astype(dtype)) for a in self.inputs]
        kernel = FusedConvBlockKernel(self.op())
        assert kernel.fits(kernel.op, *inputs)
        kernel.needs_input_grad, kernel.keep = wants or (True,) * len(inputs), keep
        with kernels(self.mode):
            return kernel, inputs, kernel.forward(*inputs)

    def by_kernel(self, dtype=np.float64, lay=np.asarray, **how):
        """[value, *gradients]"""
        kernel, inputs, y = self.kernel(dtype, lay=lay, **how)
        return [y, *kernel.vjp(lay(self.g.astype(dtype)), y, *inputs)]

    def through_the_op(self, mode, second=False):
        with kernels(mode):
            leaves = [Tensor(a, requires_grad=True) for a in self.inputs]
            x, w, *affine = leaves
            y = fused_block(x, *affine, filters=w, **self.settings())
            slopes = grad(y, leaves, self.g, create_graph=second)
            if second:
                slopes = grad(sum((s * s).sum() for s in slopes), leaves, unused="zeros")
            return [y.data, *(s.data for s in slopes)]


def check(found, layer, dtype=np.float64):
    results = zip(found, layer.by_definition(), layer.sizes(), strict=True)
    for i, (ours, right, size) in enumerate(results):
        if ours is None:  # not wanted
            continue
        assert (ours.shape, ours.dtype) == (right.shape, dtype), i
        error = abs(ours - right).max()
        allowed = TOLERANCE[np.dtype(dtype).name] * size
        assert error <= allowed, f"result {i}: {error:.1e}, in numbers of {size:.1e}"


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def layers(draw):
    kind, noisy, relu, pool = draw(st.sampled_from(COMBINED))
    return Layer(
        draw(st.sampled_from(list(GEOMETRIES))), kind, noisy, relu, pool,
        draw(st.integers(0, 2**32)), draw(st.integers(1, 5)),
    )  # fmt: skip


cuts = st.fixed_dictionaries(
    {
        "block": st.sampled_from([1, 100, 1 << 18]),
        "row": st.sampled_from([1, 12, 1 << 14]),
        "columns": st.sampled_from([1, 2000, 1 << 18]),
        "tiles": st.sampled_from([1, 10, 256]),
        "group": st.sampled_from([1, 50, 1 << 14]),
        "count": st.integers(1, 3),
    }
)


# -- agreement


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("how", GEOMETRIES)
@pytest.mark.parametrize("kind, noisy, relu, pool", COMBINED)
def test_every_combination_agrees_with_the_ops_one_after_another(
    how, kind, noisy, relu, pool, dtype
):
    layer = Layer(how, kind, noisy, relu, pool)
    with cut(**layer.cuts):
        found = layer.by_kernel(dtype)
    check(found, layer, dtype)


@pytest.mark.parametrize("how", GEOMETRIES)
def test_the_geometries_take_the_ways_that_they_are_named_for(how):
    layer = Layer(how)
    with cut(**layer.cuts):
        plan = layer.kernel()[0].plan
    assert (plan is not None) == (layer.mode == "always")
    if "stages" in how or "blocks" in how:
        assert plan.by_blocks == ("blocks" in how)


@settings(max_examples=share(60))
@given(layer=layers(), how=cuts, dtype=st.sampled_from([np.float32, np.float64]))
def test_any_number_of_images_blocks_and_threads_agrees_too(layer, how, dtype):
    with cut(**how):
        found = layer.by_kernel(dtype)
    check(found, layer, dtype)


@pytest.mark.parametrize("how", ["3x3 in blocks", "3x3 in stages", "5x5, stride 2", "1x1"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_inputs_and_cotangent_changes_nothing(layout, how):
    for kind, pool in (("norm", 2), ("shift", 0)):
        layer = Layer(how, kind, noisy=True, pool=pool)
        check(layer.by_kernel(lay=LAYOUTS[layout]), layer)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("gamma, beta", [
    ([0.0, 1.0], [0.3, -0.2]),
    ([0.0], [0.0]),
    ([-2.0, -0.5], [0.3, 1.0]),
    ([0.1, 1.0], [1.0, -2.0]),
    ([1.0, 1.0], [50.0, -50.0]),
])  # fmt: skip
def test_gammas_of_zero_and_below_and_betas_far_above_them_agree(gamma, beta, noisy, relu):
    for pool in (0, 2) if relu else (0,):
        layer = Layer("3x3 in blocks", "norm", noisy, relu, pool, gamma=gamma, beta=beta)
        check(layer.by_kernel(), layer)


def summed_from(layer):
    """Whether the sums of BatchNorm's gradient come from the output."""
    found = []

    def from_output(*arguments):
        found.append(original(*arguments))
        return found[-1]

    original = FusedBlockPasses.from_output
    with patch.object(FusedBlockPasses, "from_output", from_output):
        layer.by_kernel()
    (sums,) = found
    return sums is not None


def test_the_output_serves_for_the_sums_where_it_keeps_the_digits():
    for pool in (0, 2):
        assert summed_from(Layer(pool=pool))
        assert not summed_from(Layer(pool=pool, noisy=True))
        for gamma, beta in (([1, 0], [0]), ([1], [8, 0]), ([-1], [0, -9])):
            assert not summed_from(Layer(pool=pool, gamma=gamma, beta=beta))
        assert summed_from(Layer(pool=pool, gamma=[-1, 1], beta=[7.9, -7.9]))
    assert not summed_from(Layer(relu=False))


@pytest.mark.parametrize("filters", [0.0, 1e-7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filters_next_to_zero_have_gradients_with_all_digits(filters, dtype):
    """Where eps is much larger than the variance, nearly all of a norm's output is beta."""
    layer = Layer("3x3 in stages", gamma=[1, -1], beta=[1, 2], filters=filters)
    assert not summed_from(layer)
    check(layer.by_kernel(dtype), layer, dtype)


@settings(max_examples=share(25))
@given(layer=layers(), how=cuts)
def test_results_do_not_depend_on_what_was_in_the_memory(layer, how):
    """A number that nobody wrote would be NaN here, and a byte no place in a window."""

    def poisoned(shape, dtype=float, waste=0.25):
        dtype = np.dtype(dtype)
        return np.full(shape, {"f": np.nan, "u": 99, "b": True}[dtype.kind], dtype)

    with cut(**how):
        expected = layer.by_kernel()
        with patch.object(memory, "empty", poisoned), patch.object(np, "empty", poisoned):
            found = layer.by_kernel()
    same(found, expected)


# -- what is kept, and what is wanted


@settings(max_examples=share(25))
@given(layer=layers(), how=cuts)
def test_with_and_without_keeping_the_bits_are_the_same(layer, how):
    with cut(**how):
        same(layer.by_kernel(keep=True), layer.by_kernel(keep=False))


@pytest.mark.parametrize("how", ["3x3 in blocks", "3x3 in stages", "5x5, stride 2"])
@pytest.mark.parametrize("kind, pool", [("nothing", 2), ("shift", 0), ("norm", 0), ("norm", 2)])
def test_the_gradients_that_are_wanted_do_not_depend_on_the_others(how, kind, pool):
    layer = Layer(how, kind, noisy=pool == 0, pool=pool)
    n = len(layer.inputs)
    with cut(**layer.cuts, count=2):
        everything = layer.by_kernel()
        for wants in list(itertools.product([True, False], repeat=n))[:-1]:
            y, *found = results = layer.by_kernel(wants=wants)
            same([y], everything[:1])
            assert all(a is not None for a, wanted in zip(found, wants, strict=True) if wanted)
            assert all(
                a is None for a, wanted in zip(found[:2], wants[:2], strict=True) if not wanted
            )
            check(results, layer)


def images_kept(kernel, y):
    """What a kernel keeps of the images beside its result, which is the tape's, too."""
    kept = [*vars(kernel).values(), *vars(kernel.passes).values()]
    kept += getattr(kernel, "saved", ())
    return {(a.shape, a.dtype) for a in kept if isinstance(a, np.ndarray) and a.ndim > 1} - {
        (y.shape, y.dtype)
    }


@pytest.mark.parametrize("how", ["3x3 in blocks", "3x3 in stages", "1x1"])
def test_only_a_norm_keeps_the_convolutions_result_and_only_stages_keep_tiles(how):
    for kind, keep in itertools.product(("nothing", "shift", "norm"), (True, False)):
        layer = Layer(how, kind, pool=2)
        with cut(**layer.cuts):
            kernel, _, y = layer.kernel(keep=keep)
        expected = {(y.shape, np.dtype(np.uint8))}  # where a pooled value came from
        if kind == "norm":
            expected |= {(layer.y_shape, y.dtype)}
        if "stages" in how and keep:
            expected |= {(a.shape, y.dtype) for a in kernel.saved if a is not None}
        assert images_kept(kernel, y) == expected


@pytest.mark.parametrize("wants", [(False, True, True, True), (True, False, True, True)])
def test_tiles_are_kept_for_the_gradient_of_filters_only(wants):
    layer = Layer("3x3 in stages")
    V, U = layer.kernel(wants=wants)[0].saved
    assert (V is not None) == (U is not None) == wants[1]
    assert layer.kernel(wants=(False,) * 4)[0].y is None, "nobody can ask for a gradient"


@pytest.mark.parametrize("mode", ["always", "lean"])
@pytest.mark.parametrize("kind, pool", [("nothing", 2), ("shift", 0), ("norm", 0), ("norm", 2)])
def test_a_second_walk_over_a_retained_graph_gives_the_same_bits(mode, kind, pool, monkeypatch):
    monkeypatch.setattr(FusedConvBlockKernel, "pays", lambda *_: True)
    for how, noisy in (("3x3 in blocks", False), ("3x3 in stages", True), ("1x1", False)):
        layer = Layer(how, kind, noisy, True, pool)
        with kernels(mode):
            leaves = [Tensor(a, requires_grad=True) for a in layer.inputs]
            x, w, *affine = leaves
            y = fused_block(x, *affine, filters=w, **layer.settings())
            assert isinstance(y.node.kernel, FusedConvBlockKernel)
            first = [d.data for d in grad(y, leaves, layer.g, retain_graph=True)]
            same([d.data for d in grad(y, leaves, layer.g)], first)
        check([y.data, *first], layer)


@pytest.mark.parametrize("how", ["3x3 in blocks", "3x3 in stages", "1x1"])
@pytest.mark.parametrize("kind", ["nothing", "shift", "norm"])
def test_a_gradient_does_not_see_another_forward_pass_in_between(how, kind):
    one, other = (Layer(how, kind, kind == "norm", True, 2, seed) for seed in (0, 1))
    with cut(**one.cuts, count=2):
        expected = [one.by_kernel(), other.by_kernel()]
        begun = [layer.kernel() for layer in (one, other)]
        for layer, (kernel, inputs, y), right in zip((one, other), begun, expected, strict=True):
            same([y, *kernel.vjp(layer.g, y, *inputs)], right)


@pytest.mark.parametrize("how", GEOMETRIES)
@pytest.mark.parametrize("kind", ["nothing", "shift", "norm"])
def test_inputs_and_cotangent_may_be_read_only_and_are_not_written_to(how, kind):
    for pool in (0, 2):
        layer = Layer(how, kind, kind == "norm", True, pool)
        before = [a.copy() for a in layer.arrays()]
        for a in layer.arrays():
            a.flags.writeable = False
        kernel, inputs, y = layer.kernel(lay=LAYOUTS["read-only"])
        value = y.copy()
        found = kernel.vjp(layer.g, y, *inputs)
        same([*layer.arrays(), y], [*before, value])
        assert not any(np.shares_memory(a, b) for a in found for b in (*layer.arrays(), y, *inputs))


@settings(max_examples=share(15))
@given(layer=layers(), how=cuts)
def test_a_result_repeats_bit_for_bit_at_one_number_of_threads(layer, how):
    with cut(**how):
        same(layer.by_kernel(), layer.by_kernel())


# -- numbers that are hard


@pytest.mark.parametrize("how", ["3x3 in blocks", "3x3 in stages", "5x5, stride 2", "1x1"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_without_a_norm_a_bad_number_stays_in_its_image(bad, how):
    for kind, pool in itertools.product(("nothing", "shift"), (0, 2)):
        layer = Layer(how, kind, True, True, pool)
        with cut(**layer.cuts), np.errstate(all="ignore"):
            y, dx, *_ = layer.by_kernel()
            layer.inputs[0][1, 1, 2, 0] = bad
            found, slope, *_ = layer.by_kernel()
        others = [i for i in range(len(y)) if i != 1]
        np.testing.assert_array_equal(found[others], y[others])
        np.testing.assert_array_equal(slope[others], dx[others])
        assert not np.array_equal(found[1], y[1])


def test_a_nan_before_a_norm_reaches_every_value_as_in_the_definition():
    layer = Layer("3x3 in blocks", pool=2)
    layer.inputs[0][1, 1, 2, 0] = np.nan
    with np.errstate(all="ignore"):
        found, right = layer.by_kernel(), layer.by_definition()
    assert np.isnan(found[0]).all() and np.isnan(right[0]).all()


@pytest.mark.parametrize("mean", [10.0, 1000.0])
def test_a_norm_keeps_its_digits_under_a_large_mean(mean):
    """In float32, against the definition in float64: of what rounding of y leaves over."""
    layer = Layer("1x1", "norm", pool=2, mean=mean)
    y, expected = layer.by_kernel(np.float32)[0], layer.by_definition()[0]
    conv = ops.conv2d(*map(abs, layer.inputs[:2])) / ops.conv2d(*layer.inputs[:2]).std((0, 1, 2))
    assert abs(y - expected).max() <= 2e-6 * conv.max()


# -- where it does not fit


@pytest.mark.parametrize("kind, side, pool, relu, dtypes", [
    ("norm", 5, 2, True, "dddd"),
    ("norm", 6, 3, True, "dddd"),
    ("norm", 6, 2, False, "dddd"),
    ("scale and shift", 6, 2, True, "dddd"),
    ("norm", 6, 2, True, "dddf"),
    ("norm", 6, 2, True, "fddd"),
    ("norm", 6, 0, True, "gggg"),
    ("shift", 6, 2, True, "eeee"),
])  # fmt: skip
def test_odd_images_other_pools_a_scale_and_dtypes_go_the_separate_way(
    kind, side, pool, relu, dtypes
):
    rng = np.random.default_rng(0)
    shapes = [(3, side, side, 2), (3, 3, 2, 4), *{"shift": 1, "norm": 2}.get(kind, 2) * [(4,)]]
    x, w, *affine = (rng.standard_normal(s).astype(d) for s, d in zip(shapes, dtypes, strict=False))
    how = {"eps": 1e-3 if kind == "norm" else None, "relu": relu, "pool": pool}
    geometry = {"stride": 1, "padding": 1}
    op = FusedConvBlock(
        ops.conv.conv2d_op(x, w, **geometry), how["eps"], None, how["relu"], how["pool"]
    )
    with kernels("always"):
        assert find_kernel(op, [x, w, *affine]) is None
        y = fused_block(x, *affine, filters=w, **geometry, **how)
    with kernels("reference"):
        right = fused_block(x, *affine, filters=w, **geometry, **how)
    assert y.dtype == right.dtype
    tolerance = 1e-2 if "e" in dtypes else 1e-4 if "f" in dtypes else 1e-12
    np.testing.assert_allclose(y, right, rtol=0, atol=tolerance * abs(right).max())


def test_it_pays_for_layers_of_networks_and_not_for_small_ones():
    def pays(images, filters):
        x, w = np.empty(images, "f"), np.empty(filters, "f")
        return FusedConvBlockKernel.pays(
            FusedConvBlock(ops.conv.conv2d_op(x, w, 1, 1), None, None, True, 2), x, w
        )

    assert pays((128, 32, 32, 3), (3, 3, 3, 64))
    assert pays((16, 16, 16, 64), (3, 3, 64, 128))
    assert not pays((2, 4, 4, 3), (3, 3, 3, 8))


# -- behind the op


@settings(max_examples=share(20))
@given(layer=layers())
def test_second_derivatives_are_those_of_the_definition(layer):
    found, expected = (layer.through_the_op(mode, second=True) for mode in ("always", "reference"))
    size = max(abs(a).max() for a in expected)
    for ours, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-10 * size)


@pytest.mark.parametrize("how", GEOMETRIES)
def test_the_moments_that_the_op_returns_are_those_of_the_definition(how):
    layer, results = Layer(how, pool=2), []
    x, w, *affine = layer.inputs
    for mode in ("always", "reference"):
        with kernels(mode), cut(**layer.cuts, count=2):
            results.append(
                fused_block(x, *affine, filters=w, return_moments=True, **layer.settings())
            )
    for ours, right in zip(*results, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-12, atol=1e-12)
        assert ours.dtype == right.dtype


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_equal_with_and_without_the_kernel(momentum):
    states = []
    for mode in ("always", "reference"):
        net = nn.Sequential(
            conv=nn.Conv2d(2, 3, 3, padding=1, bias=False),
            norm=nn.BatchNorm(3, momentum=momentum),
            relu=nn.ReLU(),
            pool=nn.MaxPool2d(),
        ).initialize(0, np.float64)
        with kernels(mode), minibn.profile() as profile:
            for k in range(3):
                net(np.random.default_rng(k).standard_normal((4, 4, 6, 2)) * (k + 1) + k)
        assert any("FusedConvBlockKernel" in row.name for row in profile.rows) == (mode == "always")
        states.append(net.state_dict())
    assert states[0]["norm.batches"] == 3
    for name, ours in states[0].items():
        np.testing.assert_allclose(ours, states[1][name], rtol=1e-12)


def test_where_no_kernel_runs_the_graph_is_that_of_the_ops():
    with minibn.profile() as profile:
        Layer(pool=2).through_the_op("reference")
    names = {row.name for row in profile.rows}
    assert {"Conv2d", "BatchNorm", "Relu", "MaxPool2d"} <= names
    assert not any("FusedBlock" in name for name in names)
