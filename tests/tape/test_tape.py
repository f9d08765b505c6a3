"""The walk back: which gradient arrives where, when it raises, what it keeps in memory.

That gradients add up on graphs of every form is law: `minibn/testing/laws/graph.py`.
"""

import gc
import threading
import weakref

import numpy as np
import pytest

from minibn import Op, Tensor, apply, grad, hvp, jacobian, no_grad, ops
from minibn.errors import GraphError, ShapeError


def leaf(backend, values, dtype=float):
    return Tensor(backend.asarray(np.array(values, dtype)), requires_grad=True)


def test_a_graph_of_depth_a_hundred_thousand_is_deleted_without_recursion():
    y = Tensor(np.array([1.0]), requires_grad=True)
    for _ in range(100_000):
        y = -y
    del y


def test_backward_adds_to_what_grad_holds(backend):
    x = leaf(backend, [1.0, 2.0])
    for _ in range(2):
        (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 8])
    first = x.grad
    (x * 1).sum().backward()
    np.testing.assert_array_equal(first.numpy(), [4, 8])


def test_only_leaves_that_want_a_gradient_get_one(backend):
    x, y = leaf(backend, [1.0]), Tensor(backend.asarray(np.array([2.0])))
    z = x * y
    z.sum().backward()
    assert x.grad is not None
    assert y.grad is None
    assert z.grad is None


def test_a_leaf_may_be_its_own_output(backend):
    x, c = leaf(backend, [1.0, 2.0]), backend.asarray(np.array([3.0, 4.0]))
    x.backward(c)
    np.testing.assert_array_equal(x.grad.numpy(), [3, 4])
    x.grad.data[...] = 0
    assert backend.to_numpy(c).tolist() == [3.0, 4.0]


def test_the_gradient_of_a_sum_that_is_scaled_arrives_as_an_array():
    """NumPy makes scalars of 0-d results; the walk must not take them for numbers."""
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    loss = (x.sum() * 2.0 - x.max() / 4) * x.mean()
    assert isinstance(loss.data, np.ndarray)
    loss.backward()
    assert isinstance(x.grad.data, np.ndarray)
    assert x.grad.dtype == np.float32


# -- a second walk


def test_a_second_backward_through_a_released_graph_says_what_to_do(backend):
    x = leaf(backend, [1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GraphError, match="retain_graph=True"):
        y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4])


def test_two_losses_over_a_released_trunk_raise_and_leave_grad_alone(backend):
    x = leaf(backend, [1.0, 2.0])
    trunk = ops.exp(x)
    first, second = trunk.sum(), (trunk * trunk).sum()
    first.backward()
    before = x.grad.numpy().copy()
    with pytest.raises(GraphError, match="released"):
        second.backward()
    np.testing.assert_array_equal(x.grad.numpy(), before)


# -- cotangents


def test_a_cotangent_adopts_the_dtype_of_the_output(backend):
    x = leaf(backend, [1.0, 2.0], np.float32)
    y = x * x
    for c in (np.array([1, 2]), np.array([1.0, 2.0])):
        assert grad(y, x, backend.asarray(c), retain_graph=True).dtype == np.float32
    assert grad(y, x, [1, 2]).numpy().tolist() == [2, 8]
    assert grad((x * x).sum(), x, 0.5).numpy().tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(), (1,), (1, 2), (3,)])
def test_a_cotangent_of_another_shape_is_refused(backend, shape):
    x = leaf(backend, [1.0, 2.0])
    with pytest.raises(ShapeError, match="not broadcast"):
        (x * x).backward(backend.asarray(np.ones(shape)))
    with pytest.raises(ShapeError, match=r"\.sum\(\) or \.mean\(\)"):
        (x * x).backward()


def test_an_output_without_a_graph_says_why(backend):
    x = leaf(backend, [1.0])
    for y in ((x * x).detach(), Tensor(backend.asarray(np.ones(1))) * 2):
        with pytest.raises(GraphError, match="detached"):
            y.backward()


# -- grad()


def test_grad_reaches_intermediate_results_and_leaves_grad_alone(backend):
    x = leaf(backend, [3.0])
    y = x * x
    z = y * y
    gz, gy, gx = grad(z, [z, y, x])
    assert [g.item() for g in (gz, gy, gx)] == [1, 18, 108]
    assert x.grad is None


def test_grad_stops_at_the_inputs_and_keeps_what_lies_behind_them(backend):
    x = leaf(backend, [3.0])
    y = ops.exp(x)
    grad(y * y, y)
    assert grad(y, x).item() == pytest.approx(np.exp(3))


def test_grad_of_an_unused_input_raises_or_gives_zeros(backend):
    x, other = leaf(backend, [1.0, 2.0]), leaf(backend, [[1.0, 2.0]])
    with pytest.raises(GraphError, match="input 1"):
        grad((x * x).sum(), [x, other])
    g, zeros = grad((x * x).sum(), [x, other], unused="zeros")
    assert g.numpy().tolist() == [2, 4]
    assert (zeros.shape, zeros.numpy().any()) == ((1, 2), False)
    constant = Tensor(backend.asarray(np.array(1.0)))
    assert not grad(constant, x, unused="zeros").numpy().any()
    with pytest.raises(GraphError):
        grad(constant, x)


def test_grad_refuses_what_wants_no_gradient(backend):
    x = leaf(backend, [1.0])
    with pytest.raises(GraphError, match="input 0"):
        grad(x * 2, Tensor(backend.asarray(np.ones(1))))
    with pytest.raises(ValueError, match="neither"):
        grad(x * 2, x, unused="ignore")


def test_what_grad_returns_shares_no_memory_with_the_cotangent_or_each_other():
    x, y = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    c = np.array([1.0, 2.0])
    gx, gy, again = grad(x + y, [x, y, x], c)
    gx.data[...] = 7
    assert (c.tolist(), gy.data.tolist(), again.data.tolist()) == ([1, 2], [1, 2], [1, 2])
    (x + y).backward(Tensor(c), create_graph=True)
    x.grad.data[...] = 9
    assert (c.tolist(), y.grad.data.tolist()) == ([1, 2], [1, 2])


def test_gradients_are_recorded_under_create_graph_and_not_otherwise(backend):
    x = leaf(backend, [2.0])
    assert not grad((x**3).sum(), x).requires_grad
    g = grad((x**3).sum(), x, create_graph=True)
    h = grad(g, x, create_graph=True)
    found = g.item(), h.item(), grad(h, x).item()
    assert found == pytest.approx((12, 12, 6), rel=1e-14)  # a GPU's powers are rounded
    (x**3).sum().backward(create_graph=True)
    (x.grad * x.grad).sum().backward()
    assert x.grad.item() == pytest.approx(12 + 2 * 12 * 12, rel=1e-14)


# -- jacobian and hvp


def test_the_jacobian_of_a_matrix_product_is_the_matrix(backend):
    A = np.random.default_rng(0).standard_normal((3, 4))
    x = backend.asarray(np.arange(4.0))
    found = jacobian(lambda x: backend.asarray(A) @ x, x).numpy()
    np.testing.assert_allclose(found, A, rtol=1e-15)


def test_the_jacobian_of_softmax_is_its_closed_form(backend):
    x = np.random.default_rng(0).standard_normal(5)
    p = np.exp(x) / np.exp(x).sum()
    found = jacobian(ops.softmax, Tensor(backend.asarray(x))).numpy()
    np.testing.assert_allclose(found, np.diag(p) - np.outer(p, p), atol=1e-16)


def test_a_jacobian_has_the_shape_of_the_output_and_then_of_the_input(backend):
    x = backend.asarray(np.ones((2, 3)))
    assert jacobian(lambda x: x.sum(axis=0), x).shape == (3, 2, 3)
    assert not jacobian(lambda x: x.detach(), x).numpy().any()


def quadratic(backend, n=4):
    A = np.random.default_rng(0).standard_normal((n, n))
    A, x = A + A.T, leaf(backend, np.arange(float(n)))
    there = backend.asarray(A)
    return A, x, lambda: (x * (there @ x)).sum() * 0.5


def test_the_hvp_of_a_quadratic_is_its_matrix_times_v(backend):
    A, x, f = quadratic(backend)
    v = np.random.default_rng(1).standard_normal(4)
    (found,) = hvp(f, [x], [backend.asarray(v)])
    np.testing.assert_allclose(found.numpy(), A @ v, rtol=1e-13)


def test_the_hvp_of_a_network_is_symmetric(backend):
    rng = np.random.default_rng(0)
    images = backend.asarray(rng.standard_normal((4, 5, 5, 2)))
    shapes = (3, 3, 2, 3), (3,), (3,), (12, 4)
    params = [leaf(backend, rng.standard_normal(s)) for s in shapes]

    def loss():
        w, gamma, beta, out = params
        y = ops.relu(ops.batch_norm(ops.conv2d(images, w, padding=1), gamma, beta))
        y = ops.max_pool2d(y, 2).reshape(4, -1)
        return ops.softmax_cross_entropy(y @ out, [0, 1, 2, 3])

    u, v = ([rng.standard_normal(s) for s in shapes] for _ in range(2))
    Hu = hvp(loss, params, map(backend.asarray, u))
    Hv = hvp(loss, params, map(backend.asarray, v))
    a = sum((h.numpy() * d).sum() for h, d in zip(Hu, v, strict=True))
    b = sum((h.numpy() * d).sum() for h, d in zip(Hv, u, strict=True))
    assert abs(a) > 1e-3
    assert a == pytest.approx(b, rel=1e-11)


def test_derivatives_are_taken_inside_no_grad_too(backend):
    A, x, f = quadratic(backend)
    with no_grad():
        (found,) = hvp(f, [x], [backend.asarray(np.ones(4))])
        slope = jacobian(lambda x: x * x, backend.asarray(np.array([3.0])))
        assert not (x * x).requires_grad
    np.testing.assert_allclose(found.numpy(), A.sum(1), rtol=1e-13)
    assert slope.item() == 6


def test_the_hvp_of_a_linear_function_is_zero_and_of_a_parameter_without_axes_a_number(backend):
    x = leaf(backend, 3.0)
    assert hvp(lambda: x * 2, [x], [1.0])[0].item() == 0
    cubic = hvp(lambda: x**3, [x], [2.0])[0]
    assert cubic.item() == pytest.approx(36, rel=1e-14)  # a GPU's powers are rounded


def test_hvp_says_what_does_not_fit(backend):
    x = leaf(backend, [1.0, 2.0])
    with pytest.raises(ShapeError, match="one array per parameter"):
        hvp(lambda: (x * x).sum(), [x], [backend.asarray(np.ones(3))])
    with pytest.raises(ShapeError, match="scalar"):
        hvp(lambda: x * x, [x], [backend.asarray(np.ones(2))])


# -- memory


class Sum3(Op):
    """An op that needs nothing of its inputs."""

    needs = ()

    def forward(self, x):
        return x.sum()

    def vjp(self, g, out, x):
        return ops.broadcast_to(g.reshape((1,) * x.ndim), x.shape)


def test_an_op_that_needs_no_input_keeps_none_alive():
    x = Tensor(np.ones(3), requires_grad=True)
    y = x * 2
    array = weakref.ref(y.data)
    z = apply(Sum3(), y)
    del y
    assert array() is None
    z.backward()
    assert x.grad.numpy().tolist() == [2, 2, 2]


@pytest.mark.parametrize("f", [ops.relu, ops.exp, ops.tanh, ops.sqrt, ops.sigmoid])
def test_an_op_that_needs_its_output_frees_its_input(f):
    x = Tensor(np.ones(3), requires_grad=True)
    y = x + 1
    array = weakref.ref(y.data)
    z = f(y)
    del y
    assert array() is None
    z.sum().backward()


def test_the_graph_dies_with_its_output_without_the_cycle_collector():
    gc.disable()
    try:
        x = Tensor(np.ones((2, 4, 4, 2)), requires_grad=True)
        y = ops.batch_norm(ops.conv2d(x, np.ones((3, 3, 2, 2))), np.ones(2), np.zeros(2))
        arrays = [weakref.ref(y.data), weakref.ref(y.node.inputs[0])]
        z = ops.max_pool2d(ops.relu(y), 2).sum()
        del y
        assert arrays[1]() is not None
        del z
        assert [a() for a in arrays] == [None, None]
    finally:
        gc.enable()


def test_the_graph_is_released_as_it_is_walked():
    x = Tensor(np.ones(3), requires_grad=True)
    early = ops.exp(x)
    held = weakref.ref(early.data)
    seen = []

    class Look(Op):
        def forward(self, x):
            return x + 0

        def vjp(self, g, out, x):
            seen.append(held() is not None)
            return g

    y = apply(Look(), early)
    late = y * y
    kept = weakref.ref(y.data)
    loss = late.sum()
    del early, y, late
    assert kept() is not None
    loss.backward()
    assert seen == [True]
    assert (held(), kept()) == (None, None), "the loss is alive, what it was made of is not"
    assert loss.node.is_released


def test_threads_record_apart():
    x = Tensor(np.ones(2), requires_grad=True)
    found = []
    with no_grad():
        thread = threading.Thread(target=lambda: found.append((x * x).requires_grad))
        thread.start()
        thread.join()
    assert found == [True]


# -- complex numbers


def test_complex_inputs_run_forward_and_backward_through_smooth_ops(backend):
    """f(x + ih) = f(x) + ih f'(x), and the same for the gradient: both to the last digit."""
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((2, 6, 3))
    w = backend.asarray(rng.standard_normal((3, 2)))

    def f(x):
        y = ops.batch_norm(x, backend.asarray(np.ones(3)), backend.asarray(np.zeros(3)))
        return ops.softmax_cross_entropy(ops.tanh(y) @ w, [0, 1, 1, 0, 1, 0])

    real, moved = leaf(backend, x), leaf(backend, x + 1e-30j * v, complex)
    value, step = f(real), f(moved)
    slope = grad(value, real).numpy()
    assert step.numpy().imag / 1e-30 == pytest.approx((slope * v).sum(), rel=1e-13)
    (along,) = hvp(lambda: f(real), [real], [backend.asarray(v)])
    np.testing.assert_allclose(
        grad(step, moved).numpy().imag / 1e-30, along.numpy(), rtol=1e-11, atol=1e-14
    )


def test_backward_frees_what_the_ops_hold_though_the_loss_lives_on():
    x = Tensor(np.arange(6.0), requires_grad=True)
    index = np.array([4, 0, 0])
    held = weakref.ref(index)
    loss = (ops.gather(x, index) ** 2).sum()
    del index
    assert held() is not None
    loss.backward()
    assert held() is None
    with pytest.raises(GraphError, match="released"):
        loss.backward()
