"""np.seterr(all="raise"): no op or layer raises where its value and its gradients are finite."""

import numpy as np
import pytest
from hypothesis import given, settings
from suite.registry import CASES, LAYERS

from minibn import Tensor, grad, kernels, nn, ops, optim
from minibn.backend import to_numpy

SCALES = (1.0, 30.0, 1e4, 1e-12, 1e-30)
ROWS = {
    **{name: case.problems for name, case in CASES.items()},
    **{f"nn.{name}": case.problems.map(lambda p: p.problem()) for name, case in LAYERS.items()},
}


def results(problem, inputs) -> list[np.ndarray]:
    """The value and the gradients."""
    leaves = [Tensor(x.copy(), requires_grad=True) for x in inputs]
    y = problem.f(*leaves)
    c = problem.rng().standard_normal(y.shape).astype(y.dtype)
    return [to_numpy(y), *map(to_numpy, grad(y, leaves, c, unused="zeros"))]


@pytest.mark.parametrize("mode", ["reference", "always"])
@pytest.mark.parametrize("drawn", ROWS.values(), ids=ROWS)
def test_nothing_raises_where_the_result_is_finite(drawn, mode):
    @settings(max_examples=6)
    @given(drawn)
    def check(problem):
        for dtype, scale in [(np.float64, 1.0), *((np.float32, s) for s in SCALES)]:
            inputs = [(x * scale).astype(dtype) for x in problem.inputs]
            with kernels(mode):
                with np.errstate(all="ignore"):
                    expected = results(problem, inputs)
                if not all(np.isfinite(x).all() for x in expected):
                    continue
                with np.errstate(all="raise"):
                    actual = results(problem, inputs)
            for a, b in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(a, b)

    check()


def test_infinite_logits_that_give_finite_probabilities_do_not_raise():
    x = np.array([[-np.inf, 0.0, 500.0], [-np.inf, -np.inf, -300.0]], "f4")
    with np.errstate(all="raise"):
        assert ops.softmax(x).tolist() == [[0, 0, 1], [0, 0, 1]]
        assert ops.logsumexp(x, axis=1).tolist() == [500, -300]
        assert ops.sigmoid(np.array([-np.inf, -500.0, 500.0], "f4")).tolist() == [0, 0, 1]
        assert ops.softplus(np.array([-500.0, 500.0], "f4")).tolist() == [0, 500]
        assert float(ops.softmax_cross_entropy(x, [2, 2])) == 0


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, momentum=0.9), optim.Adam])
@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_training_with_tiny_gradients_does_not_raise(make, mode):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.ReLU(), nn.Linear(4, 2))
    net.initialize(seed=0)
    optimizer = make(net.parameters())
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("f4") * np.float32(1e-20)
    with np.errstate(all="raise"), kernels(mode):
        for _ in range(3):
            optimizer.zero_grad()
            loss = (net(x) ** 2).sum() * 1e-30
            loss.backward()
            optim.clip_grad_norm(net.parameters(), 1.0)
            optimizer.step()
        net.eval()(x)
    with np.errstate(all="raise"):
        layer = nn.Linear(100, 100).initialize(seed=0, dtype=np.float16)
        layer.load_state_dict({"weight": np.full((100, 100), 1e-300), "bias": np.zeros(100)})
