"""Convolutions by NVIDIA's cuDNN, through its own Python front end: the optional extra `cudnn`.

minibn's own kernels (`conv.py`) are the default: they are readable, and need only CuPy.
`experiments.gpu_check` measures which are faster on a GPU. Choose cuDNN's with

    with prefer():       # or MINIBN_CUDNN=1 in the environment
        ...

If cuDNN is not installed, has no plan for a shape, or the precision is bf16, minibn's kernels run.

cuDNN orders axes as PyTorch, for any order in memory: its (N, C, H, W) with our strides is an array
(N, H, W, C). It needs filters in the order (F, Kh, Kw, C), so ours (Kh, Kw, C, F), and their
gradient, are transposed: passes over the filters, which are small.

A plan is made once per shape, by cuDNN's heuristics, among the deterministic ones; for fp32 without
tensor cores, which would round.

Source: Chetlur et al. 2014, "cuDNN: efficient primitives for deep learning"; NVIDIA, "cuDNN
frontend", graph API.
"""

from __future__ import annotations

import functools
import importlib
import os
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from minibn.backend import array_module
from minibn.backend.array_types import library_of
from minibn.fast.kernel import Kernel
from minibn.fast.precision import current
from minibn.setting import Setting

_preferred: Setting[bool] = Setting("cudnn", os.environ.get("MINIBN_CUDNN") == "1")


def prefer(on: bool = True) -> AbstractContextManager[bool]:
    """Context manager: convolutions on a GPU run by cuDNN where it supports them."""
    return _preferred.override(on)


def is_preferred() -> bool:
    """Whether cuDNN was chosen here: by `prefer`, or by MINIBN_CUDNN=1."""
    return _preferred.get()


@functools.cache
def front_end() -> Any:
    """NVIDIA's front end, or None if it is not installed or finds no cuDNN."""
    try:
        return importlib.import_module("cudnn")
    except (ImportError, OSError, RuntimeError):
        return None


@functools.cache
def _handle(device: int) -> Any:
    return front_end().create_handle()  # bound to the current device


def describe(kind: str, settings: Any, handle: Any = None) -> tuple[Any, tuple[Any, ...], Any]:
    """(graph, its two inputs, its output) of a convolution ("fprop") or a gradient of one ("dgrad"
    of its images, "wgrad" of its filters), in cuDNN's terms."""
    cudnn = front_end()
    stride, padding, x_shape, w_shape, y_shape = settings
    Kh, Kw, C, F = w_shape
    real = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=real, intermediate_data_type=real, compute_data_type=real, handle=handle
    )
    x, y = _as_images(x_shape), _as_images(y_shape)
    w = [F, C, Kh, Kw], [Kh * Kw * C, 1, Kw * C, C]  # memory (F, Kh, Kw, C)
    first, second, result = {"fprop": (x, w, y), "dgrad": (y, w, x), "wgrad": (x, y, w)}[kind]
    a, b = (graph.tensor(dim=dim, stride=strides) for dim, strides in (first, second))
    how = {"padding": list(padding), "stride": list(stride), "dilation": [1, 1]}
    if kind == "fprop":
        out = graph.conv_fprop(image=a, weight=b, **how)
    elif kind == "dgrad":
        out = graph.conv_dgrad(loss=a, filter=b, **how)
    else:
        out = graph.conv_wgrad(image=a, loss=b, **how)
    out.set_dim(result[0]).set_stride(result[1]).set_output(True)
    return graph, (a, b), out


class Plan:
    """A convolution of one shape, or one of its gradients, ready to run.

    Raises cuDNN's error if there is none.
    """

    def __init__(self, kind: str, settings: Any, tf32: bool, handle: Any) -> None:
        self.graph, self.inputs, self.out = describe(kind, settings, handle)
        note = front_end().numerical_note
        notes = [note.NONDETERMINISTIC, note.DOWN_CONVERT_INPUTS]
        self.graph.validate()
        self.graph.build_operation_graph()
        self.graph.create_execution_plans([front_end().heur_mode.A, front_end().heur_mode.FALLBACK])
        # After the plans are created, of which it deselects some.
        self.graph.deselect_numeric_notes(notes if tf32 else [*notes, note.TENSOR_CORE])
        self.graph.check_support()
        self.graph.build_plans()
        self.workspace = self.graph.get_workspace_size()

    def run(self, handle: Any, inputs: tuple[Any, ...], out: Any) -> None:
        """From contiguous arrays into the array `out`, on CuPy's current stream."""
        xp = array_module(out)
        front_end().set_stream(handle=handle, stream=_stream())
        workspace = xp.empty(max(self.workspace, 1), np.uint8)
        where = {t: _address(a) for t, a in zip(self.inputs, inputs, strict=True)}
        self.graph.execute({**where, self.out: _address(out)}, _address(workspace), handle=handle)


def _as_images(shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """An array (N, H, W, C) as cuDNN's dimensions (N, C, H, W) and strides."""
    N, H, W, C = shape
    return [N, C, H, W], [H * W * C, 1, W * C, C]


def _address(a: Any) -> int:
    return int(a.data.ptr)


def _stream() -> int:
    return importlib.import_module("cupy").cuda.get_current_stream().ptr


@functools.lru_cache(maxsize=512)
def plan(kind: str, settings: Any, tf32: bool, device: int) -> Plan | None:
    """The plan for a convolution's shapes; None if cuDNN has none."""
    try:
        return Plan(kind, settings, tf32, _handle(device))
    except (
        front_end().cudnnGraphNotSupportedError,
        NotImplementedError,
        ValueError,
        RuntimeError,
        ImportError,
    ):
        return None


class _Cudnn(Kernel):
    """Base class of the three."""

    kind: str

    @classmethod
    def fits(cls, op: Any, *inputs: Any) -> bool:
        return (
            is_preferred()
            and front_end() is not None
            and all(library_of(a) == "cupy" and a.dtype == np.float32 and a.size for a in inputs)
            and current() != "bf16"
            and cls.plan(op) is not None
        )

    @classmethod
    def plan(cls, op: Any) -> Plan | None:
        settings = (op.stride, op.padding, op.x_shape, op.w_shape, op.y_shape)
        return plan(cls.kind, settings, current() == "tf32", _device())

    def compute(self, a: Any, b: Any, shape: tuple[int, ...]) -> Any:
        xp = array_module(a)
        out, found = xp.empty(shape, np.float32), self.plan(self.op)
        assert found is not None  # since it fits
        found.run(_handle(_device()), (xp.ascontiguousarray(a), xp.ascontiguousarray(b)), out)
        return out


def _device() -> int:
    return importlib.import_module("cupy").cuda.runtime.getDevice()


class CudnnConv2d(_Cudnn):
    """y = conv2d(x, w)."""

    kind = "fprop"

    def forward(self, x, w):
        return self.compute(x, w.transpose(3, 0, 1, 2), self.op.y_shape)


class CudnnInputGrad(_Cudnn):
    """x̄ = input_grad(c, w)."""

    kind = "dgrad"

    def forward(self, c, w):
        return self.compute(c, w.transpose(3, 0, 1, 2), self.op.x_shape)


class CudnnWeightGrad(_Cudnn):
    """w̄ = weight_grad(x, c)."""

    kind = "wgrad"

    def forward(self, x, c):
        Kh, Kw, C, F = self.op.w_shape
        return self.compute(x, c, (F, Kh, Kw, C)).transpose(1, 2, 3, 0).copy()
