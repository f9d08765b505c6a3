"""Norm or bias, noise, ReLU and pooling as CUDA kernels, against the ops one after another."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda import on_cuda, orders

from minibn import Tensor, grad, nn, ops
from minibn.backend import to_numpy
from minibn.backend.cuda.epilogue import DRAWN, FusedBatchNorm, FusedEpilogue
from minibn.backend.cuda.scalars import Scalars, reading
from minibn.backend.kernels import find, kernels
from minibn.backend.strict import count_transfers
from minibn.ops.epilogue import Epilogue
from minibn.ops.norm import BatchNorm
from minibn.random import NoiseDraws
from minibn.testing.commands.profiles import share
from minibn.testing.registry.epilogues import AFFINE, apart, undone

TOLERANCE = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-12}
CHANNELS = (1, 3, 8, 10, 64, 130)
DRAWS = NoiseDraws(0xB0A7 << 90, 3, 0.5, 1.25, 0.1, 0.1)
NOISES = ("none", "arrays", "draws")


class Problem:
    """An epilogue with inputs in float64, away from its kinks, and a cotangent."""

    def __init__(self, seed, shape, kind="norm", noise="none", relu=True, pool=0, offset=0.0):
        rng = np.random.default_rng(seed)
        z = apart(rng, shape, "normal")
        drawn = None if noise == "none" else DRAWS(z)
        self.eps, self.relu, self.pool = 1e-3 if kind == "norm" else None, relu, pool
        x, *self.affine = undone(z, rng, kind, drawn, self.eps or 0)
        self.noise, self.x = noise, x + offset
        y = ops.max_pool2d(z, pool) if pool else z
        self.g = rng.standard_normal(y.shape)

    def op(self):
        noise = {"none": None, "draws": DRAWS, "arrays": lambda x: DRAWS(x)}[self.noise]
        return Epilogue(self.eps, noise, self.relu, self.pool)

    def by_kernel(self, backend, dtype, wants=None, poison=True):
        """(kernel, [value, *gradients]); what is not written shows as NaN."""
        inputs = [backend.asarray(a, dtype=dtype) for a in (self.x, *self.affine)]
        op, g = self.op(), backend.asarray(self.g, dtype=dtype)
        assert FusedEpilogue.fits(op, *inputs)
        kernel = FusedEpilogue(op)
        kernel.wants = wants or (True,) * len(inputs)
        with poisoned(backend):
            y = kernel.forward(*inputs)
            return kernel, [y, *kernel.vjp(g, y, *inputs)]

    def by_definition(self):
        op, inputs = self.op(), (self.x, *self.affine)
        op.wants = (True,) * len(inputs)
        with kernels("reference"):
            y = op.forward(*inputs)
            return [y, *op.vjp(self.g, y, *inputs)]

    def sizes(self):
        """What each result is made of, in size: the value, x̄, and each vector's gradient."""
        (_, *affine), rows = (self.x, *self.affine), self.x.reshape(-1, self.x.shape[-1])
        scale, reach = 1.0, np.abs(rows).max()
        if self.eps is not None:
            sigma = np.sqrt(rows.var(0) + self.eps)
            reach = (np.abs(rows - rows.mean(0)) / sigma).max()
            scale = (np.abs(affine[0]) / sigma).max()
            value = (np.abs(affine[0]) * reach + np.abs(affine[1])).max()
        else:
            scale = np.abs(affine[0]).max() if len(affine) == 2 else 1.0
            value = scale * reach + max([np.abs(a).max() for a in affine], default=0)
        factor = 1 if self.noise == "none" else 2
        g = np.abs(self.g).max() * factor
        through = g * scale * (1 + reach**2 if self.eps is not None else 1)
        sums = [g * len(rows) * reach, g * len(rows)]
        return [factor * value + 1, through, *sums[2 - len(affine) :]]

    def check(self, backend, dtype):
        kernel, found = self.by_kernel(backend, dtype)
        expected = self.by_definition()
        for i, (a, b, size) in enumerate(zip(found, expected, self.sizes(), strict=True)):
            assert a.dtype == dtype and a.shape == b.shape, i
            error = np.abs(to_numpy(a) - b).max() / size
            assert error <= TOLERANCE[np.dtype(dtype)], f"result {i}: {error:.1e} of {size:.1e}"
        return kernel


class poisoned:
    """Inside, `xp.empty` of the backend gives NaN, so that what no thread writes shows."""

    def __init__(self, backend):
        self.xp, self.patch = backend.xp, pytest.MonkeyPatch()

    def __enter__(self):
        def empty(shape, dtype=np.float64):
            return self.xp.full(shape, np.nan, dtype)

        self.patch.setattr(self.xp, "empty", empty)

    def __exit__(self, *error):
        self.patch.undo()


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# -- agreement


@on_cuda
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", AFFINE)
def test_every_combination_agrees_with_the_ops_one_after_another(backend, kind, noise, dtype):
    for relu, pool in itertools.product((False, True), (0, 2)):
        for shape in ((2, 4, 6, 8), (3, 2, 4, 3)):
            Problem(1, shape, kind, noise, relu, pool).check(backend, dtype)


@on_cuda
@settings(max_examples=share(25))
@given(
    seed=st.integers(0, 2**32),
    lead=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    C=st.sampled_from(CHANNELS),
    kind=st.sampled_from(AFFINE),
    noise=st.sampled_from(NOISES),
    relu=st.booleans(),
    pool=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_drawn_shapes_agree_too(backend, seed, lead, C, kind, noise, relu, pool, dtype):
    pool = pool and len(lead) == 3
    if pool:
        lead = [lead[0], *(2 * (1 + n // 3) for n in lead[1:])]
    if np.prod(lead) < 3:
        lead[0] = 3
    Problem(seed, (*lead, C), kind, noise, relu, 2 * pool).check(backend, dtype)


@on_cuda
@pytest.mark.parametrize(
    "shape",
    [(40, 1028), (300, 260), (2100, 8), (1030, 3), (600, 12)],
    ids=["many channels", "channels in one step", "many rows", "odd rows", "chunks with a rest"],
)
def test_activations_of_many_blocks_agree(backend, shape):
    Problem(2, shape, "norm", "draws").check(backend, np.float32)


@on_cuda
@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("pool", [0, 2])
def test_threads_in_any_order_give_the_same_bits(backend, kind, noise, pool):
    for shape in ((2, 4, 6, 8), (3, 2, 4, 3)):
        problem = Problem(3, shape, kind, noise, True, pool)

        def compute(problem=problem):
            return [to_numpy(a) for a in problem.by_kernel(backend, np.float32)[1]]

        first, *others = orders(backend, compute)
        for other in others:
            same(other, first)


@on_cuda
def test_nothing_waits_for_the_device(backend):
    problem = Problem(4, (2, 4, 4, 8), "norm", "draws", True, 2)
    leaves = [Tensor(backend.asarray(a), requires_grad=True) for a in (problem.x, *problem.affine)]
    g = backend.asarray(problem.g)
    with count_transfers() as count:
        y = ops.epilogue(*leaves, eps=1e-3, noise=DRAWS, relu=True, pool=2)
        assert isinstance(y.node.kernel, FusedEpilogue)
        grad(y, leaves, g)
    assert count.n == 0, count.names


@on_cuda
@pytest.mark.parametrize(
    "kind, wants", [("norm", (0, 1, 1)), ("shift", (0, 1)), ("norm", (1, 0, 0))]
)
@pytest.mark.parametrize("noise", NOISES)
def test_an_input_gradient_that_nobody_wants_is_not_made(backend, kind, wants, noise):
    problem = Problem(5, (2, 4, 4, 8), kind, noise, True, 2)
    _, (_, *full) = problem.by_kernel(backend, np.float32)
    _, (_, *found) = problem.by_kernel(backend, np.float32, tuple(map(bool, wants)))
    for a, b, wanted in zip(found, full, wants, strict=True):
        if wanted:
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    assert wants[0] or found[0] is None


@on_cuda
def test_views_with_gaps_and_odd_addresses_agree(backend):
    problem = Problem(6, (4, 4, 4, 8), "norm", "none", True, 2)
    kernel = FusedEpilogue(problem.op())
    kernel.wants = (True,) * 3
    x, g = (backend.asarray(a, dtype=np.float32) for a in (problem.x, problem.g))
    affine = [backend.asarray(a, dtype=np.float32) for a in problem.affine]
    expected = [to_numpy(a) for a in problem.by_kernel(backend, np.float32)[1]]
    for odd in (lambda a: backend.xp.stack([a, a], axis=-1)[..., 0], lambda a: shifted(backend, a)):
        y = kernel.forward(odd(x), *map(odd, affine))
        same(map(to_numpy, (y, *kernel.vjp(odd(g), y, odd(x), *affine))), expected)


def shifted(backend, a):
    """The same values one place further on in memory."""
    flat = backend.xp.empty(a.size + 1, a.dtype)
    flat[1:] = a.reshape(-1)
    return flat[1:].reshape(a.shape)


# -- digits


@on_cuda
@pytest.mark.parametrize("noise", ["none", "draws"])
def test_a_large_offset_costs_no_more_digits_than_the_definition_loses(backend, noise):
    problem = Problem(7, (8, 8, 8, 4), "norm", noise, False, 0, offset=1e3)
    problem.x = problem.x.astype(np.float32).astype(np.float64)
    exact = problem.by_definition()
    _, found = problem.by_kernel(backend, np.float32)
    op = problem.op()
    op.wants = (True,) * 3
    single = [a.astype(np.float32) for a in (problem.x, *problem.affine)]
    with kernels("reference"):
        y = op.forward(*single)
        definition = [y, *op.vjp(problem.g.astype(np.float32), y, *single)]
    for ours, theirs, right, size in zip(found, definition, exact, problem.sizes(), strict=True):
        error, allowed = (np.abs(a - right).max() for a in (to_numpy(ours), theirs))
        assert error <= max(allowed, 1e-6 * size)


@on_cuda
@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_moments_keep_their_digits_under_a_large_mean(backend, mean):
    x = (np.random.default_rng(0).standard_normal((3000, 3)) + mean).astype(np.float32)
    op = BatchNorm(1e-5)
    ones = backend.asarray(np.ones(3, np.float32))
    FusedBatchNorm(op).forward(backend.asarray(x), ones, ones)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(to_numpy(op.mean), wide.mean(0), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(to_numpy(op.var), wide.var(0), rtol=2e-6)


@on_cuda
def test_gradients_keep_their_digits_under_a_large_mean(backend):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2000, 4)) + 1e3).astype(np.float32)
    x_hat = (x - x.mean(0, np.float64)) / x.std(0, dtype=np.float64)
    g = (1 + x_hat + rng.standard_normal(x.shape)).astype(np.float32)  # both sums are large
    problem = Problem(0, (2, 4), relu=False)
    problem.x, problem.g, problem.affine = (
        x.astype(np.float64),
        g.astype(np.float64),
        [np.ones(4)] * 2,
    )
    y, dx, *sums = (to_numpy(a) for a in problem.by_kernel(backend, np.float32)[1])
    exact_y, exact_dx, *exact_sums = problem.by_definition()
    np.testing.assert_allclose(y, exact_y, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dx, exact_dx, rtol=0, atol=4e-6)
    np.testing.assert_allclose(sums, exact_sums, rtol=2e-6)


@on_cuda
def test_a_first_row_far_from_the_others_costs_the_variance_no_digits(backend):
    x = np.random.default_rng(0).standard_normal((4000, 4)).astype(np.float32)
    x[0] = 100
    op = BatchNorm(1e-5)
    ones = backend.asarray(np.ones(4, np.float32))
    FusedBatchNorm(op).forward(backend.asarray(x), ones, ones)
    np.testing.assert_allclose(to_numpy(op.var), x.astype(np.float64).var(0), rtol=2e-6)


@on_cuda
def test_a_constant_channel_has_variance_zero_and_finite_gradients(backend):
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    x[:, 1] = 1234.567
    leaves = [Tensor(backend.asarray(a), requires_grad=True) for a in (x, *np.ones((2, 3), "f"))]
    y, _, var = ops.epilogue(*leaves, eps=1e-5, return_moments=True)
    assert to_numpy(var)[1] == 0
    np.testing.assert_array_equal(to_numpy(y)[:, 1], 1)
    assert all(np.isfinite(to_numpy(s)).all() for s in grad(y, leaves, y.data))


# -- kinks and bad numbers


@on_cuda
def test_ties_in_windows_go_to_the_first_and_zeros_to_nobody(backend):
    x = np.zeros((2, 2, 2, 3))
    x[0, :, :, 0] = [[1, 1], [1, 1]]
    x[0, :, :, 1] = [[-1, 2], [2, 0]]
    x[0, :, :, 2] = [[-1, -1], [-2, 3]]
    x[1, :, :, 0] = [[-1, -2], [-1, -2]]
    x[1, :, :, 1] = [[0, 0], [4, 4]]
    problem = Problem(0, x.shape, "nothing", pool=2)
    problem.x, problem.g = x, 1 + np.arange(6.0).reshape(2, 1, 1, 3)
    y, dx = (to_numpy(a) for a in problem.by_kernel(backend, np.float64)[1])
    np.testing.assert_array_equal(y[:, 0, 0], [[1, 2, 3], [0, 4, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 1], [[0, 2], [0, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 2], [[0, 0], [0, 3]])
    np.testing.assert_array_equal(dx[1, :, :, 0], np.zeros((2, 2)))
    np.testing.assert_array_equal(dx[1, :, :, 1], [[0, 0], [5, 0]])
    same((y, dx), problem.by_definition())


@on_cuda
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["norm", "scale and shift"])
@pytest.mark.parametrize("pool", [0, 2])
def test_a_bad_number_stays_in_its_channel_and_is_bad_where_it_is_in_the_definition(
    backend, bad, kind, pool
):
    problem = Problem(5, (4, 4, 4, 3), kind, pool=pool)
    right = [to_numpy(a) for a in problem.by_kernel(backend, np.float64)[1]]
    problem.x[1, 2, 3, 1] = bad
    with np.errstate(all="ignore"):
        expected = problem.by_definition()
    found = [to_numpy(a) for a in problem.by_kernel(backend, np.float64)[1]]
    for i, (ours, before, theirs) in enumerate(zip(found, right, expected, strict=True)):
        np.testing.assert_array_equal(ours[..., [0, 2]], before[..., [0, 2]])
        if i != 2:  # a pixel without cotangent adds nothing to the scale's gradient, 0 · inf or not
            np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs), f"result {i}")


@on_cuda
@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("pool", [0, 2])
def test_an_infinite_cotangent_stays_in_its_window(backend, bad, pool):
    problem = Problem(6, (2, 4, 4, 2), "shift", pool=pool)
    problem.g[0, 0, 0, 0] = bad
    problem.g[1, 1, 0, 1] = -bad
    with np.errstate(invalid="ignore"):
        expected = problem.by_definition()[1]
    found = to_numpy(problem.by_kernel(backend, np.float64)[1][1])
    windows = np.isfinite(found).reshape(2, 2, 2, 2, 2, 2).all((2, 4))
    there = np.isfinite(expected).reshape(2, 2, 2, 2, 2, 2).all((2, 4))
    np.testing.assert_array_equal(windows, there)


# -- noise


@on_cuda
@pytest.mark.parametrize("pool", [0, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_drawn_in_the_kernel_is_the_hosts(backend, dtype, pool):
    shape = (6, 4, 4, 12)
    for value, difference in ((0.0, 0), (1.0, 4)):  # m, and m + s
        x = backend.asarray(np.full(shape, value), dtype=dtype)
        kernel = FusedEpilogue(Epilogue(None, DRAWS, False, pool))
        found = to_numpy(kernel.forward(x))
        assert kernel.layer.kind == DRAWN
        s, m = DRAWS(np.full(shape, value, dtype))
        expected = s * dtype(value) + m
        expected = ops.max_pool2d(expected, 2) if pool else expected
        assert (abs(found - expected) <= difference * np.spacing(abs(expected) + 1)).all()


@on_cuda
@pytest.mark.parametrize("pool", [0, 2])
def test_the_tick_is_added_to_the_step_forward_and_back(backend, pool):
    given = Scalars(backend.xp)
    given.tick += 4
    problem = Problem(8, (2, 4, 4, 8), "norm", "draws", True, pool)
    with reading(given):
        moved = problem.by_kernel(backend, np.float64)[1]

    def at(step):
        op = Epilogue(1e-3, NoiseDraws(DRAWS.key, step, 0.5, 1.25, 0.1, 0.1), True, pool)
        op.wants = (True,) * 3
        with kernels("reference"):
            y = op.forward(problem.x, *problem.affine)
            return [y, *op.vjp(problem.g, y, problem.x, *problem.affine)]

    for ours, right, other in zip(moved, at(7), at(3), strict=True):
        np.testing.assert_allclose(to_numpy(ours), right, rtol=1e-9, atol=1e-9)
        assert np.abs(right - other).max() > 1e-3


@on_cuda
def test_layers_in_a_run_draw_in_the_kernel_and_agree_with_the_layers_one_by_one(backend):
    def results(mode):
        net = nn.Sequential(
            norm=nn.BatchNorm(8), noise=nn.Noise(r_is_variance=True), relu=nn.ReLU(),
            pool=nn.MaxPool2d(),
        ).initialize(0)  # fmt: skip
        x = np.random.default_rng(0).standard_normal((4, 4, 4, 8)).astype(np.float32)
        leaf = Tensor(backend.asarray(x), requires_grad=True)
        with kernels(mode):
            y = net(leaf)
            (y * y).sum().backward()
        return [to_numpy(a) for a in (y, leaf.grad, net.norm.gamma.grad, net.norm.running_var.data)]

    for ours, right in zip(results("fast"), results("reference"), strict=True):
        np.testing.assert_allclose(ours, right, rtol=2e-4, atol=2e-4)


# -- behind the ops


@on_cuda
@pytest.mark.parametrize("shape", [(7, 3), (3, 4, 5, 8), (2, 2, 2, 1)])
def test_batch_norm_by_itself_is_the_op(backend, shape):
    problem = Problem(9, shape, relu=False)
    given = [backend.asarray(a) for a in (problem.x, *problem.affine)]
    results = []
    for mode in ("fast", "reference"):
        with kernels(mode):
            leaves = [Tensor(a, requires_grad=True) for a in given]
            y, mean, var = ops.batch_norm(*leaves, eps=1e-3, return_moments=True)
            assert isinstance(y.node.kernel, FusedBatchNorm) == (mode == "fast")
            slopes = grad(y, leaves, backend.asarray(problem.g))
            results.append([to_numpy(a) for a in (y, mean, var, *slopes)])
    for ours, right in zip(*results, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-11, atol=1e-11)


@on_cuda
def test_a_second_pull_back_gives_the_same(backend):
    problem = Problem(10, (2, 4, 4, 8), "norm", "draws", True, 2)
    leaves = [Tensor(backend.asarray(a), requires_grad=True) for a in (problem.x, *problem.affine)]
    y = ops.epilogue(*leaves, eps=1e-3, noise=DRAWS, relu=True, pool=2)
    g = backend.asarray(problem.g)
    first = [to_numpy(s) for s in grad(y, leaves, g, retain_graph=True)]
    same(first, [to_numpy(s) for s in grad(y, leaves, g)])


@on_cuda
@pytest.mark.parametrize(
    "shape, settings, dtypes",
    [
        ((2, 5, 4, 3), {"relu": True, "pool": 2}, "ddd"),
        ((2, 6, 6, 3), {"relu": True, "pool": 3}, "ddd"),
        ((4, 3), {"relu": True}, "dff"),
        ((4, 3), {"relu": True}, "eee"),
        ((4, 3), {"relu": True}, "DDD"),
        ((0, 3), {"relu": True}, "ddd"),
    ],
    ids=str,
)
def test_odd_images_other_pools_and_dtypes_get_the_ops_themselves(backend, shape, settings, dtypes):
    rng = np.random.default_rng(0)
    x, scale, shift = (
        backend.asarray(rng.standard_normal(s), dtype=d)
        for s, d in zip((shape, 3, 3), dtypes, strict=True)
    )
    op = Epilogue(None, None, settings.get("relu", False), settings.get("pool", 0))
    assert find(op, [x, scale, shift]) is None
    y = ops.epilogue(x, scale, shift, **settings)
    with kernels("reference"):
        np.testing.assert_array_equal(to_numpy(y), to_numpy(op.compose(x, scale, shift)))


@on_cuda
def test_a_cotangent_of_another_dtype_gets_the_definition(backend):
    problem = Problem(7, (3, 4, 4, 2), "norm", "arrays", True, 2)
    inputs = [backend.asarray(a, dtype=np.float32) for a in (problem.x, *problem.affine)]
    kernel = FusedEpilogue(problem.op())
    kernel.wants = (True,) * 3
    y = kernel.forward(*inputs)
    found = kernel.vjp(backend.asarray(problem.g), y, *inputs)
    for ours, right in zip(found, problem.by_definition()[1:], strict=True):
        np.testing.assert_allclose(to_numpy(ours), right, rtol=1e-3, atol=1e-3 * abs(right).max())
