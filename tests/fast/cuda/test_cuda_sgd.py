"""SGD for all parameters in one launch: the weights of the definition, to the last bit."""

from unittest.mock import patch

import numpy as np
import pytest
from support.cuda import on_cuda, orders

from minibn import Tensor, kernels, to_numpy
from minibn.backend import get_backend
from minibn.fast.cuda import sgd
from minibn.fast.cuda.scalars import Scalars, use_scalars
from minibn.optim import SGD, Adam

SHAPES = [(3, 3, 5, 7), (1025,), (11, 93), (1,), (1024,)]
RULES = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.3},
]


def trained(backend, settings, dtype=np.float32, shapes=SHAPES, steps=3, groups=None):
    """(the optimizer, weights and kept arrays on the host) after some steps."""
    rng = np.random.default_rng(0)

    def drawn(shape):
        return backend.asarray(rng.standard_normal(shape).astype(dtype))

    params = [Tensor(drawn(shape), requires_grad=True) for shape in shapes]
    optimizer = SGD(groups(params) if groups else params, lr=0.1, **settings)
    for step in range(steps):
        optimizer.lr = 0.1 / (1 + step)
        for p in params:
            p.grad = Tensor(drawn(p.shape))
        optimizer.step()
    kept = optimizer.state_dict()
    return optimizer, [to_numpy(p.data) for p in params] + [kept[name] for name in sorted(kept)]


def assert_same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def launches(program=sgd.PROGRAM):
    return patch.object(program, "launch", wraps=program.launch)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", RULES)
@on_cuda
def test_the_weights_and_the_state_are_the_definitions_to_the_last_bit(backend, settings, dtype):
    expected = trained(get_backend("numpy"), settings, dtype)[1]
    for found in orders(backend, lambda: trained(backend, settings, dtype)[1]):
        assert_same_bits(found, expected)


@on_cuda
def test_all_parameters_take_one_launch(backend):
    with launches() as launch:
        trained(backend, {"momentum": 0.9}, steps=1)
    assert launch.call_count == 1


@on_cuda
def test_groups_differ_in_rate_decay_and_momentum(backend):
    def groups(params):
        return [
            {"params": params[:2], "lr_scale": 0.5, "momentum": 0.0},
            {"params": params[2:3], "weight_decay": 0.2},
            {"params": params[3:], "nesterov": True},
        ]

    settings = {"momentum": 0.8}
    expected = trained(get_backend("numpy"), settings, groups=groups)[1]
    assert_same_bits(trained(backend, settings, groups=groups)[1], expected)


@on_cuda
def test_more_parameters_than_a_table_holds_take_more_launches(backend):
    shapes = [(2 + i,) for i in range(2 * sgd.MOST + 1)]
    expected = trained(get_backend("numpy"), {"momentum": 0.9}, shapes=shapes)[1]
    with launches() as launch:
        found = trained(backend, {"momentum": 0.9}, shapes=shapes)[1]
    assert launch.call_count == 3 * 3, "three tables in three steps"
    assert_same_bits(found, expected)


@on_cuda
def test_a_parameter_without_a_gradient_stays_and_gets_no_velocity(backend):
    params = [Tensor(backend.asarray(np.ones(3, np.float32)), requires_grad=True) for _ in "ab"]
    optimizer = SGD(params, lr=1.0, momentum=0.9)
    params[1].grad = Tensor(backend.asarray(np.full(3, 0.25, np.float32)))
    optimizer.step()
    assert [to_numpy(p.data).tolist() for p in params] == [[1.0] * 3, [0.75] * 3]
    assert list(optimizer.state_dict()) == ["steps", "1.velocity"]


@on_cuda
def test_the_rate_on_the_device_multiplies_the_rate_by_value(backend):
    p = Tensor(backend.asarray(np.full(3, 8.0)), requires_grad=True)
    p.grad = Tensor(backend.asarray(np.ones(3)))
    scalars = Scalars(backend.xp)
    scalars.rate.fill(3.0)
    with use_scalars(scalars):
        SGD([p], lr=0.5).step()
    assert to_numpy(p.data).tolist() == [6.5] * 3


@on_cuda
def test_what_the_kernel_does_not_know_is_left_to_the_definition(backend):
    def halves(mode):
        p = Tensor(backend.asarray(np.ones((4, 6), np.float32)).T, requires_grad=True)
        p.grad = Tensor(backend.asarray(np.full((6, 4), 0.5, np.float32)))
        with kernels(mode), launches() as launch:
            SGD([p], lr=1.0).step()
        assert launch.call_count == 0
        return to_numpy(p.data)

    for mode in ("fast", "reference"):  # a transposed view; any array
        np.testing.assert_array_equal(halves(mode), 0.5)


@on_cuda
def test_a_backward_after_the_update_is_refused_as_ever(backend):
    p = Tensor(backend.asarray(np.ones(3)), requires_grad=True)
    loss = (p * p).sum()
    p.grad = Tensor(backend.asarray(np.ones(3)))
    before = p.version.count
    SGD([p], lr=0.1).step()
    assert p.version.count == before + 1
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


@pytest.mark.parametrize("Optimizer, mode", [(Adam, "fast"), (SGD, "reference")])
@on_cuda
def test_a_rate_by_value_is_not_read_from_the_device(backend, Optimizer, mode):
    p = Tensor(backend.asarray(np.ones(3)), requires_grad=True)
    p.grad = Tensor(backend.asarray(np.ones(3)))
    given = Scalars(backend.xp)
    with kernels(mode), use_scalars(given):
        Optimizer([p], lr=0.1).step()
    assert not given.rate_is_read  # what `CapturedStep` then refuses
