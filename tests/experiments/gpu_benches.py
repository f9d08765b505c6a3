"""The benchmark on a GPU in small, for its tests: a case, a network, an emulated device."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from experiments import benchmark
from experiments.benchmarking.cases import Case
from experiments.benchmarking.device import Device
from experiments.benchmarking.gpu import GpuBench
from experiments.vgg.settings import VARIANTS
from minibn import nn, use
from minibn.errors import BackendUnavailable
from minibn.fast.cuda.emulator import compiler, emulate

SMALL = Case("vgg11", "batchnorm", 4, 0.0625, "tf32", 0.9, 5e-4)


def main(*arguments: Any) -> int:
    return benchmark.main([str(a) for a in arguments])


def small_network(case: Case) -> nn.Sequential:
    """One convolution in the place of VGG's, as emulated kernels are slow."""
    norm, noise = VARIANTS[case.variant]
    layers = {
        "conv1": nn.Conv2d(3, 4, 3, padding=1, bias=norm == "none"),
        "norm1": nn.BatchNorm(4) if norm == "batch" else None,
        "noise1": nn.Noise() if noise else None,
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(32),
        "flatten": nn.Flatten(),
        "linear2": nn.Linear(4, 10),
    }
    return nn.Sequential(**{k: v for k, v in layers.items() if v is not None}).initialize(0)


@contextlib.contextmanager
def emulator() -> Iterator[Any]:
    """Inside, CUDA kernels train the small network."""
    try:
        compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch, use("strict") as backend, emulate():
        patch.setattr(Case, "network", small_network)
        yield backend


def bench(backend: Any, pytorch: Any = None, **more: Any) -> GpuBench:
    return GpuBench(
        pytorch, 1, 1, ("vgg11",), ("batchnorm",), (4,), 0.0625, device=Device(backend),
        theirs=pytorch and pytorch.Device(), precision="tf32", **more,
    )  # fmt: skip
