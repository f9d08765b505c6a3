"""`detect_anomaly` names the op that made a NaN, the pass, and an array that was overwritten."""

import numpy as np
import pytest

from minibn import Tensor, detect_anomaly, grad, ops
from minibn.autograd import observers
from minibn.errors import AnomalyError


def leaf(backend, values):
    return Tensor(backend.asarray(np.array(values, float)), requires_grad=True)


def test_the_op_that_makes_a_nan_in_the_forward_pass_is_named(backend):
    x = leaf(backend, [1.0, -1.0])
    with detect_anomaly(), pytest.raises(AnomalyError, match=r"^Log made nan from finite"):
        ops.exp(ops.log(x))


def test_the_op_that_makes_an_infinity_in_the_backward_pass_is_named(backend):
    x = leaf(backend, [0.0, 1.0])
    with detect_anomaly():
        y = ops.sqrt(x).sum()
        with pytest.raises(AnomalyError, match=r"^Sqrt: its vjp made inf in the gradient of input"):
            y.backward()
    assert x.grad is None


def test_a_nan_from_outside_is_said_to_come_from_there(backend):
    x = leaf(backend, [np.nan, 1.0])
    with detect_anomaly(), pytest.raises(AnomalyError, match=r"input 0 already holds nan.*outside"):
        x * 2


def test_a_cotangent_that_is_not_finite_is_named(backend):
    x = leaf(backend, [1.0])
    with detect_anomaly(), pytest.raises(AnomalyError, match=r"cotangent"):
        (x * 2).backward(backend.asarray(np.array([np.inf])))


def test_a_saved_array_that_was_overwritten_by_hand_is_caught(backend):
    x = leaf(backend, [1.0, 2.0])
    with detect_anomaly():
        y = (x * x).sum()
        x.data[...] = 5
        with pytest.raises(AnomalyError, match=r"Multiply.*overwritten"):
            y.backward()


def test_the_layer_is_named_in_both_passes(backend):
    x = leaf(backend, [0.0])
    with detect_anomaly():
        with observers.layer("features"), observers.layer("conv3"):
            y = ops.sqrt(x)
            with pytest.raises(AnomalyError, match=r"Log in layer features\.conv3 made inf"):
                ops.log(x)
        with pytest.raises(AnomalyError, match=r"Sqrt in layer features\.conv3: its vjp"):
            y.backward()


def test_sound_graphs_pass_and_give_the_same_gradients(backend):
    x = leaf(backend, [1.0, 2.0])
    expected = grad((ops.exp(x) * x).sum(), x).numpy()
    with detect_anomaly():
        y = (ops.exp(x) * x).sum()
        np.testing.assert_array_equal(grad(y, x, create_graph=True).numpy(), expected)


def test_the_mode_ends_with_its_block_and_after_an_exception(backend):
    x = leaf(backend, [np.inf])
    with pytest.raises(AnomalyError), detect_anomaly():
        x * 2
    assert not observers.current()
    assert (x * 2).item() == np.inf


def test_blocks_may_be_nested(backend):
    x = leaf(backend, [np.nan])
    with detect_anomaly():
        with detect_anomaly():
            pass
        with pytest.raises(AnomalyError):
            x * 2
