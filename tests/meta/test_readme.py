"""The README's examples run, and its links lead to files."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def test_the_example_that_trains_ones_own_model_learns():
    example = next(block for block in python_blocks(README) if ">>>" not in block)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[-1]) > 0.9


WITH_DOCTESTS = [
    page.relative_to(ROOT)
    for page in (ROOT / "README.md", *sorted(ROOT.glob("minibn/**/README.md")))
    if ">>> " in page.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", WITH_DOCTESTS, ids=str)
def test_the_doctests_of_the_tours_pass(page):
    failed, tried = doctest.testfile(str(ROOT / page), module_relative=False)
    assert tried > 0 and failed == 0


PAGES = [
    *ROOT.glob("*.md"),
    *(
        p
        for part in ("minibn", "reference_models", "experiments", "tests")
        for p in ROOT.glob(f"{part}/**/*.md")
    ),
]


@pytest.mark.parametrize("page", [p.relative_to(ROOT) for p in sorted(PAGES)], ids=str)
def test_links_lead_to_files_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(
        r"\]\((?!https?:)([^)#]+)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    )
    assert [t for t in targets if not (ROOT / page.parent / t).exists()] == []


@pytest.mark.parametrize("part", ["vgg_cifar --quick", "-m pytest"])
def test_each_command_that_ci_takes_from_the_readme_stands_there_once(part):
    lines = {
        line for line in README.splitlines() if re.match(r"(pip|python) ", line) and part in line
    }
    assert len(lines) == 1


def test_every_folder_of_the_library_has_a_tour():
    folders = {p.parent for p in ROOT.glob("minibn/**/__init__.py")} | {
        ROOT / "experiments",
        ROOT / "reference_models",
        ROOT / "tests",
    }
    assert sorted(str(f.relative_to(ROOT)) for f in folders if not (f / "README.md").exists()) == []
