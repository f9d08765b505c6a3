"""One row for each op and each layer: a strategy of its problems, and its expected properties.

`CASES` are the ops, `LAYERS` the layers of `minibn.nn`. The row is the one declaration of an op:
laws, mutants, parity with PyTorch and the check of kinks read it. A new op or layer without a row
fails a test, and so does one with a row whose gradient is wrong.
"""

import importlib.util

import numpy as np

from minibn import ops
from minibn.testing.strategies import (
    TEXTURES,
    axes_of,
    full_shapes,
    gap_separated,
    geometries,
    nonzero,
    positive,
    within,
)
from suite.registry import elementwise as e
from suite.registry import norms, plain, ties
from suite.registry import reductions as r
from suite.registry import shaping as s
from suite.registry.case import Case, Tied, here
from suite.registry.layers import LAYERS, NOT_DRAWN, LayerCase, LayerProblem

__all__ = [
    "CASES", "LAYERS", "NOT_DRAWN", "NO_GRADIENT", "Case", "LayerCase", "LayerProblem", "Tied",
    "axes_of", "full_shapes", "geometries", "here",
]  # fmt: skip

IN_X = ((0,),)
EACH = ((0,), (1,))
TOGETHER = ((0, 1),)
separated = gap_separated()
STURDY = (*TEXTURES, "zeros", "ties")
STURDIEST = (*STURDY, "offset")


CASES: dict[str, Case] = {
    "abs": e.unary(
        ops.abs,
        separated,
        kinks=ties.at_zero(ops.abs, ties.abs_slope),
        convention="the derivative of |x| at 0 is 0",
        torch="abs",
        homogeneous=True,
    ),
    "add": e.binary(ops.add, textures=STURDIEST, linear=TOGETHER, torch="add"),
    "avg_pool2d": Case(
        s.poolings(ops.avg_pool2d, padding=False),
        plain=plain.normal(ops.avg_pool2d, (2, 4, 4, 3)),
        linear=IN_X,
    ),
    "batch_norm": Case(
        r.normalisations(ops.batch_norm),
        plain=plain.untrained(ops.batch_norm),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "batch_norm_composed": Case(
        r.normalisations(ops.batch_norm_composed),
        plain=plain.untrained(ops.batch_norm_composed),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "batch_norm_inference": Case(
        r.normalisations(r.inference), plain=plain.untrained(plain.inference), linear=((0,), (1, 2))
    ),
    "broadcast_to": Case(
        s.broadcasts(), plain=plain.normal(lambda x: ops.broadcast_to(x, (2, 3)), (3,)), linear=IN_X
    ),
    "cast": Case(
        s.casts(),
        plain=plain.normal(lambda x: ops.cast(x, x.dtype), (3, 4)),
        linear=IN_X,
    ),
    "clip": Case(
        e.clips(),
        plain=plain.normal(lambda x: ops.clip(x, -0.5, 0.5), (3, 4)),
        kinks=ties.on_a_bound(),
        convention="on a bound of clip x gets the whole gradient",
        operands=1,
    ),
    "clip, to variables": Case(
        e.clips_to_variables(),
        plain=plain.normal(lambda x, y: ops.clip(x, max=y), (3, 4), (3, 4)),
    ),
    "concatenate": Case(
        s.concatenations(),
        plain=plain.normal(lambda x, y: ops.concatenate([x, y]), (2, 3), (2, 3)),
        linear=((0, 1, 2),),
    ),
    "conv2d": Case(
        s.convolutions(),
        plain=plain.normal(
            lambda x, w, b: ops.conv2d(x, w, b, padding=1), (2, 5, 5, 2), (3, 3, 2, 3), (3,)
        ),
        linear=((0, 2), (1, 2)),
    ),
    "divide": e.binary(ops.divide, nonzero, nonzero, linear=IN_X, torch="divide"),
    "dropout": Case(e.dropouts(), plain=plain.dropout, linear=IN_X),
    "exp": e.unary(ops.exp, within(8), STURDY, torch="exp"),
    "gather": Case(
        s.gathers(),
        plain=plain.normal(lambda x: ops.gather(x, here(x, plain.INDEX)), (2, 3)),
        linear=IN_X,
    ),
    "getitem": Case(s.indexed(), plain=plain.indexing, linear=IN_X),
    "global_avg_pool2d": Case(
        s.images(ops.global_avg_pool2d),
        plain=plain.normal(ops.global_avg_pool2d, (2, 4, 4, 3)),
        linear=IN_X,
    ),
    "group_norm": Case(
        norms.problems(ops.group_norm, norms.group_norm_points()),
        plain=plain.untrained(lambda x, *affine: ops.group_norm(x, *affine, groups=1)),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "instance_norm": Case(
        norms.problems(ops.instance_norm, norms.instance_norm_points()),
        plain=plain.untrained(ops.instance_norm),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "layer_norm": Case(
        norms.problems(ops.layer_norm, norms.layer_norm_points()),
        plain=plain.untrained(ops.layer_norm),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "log": e.unary(ops.log, positive, torch="log"),
    "log_softmax": Case(r.softmaxes(ops.log_softmax), plain=plain.normal(ops.log_softmax, (3, 4))),
    "logsumexp": Case(
        r.reduction_problems(ops.logsumexp, within(4), textures=STURDIEST),
        plain=plain.normal(lambda x: ops.logsumexp(x, axis=1), (3, 4)),
    ),
    "lp_batch_norm, p=1": Case(
        norms.lp_problems(1),
        plain=plain.lp_norm(1),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
        kinks=norms.tied_lp(1),
        convention="in the l1 norm the derivative of |x| at 0 is 0",
    ),
    "lp_batch_norm, p=2": Case(
        norms.lp_problems(2), plain=plain.lp_norm(2), linear=((1, 2),), digits=3, half_digits=None
    ),
    "lp_batch_norm, p=inf": Case(
        norms.lp_problems(np.inf),
        plain=plain.lp_norm(np.inf),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
        kinks=norms.tied_lp(np.inf),
        convention="largest sizes that tie share the norm's gradient equally",
    ),
    "lp_batch_norm_inference": Case(
        norms.lp_inferences(), plain=plain.untrained(plain.lp_inference), linear=((0,), (1, 2))
    ),
    "matmul": Case(
        r.matrix_products(),
        plain=plain.normal(ops.matmul, (3, 4), (4, 2)),
        linear=EACH,
        torch="matmul",
    ),
    "max": Case(
        r.reduction_problems(ops.max, separated),
        plain=plain.normal(lambda x: ops.max(x, axis=1), (3, 4)),
        kinks=ties.equal_largest(),
        convention="values that tie for the maximum share the gradient equally",
        homogeneous=True,
    ),
    "max_pool2d": Case(
        s.poolings(ops.max_pool2d, padding=True),
        plain=plain.normal(ops.max_pool2d, (2, 4, 4, 3)),
        kinks=ties.equal_pixels(),
        convention="the first of tied pixels, row by row, gets the gradient; padding never",
        homogeneous=True,
    ),
    "maximum": Case(
        e.maxima(),
        plain=plain.normal(ops.maximum, (3, 4), (3, 4)),
        kinks=ties.equal_maxima(),
        convention="where x = y each gets half of the gradient",
        torch="maximum",
        homogeneous=True,
        operands=2,
    ),
    "mean": Case(
        r.reduction_problems(ops.mean, textures=STURDIEST),
        plain=plain.normal(lambda x: ops.mean(x, axis=0), (3, 4)),
        linear=IN_X,
    ),
    "min": Case(
        r.reduction_problems(ops.min, separated),
        plain=plain.normal(lambda x: ops.min(x, axis=1), (3, 4)),
        kinks=ties.equal_smallest(),
        convention="values that tie for the minimum share the gradient equally",
        homogeneous=True,
    ),
    "moments": Case(
        r.batches(r.both_moments),
        plain=plain.normal(lambda x: ops.concatenate(ops.moments(x)), (4, 3, 5)),
        digits=3,
    ),
    "mse": Case(
        r.pairs(ops.mse),
        plain=plain.normal(ops.mse, (4, 3), (4, 3)),
        torch="nn.functional.mse_loss",
    ),
    "multiply": e.binary(ops.multiply, nonzero, nonzero, linear=EACH, torch="multiply"),
    "negative": e.unary(ops.negative, textures=STURDIEST, linear=IN_X, torch="negative"),
    "norm": Case(
        r.reduction_problems(ops.norm, nonzero),
        plain=plain.normal(ops.norm, (3, 4)),
        kinks=ties.norms_at_zero(2),
        convention="the gradient of the l2 norm at 0 is 0",
        homogeneous=True,
    ),
    "norm, p=1": Case(
        r.reduction_problems(ties.l1, nonzero),
        plain=plain.normal(lambda x: ops.norm(x, 1), (3, 4)),
        kinks=ties.norms_at_zero(1),
        convention="in the l1 norm the derivative of |x| at 0 is 0",
        homogeneous=True,
    ),
    "norm, p=inf": Case(
        r.reduction_problems(ties.l_infinity, separated),
        plain=plain.normal(lambda x: ops.norm(x, np.inf), (3, 4)),
        kinks=ties.norms_at_zero(np.inf),
        convention="largest sizes that tie share the gradient equally; it is 0 at 0",
        homogeneous=True,
    ),
    "pad": Case(
        s.paddings(),
        plain=plain.normal(lambda x: ops.pad(x, ((1, 1), (1, 1))), (3, 4)),
        linear=IN_X,
    ),
    "power": Case(e.powers(), plain=plain.normal(lambda x: ops.power(x, 3), (3, 4))),
    "power, of whole numbers": Case(
        e.whole_powers(), plain=plain.normal(lambda x: ops.power(x, here(x, plain.INDEX)), (4, 3))
    ),
    "power, of two variables": e.binary(
        ops.power,
        e.not_one,
        nonzero,
        ("integers", "dyadic", "normal"),
        torch="pow",
        plain=plain.normal(ops.power, (3, 4), (3, 4), domain=plain.above_zero),
    ),
    "relu": Case(
        e.relus(),
        plain=plain.normal(ops.relu, (3, 4)),
        kinks=ties.at_zero(ops.relu, ties.relu_slope),
        convention="the derivative of relu at 0 is 0",
        torch="relu",
        homogeneous=True,
        operands=1,
    ),
    "reshape": Case(
        s.reshapes(), plain=plain.normal(lambda x: ops.reshape(x, (2, 6)), (3, 4)), linear=IN_X
    ),
    "rms_norm": Case(
        norms.problems(ops.rms_norm, norms.layer_norm_points().map(norms.without_beta)),
        plain=plain.untrained_without_beta(ops.rms_norm),
        linear=((1,),),
        digits=3,
        half_digits=None,
    ),
    "scatter": Case(
        s.scatters(),
        plain=plain.normal(lambda x: ops.scatter(x, here(x, plain.INDEX), (2, 3)), (3,)),
        linear=IN_X,
    ),
    "sigmoid": e.unary(ops.sigmoid, within(3), STURDY, torch="sigmoid"),
    "softmax": Case(r.softmaxes(ops.softmax), plain=plain.normal(ops.softmax, (3, 4))),
    "softmax_cross_entropy": Case(r.classifications(), plain=plain.classification),
    "softplus": e.unary(ops.softplus, within(8), STURDY, torch="nn.functional.softplus"),
    "split": Case(
        s.splits(),
        plain=plain.normal(lambda x: s.regrouped(x, 2, 1), (2, 5)),
        linear=IN_X,
    ),
    "sqrt": e.unary(ops.sqrt, positive, torch="sqrt"),
    "stack": Case(
        s.stacks(),
        plain=plain.normal(lambda x, y: ops.stack([x, y], 1), (2, 3), (2, 3)),
        linear=((0, 1, 2),),
    ),
    "std": Case(
        r.reduction_problems(ops.std, separated, at_least=2),
        plain=plain.normal(lambda x: ops.std(x, axis=0), (3, 4)),
        homogeneous=True,
    ),
    "subtract": e.binary(ops.subtract, textures=STURDIEST, linear=TOGETHER, torch="subtract"),
    "sum": Case(
        r.reduction_problems(ops.sum, textures=STURDIEST),
        plain=plain.normal(lambda x: ops.sum(x, axis=0), (3, 4)),
        linear=IN_X,
    ),
    "tanh": e.unary(ops.tanh, within(3), STURDY, torch="tanh"),
    "transpose": Case(s.transposes(), plain=plain.normal(ops.transpose, (3, 4)), linear=IN_X),
    "var": Case(
        r.reduction_problems(ops.var, separated, at_least=2),
        plain=plain.normal(lambda x: ops.var(x, axis=0), (3, 4)),
    ),
    "weight_standardisation": Case(
        norms.problems(ops.weight_standardisation, norms.filter_points()),
        plain=plain.untrained_without_beta(ops.weight_standardisation),
        linear=((1,),),
        digits=3,
        half_digits=None,
    ),
    "where": Case(e.choices(), plain=plain.choice, linear=TOGETHER),
}

if importlib.util.find_spec("minibn.fast"):  # tests/ops also run on the core alone
    CASES["fused_block"] = importlib.import_module("suite.registry.fused_blocks").ROW

NO_GRADIENT = {
    "one_hot": "takes integer labels and gives a plain array",
    "sign": "is a constant of differentiation and gives a plain array",
}
