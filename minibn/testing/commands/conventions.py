"""minibn's conventions where mathematics leaves a choice: as computed, beside the documented value.

`python -m minibn.testing conventions` prints the table. Each number is computed by the tape or the
layer when the table is printed; a test compares it with the documented one. Beside it: PyTorch's
convention (2.13, as run), and for BatchNorm those of other libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn import ops
from minibn.autograd.backward import grad
from minibn.autograd.tensor import Tensor
from minibn.backend import use
from minibn.errors import ShapeError
from minibn.fast.fused_ops import fused_block
from minibn.nn.norm import BatchNorm
from minibn.testing.commands.digits_table import align_columns

INF = float("inf")


@dataclass(frozen=True)
class Convention:
    """One choice: `compute()` gives its value, `promised` is the documented one."""

    choice: str
    compute: Callable[[], Any]
    promised: Any
    elsewhere: str  # in PyTorch, or in other libraries

    @property
    def holds(self) -> bool:
        value = self.compute()
        if isinstance(self.promised, str):
            return bool(value == self.promised)
        return np.shape(value) == np.shape(self.promised) and np.allclose(
            value, self.promised, rtol=1e-9, atol=1e-14
        )


def slopes(f: Callable[..., Any], *inputs: Any) -> Any:
    """The gradient of Σ f at the inputs, as (nested lists of) numbers; of several inputs, each."""
    leaves = [Tensor(np.array(x, float), requires_grad=True) for x in inputs]
    with np.errstate(all="ignore"):
        gradients = [g.numpy().tolist() for g in grad(f(*leaves).sum(), leaves, unused="zeros")]
    return gradients[0] if len(gradients) == 1 else gradients


def of_constant_image(x: Tensor) -> Tensor:
    return ops.max_pool2d(x.reshape(1, 2, 2, 1))


def relu_and_pool(x: Tensor) -> Tensor:
    return fused_block(x.reshape(1, 2, 2, 1), relu=True, pool=2)


def half_dropout(x: Tensor) -> Tensor:
    return ops.dropout(x, 0.5, np.array([0.5, 0.4]))


def first_of_lp(p: float) -> Callable[[Any], Any]:
    """The first value of a batch, centred and divided by its norm."""
    ones, zeros = np.ones(1), np.zeros(1)
    return lambda x: ops.lp_batch_norm(x.reshape(-1, 1), ones, zeros, p=p, eps=0.0)[:1]


SUBGRADIENTS = (
    Convention("relu at 0", lambda: slopes(ops.relu, 0), 0.0, "the same"),
    Convention("abs at 0", lambda: slopes(ops.abs, 0), 0.0, "the same"),
    Convention("maximum(x, y) at x = y", lambda: slopes(ops.maximum, 1, 1), [0.5, 0.5], "the same"),
    Convention(
        "max of 3, 3, 1",
        lambda: slopes(ops.max, [3, 3, 1]),
        [0.5, 0.5, 0],
        "the same (max(), amax); max(dim) gives all to the index that it returns",
    ),
    Convention("min of 3, 1, 1", lambda: slopes(ops.min, [3, 1, 1]), [0, 0.5, 0.5], "as max"),
    Convention(
        "clip(x, 0, 1) at 0, 1", lambda: slopes(lambda x: ops.clip(x, 0, 1), [0, 1]), [1, 1],
        "the same",
    ),
    Convention("std of 2, 2", lambda: slopes(ops.std, [2, 2]), [0, 0], "the same"),
    Convention(
        "max_pool2d of 1, 1, 1, 1",
        lambda: slopes(of_constant_image, [1, 1, 1, 1]),
        [1, 0, 0, 0],
        "the same: the first",
    ),
    Convention(
        "fused_block, relu and pool, of 1, 1, 1, 1",
        lambda: slopes(relu_and_pool, [1, 1, 1, 1]),
        [1, 0, 0, 0],
        "the same: the first",
    ),
    Convention(
        "fused_block, relu and pool, of 0, 0, 0, 0",
        lambda: slopes(relu_and_pool, [0, 0, 0, 0]),
        [0, 0, 0, 0],
        "the same",
    ),
    Convention(
        "l1 norm at 0, 0", lambda: slopes(lambda x: ops.norm(x, 1), [0, 0]), [0, 0], "the same"
    ),
    Convention("l2 norm at 0, 0", lambda: slopes(ops.norm, [0, 0]), [0, 0], "the same"),
    Convention(
        "l-infinity norm at 0, 0", lambda: slopes(lambda x: ops.norm(x, INF), [0, 0]), [0, 0],
        "the same",
    ),
    Convention(
        "l-infinity norm at 2, -2, 1",
        lambda: slopes(lambda x: ops.norm(x, INF), [2, -2, 1]),
        [0.5, -0.5, 0],
        "the same",
    ),
    Convention(
        "lp_batch_norm, p=1, of 2, -2, 0: its first value",
        lambda: slopes(first_of_lp(1), [2, -2, 0]),
        [1 / 8, 1 / 8, -1 / 4],  # sign(0) = 0 in the slope of mean |x|
        "has none",
    ),
    Convention(
        "lp_batch_norm, p=inf, of 2, -2, 0: its first value",
        lambda: slopes(first_of_lp(INF), [2, -2, 0]),
        [1 / 12, 1 / 12, -1 / 6],  # max |x| is shared by 2 and -2
        "has none",
    ),
    Convention("sqrt at 0", lambda: slopes(ops.sqrt, 0), INF, "the same"),
    Convention("x**0 at 0", lambda: slopes(lambda x: x**0, 0), 0.0, "the same; 0**0 is 1 in both"),
    Convention("x**1 at 0", lambda: slopes(lambda x: x**1, 0), 1.0, "the same"),
    Convention(
        "where(True, x, y)",
        lambda: slopes(lambda x, y: ops.where(np.array(True), x, y), 1, 2),
        [1, 0],
        "the same",
    ),
    Convention(
        "dropout at p = 0.5, draws 0.5 and 0.4",
        lambda: slopes(half_dropout, [1, 1]),
        [2, 0],
        "the same scale 1 / (1 - p); draws are its own",
    ),
)  # fmt: skip


def train_batch_norm(*batches: Sequence[float], **settings: Any) -> tuple[BatchNorm, np.ndarray]:
    """A BatchNorm of one channel in float64 after these batches, and its last output."""
    with use("numpy"):
        norm = BatchNorm(1, **settings).initialize(0, np.float64)
        for batch in batches:
            y = norm(np.array(batch, float)[:, None])
    return norm, y.numpy()[:, 0]


BATCH = (1.0, 3.0)  # mean 2, variance 1 as it is, 2 with Bessel's correction


def eps() -> float:
    """From y = d / √(d² + eps), with d so small that eps matters."""
    _, y = train_batch_norm((-1e-3, 1e-3))
    return float(1e-6 / y[1] ** 2 - 1e-6)


def divisor() -> float:
    """The variance that normalises a batch, without eps: y = 1 / √variance."""
    _, y = train_batch_norm(BATCH, eps=0)
    return float(y[1] ** -2)


def weight_of_new_batch() -> float:
    """From running_mean = (1 - weight) · 0 + weight · 2."""
    return float(train_batch_norm(BATCH)[0].running_mean.numpy()[0]) / 2


def variance_that_runs() -> float:
    """From running_var = (1 - weight) · 1 + weight · variance."""
    running_var, weight = (
        float(train_batch_norm(BATCH)[0].running_var.numpy()[0]),
        weight_of_new_batch(),
    )
    return (running_var - (1 - weight)) / weight


def mean_without_momentum() -> float:
    return float(train_batch_norm((0, 2), (3, 5), (6, 8), momentum=None)[0].running_mean.numpy()[0])


def in_evaluation() -> str:
    norm, _ = train_batch_norm(BATCH)
    mean, var = (s.numpy()[0] for s in (norm.running_mean, norm.running_var))
    y = norm.train(False)(np.array([[5.0]])).numpy()[0, 0]
    unmoved = mean == norm.running_mean.numpy()[0] and var == norm.running_var.numpy()[0]
    by_running = np.isclose(y, (5 - mean) / np.sqrt(var + norm.eps), rtol=1e-12)
    return f"running {'used' if by_running else 'ignored'}, {'kept' if unmoved else 'moved'}"


def of_one_value() -> str:
    try:
        train_batch_norm((1.0,))
    except ShapeError:
        return "raises"
    return "is computed"


BATCH_NORM = (
    Convention("eps", eps, 1e-5, "PyTorch the same; Chainer, DeZero 2e-5; PyDyNet 1e-6"),
    Convention(
        "weight of the new batch (`momentum`)",
        weight_of_new_batch,
        0.1,
        "PyTorch the same; Chainer, DeZero, numpy-ml, equinox: the weight of the old, 0.9 (0.99)",
    ),
    Convention(
        "1, 3 are normalised by the variance", divisor, 1.0, "all: biased (2 would be unbiased)"
    ),
    Convention(
        "1, 3 enter the running variance as",
        variance_that_runs,
        2.0,
        "PyTorch, Chainer, DeZero: unbiased; numpy-ml, equinox, PyDyNet: biased (1)",
    ),
    Convention(
        "momentum=None, after means 1, 4, 7",
        mean_without_momentum,
        4.0,
        "PyTorch the same: the plain average",
    ),
    Convention(
        "running statistics in evaluation",
        in_evaluation,
        "running used, kept",
        "PyTorch the same; numpy-ml's backward uses the batch's there",
    ),
    Convention(
        "a channel of one value, in training", of_one_value, "raises",
        "PyTorch raises, Chainer warns",
    ),
)  # fmt: skip


def format_value(x: Any) -> str:
    if isinstance(x, (list, tuple)):
        return ", ".join(map(format_value, x))
    return x if isinstance(x, str) else f"{x + 0:.6g}"


def conventions_table() -> str:
    """Both tables, computed at the call."""
    parts = []
    for title, rows, others in (
        ("Derivatives at kinks and edges", SUBGRADIENTS, "in PyTorch"),
        ("BatchNorm", BATCH_NORM, "in other libraries"),
    ):
        cells = [(title, "computed", "promised", others)]
        cells += [
            (c.choice, format_value(c.compute()), format_value(c.promised), c.elsewhere)
            for c in rows
        ]
        parts.append("\n".join(align_columns(cells, range(4))))
    return "\n\n".join(parts)


def broken_promises() -> list[str]:
    """The choices whose computed value is not the promised one."""
    return [c.choice for c in (*SUBGRADIENTS, *BATCH_NORM) if not c.holds]
