"""What minibn and PyTorch do where mathematics leaves a choice: kinks, ties, NaN, nothing at all.

Each row states the answer of either library; README.md shows the rows as a table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.torch_adapter import (
    Pair,
    channels_first,
    derivatives_of_ours,
    derivatives_of_theirs,
    tensor,
    torch,
)

from minibn import nn, ops

F, vector_norm = torch.nn.functional, torch.linalg.vector_norm
inf, nan = np.inf, np.nan
VERSION = tuple(int(n) for n in torch.__version__.split(".")[:2])


@dataclass(frozen=True)
class Row:
    """A point, and what either function says there (its value, or its gradient for a cotangent of
    ones); `theirs_says` is None where they agree."""

    at: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    x: list
    ours_says: Any
    theirs_says: Any = None


def image(*values: float) -> list:
    return np.reshape(values, (1, 2, 2, 1)).tolist()


GRADIENTS = [
    Row("relu at 0", ops.relu, torch.relu, [-0.0, 0.0], [0, 0]),
    Row("relu at NaN", ops.relu, torch.relu, [nan], [0], [1]),
    Row("abs at 0", ops.abs, torch.abs, [-0.0, 0.0], [0, 0]),
    Row("abs at NaN", ops.abs, torch.abs, [nan], [nan], [0]),
    Row("sqrt at 0", ops.sqrt, torch.sqrt, [0.0], [inf]),
    Row("log at 0", ops.log, torch.log, [0.0], [inf]),
    Row(
        "maximum, a tie",
        lambda x: ops.maximum(x, np.ones(1)),
        lambda x: torch.maximum(x, torch.ones(1)),
        [1.0],
        [0.5],
    ),
    Row(
        "maximum of NaN and 0",
        lambda x: ops.maximum(x, np.zeros(1)),
        lambda x: torch.maximum(x, torch.zeros(1)),
        [nan],
        [1],
    ),
    Row(
        "clamp to [0, 1] (of two maxima) at 0 and 1",
        lambda x: -ops.maximum(-ops.maximum(x, 0.0), -1.0),
        lambda x: torch.clamp(x, 0, 1),
        [0.0, 1.0],
        [0.5, 0.5],
        [1, 1] if VERSION < (2, 14) else [0, 0],  # they changed it
    ),
    Row("max over all, ties", ops.max, torch.max, [3.0, 1.0, 3.0], [0.5, 0, 0.5]),
    Row(
        "max over an axis, ties: amax",
        lambda x: ops.max(x, 0),
        lambda x: torch.amax(x, 0),
        [3.0, 1.0, 3.0],
        [0.5, 0, 0.5],
    ),
    Row(
        "max over an axis, ties: torch.max",
        lambda x: ops.max(x, 0),
        lambda x: torch.max(x, 0).values,
        [3.0, 1.0, 3.0],
        [0.5, 0, 0.5],
        [1, 0, 0],
    ),
    Row("max with a NaN", ops.max, torch.amax, [3.0, nan], [0, 0], [nan, nan]),
    Row(
        "l1 norm at 0",
        lambda x: ops.norm(x, 1),
        lambda x: vector_norm(x, 1),
        [0.0, 3.0],
        [0, 1],
    ),
    Row("l2 norm at 0", lambda x: ops.norm(x, 2), lambda x: vector_norm(x, 2), [0.0, 0.0], [0, 0]),
    Row(
        "l∞ norm, ties",
        lambda x: ops.norm(x, inf),
        lambda x: vector_norm(x, inf),
        [3.0, -3.0, 0.0],
        [0.5, -0.5, 0],
    ),
    Row(
        "l∞ norm at 0",
        lambda x: ops.norm(x, inf),
        lambda x: vector_norm(x, inf),
        [0.0, 0.0],
        [0, 0],
    ),
    Row("x⁰ at 0", lambda x: ops.power(x, 0), lambda x: torch.pow(x, 0), [0.0], [0]),
    Row(
        "0^p as a function of p, at 2",
        lambda p: ops.power(np.zeros(1), p),
        lambda p: torch.pow(torch.zeros(1), p),
        [2.0],
        [0],
    ),
    Row(
        "max_pool2d, ties",
        ops.max_pool2d,
        channels_first(lambda x: F.max_pool2d(x, 2)),
        image(1, 2, 2, 2),
        image(0, 1, 0, 0),
    ),
    Row(
        "max_pool2d, two NaN",
        ops.max_pool2d,
        channels_first(lambda x: F.max_pool2d(x, 2)),
        image(1, nan, nan, 2),
        image(0, 1, 0, 0),
        image(0, 0, 1, 0),
    ),
    Row(
        "max_pool2d of -inf, padded",
        lambda x: ops.max_pool2d(x, 2, 2, 1),
        channels_first(lambda x: F.max_pool2d(x, 2, 2, 1)),
        image(-inf, -inf, -inf, -inf),
        image(1, 1, 1, 1),
    ),
    Row(
        "logsumexp of -inf",
        ops.logsumexp,
        lambda x: torch.logsumexp(x, 0),
        [-inf, -inf],
        [0, 0],
        [nan, nan],
    ),
    Row(
        "BatchNorm of a constant",
        lambda x: ops.batch_norm(x, np.ones(1), np.zeros(1)),
        lambda x: F.batch_norm(x, None, None, training=True),
        [[2.0], [2.0], [2.0]],
        [[0], [0], [0]],
    ),
]

VALUES = [
    Row("sign of NaN", ops.sign, torch.sign, [nan], [nan], [0]),
    Row(
        "softmax of -inf",
        ops.softmax,
        lambda x: torch.softmax(x, -1),
        [-inf, -inf],
        [0, 0],
        [nan, nan],
    ),
    Row("sum over no axis: ()", lambda x: ops.sum(x, ()), lambda x: x.sum(()), [1, 2], [1, 2], 3),
    Row("var, default correction", ops.var, torch.var, [1, 3], 1, 2),
    Row("l1 norm of nothing", lambda x: ops.norm(x, 1), lambda x: vector_norm(x, 1), [], 0),
    Row(
        "l2 norm of 3e200, 4e200",
        lambda x: ops.norm(x, 2) < 1e201,
        lambda x: vector_norm(x, 2) < 1e201,  # infinite
        [3e200, 4e200],
        True,
        False,
    ),
]

# (point, ours, theirs, input, what PyTorch says: a value, or the exception that it raises)
REFUSED = [
    ("mean of nothing", ops.mean, torch.mean, [], nan),
    ("max of nothing", ops.max, torch.amax, [], RuntimeError),
    ("logsumexp of nothing", ops.logsumexp, lambda x: torch.logsumexp(x, 0), [], -inf),
    ("l2 norm of nothing", ops.norm, vector_norm, [], 0),
    (
        "cross-entropy of an empty batch",
        lambda x: ops.softmax_cross_entropy(x, np.zeros(0, int)),
        lambda x: F.cross_entropy(x, torch.zeros(0, dtype=int)),
        np.zeros((0, 3)),
        nan,
    ),
    (
        "mse of (2, 1) and (2,)",
        lambda x: ops.mse(x, np.zeros(2)),
        lambda x: ((x - torch.zeros(2)) ** 2).mean(),
        [[1.0], [3.0]],
        5,
    ),
    (
        "BatchNorm of one value a channel",
        lambda x: ops.batch_norm(x, np.ones(2), np.zeros(2)),
        lambda x: F.batch_norm(x, None, None, training=True),
        [[1.0, 2.0]],
        ValueError,
    ),
    (
        "max_pool2d, padding above half a window",
        lambda x: ops.max_pool2d(x, 2, padding=2),
        channels_first(lambda x: F.max_pool2d(x, 2, padding=2)),
        image(1, 2, 3, 4),
        RuntimeError,
    ),
]


def point(row: Row) -> str:
    return row.at


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # log(0) is the subject
@pytest.mark.parametrize("row", GRADIENTS, ids=point)
def test_the_gradient_is_the_stated_one(row):
    x = np.array(row.x, float)
    cotangent = np.ones_like(row.ours(x))
    pair = Pair(row.ours, row.theirs, (x,))
    np.testing.assert_array_equal(derivatives_of_ours(pair, cotangent, None)[0], row.ours_says)
    expected = row.ours_says if row.theirs_says is None else row.theirs_says
    np.testing.assert_array_equal(derivatives_of_theirs(pair, cotangent, None)[0], expected)


@pytest.mark.parametrize("row", VALUES, ids=point)
def test_the_value_is_the_stated_one(row):
    x = np.array(row.x, float)
    np.testing.assert_array_equal(row.ours(x), row.ours_says)
    expected = row.ours_says if row.theirs_says is None else row.theirs_says
    np.testing.assert_array_equal(row.theirs(tensor(x)).numpy(), expected)


@pytest.mark.parametrize(
    ("at", "ours", "theirs", "x", "says"), REFUSED, ids=[r[0] for r in REFUSED]
)
def test_what_ours_refuses_theirs_may_answer(at, ours, theirs, x, says):
    x = np.array(x, float)
    with pytest.raises(ValueError):
        ours(x)
    if isinstance(says, type):
        with pytest.raises((says, IndexError)):
            theirs(tensor(x))
    else:
        np.testing.assert_array_equal(theirs(tensor(x)).numpy(), says)


def test_sigmoid_keeps_its_digits_far_below_zero():
    x = np.linspace(-700, 0, 1001)
    np.testing.assert_allclose(ops.sigmoid(x), torch.sigmoid(tensor(x)).numpy(), rtol=1e-14)


def test_batch_norm_has_the_same_defaults():
    ours, theirs = nn.BatchNorm(1), torch.nn.BatchNorm2d(1)
    assert (ours.eps, ours.momentum) == (theirs.eps, theirs.momentum) == (1e-5, 0.1)


def test_the_readme_shows_every_point():
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    points = [row.at for row in GRADIENTS + VALUES] + [row[0] for row in REFUSED]
    assert [at for at in points if f"| {at} |" not in text] == []
