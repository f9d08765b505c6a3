"""Updates a piece at a time: the same weights bit for bit, whatever the pieces and the threads."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, kernels
from minibn.fast.cpu import elementwise, threads
from minibn.optim import SGD, Adam, AdamW

SHAPES = [(3, 3, 5, 7), (11, 13), (6,), (1,)]
RULES = [
    (SGD, {}),
    (SGD, {"weight_decay": 0.01}),
    (SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    (SGD, {"momentum": 0.9, "nesterov": True}),
    (Adam, {"weight_decay": 0.01}),
    (AdamW, {}),
]


def trained(Optimizer, settings, dtype, mode, order="C"):
    """The weights and the kept arrays after three steps."""
    rng = np.random.default_rng(0)
    weights = [np.asarray(rng.standard_normal(s), dtype=dtype, order=order) for s in SHAPES]
    params = [Tensor(w, requires_grad=True) for w in weights]
    optimizer = Optimizer(params, lr=0.1, **settings)
    with kernels(mode):
        for _ in range(3):
            for p in params:
                p.grad = Tensor(rng.standard_normal(p.shape).astype(dtype))
            optimizer.step()
    kept = optimizer.state_dict()
    return [p.numpy() for p in params] + [kept[name] for name in sorted(kept)]


@pytest.mark.parametrize("Optimizer, settings", RULES)
@given(
    piece=st.integers(1, 400),
    large=st.sampled_from([1, 100, 1 << 18]),
    count=st.integers(1, 3),
    dtype=st.sampled_from(["float32", "float64"]),
    order=st.sampled_from("CF"),
)
def test_pieces_and_threads_change_no_bit(Optimizer, settings, piece, large, count, dtype, order):
    expected = trained(Optimizer, settings, dtype, "reference", order)
    with (
        patch.object(elementwise, "PIECE", piece),
        patch.object(elementwise, "LARGE", large),
        threads.limit_threads(count),
    ):
        found = trained(Optimizer, settings, dtype, "fast", order)
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()


def test_large_arrays_are_updated_in_pieces_that_cover_each_element_once():
    sizes = []

    def count_up(w, g):
        sizes.append(w.size)
        w += g

    w, g = np.zeros((700, 1000), np.float32), np.ones((700, 1000), np.float32)
    elementwise.map_pieces(count_up, w, g)
    assert (w == 1).all()
    assert len(sizes) > 1 and max(sizes) <= elementwise.PIECE and sum(sizes) == w.size


def test_the_first_velocity_is_the_gradient_itself():
    p = Tensor(np.zeros(3), requires_grad=True)
    p.grad = Tensor(np.array([1.0, -2.0, 1e-300]))
    optimizer = SGD([p], lr=1.0, momentum=0.9)
    optimizer.step()
    np.testing.assert_array_equal(optimizer.state[0]["velocity"], [1.0, -2.0, 1e-300])
