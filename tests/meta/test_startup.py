"""Start-up imports only the modules that it needs.

Times are not tested: they depend on the machine.
"""

import subprocess
import sys

import pytest

# Modules that only drawing, downloading, unpacking, a progress bar or a test needs.
NEVER = {
    "concurrent.futures.process", "cupy", "email", "http.client", "hypothesis", "matplotlib",
    "minibn.testing", "pickletools", "pytest", "ssl", "tarfile", "threadpoolctl", "torch", "tqdm",
    "unittest", "urllib.request",
}  # fmt: skip

# Modules that `import minibn` does not need either: files, flags, threads, and the kernels, which
# are imported with the first op.
NOT_AT_FIRST = {
    "argparse", "concurrent.futures", "hashlib", "importlib.metadata", "logging",
    "minibn.fast.cpu", "minibn.fast.cuda", "minibn.fast.selection", "minibn.backend.strict",
    "minibn.checkpoint", "minibn.data", "minibn.nn", "minibn.random", "numpy.random", "subprocess",
    "tempfile", "zipfile",
}  # fmt: skip

HELP = """
import contextlib, io
from experiments import vgg_cifar
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    vgg_cifar.main(["--help"])
assert "--quick" in text.getvalue()
"""


def loaded_by(statements: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `statements`, beside what it begins
    with and what NumPy loads itself."""
    program = (
        "import sys, numpy\n"
        "before = set(sys.modules)\n"
        f"{statements}\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


def test_importing_minibn_loads_only_what_every_use_needs() -> None:
    loaded = loaded_by("import minibn")
    assert "minibn.ops.conv" in loaded
    assert loaded & (NEVER | NOT_AT_FIRST) == set()


def test_the_help_of_the_experiment_loads_nothing_that_only_its_work_needs() -> None:
    loaded = loaded_by(HELP)
    assert "experiments.training.session" in loaded
    assert loaded & NEVER == set()


def test_a_run_without_a_terminal_or_a_download_loads_neither_bar_nor_http() -> None:
    loaded = loaded_by(
        "from experiments.training.loop import Progress\n"
        "from minibn.data import load\n"
        "load('shapes', train_size=10, test_size=10)\n"
        "with Progress('', 0, 1): pass"
    )
    assert loaded & (NEVER - {"threadpoolctl"}) == set()


@pytest.mark.parametrize("module", ["matplotlib", "tqdm", "urllib.request", "minibn.nn"])
def test_a_needless_import_would_be_noticed(module: str) -> None:
    assert module in loaded_by(f"import minibn\nimport {module}")
