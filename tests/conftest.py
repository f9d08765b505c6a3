"""Settings of every test: hypothesis profiles, and the backends that tests run on.

`HYPOTHESIS_PROFILE=dev` draws new examples on each run; `ci`, the default, always the same ones;
`random` as many as `ci`, by `--hypothesis-seed`. `--gradients=quick|nightly` overrules it.
Helpers that tests import are in `support/` (`from support.backends import on_backends`).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
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


# What `--gradients=quick` runs: the gradients of ops and layers, and the laws about them, on NumPy.
# That is a minute on one core. A file that is named on the command line runs as a whole.
QUICK_FILES = re.compile(
    r"tests/(ops/test_(gradients|kinks)|testing/test_(registry|laws|conventions|op_tables))\.py$"
)
LEFT_OUT = re.compile(
    r"test_law_|with_kernels|law_of_kernels|is_planted|can_be_put_through"
    r"|\[the_derivative_of_the_gradient|test_the_complex_step_serves|test_most_tied"
    r"|test_where_an_op_is_linear|test_layers_are_drawn"
)


def is_quick(config: pytest.Config) -> bool:
    named = any(".py" in argument for argument in config.args)
    return config.getoption("minibn_gradients", None) == "quick" and not named


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if is_quick(config) and collection_path.suffix == ".py":
        return not QUICK_FILES.search(collection_path.as_posix())
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_quick(config):
        left_out = [item for item in items if LEFT_OUT.search(item.nodeid)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if is_quick(config):
        terminalreporter.write_line(
            "--gradients=quick ran the gradients of ops and layers and the laws about them, on "
            "NumPy. It left out kernels, devices, second derivatives in laws, the tests of the "
            "checks, and all other files: name one to run it, or leave out the option."
        )


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
