"""check_jax, and check_vjp with arrays of JAX; with 64 bits and without."""

from typing import NamedTuple

import numpy as np
import pytest

from minibn.testing import GradientError, check_jax, check_jvp, check_vjp

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
jnp = jax.numpy

rng = np.random.default_rng(0)
P = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2)}
X = rng.standard_normal((4, 3))


@pytest.fixture(params=[False, True], ids=["32 bits", "64 bits"])
def bits(request):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param)
    yield 64 if request.param else 32
    jax.config.update("jax_enable_x64", before)


@jax.custom_vjp
def cube(x):
    return x**3


@jax.custom_vjp
def wrong_cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * g * x**2,))
wrong_cube.defvjp(lambda x: (x**3, x), lambda x, g: (2 * g * x**2,))


def layer(p, x):
    y = jnp.tanh(x @ p["w"] + p["b"])
    return {"y": y, "norm": (p["w"] ** 2).sum(), "best": y.argmax()}


def test_a_custom_vjp_is_checked_under_its_name(bits):
    report = check_jax(cube, X[0])
    assert report.name == "cube" and report.inputs[0].dtype == f"float{bits}"
    assert (report.digits > 10) is (bits == 64)
    with pytest.raises(GradientError, match="wrong_cube: FAILED"):
        check_jax(wrong_cube, X[0])


def test_pytrees_go_in_and_out(bits):
    report = check_jax(layer, P, X)
    labels = {entry.label for entry in report.inputs}
    assert labels == {"input 0['w']", "input 0['b']", "input 1"}


def test_that_64_bits_are_off_is_said_in_the_report(bits):
    text = str(check_jax(cube, X[0]))
    assert ("jax_enable_x64 is off" in text) is (bits == 32)
    assert "jax_enable_x64" not in str(check_jax(cube, X[0].astype(np.float32)))
    assert jax.config.jax_enable_x64 is (bits == 64)


def test_registered_containers_are_pytrees_too(bits):
    class State(NamedTuple):
        x: object
        steps: int

    report = check_jax(lambda s: s.x**2 * s.steps, State(X[0], 3))
    assert [entry.label for entry in report.inputs] == ["input 0.x"]


def test_complex_gradients_are_in_jaxs_convention(bits):
    z = X[0] + 1j * X[1]
    for f in (lambda z: z**2, lambda z: jnp.abs(z) ** 2, lambda z: jnp.real(z) * z):
        assert check_jax(f, z).passed
    with pytest.raises(GradientError, match="in the other convention"):
        check_jax(lambda z: z**2, z, complex_convention="pytorch")


def test_a_jitted_function_with_integers_is_checked(bits):
    assert check_jax(jax.jit(lambda x, i: x[i].sum()), X[0], np.array([0, 1])).passed


def test_a_function_that_only_takes_float32_is_judged_in_float32(bits):
    def only(x):
        if x.dtype != jnp.float32:
            raise TypeError("float32 alone")
        return x**2

    report = check_jax(only, X[0].astype(np.float32), raises=False)
    assert "evaluated in its own precision, since in float64 it raises TypeError" in str(report)


def test_a_gradient_that_is_stopped_is_wrong(bits):
    with pytest.raises(GradientError, match="WRONG"):
        check_jax(lambda x: jax.lax.stop_gradient(x) ** 2, X[0])


def test_types_that_numpy_lacks_are_refused():
    with pytest.raises(TypeError, match="bfloat16 is not differentiated"):
        check_jax(lambda x: x, jnp.ones(3, jnp.bfloat16))
    with pytest.raises(TypeError, match="bfloat16"):
        check_vjp(lambda x: x, lambda g, x: g, jnp.ones(3, jnp.bfloat16))


def test_check_vjp_gives_jax_arrays_to_who_brings_them(bits):
    def vjp(g, x):
        assert isinstance(g, jax.Array) and isinstance(x, jax.Array)
        return g * 2 * x

    report = check_vjp(lambda x: x**2, vjp, jnp.asarray(X))
    assert report.inputs[0].demanded == (5 if bits == 32 else 12)
    with pytest.raises(GradientError, match="WRONG"):
        check_vjp(lambda x: x**2, lambda g, x: 2.01 * g * x, jnp.asarray(X))
    assert jax.config.jax_enable_x64 is (bits == 64)


def test_a_forward_rule_of_jax_is_checked():
    jax.config.update("jax_enable_x64", True)
    try:
        report = check_jvp(
            lambda x, y: jnp.sin(x) * y, lambda p, t: jax.jvp(lambda x, y: jnp.sin(x) * y, p, t),
            jnp.asarray(X), jnp.asarray(X + 1),
        )  # fmt: skip
        assert report.passed
    finally:
        jax.config.update("jax_enable_x64", False)
