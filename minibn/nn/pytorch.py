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

from collections.abc import Mapping
from typing import Any

import numpy as np

from minibn.backend import to_numpy

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
    result = {}
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
                array = array.reshape(*flattened[path], -1).transpose(2, 0, 1, 3)
            array = array.reshape(-1, array.shape[-1]).T
        theirs = (modules or {}).get(path, path)
        result[f"{theirs}.{NORM.get(key, key)}".lstrip(".")] = np.array(array, order="C")
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
    ours_of = {theirs: ours for ours, theirs in (modules or {}).items()}
    back = {theirs: ours for ours, theirs in NORM.items()}
    result = {}
    state = {name: to_numpy(x.detach() if hasattr(x, "detach") else x) for name, x in state.items()}
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
                H, W, C = flattened[ours]
                array = array.reshape(C, H, W, -1).transpose(1, 2, 0, 3)
            array = array.reshape(-1, array.shape[-1])
        result[f"{ours}.{key}".lstrip(".")] = np.array(array, order="C")
    return result
