"""ONNX's elementwise nodes, products and reductions, each by minibn's ops.

The adapter is this file, onnx_moves.py and onnx_layers.py: a function takes the inputs of the node
of its name by position and the attributes by name, and is as thin as the conventions allow.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from parity.onnx_runner import NODES, LeftOut, known, node, only, onnx, text

from minibn import ops
from minibn.autograd.tensor import value

# -- elementwise

NODES |= {
    "Abs": ops.abs,
    "Add": ops.add,
    "Exp": ops.exp,
    "Log": ops.log,
    "MatMul": ops.matmul,
    "Mul": ops.multiply,
    "Neg": ops.negative,
    "Pow": ops.power,
    "Relu": ops.relu,
    "Sigmoid": ops.sigmoid,
    "Sign": ops.sign,
    "Sqrt": ops.sqrt,
    "Sub": ops.subtract,
    "Tanh": ops.tanh,
    "Where": ops.where,
    "Cosh": lambda x: (ops.exp(x) + ops.exp(-x)) / 2,
    "Reciprocal": lambda x: 1 / x,
    "Sinh": lambda x: (ops.exp(x) - ops.exp(-x)) / 2,
    "Softplus": lambda x: log_one_plus_exp(x),
    "Softsign": lambda x: x / (1 + ops.abs(x)),
    "Max": lambda *inputs: functools.reduce(ops.maximum, inputs),
    "Min": lambda *inputs: functools.reduce(minimum, inputs),
    "Sum": lambda *inputs: functools.reduce(ops.add, inputs),
    "Mean": lambda *inputs: functools.reduce(ops.add, inputs) / len(inputs),
    "PRelu": lambda x, slope: ops.where(value(x) >= 0, x, x * slope),
}


def minimum(x, y):
    return -ops.maximum(-x, -y)


def log_one_plus_exp(x):
    return ops.relu(x) + ops.log(1 + ops.exp(-ops.abs(x)))


@node("Mish")
def mish(x):
    """x · tanh(log(1 + eˣ)), as a fraction: the logarithm of 1 + a little loses the little."""
    e = ops.exp(minimum(x, 20.0))
    n = e * (e + 2)
    return x * n / (n + 2)


def whole(x: Any) -> bool:
    return value(x).dtype.kind in "iu"


@node("Div")
def divide(x, y):
    return x // y if whole(x) else ops.divide(x, y)


@node("Clip")
def clip(x, low=None, high=None):
    if low is not None:
        x = ops.maximum(x, low)
    return x if high is None else minimum(x, high)


@node("LeakyRelu")
def leaky_relu(x, *, alpha=0.01):
    return ops.where(value(x) >= 0, x, alpha * x)


@node("Elu")
def elu(x, *, alpha=1.0):
    return ops.where(value(x) > 0, x, alpha * (ops.exp(minimum(x, 0.0)) - 1))


@node("Celu")
def celu(x, *, alpha=1.0):
    return elu(x / alpha) * alpha


@node("Selu")
def selu(x, *, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875):
    return gamma * elu(x, alpha=alpha)


@node("ThresholdedRelu")
def thresholded_relu(x, *, alpha=1.0):
    return ops.where(value(x) > alpha, x, 0.0 * x)


@node("Shrink")
def shrink(x, *, lambd=0.5, bias=0.0):
    return ops.where(abs(value(x)) > lambd, x - bias * ops.sign(x), 0.0 * x)


@node("HardSigmoid")
def hard_sigmoid(x, *, alpha=0.2, beta=0.5):
    return clip(alpha * x + beta, 0.0, 1.0)


@node("HardSwish")
def hard_swish(x):
    return x * hard_sigmoid(x, alpha=1 / 6)


@node("Swish")
def swish(x, *, alpha=1.0):
    return x * ops.sigmoid(alpha * x)


@node("Gelu")
def gelu(x, *, approximate="none"):
    only("Gelu approximate=none needs erf", text(approximate), "tanh")
    return 0.5 * x * (1 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@node("Dropout")
def dropout(x, ratio=None, training_mode=None, *, seed=None, outputs=1):
    share = 0.5 if ratio is None else float(value(ratio))
    if training_mode is None or not training_mode:
        share = 0.0  # at inference nothing is dropped
    elif share:
        raise LeftOut("attribute: Dropout training_mode, its draws are NumPy's")
    return ops.dropout(x, share, np.ones(x.shape)), np.ones(x.shape, bool)


@node("Cast")
def cast(x, *, to, saturate=1, round_mode="up"):
    dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
    known(dtype)
    return ops.cast(x, dtype)


@node("CastLike")
def cast_like(x, like, *, saturate=1, round_mode="up"):
    return ops.cast(x, value(like).dtype)


# -- products


@node("Gemm")
def gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    y = ops.matmul(a.T if transA else a, b.T if transB else b) * alpha
    return y if c is None else y + c * beta


# -- reductions: axes came by attribute, later by input


def reduction(f):
    def reduce(x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
        given = None if axes is None else tuple(int(a) for a in axes)
        if not given:
            given = () if noop_with_empty_axes else None
        every = range(x.ndim) if given is None else given
        empty = math.prod(x.shape[a] for a in every) == 0
        if empty and f not in EMPTY_IS_DEFINED:
            raise LeftOut("convention: over an empty axis ours raise")
        return f(x, axis=given, keepdims=bool(keepdims))

    return reduce


def sum_of_squares(x, **over):
    return ops.sum(x * x, **over)


def l1_norm(x, **over):
    return ops.norm(x, 1, **over)


EMPTY_IS_DEFINED = {ops.sum, sum_of_squares, l1_norm}
NODES |= {
    "ReduceL1": reduction(l1_norm),
    "ReduceL2": reduction(lambda x, **over: ops.norm(x, 2, **over)),
    "ReduceLogSum": reduction(lambda x, **over: ops.log(ops.sum(x, **over))),
    "ReduceLogSumExp": reduction(ops.logsumexp),
    "ReduceMax": reduction(ops.max),
    "ReduceMean": reduction(ops.mean),
    "ReduceMin": reduction(lambda x, **over: -ops.max(-x, **over)),
    "ReduceSum": reduction(ops.sum),
    "ReduceSumSquare": reduction(sum_of_squares),
}
