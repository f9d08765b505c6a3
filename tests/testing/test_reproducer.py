"""The script finds what the check found: run in a process of its own, in at most 20 lines."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn import ops
from minibn.testing.diagnosis.reproducer import script, script_for_tensors
from minibn.testing.diagnosis.sources import importable, source_of


def run(text, tmp_path):
    """(exit status, all that was printed) of the script in a fresh interpreter."""
    assert len(text.splitlines()) <= 20, text
    path = tmp_path / "reproduce.py"
    path.write_text(text)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def fails_at(text, index, tmp_path):
    status, printed = run(text, tmp_path)
    assert status == 1, printed
    assert "AssertionError: the vjp is off by" in printed
    assert printed.startswith(f"at {index}: vjp "), printed


def passes(text, tmp_path):
    status, printed = run(text, tmp_path)
    assert status == 0, printed


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def product(x, y):
    return x * y


def product_vjp(g, x, y):
    return g * y, g * x


def product_vjp_off_at_one_entry(g, x, y):
    """Wrong in one entry, whatever the shapes."""
    gx = g * y
    gx.flat[3] *= 1.001
    return gx, g * x


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4), (3, 3, 9), (40, 60)])
def test_a_wrong_entry_is_found_again(shape, dtype, tmp_path):
    x, y, g = (normal(*shape, seed=k).astype(dtype) for k in range(3))

    def off(g, x, y):
        gx = g * y
        gx.flat[3] += 0.5
        return gx, g * x

    index = tuple(map(int, np.unravel_index(3, shape)))
    numeric = np.asarray(g, float) * y
    fails_at(script(product, off, (x, y), g, 0, numeric), index, tmp_path)
    passes(script(product, off, (x, y), g, 1), tmp_path)
    passes(script(product, product_vjp, (x, y), g, 0, numeric), tmp_path)


def test_a_permille_is_enough_to_fail(tmp_path):
    x, y, g = normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2)
    text = script(product, product_vjp_off_at_one_entry, (x, y), g, 0, name="product")
    fails_at(text, (1, 0), tmp_path)
    assert text.startswith("# Gradient of input 0 of product: is the vjp right?\n")
    assert "complex step" in text


def test_a_function_that_is_not_analytic_gets_central_differences(tmp_path):
    def f(x):
        return np.abs(x) * x

    x, g = 1 + normal(5) ** 2, normal(5, seed=1)
    wrong = script(f, lambda g, x: -2 * g * x, (x,), g, 0)
    assert "central differences" in wrong
    fails_at(wrong, (int(np.argmax(np.abs(g * x))),), tmp_path)
    passes(script(f, lambda g, x: 2 * g * x, (x,), g, 0), tmp_path)


def test_two_lambdas_on_a_line_are_told_apart(tmp_path):
    f, vjp = (lambda x: x * x), (lambda g, x: 3 * g * x)
    text = script(f, vjp, (np.array([1.0, -2.0]),), np.array([1.0, 3.0]), 0)
    assert "f = lambda x: x * x\nvjp = lambda g, x: 3 * g * x\n" in text
    fails_at(text, (1,), tmp_path)


def test_numbers_of_a_closure_are_written_down(tmp_path):
    eps, axes = 1e-3, (0, 1)

    def f(x):
        x = x - x.mean(axes)
        return x / np.sqrt((x * x).mean(axes) + eps)

    def vjp(g, x):
        """Without the variance term."""
        x = x - x.mean(axes)
        return (g - g.mean(axes)) / np.sqrt((x * x).mean(axes) + eps)

    text = script(f, vjp, (normal(3, 2, 2),), normal(3, 2, 2, seed=1), 0)
    assert "x.mean((0, 1))" in text
    assert "+ 0.001)" in text
    status, printed = run(text, tmp_path)
    assert status == 1
    assert "the vjp is off by" in printed


def scaled(c):
    return lambda x: c * x * x


def slope_of_scaled(c):
    return lambda g, x: 2 * c * g * x


def test_one_name_with_two_meanings_is_kept_apart(tmp_path):
    text = script(scaled(2.0), slope_of_scaled(2.5), (np.array([1.0, 3.0]),), np.ones(2), 0)
    fails_at(text, (1,), tmp_path)
    same = script(scaled(2.5), slope_of_scaled(2.5), (np.array([1.0, 3.0]),), np.ones(2), 0)
    passes(same, tmp_path)


def test_a_layer_of_ordinary_length_fits(tmp_path):
    eps, axes = 1e-3, (0, 1)

    def forward(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """Batch normalisation."""
        mean = x.mean(axes)
        var = ((x - mean) ** 2).mean(axes)
        return (x - mean) / np.sqrt(var + eps) * gamma + beta

    def backward(g, x, gamma, beta):
        mean = x.mean(axes)
        var = ((x - mean) ** 2).mean(axes)
        inv_std = 1 / np.sqrt(var + eps)  # comments are lost
        x_hat = (x - mean) * inv_std
        g_hat = g * gamma
        dx = inv_std * (g_hat - g_hat.mean(axes) - 1.01 * x_hat * (g_hat * x_hat).mean(axes))
        return dx, (g * x_hat).sum(axes), g.sum(axes)

    inputs = (normal(2, 3, 2), normal(2, seed=1), np.zeros(2))
    text = script(forward, backward, inputs, normal(2, 3, 2, seed=3), 0)
    assert "put your function here" not in text
    status, printed = run(text, tmp_path)
    assert status == 1
    assert "the vjp is off by" in printed
    passes(script(forward, backward, inputs, normal(2, 3, 2, seed=3), 1), tmp_path)


def test_library_functions_are_imported_by_name(tmp_path):
    def vjp(g, x):
        return g * np.cos(x) * 2

    text = script(np.sin, vjp, (np.array([0.5, 1.0]),), np.array([1.0, 1.0]), 0)
    assert "from numpy import sin as f\n" in text
    fails_at(text, (0,), tmp_path)
    assert importable(ops.conv2d, "f") == "from minibn.ops.conv import conv2d as f"
    assert importable(json.JSONEncoder.encode, "f") == (
        "from json.encoder import JSONEncoder; f = JSONEncoder.encode"
    )
    assert importable(math, "math") == "import math"


def test_what_can_not_be_written_down_is_asked_for():
    table = normal(3)

    def f(x):
        return x * table

    text = script(f, lambda g, x: g, (normal(3),), normal(3), 0)
    assert "f = ...  # put your function here\n" in text
    assert source_of(np.vectorize(f), "f").lines == ("f = ...  # put your function here",)


def test_a_function_that_is_too_long_is_asked_for_and_the_rest_stays():
    def vjp(g, x):
        if x.ndim == 1:
            for i in range(3):
                if i > 1:
                    g = g * 1
                else:
                    g = g + 0
            while x.ndim > 3:
                x = x[0]
                if x.size:
                    break
        for k in range(2):
            if k:
                g = g * x
            else:
                g = 2 * g
        return g

    text = script(lambda x: x * x, vjp, (normal(3),), normal(3), 0)
    assert len(text.splitlines()) <= 20
    assert "vjp = ...  # put your function here\n" in text
    assert "f = lambda x: x * x\n" in text


def test_a_gradient_of_another_shape_fails_by_its_shape(tmp_path):
    x, b, g = normal(4, 3), normal(3), normal(4, 3, seed=2)
    text = script(lambda x, b: x + b, lambda g, x, b: (g, g), (x, b), g, 1)
    status, printed = run(text, tmp_path)
    assert status == 1
    assert "shape (4, 3) for an input of (3,)" in printed


def test_nan_in_the_gradient_fails(tmp_path):
    x = np.array([1.0, 0.0, 4.0])
    vjp = lambda g, x: g * np.where(x == 0, np.nan, 2 * x)  # noqa: E731 the subject
    fails_at(script(lambda x: x * x, vjp, (x,), np.ones(3), 0), (1,), tmp_path)


def test_integer_inputs_stay_integers(tmp_path):
    x, i, g = normal(5), np.array([3, 1, 3]), np.array([1.0, 2.0, 3.0])

    def f(x, i):
        return x[i]

    def overwritten(g, x, i):
        gx = np.zeros_like(x)
        gx[i] = g
        return gx, None

    def added(g, x, i):
        gx = np.zeros_like(x)
        np.add.at(gx, i, g)
        return gx, None

    fails_at(script(f, overwritten, (x, i), g, 0), (3,), tmp_path)
    passes(script(f, added, (x, i), g, 0), tmp_path)


def test_many_inputs_share_a_line(tmp_path):
    inputs = tuple(normal(2, seed=k) for k in range(12))
    text = script(
        lambda *x: sum(a * a for a in x), lambda g, *x: [3 * g * a for a in x], inputs, normal(2), 7
    )
    status, printed = run(text, tmp_path)
    assert status == 1, printed


def test_lines_are_short_where_there_is_room():
    text = script(np.sin, np.multiply, (normal(8),), normal(8, seed=1), 0)
    assert max(map(len, text.splitlines())) <= 100


kinds = st.sampled_from(["float64", "float32", "float16"])


@settings(max_examples=60, deadline=None)
@given(
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    kinds,
    st.sampled_from([0, 1, 4, 40, 300]),
    st.integers(0, 2**32 - 1),
)
def test_every_array_comes_back_to_the_last_bit_in_twenty_lines(shape, dtype, wide, seed):
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):  # infinities and denormals are welcome
        x = rng.standard_normal(shape) * 10.0 ** rng.integers(-wide, wide + 1, shape)
        x = np.asarray(x, dtype)
    with np.errstate(all="ignore"):
        text = script(product, product_vjp, (x, x), np.ones(shape, dtype), 1)
    assert len(text.splitlines()) <= 20, text
    known = {}
    head = text.split("\ng = ")[0]
    exec(head[head.index("inputs = ") :], {"np": np}, known)
    for found in known["inputs"]:
        assert (found.dtype, found.shape) == (x.dtype, x.shape)
        assert found.tobytes() == x.tobytes()


@settings(max_examples=8, deadline=None)
@given(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5), kinds, st.integers(0, 99))
def test_scripts_of_right_gradients_pass_for_any_shape(tmp_path_factory, shape, dtype, seed):
    x, y, g = (np.asarray(normal(*shape, seed=seed + k), dtype) for k in range(3))
    passes(script(product, product_vjp, (x, y), g, 0), tmp_path_factory.mktemp("run"))


# -- functions of Tensors


def test_a_function_of_tensors_passes_if_its_gradient_is_right(tmp_path):
    text = script_for_tensors(
        lambda x, w: ops.conv2d(x, w, padding=1), (normal(1, 3, 3, 2), normal(2, 2, 2, 3)),
        normal(1, 4, 4, 3), 1, name="conv2d",
    )  # fmt: skip
    assert re.search(r"^from minibn import Tensor, grad$", text, re.M)
    assert re.search(r"^import minibn.ops as ops$|^from minibn import ops$", text, re.M)
    passes(text, tmp_path)


def test_a_function_of_tensors_fails_if_its_gradient_is_cut(tmp_path):
    from minibn import Tensor

    def f(x):
        return x * Tensor(x.data)

    fails_at(script_for_tensors(f, (np.array([1.0, -3.0]),), np.ones(2), 0), (1,), tmp_path)
