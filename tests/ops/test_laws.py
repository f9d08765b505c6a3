"""Laws that every op in the table keeps: purity, memory layouts, the cotangent, arrays alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from support.backends import on_backends
from support.oracles import gradients

from minibn import Tensor, grad, no_grad
from minibn.backend import get_backend, to_numpy
from minibn.testing.registry import CASES

EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
NUMPY = get_backend("numpy")


def examine(case, check, examples=8):
    settings(max_examples=examples)(given(case.problems)(check))()


def fortran(x):
    return x.copy(order="F")


def backwards(x):
    return x[::-1].copy()[::-1] if x.ndim else x


def every_second(x):
    spread = np.zeros((*x.shape, 2))
    spread[..., 0] = x
    return spread[..., 0]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@EVERY_CASE
def test_memory_layout_changes_nothing(case):
    def check(problem):
        c = problem.cotangent()
        expected = gradients(problem.f, problem.inputs, c, NUMPY)
        value = np.asarray(problem.f(*problem.inputs))
        for layout in (fortran, backwards, every_second, read_only):
            arrays, name = [layout(x) for x in problem.inputs], layout.__name__
            found = np.asarray(problem.f(*arrays))
            np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-12, err_msg=name)
            for g, e in zip(gradients(problem.f, arrays, layout(c), NUMPY), expected, strict=True):
                scale = np.abs(e).max(initial=0)
                np.testing.assert_allclose(g, e, rtol=1e-10, atol=1e-11 * scale, err_msg=name)

    examine(case, check)


@EVERY_CASE
def test_a_stride_of_zero_changes_nothing(case):
    def check(problem):
        broadcast = [
            np.broadcast_to(x.reshape(-1)[:1].sum() + 1.5, x.shape) for x in problem.inputs
        ]
        c = np.broadcast_to(0.75, problem.cotangent().shape)
        with np.errstate(all="ignore"):
            found = gradients(problem.f, broadcast, c, NUMPY)
            copied = gradients(problem.f, [x.copy() for x in broadcast], c.copy(), NUMPY)
        scale = max(np.nanmax(np.abs(e), initial=1) for e in copied)
        for g, e in zip(found, copied, strict=True):
            np.testing.assert_allclose(g, e, rtol=1e-10, atol=1e-11 * scale)

    examine(case, check)


@EVERY_CASE
def test_nothing_that_goes_in_is_modified_and_nothing_that_comes_out_is_shared(case):
    def check(problem):
        inputs, c = [x.copy() for x in problem.inputs], problem.cotangent()
        kept = c.copy()
        leaves = [Tensor(x, requires_grad=True) for x in inputs]
        y = problem.f(*leaves)
        before = y.data.copy()
        y.backward(c)
        for x, original in zip(inputs, problem.inputs, strict=True):
            np.testing.assert_array_equal(x, original)
        np.testing.assert_array_equal(c, kept)
        np.testing.assert_array_equal(y.data, before)
        outside = [c, y.data, *inputs]
        for leaf in leaves:
            for other in outside:
                assert not np.shares_memory(leaf.grad.data, other)
            outside.append(leaf.grad.data)
            assert leaf.grad.data.flags.writeable

    examine(case, check)


@EVERY_CASE
def test_the_gradient_is_linear_in_the_cotangent_and_zero_at_zero(case):
    def check(problem):
        c = problem.cotangent()
        once = gradients(problem.f, problem.inputs, c, NUMPY)
        twice = gradients(problem.f, problem.inputs, -2 * c, NUMPY)
        none = gradients(problem.f, problem.inputs, 0 * c, NUMPY)
        for a, b, zero in zip(once, twice, none, strict=True):
            scale = np.abs(a).max(initial=0)
            np.testing.assert_allclose(b, -2 * a, rtol=1e-12, atol=1e-12 * scale)
            assert not zero.any()

    examine(case, check)


@on_backends
@EVERY_CASE
def test_arrays_give_arrays_and_tensors_the_same_values(backend, case):
    def check(problem):
        arrays = [backend.asarray(x) for x in problem.inputs]
        leaves = [Tensor(x, requires_grad=True) for x in arrays]
        plain, recorded = problem.f(*arrays), problem.f(*leaves)
        with no_grad():
            quiet = problem.f(*leaves)
        assert not isinstance(plain, Tensor)
        assert recorded.requires_grad
        assert not quiet.requires_grad
        assert type(quiet.data) is type(arrays[0]), "a Tensor holds an array, never a scalar"
        for value in (recorded, quiet):
            assert value.dtype == plain.dtype
            np.testing.assert_array_equal(value.numpy(), to_numpy(plain))

    examine(case, check, examples=4)


@EVERY_CASE
def test_two_runs_give_the_same_bits(case):
    def check(problem):
        c = problem.cotangent()
        for a, b in zip(
            gradients(problem.f, problem.inputs, c, NUMPY),
            gradients(problem.f, problem.inputs, c, NUMPY),
            strict=True,
        ):
            assert a.tobytes() == b.tobytes()

    examine(case, check, examples=3)


ALIKE = ["add", "divide", "maximum", "mse", "multiply", "power, of two variables", "subtract"]


@on_backends
@pytest.mark.parametrize("name", ALIKE)
def test_one_input_in_both_places_gets_both_gradients(backend, name):
    """f(x, x) has the gradient ∂₁f + ∂₂f: inputs are told apart by position, not by identity."""

    def check(problem):
        x = problem.inputs[0]
        c = np.asarray(problem.rng().standard_normal(np.shape(problem.f(x, x))))
        apart = gradients(problem.f, (x, x), c, backend)
        leaf = Tensor(backend.asarray(x), requires_grad=True)
        together = grad(problem.f(leaf, leaf), leaf, backend.asarray(c)).numpy()
        scale = np.abs(apart).max(initial=0)
        np.testing.assert_allclose(together, sum(apart), rtol=1e-11, atol=1e-12 * scale)

    examine(CASES[name], check, examples=5)
