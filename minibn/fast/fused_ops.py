"""Fused blocks as ops: convolution (optional), norm or bias, noise, ReLU and max-pooling.

The definition is `compose` below, which calls the separate ops one after another. A kernel computes
all of them while a block of the activation is in the cache, where the separate ops read and write
the whole activation each time. Without a kernel `fused_block` calls the separate ops. A law tests
that both agree. (cuDNN and CUTLASS call the ops after a matrix product its epilogue.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibn.autograd.backward import pull_back
from minibn.autograd.dispatch import find_kernel
from minibn.autograd.tape import Op, apply, needs_gradient, run_by
from minibn.autograd.tensor import value
from minibn.errors import ShapeError
from minibn.ops.batch_normalization import batch_norm, check_batch, check_channels
from minibn.ops.conv import Conv2d, conv2d, conv2d_op
from minibn.ops.elementwise import relu
from minibn.ops.pool import max_pool2d
from minibn.ops.precision import in_float32, to_floating_point

# noise(x) -> (s, m), arrays of x's shape; the same at each call
Draw = Callable[[Any], tuple[Any, Any]]


class FusedBlock(Op):
    """pool(relu(s · norm(x) + m)), each part optional.

    The inputs are x, (x, shift) or (x, scale, shift): with `eps` the last are gamma and beta of a
    BatchNorm, without it y = x · scale + shift. `noise` gives s and m, which are constants of
    differentiation.
    """

    needs_output = True

    def __init__(self, eps: float | None, noise: Draw | None, relu: bool, pool: int) -> None:
        self.eps, self.noise, self.relu, self.pool = eps, noise, relu, pool
        self.mean: Any = None  # of the batch, (C,), for running statistics
        self.var: Any = None

    def compose(self, x, *affine):
        """The definition: on Tensors and on arrays."""
        y = x
        if self.eps is not None:
            y, self.mean, self.var = batch_norm(x, *affine, eps=self.eps, return_moments=True)
        elif affine:
            *scale, shift = affine
            y = (x * scale[0] if scale else x) + shift
        if self.noise is not None:
            s, m = self.noise(value(x))
            y = y * s + m
        if self.relu:
            y = relu(y)
        return max_pool2d(y, self.pool) if self.pool else y

    def forward(self, *inputs):
        return self.compose(*inputs)

    def vjp(self, g, out, *inputs):
        """Run and record `compose` again, and pull g back through it."""
        return pull_back(self.compose, inputs, g, self.needs_input_grad)


class FusedConvBlock(FusedBlock):
    """The same behind a convolution: pool(relu(s · norm(conv2d(x, w)) + m)). Inputs x, w, ..."""

    def __init__(self, conv: Conv2d, *settings: Any) -> None:
        super().__init__(*settings)
        self.conv = conv

    def compose(self, x, w, *affine):
        y = conv2d(x, w, stride=self.conv.stride, padding=self.conv.padding)
        return super().compose(y, *affine)


@in_float32
def fused_block(
    x,
    *affine,
    filters: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    eps: float | None = None,
    noise: Draw | None = None,
    relu: bool = False,
    pool: int = 0,
    return_moments: bool = False,
) -> Any:
    """norm or bias, then noise, ReLU and max-pooling of `pool` × `pool` pixels.

    x (..., C); affine: nothing, `shift` (C,) or `scale, shift` (C,) each; with `eps` they are
    BatchNorm's gamma and beta, and `return_moments` gives the batch's mean and biased variance as
    well. noise(x) -> (s, m): y becomes s · y + m; the definition's vjp calls it again, and it must
    return the same arrays. With `filters` (Kh, Kw, C, F) all this is applied to conv2d(x, filters,
    stride=stride, padding=padding), and the vectors are (F,).
    Law: equal to conv2d, batch_norm (or x · scale + shift), · s + m, relu, max_pool2d one after
    another. Raises ShapeError as they do.
    """
    if len(affine) > 2 or (eps is not None and len(affine) != 2):
        raise ShapeError(
            f"fused_block: {len(affine)} vectors beside x; it takes shift, or scale and shift, and "
            "with eps exactly gamma and beta."
        )
    settings = (eps, noise, relu, pool)
    x, filters, *vectors = to_floating_point(x, filters, *affine)
    if filters is not None:
        conv = conv2d_op(x, filters, stride, padding)
        block: FusedBlock = FusedConvBlock(conv, *settings)
        _check(conv.y_shape, vectors, eps)
        y = _run_kernel(block, x, filters, *vectors)
        if y is None:
            x = apply(conv, x, filters)
    if filters is None or y is None:
        block = FusedBlock(*settings)
        _check(x.shape, vectors, eps)
        y = _run_kernel(block, x, *vectors)
        if y is None:
            y = block.compose(x, *vectors)
    return (y, block.mean, block.var) if return_moments else y


def _run_kernel(block: FusedBlock, *inputs: Any) -> Any:
    """The block by a kernel, or None if there is none."""
    values, needs = [value(x) for x in inputs], needs_gradient(inputs)
    kernel = find_kernel(block, values, needs)
    return None if kernel is None else run_by(kernel, block, inputs, values, needs)


def _check(shape: tuple[int, ...], affine: list[Any], eps: float | None) -> None:
    if eps is not None:
        check_batch(shape, *affine)
    elif affine:
        names = ("shift", "scale")
        check_channels("fused_block", shape, **dict(zip(names, affine[::-1], strict=False)))
