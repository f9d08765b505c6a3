"""A captured graph: what it reads anew when it is launched, what it keeps, and what it refuses."""

import numpy as np
import pytest
from support.cuda import on, on_cuda
from support.waiting import nothing_waits

from minibn import Tensor, ops, to_numpy
from minibn.autograd.tape import apply
from minibn.backend import get_backend
from minibn.errors import CaptureError
from minibn.fast.cuda.graph import Graph
from minibn.fast.cuda.scalars import Scalars, use_scalars
from minibn.fast.selection import runs_cuda_kernels
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.random import uniforms_and_normals

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@on_cuda
def test_a_launch_reads_what_stands_in_the_arrays_by_then(backend):
    xp, x, index = backend.xp, backend.asarray(ROWS), backend.asarray(np.array([2, 0]))
    graph = Graph(backend)
    with graph.capture():
        y = xp.exp(x * 0.125).sum(axis=1)
        z = x[index] + x.T[:, 1:2].reshape(1, 3)
    for scale, rows in ((1, [2, 0]), (3, [1, 3])):
        x[...] = backend.asarray(ROWS * scale)
        index[...] = backend.asarray(np.array(rows))
        graph.launch()
        np.testing.assert_allclose(
            to_numpy(y), np.exp(ROWS * np.float32(scale) / 8).sum(1), rtol=1e-6
        )
        np.testing.assert_array_equal(to_numpy(z), scale * (ROWS[rows] + ROWS[1]))


@on_cuda
def test_what_is_handed_over_by_value_stays_as_it_was(backend):
    x, factor = backend.asarray(ROWS), 2.0
    graph = Graph(backend)
    with graph.capture():
        y = x * factor
    factor = 3.0
    graph.launch()
    np.testing.assert_array_equal(to_numpy(y), 2 * ROWS)


@on_cuda
def test_nothing_is_done_in_the_capture_and_everything_at_each_launch(backend):
    x = backend.asarray(ROWS)
    graph = Graph(backend)
    with graph.capture():
        x += 1
        x[0] = x[0] * 2
    np.testing.assert_array_equal(to_numpy(x), ROWS)
    expected = ROWS.copy()
    for _ in range(3):
        graph.launch()
        expected += 1
        expected[0] *= 2
        np.testing.assert_array_equal(to_numpy(x), expected)


@on_cuda
@pytest.mark.parametrize("window", [{"size": 2}, {"size": 3, "stride": 2, "padding": 1}])
def test_ops_and_gradients_are_captured_by_kernels_and_by_definitions(backend, window):
    x = backend.asarray(np.random.default_rng(0).standard_normal((2, 4, 4, 3)).astype(np.float32))
    gamma, beta = (backend.asarray(np.full(3, value, np.float32)) for value in (1, 0.5))

    def gradient():
        leaf = Tensor(x, requires_grad=True)
        y = ops.max_pool2d(ops.batch_norm(leaf, gamma, beta), **window)
        (y * y).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.data

    gradient()  # compiles
    graph = Graph(backend)
    with graph.capture():
        g = gradient()
    for scale in (1, -2):
        x *= scale
        graph.launch()
        # Where windows overlap, atomic additions may come in another order.
        np.testing.assert_allclose(to_numpy(g), to_numpy(gradient()), rtol=1e-5, atol=1e-6)


@on_cuda
def test_a_bad_label_of_the_device_makes_the_loss_of_a_captured_step_nan(backend):
    """To check it would wait for the device, and CuPy's indices wrap around."""
    x = Tensor(backend.asarray(np.ones((3, 4))), requires_grad=True)
    given = [backend.asarray(np.array(a)) for a in ([0, 3, 1], [0, 4, 1], [0, -1, 1])]
    graph = Graph(backend)
    with graph.capture():
        good, *bad = (ops.softmax_cross_entropy(x, labels) for labels in given)
        with pytest.raises(ValueError, match="labels run from 0 to 4"):
            ops.softmax_cross_entropy(x, [0, 4, 1])
    graph.launch()
    assert to_numpy(good) == pytest.approx(np.log(4))
    assert all(np.isnan(to_numpy(loss)) for loss in bad)


def test_the_loss_takes_no_more_launches_than_the_cost_model_counts():
    """It has no kernel, since some 33 launches more a step are cheap: see the README's table."""
    with on("emulated") as backend:
        x = Tensor(backend.asarray(np.ones((8, 10), np.float32)), requires_grad=True)
        labels = backend.asarray(np.arange(8))
        graph = Graph(backend)
        with graph.capture():
            apply(SoftmaxCrossEntropy(labels), x).backward()
        assert len(graph._graph.calls) <= 40


@on_cuda
def test_graphs_take_turns(backend):
    x, graphs = backend.asarray(ROWS), [Graph(backend), Graph(backend)]
    for add, graph in zip((1, 10), graphs, strict=True):
        with graph.capture():
            x += add
    for graph in (*graphs, graphs[0]):
        graph.launch()
    np.testing.assert_array_equal(to_numpy(x), ROWS + 12)


@on_cuda
def test_a_launch_waits_for_nothing(backend):
    x = backend.asarray(ROWS)
    graph = Graph(backend)
    with graph.capture():
        x += 1
    graph.launch()
    with nothing_waits(backend) as waited:
        for _ in range(5):
            graph.launch()
    assert waited == []


@on_cuda
def test_draws_move_with_the_tick(backend):
    def draw(step):
        return backend.xp.concatenate(uniforms_and_normals(backend, 5, step, 999, np.float32))

    scalars, graph = Scalars(backend.xp), Graph(backend)
    draw(0)
    with use_scalars(scalars), graph.capture():
        u = draw(10)
    for tick in (0, 1, 7, 2**64 - 4):
        scalars.tick.fill(tick)
        graph.launch()
        np.testing.assert_array_equal(to_numpy(u), to_numpy(draw((10 + tick) % 2**64)))


@on_cuda
def test_what_waits_for_the_device_is_refused_and_the_next_capture_works(backend):
    x = backend.asarray(ROWS)
    for wait in (lambda x: x.sum().item(), to_numpy, lambda x: x[x > 3]):
        graph = Graph(backend)
        with pytest.raises(Exception, match=r"(?i)captur"), graph.capture():
            x += 1
            wait(x)
        np.testing.assert_array_equal(to_numpy(x), ROWS)
    graph = Graph(backend)
    with graph.capture():
        x += 1
    graph.launch()
    np.testing.assert_array_equal(to_numpy(x), ROWS + 1)


@on_cuda
def test_products_by_cublas_are_refused(backend):
    x = backend.asarray(ROWS)
    with pytest.raises(Exception, match="cuBLAS"), Graph(backend).capture():
        x @ x.T
    assert to_numpy(x @ x.T).shape == (4, 4)


@pytest.mark.parametrize("move", ["asarray", "array"])
def test_what_is_brought_to_the_device_is_refused_by_the_double(move):
    backend = get_backend("strict")
    with pytest.raises(CaptureError, match="brought to the device"), Graph(backend).capture():
        getattr(backend.xp, move)(ROWS)
    with pytest.raises(CaptureError, match="brought to the device"), Graph(backend).capture():
        backend.asarray(ROWS)


def test_captures_do_not_nest():
    backend = get_backend("strict")
    with Graph(backend).capture():
        with pytest.raises(CaptureError, match="do not nest"), Graph(backend).capture():
            pass
        backend.xp.ones(3)


@on_cuda
def test_a_backend_says_whether_it_is_being_captured(backend):
    with use_scalars(Scalars(backend.xp)):
        assert not backend.is_capturing  # a number is read from the device; nothing is captured
        backend.asarray(ROWS)
    with Graph(backend).capture():
        assert backend.is_capturing
        backend.xp.ones(3)
    assert not backend.is_capturing


def test_kernels_run_on_a_gpu_or_emulated():
    assert not runs_cuda_kernels(get_backend("numpy"))
    assert not runs_cuda_kernels(get_backend("strict"))


@on_cuda
def test_there_they_run(backend):
    assert runs_cuda_kernels(backend)
