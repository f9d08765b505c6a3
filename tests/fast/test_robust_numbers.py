"""Inputs that ops got wrong in silence: large means, infinite cotangents, float16, integers, and
subclasses of NumPy's array. What is promised of any op is a law, in `tests/suite/laws/numbers.py`.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, grad, kernels, nn, ops
from minibn.backend import get_backend
from minibn.fast.fused_ops import fused_block
from minibn.random import uniforms

C = 4
PAIR = (np.full(C, 2, np.float32), np.full(C, 3, np.float32))  # gamma, beta

NORMS = {
    "batch_norm": ops.batch_norm,
    "batch_norm_composed": ops.batch_norm_composed,
    "layer_norm": lambda x, *v, **s: ops.layer_norm(x, *v, axes="example", **s),
    "group_norm": lambda x, *v, **s: ops.group_norm(x, *v, groups=2, **s),
    "instance_norm": ops.instance_norm,
    "fused_block": lambda x, *v, eps=1e-5: fused_block(x, *v, eps=eps),
} | {
    f"lp_batch_norm, p={p}": lambda x, *v, p=p, **s: ops.lp_batch_norm(
        x, *v, p=p, center_first=True, **s
    )
    for p in (1, 2, math.inf)
}
any_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
each_mode = pytest.mark.parametrize("mode", ["reference", "always"])


# -- large means


@any_norm
@each_mode
@given(
    constant=st.floats(-(2.0**100), 2.0**100, width=32),
    shape=st.sampled_from([(2, 1, 2, C), (3, 5, 7, C), (40, 6, 6, C)]),
)
def test_equal_values_are_normalised_to_beta_exactly(norm, mode, constant, shape):
    with kernels(mode):
        y = norm(np.full(shape, constant, np.float32), *PAIR)
    np.testing.assert_array_equal(y, np.full(shape, 3, np.float32))


@any_norm
@each_mode
@pytest.mark.parametrize("mean", [0, 1e4, 1.7e9])
def test_a_mean_that_is_large_beside_the_deviations_costs_no_digits(norm, mode, mean):
    rng = np.random.default_rng(0)
    ulp = np.spacing(np.float32(max(mean, 1)))
    x = (mean + ulp * rng.integers(-20, 20, (40, 6, 6, C))).astype(np.float32)
    g = rng.standard_normal(x.shape, np.float32)

    def values(dtype, how):
        given = [Tensor(v.astype(dtype), requires_grad=True) for v in (x, *PAIR)]
        with kernels(how):
            y = norm(*given, eps=1e-30)
            return [y, *grad(y, given, g.astype(dtype))]

    for ours, right in zip(values("f4", mode), values("f8", "reference"), strict=True):
        assert np.abs(ours.data - right.data).max() < 1e-5 * np.abs(right.data).max()


@pytest.mark.parametrize("f", [ops.var, lambda x: ops.moments(x)[1]])
@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=2, max_size=30))
def test_a_variance_is_never_negative(f, values):
    x = np.array(values, np.float32)[:, None]
    assert (f(x) >= 0).all()


def test_running_variances_stay_variances():
    layer = nn.BatchNorm(3, momentum=1.0).initialize(0)
    layer(np.full((1000, 3), 1.7e9, np.float32))
    np.testing.assert_array_equal(layer.running_var.data, 0)
    np.testing.assert_array_equal(layer.running_mean.data, np.float32(1.7e9))


# -- infinite cotangents where the derivative is 0

X = np.random.default_rng(1).standard_normal((4, 8, 8, C)).astype(np.float32)
MASKS = {
    "relu": (ops.relu, X),
    "abs": (ops.abs, X * (X > 0)),
    "maximum": (lambda x: ops.maximum(x, 0), X),
    "where": (lambda x: ops.where(X > 0, x, 0), X),
    "max": (lambda x: ops.max(x, axis=3), X * (X.max(3, keepdims=True) > 1)),
    "max_pool2d": (ops.max_pool2d, np.maximum(X, 0)),
    "norm": (lambda x: ops.norm(x, axis=3), X * (X[..., :1] > 0)),
    "norm, p=inf": (lambda x: ops.norm(x, math.inf, axis=3), X * (X[..., :1] > 0)),
    "dropout": (lambda x: ops.dropout(x, 0.5, np.abs(X) % 1), X),
    "power, p=0": (lambda x: ops.power(x, 0) - 1, X),
    "fused_block": (lambda x: fused_block(x, 0 * PAIR[0], relu=True), X),
    "fused_block, pool=2": (lambda x: fused_block(x, 0 * PAIR[0], relu=True, pool=2), X),
    "fused_block, filters": (
        lambda x: fused_block(x, filters=np.eye(C, dtype="f4")[None, None], relu=True, pool=2), X
    ),
}  # fmt: skip


@each_mode
@pytest.mark.parametrize("f, x", MASKS.values(), ids=MASKS)
def test_a_derivative_of_0_takes_no_part_of_an_infinite_cotangent(f, x, mode):
    given = Tensor(x, requires_grad=True)
    with kernels(mode):
        y = f(given)
        g = np.where(y.data == 0, np.inf, 1).astype(np.float32)
        (found,) = grad(y, [given], g)
    assert not np.isnan(found.data).any()


def test_the_root_of_a_closed_relu_has_derivative_0():
    x = Tensor([-1.0, 4.0], requires_grad=True)
    with np.errstate(divide="ignore"):  # the root's own derivative is infinite
        ops.sqrt(ops.relu(x)).sum().backward()
    assert x.grad.data.tolist() == [0, 0.25]


def test_the_exponent_of_0_has_derivative_0():
    p = Tensor([2.0, 0.5], requires_grad=True)
    ops.power(np.array([0.0, 1.0]), p).sum().backward()
    assert p.grad.data.tolist() == [0, 0]


# -- float16

HALF = np.full((2, 30, 30, C), 100, np.float16)  # 90,000 and more if all are added
LARGE = np.full((2, 30, 30, C), 60000, np.float16)
WIDE = {
    "mean": (ops.mean, HALF, 100),
    "var": (ops.var, HALF, 0),
    "norm": (lambda x: ops.norm(x, 2), np.full(90000, 1, np.float16), 300),
    "mse": (lambda x: ops.mse(x, 0 * x), HALF, 10000),
    "avg_pool2d": (ops.avg_pool2d, LARGE, 60000),
    "global_avg_pool2d": (ops.global_avg_pool2d, LARGE, 60000),
    "logsumexp": (ops.logsumexp, np.zeros(100000, np.float16), math.log(1e5)),
    "softmax": (lambda x: ops.softmax(x).sum(), np.zeros((1, 100000), np.float16), 1),
    "rms_norm": (lambda x: ops.rms_norm(x, np.ones(C, np.float16)), HALF, 1),
    "conv2d": (
        lambda x: ops.conv2d(x, np.ones((3, 3, C, 1), np.float16) / np.float16(64)),
        np.full((1, 3, 3, C), 40000, np.float16),
        22500,
    ),
    **{name: (lambda x, f=f: f(x, *PAIR), HALF, 3) for name, f in NORMS.items()},
}


@each_mode
@pytest.mark.parametrize("f, x, right", WIDE.values(), ids=WIDE)
def test_sums_of_float16_do_not_overflow_where_the_result_does_not(f, x, right, mode):
    given = Tensor(x, requires_grad=True)
    with kernels(mode):
        y = f(given)
        y.backward(np.ones_like(y.data))
    np.testing.assert_allclose(y.data.astype(float), right, rtol=2e-3)
    assert given.grad.dtype == np.float16
    assert np.isfinite(given.grad.data).all()


def test_float16_in_is_float16_out():
    for f, x, _ in WIDE.values():
        if f not in [WIDE[name][0] for name in NORMS]:  # whose gamma is float32
            assert f(x).dtype == np.float16


# -- integers: that they do not wrap is a law


def test_large_integers_stay_exact():
    big = Tensor(np.array([2**60 + 1]))
    assert (big + 1).data.tolist() == [2**60 + 2]
    assert ops.sum(big).item() == 2**60 + 1


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "i4", "u4"])
def test_sums_and_products_of_integers_are_exact_integers(dtype):
    x = Tensor(np.array([0, 1]).astype(dtype))
    for y in (x + 200, x * 200, -x, x - x, abs(x), x.sum(), ops.maximum(x, -300)):
        assert y.dtype == np.int64
    assert (x / 2).dtype == (x**2).dtype == x.mean().dtype == ops.exp(x).dtype == np.float64


def test_draws_are_of_floating_point():
    for layer in (nn.Dropout(0.5), nn.Noise()):
        x = np.full((8, 4), 100, np.uint8)
        y = layer.initialize(0)(x)
        assert y.dtype == np.float64
        np.testing.assert_array_equal(y, layer.initialize(0)(x.astype(float)))
        assert len(np.unique(y)) > 1
    with pytest.raises(TypeError, match=r"are of floating point, not int32\. Use dtype=float32"):
        uniforms(get_backend("numpy"), 0, 0, 3, "int32")


def test_integers_beside_floats_take_their_dtype():
    x = Tensor(np.ones(3, np.float32))
    for other in (np.arange(3), np.array([True, False, True]), np.uint8([1, 2, 3])):
        assert (x * other).dtype == (x - other).dtype == ops.maximum(x, other).dtype == np.float32


# -- subclasses

MASKED = np.ma.array(np.arange(12.0).reshape(4, 3), mask=np.arange(12).reshape(4, 3) % 4 == 0)
MATRIX = np.ones((4, 3)).view(np.matrix)


@pytest.mark.parametrize("x", [MASKED, MATRIX], ids=["masked", "matrix"])
def test_no_tensor_is_made_of_a_masked_array_or_a_matrix(x):
    with pytest.raises(TypeError, match=r"is not computed on\. Use "):
        Tensor(x)


def test_a_file_in_memory_is_a_plain_array(tmp_path):
    x = np.memmap(tmp_path / "x", np.float64, "w+", shape=(4, 3))
    x[...] = 2
    for y in (ops.exp(x), ops.mean(x), Tensor(x).data):
        assert type(y) in (np.ndarray, np.float64)


# -- NumPy scalars as settings


@pytest.mark.parametrize("scalar", [np.float64, np.float32, np.float16])
def test_a_setting_adopts_the_dtype_of_the_arrays(scalar):
    x = np.random.default_rng(0).standard_normal((4, 6, 6, C), np.float32)
    eps = scalar(0.25)
    layers = [
        nn.BatchNorm(C, eps=eps, momentum=scalar(0.5)), nn.LayerNorm(C, eps=eps),
        nn.RMSNorm(C, eps=eps), nn.GroupNorm(2, C, eps=eps), nn.InstanceNorm(C, eps=eps),
        nn.LpBatchNorm(C, p=1, eps=eps), nn.WSConv2d(C, 2, 3, eps=eps), nn.Dropout(scalar(0.5)),
        nn.FrozenBatchNorm(C, eps=eps), nn.Noise(*map(scalar, (0.5, 1.25, 0.25, 0.25))),
    ]  # fmt: skip
    for layer in layers:
        for training in (True, False):
            assert layer.initialize(0).train(training)(x).dtype == np.float32, layer
    affine = np.ones(C, np.float32), np.ones(C, np.float32)
    assert ops.batch_norm(x, *affine, eps=eps).dtype == np.float32
    assert ops.batch_norm_inference(x, *affine, *affine, eps=eps).dtype == np.float32
    assert ops.weight_standardisation(x, scalar(2)).dtype == np.float32


@pytest.mark.parametrize("eps", [-1, math.nan, math.inf])
@any_norm
def test_an_eps_that_is_no_small_number_is_refused(norm, eps):
    with pytest.raises(ValueError, match=r"eps=.* must not be negative or infinite"):
        norm(X, *PAIR, eps=eps)
