"""Hypothesis strategies for gradient tests: shapes, values, layouts, and whole problems.

They are independent of minibn's ops. A problem is drawn as a `Point`: plain NumPy arrays, and the
settings of the call.

    from hypothesis import given
    from minibn.testing import check_vjp
    from minibn.testing.strategies import conv2d_problems

    @given(conv2d_problems())
    def test_my_convolution(point):
        check_vjp(point.bind(my_conv), point.bind(my_conv_vjp), *point.inputs, seed=point.seed)

| strategy | draws |
|---|---|
| shapes, full_shapes | shapes with 0-d and empty ones, or without |
| arrays, points | an array in a domain, of a texture (see `values.py`) |
| broadcast_shapes, broadcast_problems | k operands that broadcast together |
| layouts, zero_stride_arrays | another memory layout of an array |
| cotangents | normal, never constant |
| geometries, conv2d_problems, pool_problems | images with windows, strides, padding, remainders |
| norm_problems | channels whose variance is about eps, or isn't |
| index_problems, gather_problems, axes_of | indices, flat positions, axes |

Domains are real, positive, nonzero, within(limit), gap_separated(gap) and with_ties. Where an
example may be empty or its gradient zero, pass `allow_empty=True` and `zero_gradient=point.flat` to
the check. A hundred examples cost 0.1 to 0.2 s, whatever the arrays' size.

All are constructive: no example is rejected. Each shrinks to small shapes, the seed 0,
and the texture "integers".
"""

from minibn.testing.strategies.images import (
    Geometry,
    conv2d_problems,
    geometries,
    pool_problems,
)
from minibn.testing.strategies.indices import basic_indices, gather_problems, index_problems
from minibn.testing.strategies.memory import LAYOUTS, layouts, zero_stride_arrays
from minibn.testing.strategies.norms import norm_problems
from minibn.testing.strategies.operands import (
    arrays,
    axes_of,
    broadcast_problems,
    broadcast_shapes,
    cotangents,
    full_shapes,
    points,
    seeds,
    shapes,
    textures,
)
from minibn.testing.strategies.point import Point
from minibn.testing.strategies.values import (
    SPECIAL,
    TEXTURES,
    Domain,
    gap_separated,
    nonzero,
    positive,
    real,
    with_ties,
    within,
)

__all__ = [
    "LAYOUTS", "SPECIAL", "TEXTURES", "Domain", "Geometry", "Point", "arrays", "axes_of",
    "basic_indices", "broadcast_problems", "broadcast_shapes", "conv2d_problems", "cotangents",
    "full_shapes", "gap_separated", "gather_problems", "geometries", "index_problems", "layouts",
    "nonzero", "norm_problems", "points", "pool_problems", "positive", "real", "seeds", "shapes",
    "textures", "with_ties", "within", "zero_stride_arrays",
]  # fmt: skip
