"""`summary`: a table of a network's layers, and of the kernels or definitions that run them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibn.autograd.observers import Call, Observer, observe_with, source_of
from minibn.autograd.tape import no_grad
from minibn.autograd.tensor import value
from minibn.backend import backend_of
from minibn.ops.shape import sizes_of
from minibn.setting import Setting

BATCH = 32  # examples, where only the shape of one is given


@dataclass
class LayerCall:
    """A call of a layer or a fused block: its path, the ops that ran, the last output's shape."""

    path: str
    ops: dict[tuple[str, str], None] = field(default_factory=dict)  # (op, what ran it), in order
    shape: tuple[int, ...] = ()


class CallRecorder(Observer):
    """Records every layer that is called, and the ops that run in it."""

    def __init__(self) -> None:
        self.calls: list[LayerCall] = []
        self._path: Setting[tuple[str, ...]] = Setting("summary_path", ())
        self._layer: Setting[LayerCall | None] = Setting("summary_layer", None)

    @contextmanager
    def layer(self, name: str) -> Iterator[None]:
        path = (*self._path.get(), name) if name else self._path.get()
        here = LayerCall(".".join(path))
        self.calls.append(here)
        with self._path.override(path), self._layer.override(here):
            yield

    def wrap(self, call: Call, op: Any, run: Any, node: Any) -> Call:
        def noted(*args: Any) -> Any:
            here = self._layer.get()
            with self._layer.override(None):  # the ops inside it are parts of it
                out = call(*args)
            if here is not None and node is None:
                by = "definition" if run is op else type(run).__name__
                here.ops[type(op).__name__, f"{by}, {source_of(run)}"] = None
                here.shape = out.shape
            return out

        return noted


def summary(model: Any, x: Any) -> str:
    """A table of the layers in the order of their calls: name, kind, output shape of one example,
    parameters, and the ops that ran, each by its definition or by a kernel, with the file.

    x: a batch (an array or a Tensor); or the shape of one example, such as (32, 32, 3), of which a
    batch of 32 is made: which kernel runs depends on sizes. The model runs once, in its present
    mode, without recording, and is left as it was. Layers that run as one block share a row.
    """
    if isinstance(x, (tuple, list, int)):
        shape = sizes_of(x, "summary: a size", least=1)
        first = next((p.data for p in model.parameters()), np.zeros((), np.float32))  # host: none
        x = backend_of(first).xp.zeros((BATCH, *shape), first.dtype)
    modules = dict(model.named_modules())
    recorder = CallRecorder()
    with model.preserved_state(), no_grad(), observe_with(recorder):
        model(x)
    rows: list[tuple[str, ...]] = [("layer", "kind", "output", "parameters", "op", "run by")]
    shape = value(x).shape
    for called in recorder.calls:
        paths = _paths(called.path)
        parts = [modules[path] for path in paths if path in modules]
        if len(parts) == 1 and not called.ops and list(parts[0].children()):
            continue  # a container, whose layers have rows of their own
        shape = called.shape or shape  # a layer without ops returns its input
        own = sum(p.size for part in parts for p in _own_parameters(part))
        kind = " + ".join(type(part).__name__ for part in parts)
        begin = (called.path, kind, "×".join(map(str, shape[1:])), f"{own:,}" if own else "")
        for op, by in called.ops or {("", ""): None}:
            rows.append((*begin, op, by))
            begin = ("",) * 4
    total = sum(p.size for p in model.parameters())
    rows.append(("total", "", "", f"{total:,}", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i == 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _paths(path: str) -> list[str]:
    """ "a.conv + norm" -> ["a.conv", "a.norm"]: the paths of the layers of a fused block."""
    prefix, _, last = path.rpartition(".")
    names = last.split(" + ")
    return [f"{prefix}.{name}" if prefix else name for name in names]


def _own_parameters(module: Any) -> list[Any]:
    """The parameters of the module itself; of its submodules too if it is a leaf of the tree."""
    return (
        module.parameters()
        if not list(module.children())
        else [p for p in vars(module).values() if hasattr(p, "requires_grad") and p.requires_grad]
    )
