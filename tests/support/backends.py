"""Running one test on every backend.

`@on_backends` serves tests that hypothesis drives, which must not take a fixture of function
scope: all examples of a test then share one `use(name)`.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from minibn.backend import Backend, get_backend, use
from minibn.errors import BackendUnavailable

BACKENDS = ["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)]
DEVICES = BACKENDS[1:]


@contextmanager
def chosen(name: str) -> Iterator[Backend]:
    """`use(name)`, or a skipped test that says why the backend can't run here."""
    try:
        get_backend(name)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with use(name) as backend:
        yield backend


def on_backends(test: Callable[..., None], names: Any = BACKENDS) -> Callable[..., None]:
    """Run `test(backend, ...)` on each backend, in use. Goes above `@given`."""

    @functools.wraps(test)
    def run(*args: Any, backend: str, **kwargs: Any) -> None:
        with chosen(backend) as found:
            test(*args, backend=found, **kwargs)

    return pytest.mark.parametrize("backend", names)(run)


def on_devices(test: Callable[..., None]) -> Callable[..., None]:
    """`on_backends` without NumPy."""
    return on_backends(test, DEVICES)
