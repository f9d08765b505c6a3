"""What mutants are shown to: problems as people write them by hand, and drawn ones.

A plain problem has one small shape, standard normal numbers, gamma = 1 and beta = 0, no ties, equal
shapes where two arrays meet, stride 1 or windows that tile: the example that comes to mind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from minibn import ops
from minibn.fast.fused_ops import fused_block
from minibn.testing.problem import Problem
from minibn.testing.registry import here

Rng = np.random.Generator


def drawn(strategy: st.SearchStrategy[Any], n: int) -> list[Any]:
    """`n` examples of a strategy, always the same ones.

    Every third of three times as many: hypothesis likes to draw variations of its last example.
    """
    found: list[Any] = []

    @settings(
        max_examples=3 * n, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return (found[::3] if len(found) > n else found)[:n]


def of(f: Callable[..., Any], *shapes: tuple[int, ...], domain: Any = None):
    """Makes problems of f at standard normal arrays of these shapes."""

    def make(rng: Rng) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
        inputs = tuple(rng.standard_normal(shape) for shape in shapes)
        return f, (domain(inputs[0]), *inputs[1:]) if domain else inputs

    return make


def positive(x: np.ndarray) -> np.ndarray:
    return np.abs(x) + 0.5


def dropped(rng: Rng):
    draws = rng.random((3, 4))
    return lambda x: ops.dropout(x, 0.5, here(x, draws)), (rng.standard_normal((3, 4)),)


def chosen(rng: Rng):
    mask = rng.random((3, 4)) < 0.5
    return lambda x, y: ops.where(here(x, mask), x, y), tuple(rng.standard_normal((2, 3, 4)))


def indexed(rng: Rng):
    index: Any = slice(1, 3) if rng.random() < 0.5 else [3, 0, 1]
    return lambda x: ops.getitem(x, index), (rng.standard_normal((4, 3)),)


def classified(rng: Rng):
    labels = rng.integers(0, 3, 4)
    return lambda x: ops.softmax_cross_entropy(x, labels), (rng.standard_normal((4, 3)),)


def fresh(op: Callable[..., Any]):
    """A normalisation that has not been trained: gamma = 1, beta = 0."""

    def make(rng: Rng):
        return op, (rng.standard_normal((4, 3, 5)), np.ones(5), np.zeros(5))

    return make


def biased(rng: Rng):
    """What follows a convolution in a network without norms: bias, ReLU, pooling."""
    return (
        lambda x, b: fused_block(x, b, relu=True, pool=2),
        (rng.standard_normal((2, 4, 4, 3)), rng.standard_normal(3)),
    )


def inference(x, gamma, beta):
    return ops.batch_norm_inference(x, gamma, beta, here(x, np.zeros(5)), here(x, np.ones(5)))


def lp(p: float):
    return fresh(lambda x, gamma, beta: ops.lp_batch_norm(x, gamma, beta, p=p))


def lp_inference(x, gamma, beta):
    fixed = here(x, np.zeros(5)), here(x, np.ones(5))
    return ops.lp_batch_norm_inference(x, gamma, beta, *fixed, p=1)


def fresh_without_beta(op: Callable[..., Any]):
    return lambda rng: (op, (rng.standard_normal((4, 3, 5)), np.ones(5)))


THREE = np.array([5, 0, 2])

PLAIN: dict[str, Callable[[Rng], Any]] = {
    "abs": of(ops.abs, (3, 4)),
    "add": of(ops.add, (3, 4), (3, 4)),
    "avg_pool2d": of(ops.avg_pool2d, (2, 4, 4, 3)),
    "batch_norm": fresh(ops.batch_norm),
    "batch_norm_composed": fresh(ops.batch_norm_composed),
    "batch_norm_inference": fresh(inference),
    "broadcast_to": of(lambda x: ops.broadcast_to(x, (2, 3)), (3,)),
    "cast": of(lambda x: ops.cast(x, x.dtype), (3, 4)),
    "concatenate": of(lambda x, y: ops.concatenate([x, y]), (2, 3), (2, 3)),
    "conv2d": of(lambda x, w, b: ops.conv2d(x, w, b, padding=1), (2, 5, 5, 2), (3, 3, 2, 3), (3,)),
    "divide": of(ops.divide, (3, 4), (3, 4)),
    "dropout": dropped,
    "fused_block": biased,
    "exp": of(ops.exp, (3, 4)),
    "gather": of(lambda x: ops.gather(x, here(x, THREE)), (2, 3)),
    "getitem": indexed,
    "global_avg_pool2d": of(ops.global_avg_pool2d, (2, 4, 4, 3)),
    "group_norm": fresh(lambda x, *affine: ops.group_norm(x, *affine, groups=1)),
    "instance_norm": fresh(ops.instance_norm),
    "layer_norm": fresh(ops.layer_norm),
    "log": of(ops.log, (3, 4), domain=positive),
    "logsumexp": of(lambda x: ops.logsumexp(x, axis=1), (3, 4)),
    "lp_batch_norm, p=1": lp(1),
    "lp_batch_norm, p=2": lp(2),
    "lp_batch_norm, p=inf": lp(np.inf),
    "lp_batch_norm_inference": fresh(lp_inference),
    "matmul": of(ops.matmul, (3, 4), (4, 2)),
    "max": of(lambda x: ops.max(x, axis=1), (3, 4)),
    "max_pool2d": of(ops.max_pool2d, (2, 4, 4, 3)),
    "maximum": of(ops.maximum, (3, 4), (3, 4)),
    "mean": of(lambda x: ops.mean(x, axis=0), (3, 4)),
    "moments": of(lambda x: ops.concatenate(ops.moments(x)), (4, 3, 5)),
    "mse": of(ops.mse, (4, 3), (4, 3)),
    "multiply": of(ops.multiply, (3, 4), (3, 4)),
    "negative": of(ops.negative, (3, 4)),
    "norm": of(ops.norm, (3, 4)),
    "norm, p=1": of(lambda x: ops.norm(x, 1), (3, 4)),
    "norm, p=inf": of(lambda x: ops.norm(x, np.inf), (3, 4)),
    "pad": of(lambda x: ops.pad(x, ((1, 1), (1, 1))), (3, 4)),
    "power": of(lambda x: ops.power(x, 3), (3, 4)),
    "power, of whole numbers": of(lambda x: ops.power(x, here(x, THREE)), (4, 3)),
    "power, of two variables": of(ops.power, (3, 4), (3, 4), domain=positive),
    "relu": of(ops.relu, (3, 4)),
    "reshape": of(lambda x: ops.reshape(x, (2, 6)), (3, 4)),
    "rms_norm": fresh_without_beta(ops.rms_norm),
    "scatter": of(lambda x: ops.scatter(x, here(x, THREE), (2, 3)), (3,)),
    "sigmoid": of(ops.sigmoid, (3, 4)),
    "softmax": of(ops.softmax, (3, 4)),
    "softmax_cross_entropy": classified,
    "sqrt": of(ops.sqrt, (3, 4), domain=positive),
    "subtract": of(ops.subtract, (3, 4), (3, 4)),
    "sum": of(lambda x: ops.sum(x, axis=0), (3, 4)),
    "tanh": of(ops.tanh, (3, 4)),
    "transpose": of(ops.transpose, (3, 4)),
    "var": of(lambda x: ops.var(x, axis=0), (3, 4)),
    "weight_standardisation": fresh_without_beta(ops.weight_standardisation),
    "where": chosen,
}


def plain(case: str, n: int = 5) -> list[Problem]:
    """`n` hand-written problems of a case; none if nobody has written one."""
    if case not in PLAIN:
        return []
    made = [PLAIN[case](np.random.default_rng(k)) for k in range(n)]
    return [Problem(f, inputs, k) for k, (f, inputs) in enumerate(made)]
