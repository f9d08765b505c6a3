"""Settings of every test: hypothesis profiles, and the backends that tests run on.

`HYPOTHESIS_PROFILE=dev` draws new examples on each run; `ci`, the default, always the same ones;
`random` as many as `ci`, by `--hypothesis-seed`. `--gradients=quick|nightly` overrules it.
Helpers that tests import are in `support/` (`from support.backends import on_backends`).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.backends import BACKENDS, chosen

from minibn.backend import Backend

# The arrays of tests are small: on a busy machine two BLAS threads wait for each other much longer
# than they compute. Children inherit the variable, this process has its BLAS loaded already.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
with contextlib.suppress(ModuleNotFoundError):
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=1)

# No tests. Collected for doctests, `support/cuda.py` would stand for the package `cuda` of CuPy's.
collect_ignore = ["support"]
# For doctests all of these would be the one module `conftest`. They hold none.
collect_ignore_glob = ["*conftest.py"]

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,  # a busy machine is no bug
    max_examples=25,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("random", settings.get_profile("ci"), derandomize=False)
settings.register_profile("dev", deadline=None, max_examples=100, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# What `--gradients=quick` leaves out: tests of the tests, and what trains or starts processes.
THOROUGH = re.compile(
    r"tests/(experiments|data|models/test_shapes|backend/test_strict)"
    r"|testing/test_(mutants|laws_can_fail|strategies|plugin|commands|reproducer|diagnosis|tutorial|contributing)"
    r"|is_planted|test_most_tied|test_where_an_op_is_linear|test_layers_are_drawn|test_a_graph_of_depth"
    r"|test_law(_on_devices)?\[the_derivative_of_the_gradient"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("minibn_gradients", None) == "quick":
        left_out = pytest.mark.skip(reason="left out by --gradients=quick")
        for item in items:
            if THOROUGH.search(item.nodeid):
                item.add_marker(left_out)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `-n 2`: neighbours go to one process, so that what the tests of a file share is made once,
    and a process without work takes some of another's."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, in use. Tests that hypothesis drives take `@on_backends` instead."""
    with chosen(request.param) as backend:
        yield backend
