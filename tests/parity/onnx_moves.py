"""ONNX's nodes that move values, by minibn's ops; and the plumbing of graphs, by NumPy.

Indices, shapes, masks and comparisons are plain arrays: constants of differentiation.
"""

from __future__ import annotations

import math

import numpy as np
from parity.onnx_runner import PLUMBING, node, only, onnx, text

from minibn import ops
from minibn.autograd.tensor import value


def take(x, index, axis: int):
    """x at the indices along one axis."""
    return ops.getitem(x, (slice(None),) * (axis % x.ndim) + (index,))


@node("Reshape")
def reshape(x, shape, *, allowzero=0):
    shape = [int(n) for n in shape]
    if not allowzero:
        shape = [n or x.shape[i] for i, n in enumerate(shape)]  # 0: as it was
    return ops.reshape(x, shape)


@node("Flatten")
def flatten(x, *, axis=1):
    axis = axis + x.ndim if axis < 0 else axis
    return ops.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@node("Squeeze")
def squeeze(x, axes=None):
    away = {i for i, n in enumerate(x.shape) if n == 1}
    if axes is not None:
        away = {int(a) % x.ndim for a in np.atleast_1d(axes)}
    return ops.reshape(x, [n for i, n in enumerate(x.shape) if i not in away])


@node("Unsqueeze")
def unsqueeze(x, axes):
    axes = np.atleast_1d(axes)
    ndim = x.ndim + len(axes)
    new, old = {int(a) % ndim for a in axes}, iter(x.shape)
    return ops.reshape(x, [1 if i in new else next(old) for i in range(ndim)])


@node("Transpose")
def transpose(x, *, perm=None):
    return ops.transpose(x, perm)


@node("Expand")
def expand(x, shape):
    return ops.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in shape)))


@node("Tile")
def tile(x, repeats):
    for axis, n in enumerate(repeats):
        x = ops.concatenate([x] * int(n), axis)
    return x


@node("Concat")
def concat(*inputs, axis):
    return ops.concatenate(inputs, axis)


@node("Split")
def split(x, parts=None, *, axis=0, num_outputs=None, outputs):
    length = x.shape[axis]
    most = -(-length // outputs)
    sizes = [most] * outputs if parts is None else [int(n) for n in parts]
    ends = np.minimum(np.cumsum(sizes), length)
    return tuple(
        take(x, slice(int(a), int(b)), axis) for a, b in zip([0, *ends], ends, strict=False)
    )


@node("Pad")
def pad(x, pads, constant=None, axes=None, *, mode="constant"):
    axes = range(x.ndim) if axes is None else [int(a) for a in axes]
    widths = [(0, 0)] * x.ndim
    for a, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        widths[a] = (int(before), int(after))
    if text(mode) != "constant":
        for axis, width in enumerate(widths):
            x = take(x, np.pad(np.arange(x.shape[axis]), width, text(mode)), axis)
        return x
    padded = ops.pad(x, widths)
    if constant is None or not np.any(value(constant)):
        return padded
    return ops.where(np.pad(np.ones(x.shape, bool), widths), padded, constant)


@node("Slice")
def slice_(x, starts, ends, axes=None, steps=None):
    index = [slice(None)] * x.ndim
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for a, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = x.shape[int(a)]
        end = None if step < 0 and end < -length else int(end)  # up to and with the first
        index[int(a)] = slice(int(start), end, int(step))
    return ops.getitem(x, tuple(index))


@node("Gather")
def gather(x, indices, *, axis=0):
    return take(x, indices, axis)


@node("Compress")
def compress(x, condition, *, axis=None):
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    return take(x, np.flatnonzero(condition), axis)


def along(x, indices, axis: int):
    """Index arrays that pick x[..., indices[..., i, ...], ...] along one axis."""
    grid = list(np.indices(indices.shape))
    grid[axis] = np.where(indices < 0, indices + x.shape[axis], indices)
    return tuple(grid)


def rows_of(indices):
    """The last axis of the indices as a tuple of index arrays."""
    return tuple(np.moveaxis(indices, -1, 0))


@node("GatherElements")
def gather_elements(x, indices, *, axis=0):
    return ops.getitem(x, along(x, indices, axis % x.ndim))


@node("GatherND")
def gather_nd(x, indices, *, batch_dims=0):
    only("GatherND batch_dims", batch_dims, 0)
    return ops.getitem(x, rows_of(indices))


def put(x, index, updates, reduction):
    only("Scatter with a reduction other than a sum", text(reduction), "none", "add")
    flat = np.arange(x.size).reshape(x.shape)[index]
    if text(reduction) == "add":
        return x + ops.scatter(updates, flat, x.shape)
    free = np.ones(x.size, bool)
    free[flat] = False
    return ops.where(free.reshape(x.shape), x, ops.scatter(updates, flat, x.shape, unique=True))


@node("Scatter", "ScatterElements")
def scatter_elements(x, indices, updates, *, axis=0, reduction="none"):
    return put(x, along(x, indices, axis % x.ndim), updates, reduction)


@node("ScatterND")
def scatter_nd(x, indices, updates, *, reduction="none"):
    return put(x, rows_of(indices), updates, reduction)


@node("DepthToSpace")
def depth_to_space(x, *, blocksize, mode="DCR"):
    N, C, H, W = x.shape
    b, C = blocksize, C // blocksize**2
    if text(mode) == "DCR":
        x = x.reshape(N, b, b, C, H, W).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(N, C, b, b, H, W).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(N, C, H * b, W * b)


@node("SpaceToDepth")
def space_to_depth(x, *, blocksize, mode="DCR"):
    N, C, H, W = x.shape
    b = blocksize
    x = x.reshape(N, C, H // b, b, W // b, b)
    order = (0, 3, 5, 1, 2, 4) if text(mode) == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.transpose(order).reshape(N, C * b * b, H // b, W // b)


@node("OneHot")
def one_hot(indices, depth, values, *, axis=-1):
    indices, depth = value(indices).astype(int), int(value(depth))
    inside = (indices >= -depth) & (indices < depth)  # the others have no one
    index = np.where(inside, indices % depth, depth).reshape(-1)
    hot = ops.one_hot(index, depth + 1, float)[:, :depth]
    off, on = value(values)
    hot = np.moveaxis(hot.reshape(*indices.shape, depth), -1, axis)
    return (off + hot * (on - off)).astype(value(values).dtype)


# -- shapes, comparisons and whole numbers, by NumPy


def shape_of(x, *, start=0, end=None):
    return np.array(x.shape[start:end], np.int64)


def constant(*, value=None, value_float=None, value_floats=None, value_int=None, value_ints=None):
    if value is not None:
        return onnx.numpy_helper.to_array(value)
    number = value_float if value_float is not None else value_floats
    if number is not None:
        return np.array(number, np.float32)
    return np.array(value_int if value_int is not None else value_ints, np.int64)


def filled(shape, *, value=None):
    one = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return np.full(tuple(int(n) for n in shape), one[0])


def remainder(x, y, *, fmod=0):
    return np.fmod(value(x), value(y)) if fmod else np.mod(value(x), value(y))


def plain(f):
    return lambda *inputs: f(*map(value, inputs))


PLUMBING |= {
    "And": plain(np.logical_and),
    "Constant": constant,
    "ConstantOfShape": filled,
    "Equal": plain(np.equal),
    "Greater": plain(np.greater),
    "GreaterOrEqual": plain(np.greater_equal),
    "Identity": lambda x: x,
    "Less": plain(np.less),
    "LessOrEqual": plain(np.less_equal),
    "Mod": remainder,
    "Not": plain(np.logical_not),
    "Or": plain(np.logical_or),
    "Range": plain(np.arange),
    "Shape": shape_of,
    "Size": lambda x: np.array(x.size, np.int64),
}
