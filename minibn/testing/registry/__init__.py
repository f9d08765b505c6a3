"""One row for each op and each layer: how to draw a point of its domain, and what to expect there.

`CASES` are the ops, `LAYERS` the layers of `minibn.nn`. A new op or layer without a row fails a
test, and so does one with a row whose gradient is wrong.
"""

import numpy as np

from minibn import ops
from minibn.testing.registry import elementwise as e
from minibn.testing.registry import fused_blocks, norms, ties
from minibn.testing.registry import reductions as r
from minibn.testing.registry import shaping as s
from minibn.testing.registry.case import Case, Tied, here
from minibn.testing.registry.layers import LAYERS, NOT_DRAWN, LayerCase, LayerProblem
from minibn.testing.registry.reductions import normalisations, reductions
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

__all__ = [
    "CASES", "LAYERS", "NOT_DRAWN", "NO_GRADIENT", "Case", "LayerCase", "LayerProblem", "Tied",
    "axes_of", "full_shapes", "geometries", "here", "normalisations",
]  # fmt: skip

IN_X = ((0,),)
EACH = ((0,), (1,))
TOGETHER = ((0, 1),)
separated = gap_separated()
STURDY = (*TEXTURES, "zeros", "ties")
STURDIEST = (*STURDY, "offset")


CASES: dict[str, Case] = {
    "abs": Case(
        e.unary(ops.abs, separated),
        kinks=ties.at_zero(ops.abs, ties.abs_slope),
        convention="the derivative of |x| at 0 is 0",
    ),
    "add": Case(e.binary(ops.add, textures=STURDIEST), linear=TOGETHER),
    "avg_pool2d": Case(s.poolings(ops.avg_pool2d, padding=False), linear=IN_X),
    "batch_norm": Case(
        normalisations(ops.batch_norm), linear=((1, 2),), digits=3, half_digits=None
    ),
    "batch_norm_composed": Case(
        normalisations(ops.batch_norm_composed), linear=((1, 2),), digits=3, half_digits=None
    ),
    "batch_norm_inference": Case(normalisations(r.inference), linear=((0,), (1, 2))),
    "broadcast_to": Case(s.broadcasts(), linear=IN_X),
    "cast": Case(s.casts(), analytic=False, linear=IN_X),
    "concatenate": Case(s.concatenations(), linear=((0, 1, 2),)),
    "conv2d": Case(s.convolutions(), linear=((0, 2), (1, 2))),
    "divide": Case(e.binary(ops.divide, nonzero, nonzero), linear=IN_X),
    "dropout": Case(e.dropouts(), linear=IN_X),
    "fused_block": Case(
        fused_blocks.fused_blocks(),
        digits=3,
        half_digits=None,
        kinks=fused_blocks.tied_fused_blocks(),
        convention="behind a ReLU the first of tied pixels gets the gradient, none if all are 0",
    ),
    "exp": Case(e.unary(ops.exp, within(8), STURDY)),
    "gather": Case(s.gathers(), linear=IN_X),
    "getitem": Case(s.indexed(), linear=IN_X),
    "global_avg_pool2d": Case(s.images(ops.global_avg_pool2d), linear=IN_X),
    "group_norm": Case(
        norms.problems(ops.group_norm, norms.group_norm_points()),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "instance_norm": Case(
        norms.problems(ops.instance_norm, norms.instance_norm_points()),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "layer_norm": Case(
        norms.problems(ops.layer_norm, norms.layer_norm_points()),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "log": Case(e.unary(ops.log, positive)),
    "logsumexp": Case(reductions(ops.logsumexp, within(4), textures=STURDIEST)),
    "lp_batch_norm, p=1": Case(
        norms.lp_problems(1),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
        kinks=norms.tied_lp(1),
        convention="in the l1 norm the derivative of |x| at 0 is 0",
    ),
    "lp_batch_norm, p=2": Case(norms.lp_problems(2), linear=((1, 2),), digits=3, half_digits=None),
    "lp_batch_norm, p=inf": Case(
        norms.lp_problems(np.inf),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
        kinks=norms.tied_lp(np.inf),
        convention="largest sizes that tie share the norm's gradient equally",
    ),
    "lp_batch_norm_inference": Case(norms.lp_inferences(), linear=((0,), (1, 2))),
    "matmul": Case(r.matrix_products(), linear=EACH),
    "max": Case(
        reductions(ops.max, separated),
        kinks=ties.equal_largest(),
        convention="values that tie for the maximum share the gradient equally",
    ),
    "max_pool2d": Case(
        s.poolings(ops.max_pool2d, padding=True),
        kinks=ties.equal_pixels(),
        convention="the first of tied pixels, row by row, gets the gradient; padding never",
    ),
    "maximum": Case(
        e.maxima(),
        kinks=ties.equal_maxima(),
        convention="where x = y each gets half of the gradient",
    ),
    "mean": Case(reductions(ops.mean, textures=STURDIEST), linear=IN_X),
    "moments": Case(r.batches(r.both_moments), digits=3),
    "mse": Case(r.pairs(ops.mse)),
    "multiply": Case(e.binary(ops.multiply, nonzero, nonzero), linear=EACH),
    "negative": Case(e.unary(ops.negative, textures=STURDIEST), linear=IN_X),
    "norm": Case(
        reductions(ops.norm, nonzero),
        kinks=ties.norms_at_zero(2),
        convention="the gradient of the l2 norm at 0 is 0",
    ),
    "norm, p=1": Case(
        reductions(ties.l1, nonzero),
        kinks=ties.norms_at_zero(1),
        convention="in the l1 norm the derivative of |x| at 0 is 0",
    ),
    "norm, p=inf": Case(
        reductions(ties.l_infinity, separated),
        kinks=ties.norms_at_zero(np.inf),
        convention="largest sizes that tie share the gradient equally; it is 0 at 0",
    ),
    "pad": Case(s.paddings(), linear=IN_X),
    "power": Case(e.powers()),
    "power, of whole numbers": Case(e.whole_powers()),
    "power, of two variables": Case(
        e.binary(ops.power, e.not_one, nonzero, ("integers", "dyadic", "normal"))
    ),
    "relu": Case(
        e.relus(),
        kinks=ties.at_zero(ops.relu, ties.relu_slope),
        convention="the derivative of relu at 0 is 0",
    ),
    "reshape": Case(s.reshapes(), linear=IN_X),
    "rms_norm": Case(
        norms.problems(ops.rms_norm, norms.layer_norm_points().map(norms.without_beta)),
        linear=((1,),),
        digits=3,
        half_digits=None,
    ),
    "scatter": Case(s.scatters(), linear=IN_X),
    "sigmoid": Case(e.unary(ops.sigmoid, within(3), STURDY)),
    "softmax": Case(r.softmaxes()),
    "softmax_cross_entropy": Case(r.classifications()),
    "sqrt": Case(e.unary(ops.sqrt, positive)),
    "subtract": Case(e.binary(ops.subtract, textures=STURDIEST), linear=TOGETHER),
    "sum": Case(reductions(ops.sum, textures=STURDIEST), linear=IN_X),
    "tanh": Case(e.unary(ops.tanh, within(3), STURDY)),
    "transpose": Case(s.transposes(), linear=IN_X),
    "var": Case(reductions(ops.var, separated, at_least=2)),
    "weight_standardisation": Case(
        norms.problems(ops.weight_standardisation, norms.filter_points()),
        linear=((1,),),
        digits=3,
        half_digits=None,
    ),
    "where": Case(e.choices(), linear=TOGETHER),
}

NO_GRADIENT = {
    "one_hot": "takes integer labels and gives a plain array",
    "sign": "is a constant of differentiation and gives a plain array",
}
