"""`detect_anomaly`: which op, in which layer, first made a NaN or an infinity.

Slow (it looks at every array, which on a GPU is a transfer an op), so it is a mode. Inside it
saved arrays are also checksummed: one that was overwritten through `.data` between forward and
backward is caught, although no version was counted up.
"""

from __future__ import annotations

import threading
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minibn.backend import array_module, to_numpy
from minibn.errors import AnomalyError

if TYPE_CHECKING:
    from minibn.tape import Node, Op


class _State(threading.local):
    depth = 0

    def __init__(self) -> None:
        self.layers: list[str] = []  # the modules being called, outermost first
        self.checksums: dict[Any, list[int | None]] = {}


_state = _State()


def active() -> bool:
    return _state.depth > 0


@contextmanager
def detect_anomaly():
    """Inside, the first op that turns finite numbers into a NaN or an infinity raises
    AnomalyError with its name and its layer, in the forward pass and in the backward pass.

    >>> import minibn
    >>> x = minibn.Tensor([0.0], requires_grad=True)
    >>> with detect_anomaly():
    ...     minibn.ops.sqrt(x).backward()
    Traceback (most recent call last):
        ...
    minibn.errors.AnomalyError: Sqrt: its vjp made inf in the gradient of input 0 from finite ...
    """
    _state.depth += 1
    try:
        with np.errstate(all="ignore"):  # the error says more than NumPy's warning would
            yield
    finally:
        _state.depth -= 1
        if not active():
            _state.checksums.clear()


@contextmanager
def layer(name: str):
    """Ops run inside belong to the layer `name`."""
    _state.layers.append(name)
    try:
        yield
    finally:
        _state.layers.pop()


def _where() -> str:
    path = ".".join(name for name in _state.layers if name)
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


def check_forward(op: Op, inputs: list[Any], out: Any) -> None:
    if trouble := _trouble(out):
        name = type(op).__name__
        for i, x in enumerate(inputs):
            if found := _trouble(x):
                raise AnomalyError(
                    f"{name}{_where()}: its input {i} already holds {found}: no op made it, it "
                    "came from outside. Check the data and the parameters."
                )
        raise AnomalyError(f"{name}{_where()} made {trouble} from finite numbers.")


def check_backward(node: Node, g: Any, grads: tuple[Any, ...]) -> None:
    name = type(node.op).__name__ + node.where
    if found := _trouble(g):
        raise AnomalyError(f"{name}: the cotangent that reached it already holds {found}.")
    for i, gx in enumerate(grads):
        if trouble := _trouble(gx):
            raise AnomalyError(
                f"{name}: its vjp made {trouble} in the gradient of input {i} from finite numbers."
            )


def _checksums(node: Node) -> list[int | None]:
    return [
        zlib.crc32(to_numpy(x).tobytes()) if hasattr(x, "reshape") else None
        for x in (*node.inputs, node.output)
    ]


def remember(node: Node) -> None:
    node.where = _where()
    _state.checksums[node.order] = _checksums(node)


def check_saved(node: Node) -> None:
    before = _state.checksums.get(node.order)
    if before is not None and before != _checksums(node):
        raise AnomalyError(
            f"{type(node.op).__name__}{node.where}: an array that its backward needs was "
            "overwritten since the forward pass. Was .data written to? Use assign(), or a copy."
        )
