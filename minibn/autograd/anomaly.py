"""`detect_anomaly`: which op, in which layer, first made a NaN or an infinity.

It checks every array, which on a GPU is one transfer per op, so it is a debug mode. It also
checksums saved arrays: one that was overwritten through `.data` between the forward and the
backward pass is caught, although its version did not change.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minibn.autograd.observers import Call, Observer, observe_with
from minibn.backend import array_module, to_numpy
from minibn.errors import AnomalyError
from minibn.setting import Setting

_layers: Setting[tuple[str, ...]] = Setting("layers", ())  # whose forward runs, outermost first


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Context manager: the first op that makes a NaN or an infinity of finite numbers raises
    AnomalyError with its name and its layer, in the forward and in the backward pass.

    >>> import minibn
    >>> x = minibn.Tensor([0.0], requires_grad=True)
    >>> with detect_anomaly():
    ...     minibn.ops.sqrt(x).backward()
    Traceback (most recent call last):
        ...
    minibn.errors.AnomalyError: Sqrt: its vjp made inf in the gradient of input 0 from finite ...
    """
    with observe_with(AnomalyDetector()), np.errstate(all="ignore"):  # host: the error says more
        yield


class AnomalyDetector(Observer):
    """Checks the results of every op, and keeps a checksum of every saved array."""

    every_layer = True

    def __init__(self) -> None:
        self.saved: dict[int, tuple[str, list[int | None]]] = {}  # node.order: where, checksums

    @contextmanager
    def layer(self, name: str) -> Iterator[None]:
        with _layers.override((*_layers.get(), name)):
            yield

    def on_record(self, node: Any) -> None:
        self.saved[node.order] = _where(), _checksums(node)

    def wrap(self, call: Call, op: Any, run: Any, node: Any) -> Call:
        def forward(*inputs: Any) -> Any:
            out = call(*inputs)
            _check_forward(op, inputs, out)
            return out

        def backward(g: Any, *saved: Any) -> Any:
            where, checksums = self.saved.get(node.order, ("", None))
            if checksums is not None and checksums != _checksums(node):
                raise AnomalyError(
                    f"{type(op).__name__}{where}: an array that its backward needs was "
                    "overwritten since the forward pass. Was .data written to? Use assign(), or a "
                    "copy."
                )
            grads = call(g, *saved)
            _check_backward(
                type(op).__name__ + where, g, grads if isinstance(grads, tuple) else (grads,)
            )
            return grads

        return forward if node is None else backward


def _where() -> str:
    path = ".".join(name for name in _layers.get() if name)
    return f" in layer {path}" if path else ""


def _trouble(x: Any) -> str:
    """'nan', 'inf' or '' for an array of any kind."""
    x = x.data if hasattr(x, "__minibn_tensor__") else x
    if not hasattr(x, "reshape") or x.dtype.kind not in "fc":
        return ""
    xp = array_module(x)
    if bool(xp.isfinite(x).all().item()):
        return ""
    return "nan" if bool(xp.isnan(x).any().item()) else "inf"


def _check_forward(op: Any, inputs: tuple[Any, ...], out: Any) -> None:
    if trouble := _trouble(out):
        name = type(op).__name__
        for i, x in enumerate(inputs):
            if found := _trouble(x):
                raise AnomalyError(
                    f"{name}{_where()}: its input {i} already holds {found}: no op made it, it "
                    "came from outside. Check the data and the parameters."
                )
        raise AnomalyError(f"{name}{_where()} made {trouble} from finite numbers.")


def _check_backward(name: str, g: Any, grads: tuple[Any, ...]) -> None:
    if found := _trouble(g):
        raise AnomalyError(f"{name}: the cotangent that reached it already holds {found}.")
    for i, gx in enumerate(grads):
        if trouble := _trouble(gx):
            raise AnomalyError(
                f"{name}: its vjp made {trouble} in the gradient of input {i} from finite numbers."
            )


def _checksums(node: Any) -> list[int | None]:
    return [
        zlib.crc32(to_numpy(x).tobytes()) if hasattr(x, "reshape") else None
        for x in (*node.inputs, node.output)
    ]
