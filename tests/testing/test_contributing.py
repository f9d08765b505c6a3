"""The steps of CONTRIBUTING.md, "To add an op", carried out in a copy of the checkout."""

import importlib.util
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEPS = re.findall(
    r"^\d\. .*?(?=^\d\. |^## |\Z)",
    PAGE[PAGE.index("## To add an op") : PAGE.index("## To add a kernel")],
    re.DOTALL | re.MULTILINE,
)
COPIED = ("minibn", "tests/suite", "tests/support", "tests/conftest.py", "pyproject.toml")
TESTS = (
    "testing/test_op_tables.py", "testing/test_laws.py", "testing/test_laws_can_fail.py",
    "testing/test_mutants.py", "testing/test_registry.py", "ops/test_gradients.py",
)  # fmt: skip
PARITY = (
    "parity/torch_pairs.py", "parity/torch_norms.py", "parity/torch_moves.py",
    "parity/torch_adapter.py", "parity/test_pytorch_ops.py",
)  # fmt: skip


def apply_step(step: str, root: Path) -> str:
    """Make the changes of a step: a block of code at the end of its file, or `this` before
    `that`. Returns the file."""
    file = re.match(r"\d\. In `(.+?)`", step)[1]
    text = (root / file).read_text(encoding="utf-8")
    for new, old in re.findall(r"`([^`]+)` before `([^`]+)`", step):
        assert old in text, f"{file} has no {old}"
        text = text.replace(old, f"{new} {old}", 1)
    for block in re.findall(r"^ *```python\n(.*?)^ *```", step, re.DOTALL | re.MULTILINE):
        text += "\n\n" + textwrap.dedent(block)
    (root / file).write_text(text, encoding="utf-8")
    return file


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(call, capture_output=True, text=True, cwd=root)


@pytest.fixture
def copy(tmp_path):
    for name in (*COPIED, *(f"tests/{name}" for name in (*TESTS, *PARITY))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_steps_touch_five_files_and_only_the_announced_test_fails_on_the_way(copy):
    files = [apply_step(step, copy) for step in STEPS[:2]]
    found = run(copy, "tests/testing/test_op_tables.py")
    announced = "test_an_op_stands_in_every_table[arctan]"
    assert re.findall(r"^FAILED \S+::(\S+)", found.stdout, re.M) == [announced], found.stdout
    assert 'tests/suite/registry/__init__.py, in CASES: "arctan": e.unary(' in found.stdout
    files += [apply_step(step, copy) for step in STEPS[2:5]]
    assert len(set(files)) == len(files) == 5
    parity = ["tests/parity/test_pytorch_ops.py"] if importlib.util.find_spec("torch") else []
    found = run(copy, "-k", "arctan", *(f"tests/{name}" for name in TESTS), *parity)
    assert found.returncode == 0, found.stdout + found.stderr
    assert int(re.search(r"(\d+) passed", found.stdout)[1]) > 30


def test_the_steps_are_five_changes_and_one_command():
    assert len(STEPS) == 6
    assert "python -m pytest -k arctan tests" in STEPS[5]
