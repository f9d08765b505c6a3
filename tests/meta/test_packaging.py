"""What a wheel holds: minibn alone, and all of it. One version in all files that name it."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import minibn

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]


def packages(root: Path, include: list[str]) -> set[str]:
    """The packages that setuptools finds: folders with an __init__.py, whose names match."""
    found = {".".join(p.parent.relative_to(root).parts) for p in root.rglob("__init__.py")}
    return {name for name in found if any(fnmatch(name, pattern) for pattern in include)}


def test_a_wheel_installs_minibn_its_pytest_plugin_and_no_other_name():
    found = packages(ROOT, SETUPTOOLS["packages"]["find"]["include"])
    assert {name.partition(".")[0] for name in found} == {"minibn"}
    assert SETUPTOOLS["py-modules"] == ["_minibn_pytestplugin"]


def test_a_wheel_holds_every_module_of_minibn():
    found = packages(ROOT, SETUPTOOLS["packages"]["find"]["include"])
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "minibn").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} == found


def test_a_wheel_holds_every_file_that_a_module_reads():
    patterns = SETUPTOOLS["package-data"]["minibn"]
    files = [
        path.relative_to(ROOT / "minibn")
        for path in (ROOT / "minibn").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    ]
    assert len(files) > 10
    assert [str(f) for f in files if not any(f.match(pattern) for pattern in patterns)] == []


def test_an_editable_install_puts_the_checkout_on_the_path():
    """Then `experiments` and `reference_models` can be imported too. With a root that is named,
    setuptools adds it; without, it adds the packages of the wheel alone."""
    assert SETUPTOOLS["package-dir"] == {"": "."}


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("pyproject.toml", r'^version = "(.+)"$'),
        ("CITATION.cff", r"^version: (.+)$"),
        ("CHANGELOG.md", r"^## \[(\d.*)\] - (?:unreleased|\d{4}-\d\d-\d\d)$"),
    ],
)
def test_one_version_stands_in_every_file(file, pattern):
    versions = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert versions[0] == minibn.__version__


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE)) <= kinds
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    form = r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - (unreleased|\d{4}-\d\d-\d\d)"
    assert headings and all(re.fullmatch(form, heading) for heading in headings)


def test_the_oldest_dependencies_of_ci_are_those_that_pyproject_allows():
    program = (ROOT / ".ci" / "oldest.py").read_text(encoding="utf-8")
    assert "numpy==2.0.*" in program
    for requirement in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]):
        assert re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement), f"{requirement}: .ci/oldest.py"


def test_the_classifiers_name_the_oldest_python():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    pythons = [
        c for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python ::")
    ]
    assert pythons[2].endswith(oldest)
    assert not any(c.startswith("License ::") for c in PROJECT["classifiers"]), "PEP 639"
