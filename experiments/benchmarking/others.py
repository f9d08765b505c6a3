"""One convolution, 64 -> 64 channels, 3×3, 32 pixels, forward and backward: other NumPy libraries.

MyGrad and PyDyNet are libraries of minibn's kind: autograd in NumPy, no compiled kernels. Both take
images as (N, C, H, W). A library that is not installed is left out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minibn
from experiments.benchmarking.cases import AGREEMENT, SEED, Disagreement, cotangent
from experiments.benchmarking.timing import Contender, single_phase
from minibn import nn, ops

# A library -> a function of (x (N, C, H, W), w (F, C, 3, 3), ḡ) that returns (y, x̄, w̄)
Pass = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _mygrad(library: Any) -> Pass:
    conv_nd = importlib.import_module("mygrad.nnet.layers").conv_nd

    def run(x: np.ndarray, w: np.ndarray, g: np.ndarray) -> Any:
        leaves = library.tensor(x), library.tensor(w)
        y = conv_nd(*leaves, stride=1, padding=1)
        y.backward(g)
        return (y.data, *(leaf.grad for leaf in leaves))

    return run


def _pydynet(library: Any) -> Pass:
    conv2d = importlib.import_module("pydynet.nn.functional").conv2d

    def run(x: np.ndarray, w: np.ndarray, g: np.ndarray) -> Any:
        leaves = [library.Tensor(array, requires_grad=True) for array in (x, w)]
        y = conv2d(*leaves, padding=1)
        (y * library.Tensor(g)).sum().backward()  # its backward takes scalars only
        return (y.numpy(), *(leaf.grad for leaf in leaves))

    return run


LIBRARIES: dict[str, Callable[[Any], Pass]] = {"mygrad": _mygrad, "pydynet": _pydynet}


def find_libraries() -> dict[str, Pass]:
    """The libraries that can be imported."""
    found = {}
    for name, make in LIBRARIES.items():
        with contextlib.suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyDyNet warns that it found no CuPy
            found[name] = make(importlib.import_module(name))
    return found


class Convolution:
    """The one convolution: its arrays, and its contenders."""

    def __init__(self, batch: int, channels: int = 64, pixels: int = 32) -> None:
        draws = np.random.default_rng(SEED)
        self.x = draws.standard_normal((batch, pixels, pixels, channels), np.float32)
        self.w = draws.standard_normal((3, 3, channels, channels), np.float32) / (3 * channels**0.5)
        self.g = cotangent(self.x.shape)

    def contenders(self, pytorch: Any) -> Iterator[Contender]:
        """Ours, PyTorch's layouts (pytorch: its side, or None), and the other libraries.
        Raises Disagreement."""
        yield Contender("minibn", single_phase("total", self._ours))
        if pytorch:
            channels = self.x.shape[-1]
            for layout in pytorch.LAYOUTS:
                convolution = nn.Sequential(
                    conv=nn.Conv2d(channels, channels, 3, padding=1, bias=False)
                )
                convolution.initialize(SEED).load_state_dict({"conv.weight": self.w})
                theirs = pytorch.Stage(convolution, self.x, layout, True)
                yield Contender(f"PyTorch {layout}", single_phase("total", theirs))
        first = [np.ascontiguousarray(a.transpose(0, 3, 1, 2)) for a in (self.x, self.g)]
        x, g, w = *first, np.ascontiguousarray(self.w.transpose(3, 2, 0, 1))
        for name, run in find_libraries().items():
            self._agree(name, run(x[:1], w, g[:1])[0].transpose(0, 2, 3, 1))
            yield Contender(name, single_phase("total", functools.partial(run, x, w, g)))

    def _ours(self) -> None:
        x, w = (minibn.Tensor(array, requires_grad=True) for array in (self.x, self.w))
        ops.conv2d(x, w, padding=1).backward(self.g)

    def _agree(self, name: str, theirs: np.ndarray) -> None:
        ours = ops.conv2d(self.x[:1], self.w, padding=1)
        if not np.allclose(ours, theirs, rtol=0, atol=AGREEMENT * float(np.abs(ours).max())):
            raise Disagreement(f"{name}'s convolution gives another output: nothing is timed.")
