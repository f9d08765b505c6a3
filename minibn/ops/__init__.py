"""The mathematics: every op is a class with its formula, its value and its derivative.

The functions take Tensors and plain arrays alike: arrays in, array out; a Tensor in, a Tensor out.
`git grep "def vjp"` lists every derivative in the project.
"""

import sys

from minibn.autograd import tensor_methods, tensor_operators
from minibn.errors import missing_attribute
from minibn.ops.arithmetic import add, divide, multiply, negative, power, subtract
from minibn.ops.batch_normalization import (
    batch_norm,
    batch_norm_composed,
    batch_norm_inference,
    moments,
)
from minibn.ops.conv import conv2d
from minibn.ops.elementwise import (
    abs,
    clip,
    dropout,
    exp,
    log,
    maximum,
    relu,
    sigmoid,
    sign,
    softplus,
    sqrt,
    tanh,
    where,
)
from minibn.ops.indexing import gather, getitem, scatter
from minibn.ops.inputs import explain_inputs
from minibn.ops.joining import concatenate, split, stack
from minibn.ops.layer_normalization import (
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    weight_standardisation,
)
from minibn.ops.linalg import matmul
from minibn.ops.loss import log_softmax, mse, one_hot, softmax, softmax_cross_entropy
from minibn.ops.lp_normalization import lp_batch_norm, lp_batch_norm_inference
from minibn.ops.pool import avg_pool2d, global_avg_pool2d, max_pool2d
from minibn.ops.precision import cast
from minibn.ops.reduce import logsumexp, max, mean, min, norm, std, sum, var
from minibn.ops.shape import broadcast_to, pad, reshape, transpose

__all__ = [
    "abs", "add", "avg_pool2d", "batch_norm", "batch_norm_composed", "batch_norm_inference",
    "broadcast_to", "cast", "clip", "concatenate", "conv2d", "divide", "dropout", "exp", "gather",
    "getitem", "global_avg_pool2d", "group_norm", "instance_norm", "layer_norm", "log",
    "log_softmax", "logsumexp", "lp_batch_norm", "lp_batch_norm_inference", "matmul", "max",
    "max_pool2d", "maximum", "mean", "min", "moments", "mse", "multiply", "negative", "norm",
    "one_hot", "pad", "power", "relu", "reshape", "rms_norm", "scatter", "sigmoid", "sign",
    "softmax", "softmax_cross_entropy", "softplus", "split", "sqrt", "stack", "std", "subtract",
    "sum", "tanh", "transpose", "var", "weight_standardisation", "where",
]  # fmt: skip

for _name in __all__:
    globals()[_name] = explain_inputs(globals()[_name])

# What to use in the place of functions of NumPy's and PyTorch's.
__getattr__ = missing_attribute(
    __name__,
    __all__,
    {
        "absolute": "ops.abs", "amax": "ops.max", "amin": "ops.min", "argmax": "x.argmax(axis)",
        "argmin": "x.argmin(axis)", "astype": "ops.cast", "cat": "ops.concatenate",
        "clamp": "ops.clip", "cross_entropy": "ops.softmax_cross_entropy",
        "einsum": "ops.matmul and ops.sum", "flatten": "x.flatten()", "linear": "x @ w + b",
        "linalg": "ops.norm, or ops.matmul", "minimum": "-ops.maximum(-x, -y)", "mm": "ops.matmul",
        "mse_loss": "ops.mse", "mul": "ops.multiply", "neg": "ops.negative",
        "nll_loss": "ops.softmax_cross_entropy of the logits", "permute": "ops.transpose",
        "pow": "ops.power", "square": "x * x", "squeeze": "x.squeeze()", "sub": "ops.subtract",
    },
)  # fmt: skip

# The operators and methods of Tensor call these.
tensor_methods.ops = tensor_operators.ops = sys.modules[__name__]
