"""Running a test of CUDA kernels on the emulator, and on a GPU where there is one."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
from suite.laws.kernels import rows_of
from support.backends import chosen

from minibn.backend import Backend
from minibn.errors import BackendUnavailable
from minibn.fast.cuda.emulator import compiler, emulate
from minibn.fast.cuda.kernel_list import KERNELS

# How far a GPU may be from NumPy, in parts of a result's size (see `laws/kernels.py`). Either is
# within half of this from the exact result: sums of hundreds of terms, in another order, and
# functions that are right to a few units in the last place, 1e-16 and 6e-8 each.
AGREE = {np.float64: 2e-12, np.float32: 4e-5}

ROWS_WITH_KERNELS = tuple(sorted({row for op in KERNELS for row in rows_of(op)}))

CUDA = ["emulated", pytest.param("cupy", marks=pytest.mark.gpu)]


@contextmanager
def on(name: str, order: int = 0) -> Iterator[Backend]:
    """The backend in use: the strict double running CUDA kernels ("emulated"), or CuPy."""
    if name == "cupy":
        with chosen("cupy") as backend:
            yield backend
        return
    try:
        compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with chosen("strict") as backend, emulate(order):
        yield backend


def on_cuda(test: Callable[..., None]) -> Callable[..., None]:
    """Run `test(backend, ...)` with CUDA kernels, in use. Goes above `@given`."""

    @functools.wraps(test)
    def run(*args: Any, backend: str, **kwargs: Any) -> None:
        with on(backend) as found:
            test(*args, backend=found, **kwargs)

    return pytest.mark.parametrize("backend", CUDA)(run)


def orders(backend: Backend, compute: Callable[[], Any]) -> list[Any]:
    """compute() under several orders of a block's threads (on a GPU: several times)."""
    results = []
    for order in (0, 1, 7):
        with nullcontext() if backend.name == "cupy" else emulate(order):
            results.append(compute())
    return results
