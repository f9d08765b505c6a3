"""Tensor: what it accepts, how it mixes with arrays and numbers, and what changes in place do."""

import numpy as np
import pytest

from minibn import Op, Tensor, apply, grad, no_grad, ops
from minibn.errors import BackendMismatch, GraphError


def leaf(backend, values, dtype=float):
    return Tensor(backend.asarray(np.array(values, dtype)), requires_grad=True)


# -- changed between forward and backward


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.assign(x.data * 2),
        lambda x: x.bump_version(),
        lambda x: x.detach().assign(x.data * 2),
        lambda x: x.detach().reshape(-1).bump_version(),
        lambda x: x.detach()[0].bump_version(),
    ],
    ids=["assign", "touch", "assign detached", "touch a reshape", "touch a slice"],
)
def test_a_tensor_that_was_changed_since_the_forward_pass_raises(backend, change):
    x = leaf(backend, [[1.0, 2.0]])
    y = (x * x).sum()
    change(x)
    with pytest.raises(GraphError, match="Multiply needs its input 0 as it was"):
        y.backward()
    assert x.grad is None


def test_a_change_that_no_op_needs_to_know_of_is_allowed(backend):
    x = leaf(backend, [1.0, 2.0])
    y = (x + 1).sum()
    x.assign(x.data * 2)
    y.backward()
    assert x.grad.numpy().tolist() == [1, 1]


def test_a_changed_output_is_named_as_such(backend):
    x = leaf(backend, [1.0, 2.0])
    y = ops.exp(x)
    y.bump_version()
    with pytest.raises(GraphError, match="Exp needs its output"):
        y.sum().backward()


def test_a_view_that_an_op_needs_notices_that_its_base_changed(backend):
    x = leaf(backend, [1.0, 2.0])
    view = x.reshape(2, 1)
    y = (view * view).sum()
    x.assign(0.0)
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_assign_is_for_leaves_and_for_values_that_fit(backend):
    x = leaf(backend, [1.0, 2.0], np.float32)
    data = x.data
    assert x.assign(backend.asarray(np.array([3.0, 4.0]))) is x
    assert x.data is data
    assert (x.numpy().tolist(), x.dtype) == ([3.0, 4.0], np.float32)
    with pytest.raises(ValueError, match="shape"):
        x.assign(backend.asarray(np.ones((2, 1))))
    with pytest.raises(TypeError, match="leaf"):
        (x * 2).assign(0.0)


# -- recording


def test_no_grad_records_nothing_and_is_a_decorator_too(backend):
    x = leaf(backend, [1.0])

    @no_grad()
    def double(x):
        """Twice x."""
        return x * 2

    for _ in range(2):
        assert not double(x).requires_grad
    assert double.__doc__ == "Twice x."
    with no_grad():
        with no_grad():
            pass
        assert not (x * x).requires_grad
    assert (x * x).requires_grad


def test_no_grad_ends_with_an_exception(backend):
    x = leaf(backend, [1.0])
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (x * x).requires_grad


class Broken(Op):
    """An op that fails where it is told to."""

    def __init__(self, where):
        self.where = where

    def forward(self, x):
        if self.where == "forward":
            raise ZeroDivisionError
        return x + 0

    def vjp(self, g, out, x):
        if self.where == "vjp":
            raise ZeroDivisionError
        return g[:1] if self.where == "shape" else (g, g)


@pytest.mark.parametrize(
    "where, error, message",
    [
        ("forward", ZeroDivisionError, "^$"),
        ("vjp", ZeroDivisionError, "^$"),
        ("shape", ValueError, r"Broken.vjp returned a gradient of shape \(1,\)"),
        ("count", GraphError, "Broken.vjp returned 2 gradients for 1 inputs"),
    ],
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_an_exception_in_an_op_leaves_no_trace(backend, where, error, message, create_graph):
    x = leaf(backend, [1.0, 2.0])
    (x * x).sum().backward()
    before = x.grad
    with pytest.raises(error, match=message):
        (apply(Broken(where), x) * x).sum().backward(create_graph=create_graph)
    assert x.grad is before
    assert before.numpy().tolist() == [2, 4]
    y = x * x
    assert y.requires_grad
    assert grad(y.sum(), x).numpy().tolist() == [2, 4]


# -- what it is made of, and what it mixes with


def test_an_array_on_the_left_meets_the_tensor_as_an_op(backend):
    a = backend.asarray(np.array([[1.0, 2.0], [3.0, 4.0]]))
    x = leaf(backend, [[5.0, 6.0], [7.0, 8.0]])
    host, values = backend.to_numpy(a), x.numpy()
    for y, expected in (
        (a + x, host + values),
        (a - x, host - values),
        (a * x, host * values),
        (a / x, host / values),
        (a @ x, host @ values),
        (a**x, host**values),
        (2 - x, 2 - values),
        (np.float64(2) / x, 2 / values),
    ):
        assert isinstance(y, Tensor)
        assert y.requires_grad
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)


def test_comparisons_give_plain_arrays(backend):
    x, y = leaf(backend, [1.0, 2.0, 3.0]), leaf(backend, [3.0, 2.0, 1.0])
    for found, expected in (
        (x < y, [True, False, False]),
        (x <= 2, [True, True, False]),
        (x > y.data, [False, False, True]),
        (x >= y, [False, True, True]),
        (x == y, [False, True, False]),
        (x != 2, [True, False, True]),
    ):
        assert not isinstance(found, Tensor)
        assert backend.to_numpy(found).tolist() == expected


def test_tensors_are_hashed_by_identity(backend):
    x, y = leaf(backend, [1.0]), leaf(backend, [1.0])
    assert len({x, y, x}) == 2
    assert {x: 1, y: 2}[y] == 2


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_a_tensor_of_integers_computes_but_wants_no_gradient(backend, dtype):
    x = Tensor(backend.asarray(np.array([1, 0, 1], dtype)))
    y = leaf(backend, [1.0, 2.0, 3.0], np.float64)
    z = (x * y).sum()
    assert grad(z, y).numpy().tolist() == [1, 0, 1]
    with pytest.raises(TypeError, match="requires_grad=False"):
        Tensor(x.data, requires_grad=True)


def test_lists_and_numbers_are_born_on_the_backend_in_use(backend):
    for data in ([1.0, 2.0], 3.0, np.float32(3)):
        assert type(Tensor(data).data) is type(backend.asarray(np.ones(2)))


@pytest.mark.parametrize("data", [Tensor([1.0]), "text", np.array(["a"]), None])
def test_what_is_no_number_is_refused(data):
    with pytest.raises(TypeError):
        Tensor(data)


def test_tensors_of_two_backends_do_not_mix(backend):
    if backend.name == "numpy":
        pytest.skip("the other backend is numpy")
    x, y = leaf(backend, [1.0]), Tensor(np.ones(1), requires_grad=True)
    for f in (lambda: x + y, lambda: y - x, lambda: x * y.data, lambda: y @ x):
        with pytest.raises(BackendMismatch):
            f()
    assert grad((y * y).sum(), y).numpy().tolist() == [2]


class First(Op):
    """An op that gives back its first input and looks at no other."""

    def forward(self, x, y):
        return x + 0

    def vjp(self, g, out, x, y):
        return g, None


def test_the_tape_refuses_two_backends_before_the_op_sees_them(backend):
    if backend.name == "numpy":
        pytest.skip("the other backend is numpy")
    with pytest.raises(BackendMismatch, match="do not mix"):
        apply(First(), leaf(backend, [1.0]), np.ones(1))


def test_detach_shares_the_memory_and_ends_the_graph(backend):
    x = leaf(backend, [1.0, 2.0])
    y = (x * 2).detach()
    assert not y.requires_grad
    assert y.is_leaf
    assert x.detach().data is x.data


def test_repr_names_the_op_and_the_wish_for_a_gradient(backend):
    x = leaf(backend, [1.0])
    assert repr(x) == "Tensor([1.], requires_grad=True)"
    assert repr(x * 2) == "Tensor([2.], made by Multiply)"
    assert repr(x.sum().detach()) == "Tensor(1.)"


def test_iteration_and_length_are_those_of_the_first_axis(backend):
    x = leaf(backend, [[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    first, second = x
    assert grad((first * 2 + second).sum(), x).numpy().tolist() == [[2, 2], [1, 1]]
