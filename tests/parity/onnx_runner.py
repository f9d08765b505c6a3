"""Running ONNX's node tests on minibn: a walk over a graph, and why a case is left out.

A test case is a graph of one node or, where ONNX defines a function by others ("expanded"), of
several; with inputs and the outputs to expect. Each node is handed to the function of its name in
`NODES`: inputs by position, attributes by name. An attribute that the function does not take, a
value of it that it refuses, and a node that has no function leave the case out, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minibn import Tensor
from minibn.autograd.tensor import value
from minibn.backend import to_numpy

onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install onnx")

NODES: dict[str, Callable[..., Any]] = {}  # computed by minibn.ops
PLUMBING: dict[str, Callable[..., Any]] = {}  # shapes, comparisons, whole numbers: by NumPy
PLAIN = {"OneHot", "Sign"}  # ours give plain arrays: constants of differentiation


class LeftOut(Exception):
    """Why a case is not run: the message is the reason."""


def node(*names: str, table: dict[str, Callable[..., Any]] = NODES) -> Callable[..., Any]:
    """Enter a function into the table under ONNX's names."""

    def enter(f: Callable[..., Any]) -> Callable[..., Any]:
        table.update(dict.fromkeys(names, f))
        return f

    return enter


def run(case: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(found, expected) outputs of a case. Raises LeftOut.

    The inputs are leaves that want a gradient: one that an op of ours had
    a part in hangs in their graph.
    """
    inputs, expected = ([array(x) for x in side] for side in case.data_sets[0])
    nodes = case.model.graph.node
    for part in nodes:
        if part.op_type not in NODES and part.op_type not in PLUMBING:
            raise LeftOut(f"no op of ours: {part.op_type}")
    if not any(x.dtype.kind == "f" for x in expected):
        raise LeftOut("dtype: whole numbers, booleans")
    values = {v.name: leaf(x) for v, x in zip(case.model.graph.input, inputs, strict=False)}
    values |= {v.name: onnx.numpy_helper.to_array(v) for v in case.model.graph.initializer}
    for part in nodes:
        run_node(part, values)
    found = [values[v.name] for v in case.model.graph.output]
    by_us = any(getattr(y, "node", None) for y in found)
    if not by_us and not any(part.op_type in PLAIN for part in nodes):
        raise LeftOut("nothing to compute: no op of ours has a part in the result")
    return [to_numpy(value(y)) for y in found], expected


def array(x: Any) -> np.ndarray:
    """Data of a case as an array of a dtype that minibn knows."""
    x = onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x
    if not isinstance(x, (np.ndarray, np.generic)):
        raise LeftOut("type: sequences and optionals")
    known(x.dtype)
    return np.array(x)


def known(dtype: np.dtype) -> None:
    """Leave out what is not a number of NumPy's own."""
    if dtype.kind not in "fiub" or dtype.isbuiltin != 1:
        raise LeftOut(f"dtype: {dtype}")


def leaf(x: np.ndarray) -> Any:
    """Floating-point numbers are data, everything else is indices, labels, shapes and masks."""
    return Tensor(x, requires_grad=True) if x.dtype.kind == "f" else x


def run_node(part: Any, values: dict[str, Any]) -> None:
    f = NODES.get(part.op_type) or PLUMBING[part.op_type]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in part.attribute}
    takes = inspect.signature(f).parameters
    for name in attributes:
        if name not in takes:
            raise LeftOut(f"attribute: {part.op_type} {name}")
    if "outputs" in takes:
        attributes["outputs"] = len(part.output)
    inputs = [values[name] if name else None for name in part.input]
    while inputs and inputs[-1] is None:
        inputs.pop()
    results = f(*inputs, **attributes)
    results = results if isinstance(results, tuple) else (results,)
    if len(results) < len(part.output):
        raise LeftOut(f"output: {part.op_type} has one that ours does not give")
    values.update(zip(part.output, results, strict=False))


def text(attribute: Any) -> str:
    """ONNX's strings are bytes."""
    return attribute.decode() if isinstance(attribute, bytes) else attribute


def only(what: str, attribute: Any, *allowed: Any) -> None:
    """Leave the case out unless the attribute is absent or has one of these values."""
    if attribute is not None and attribute not in allowed:
        raise LeftOut(f"attribute: {what}")
