"""Running statistics moved by a kernel: the same bits as the definition."""

from contextlib import nullcontext

import numpy as np
import pytest
from support.cuda import on_cuda, orders

from minibn import kernels, nn
from minibn.backend import to_numpy
from minibn.fast.cuda.program import wrap_launches


def moved(backend, layer, dtype, kind):
    layer = layer(130).initialize(0, dtype=dtype)
    rng = np.random.default_rng(1)
    with kernels(kind):
        for _ in range(3):
            new = [backend.asarray(rng.standard_normal(130).astype(dtype) ** 2) for _ in range(2)]
            layer.update_running_statistics(*new)
    return [to_numpy(x) for name, x in layer.state_dict().items() if "running" in name]


@on_cuda
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("p", [None, 1])
def test_statistics_move_to_the_same_bits_as_by_the_definition(backend, dtype, momentum, p):
    def layer(width):
        if p is None:
            return nn.BatchNorm(width, momentum=momentum)
        return nn.LpBatchNorm(width, p=p, momentum=momentum)

    expected = moved(backend, layer, dtype, "reference")
    for found in orders(backend, lambda: moved(backend, layer, dtype, "fast")):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@on_cuda
def test_both_statistics_take_one_launch(backend):
    names = []

    def around(name):
        names.append(name)
        return nullcontext()

    layer = nn.BatchNorm(8).initialize(0)
    with wrap_launches(around):
        layer.update_running_statistics(
            backend.xp.ones(8, np.float32), backend.xp.ones(8, np.float32)
        )
    assert names == ["running_statistics.average"]
