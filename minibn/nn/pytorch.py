"""State dicts from and to PyTorch's names and layout, as NumPy arrays (PyTorch is not needed).

|               | minibn                         | PyTorch                                    |
|---------------|--------------------------------|--------------------------------------------|
| convolution   | weight (Kh, Kw, C, F)          | weight (F, C, Kh, Kw)                      |
| linear        | weight (in, out)               | weight (out, in)                           |
| normalisation | gamma, beta                    | weight, bias                               |
|               | running_mean, running_var      | running_mean, running_var                  |
|               | batches                        | num_batches_tracked                        |

The gamma and beta of a LayerNorm over images are (H, W, C) here and (C, H, W) in PyTorch.

A linear layer after Flatten gets (H, W, C) here and (C, H, W) in PyTorch: pass `flattened`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minibn.backend import to_numpy
from minibn.errors import ShapeError, did_you_mean

NORM = {"gamma": "weight", "beta": "bias", "batches": "num_batches_tracked"}
Shapes = Mapping[str, tuple[int, int, int]]


def to_pytorch(
    state: Mapping[str, np.ndarray],
    modules: Mapping[str, str] | None = None,
    flattened: Shapes | None = None,
) -> dict[str, np.ndarray]:
    """A minibn state dict as PyTorch's.

    modules: minibn's module path -> PyTorch's, where they differ ("conv1" -> "features.0").
    flattened: path of a linear layer -> the shape (H, W, C) that was flattened before it.
    Counters of noise layers, which PyTorch does not have, are left out.
    """
    state = _arrays(state, "to_pytorch")
    _check_names({name.rpartition(".")[0] for name in state}, flattened or {}, "to_pytorch")
    result: dict[str, np.ndarray] = {}
    for name, array in state.items():
        path, _, key = name.rpartition(".")
        if key == "step":
            continue
        if key == "weight" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif key in ("gamma", "beta") and array.ndim == 3:
            array = array.transpose(2, 0, 1)
        elif key == "weight" and array.ndim == 2:
            if flattened and path in flattened:
                H, W, C = _sizes(flattened[path], array, path)
                array = array.reshape(H, W, C, -1).transpose(2, 0, 1, 3)
            array = array.reshape(-1, array.shape[-1]).T
        theirs = (modules or {}).get(path, path)
        _put(result, f"{theirs}.{NORM.get(key, key)}".lstrip("."), array)
    return result


def from_pytorch(
    state: Mapping[str, Any],
    modules: Mapping[str, str] | None = None,
    flattened: Shapes | None = None,
) -> dict[str, np.ndarray]:
    """PyTorch's state dict (of its tensors, or of NumPy arrays) as minibn's: the inverse of
    `to_pytorch`, with the same `modules` and `flattened`. It has no counters of noise layers: load
    with `strict=False` if the model has any. A module is a norm if its weight has one axis, or
    three.
    """
    state = _arrays(state, "from_pytorch")
    ours_of = {theirs: ours for ours, theirs in (modules or {}).items()}
    back = {theirs: ours for ours, theirs in NORM.items()}
    paths = {name.rpartition(".")[0] for name in state}
    _check_names({ours_of.get(path, path) for path in paths}, flattened or {}, "from_pytorch")
    result: dict[str, np.ndarray] = {}
    for name, array in state.items():
        path, _, key = name.rpartition(".")
        ours = ours_of.get(path, path)
        weight = state.get(f"{path}.weight".lstrip("."))
        if weight is not None and weight.ndim in (1, 3):
            key = back.get(key, key)
            array = array.transpose(1, 2, 0) if array.ndim == 3 else array
        elif key == "weight" and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif key == "weight" and array.ndim == 2:
            array = array.T
            if flattened and ours in flattened:
                H, W, C = _sizes(flattened[ours], array, ours)
                array = array.reshape(C, H, W, -1).transpose(1, 2, 0, 3)
            array = array.reshape(-1, array.shape[-1])
        _put(result, f"{ours}.{key}".lstrip("."), array)
    return result


def _arrays(state: Any, who: str) -> dict[str, np.ndarray]:
    """The state dict as NumPy arrays. Raises TypeError for what is none."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{who}: state is a {type(state).__name__}. Use model.state_dict().")
    found = {}
    for name, x in state.items():
        x = x.detach() if hasattr(x, "detach") else x
        try:
            found[name] = to_numpy(np.asarray(x) if isinstance(x, (list, tuple)) else x)
        except TypeError as error:
            raise TypeError(f"{who}: {name}: {error}") from error
    return found


def _check_names(paths: set[str], flattened: Shapes, who: str) -> None:
    """Raise KeyError for a layer in `flattened` that is not there, which would have no effect."""
    if unknown := [path for path in flattened if path not in paths]:
        raise KeyError(
            f"{who}: flattened has {unknown[0]!r}, the state no layer of that name. "
            + did_you_mean(unknown[0], map(repr, sorted(paths)))
        )


def _sizes(shape: Any, array: np.ndarray, path: str) -> tuple[int, int, int]:
    """The shape (H, W, C) that was flattened before this layer. Raises ShapeError."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 3 or math.prod(shape) != len(array):
        raise ShapeError(
            f"flattened: {path!r} has {len(array)} inputs; {shape!r} is no shape (H, W, C) of as "
            "many values."
        )
    H, W, C = shape
    return H, W, C


def _put(result: dict[str, np.ndarray], name: str, array: np.ndarray) -> None:
    """Add an entry. Raises KeyError if there is one of this name: two modules have one name."""
    if name in result:
        raise KeyError(f"modules: two modules are renamed to one: {name} is there twice.")
    result[name] = np.array(array, order="C")
