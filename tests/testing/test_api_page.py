"""API.md: every public name of minibn.testing is on it; docstrings explain their arguments."""

import importlib
import re
from pathlib import Path

import pytest

import minibn.testing
from minibn.testing.commands.api_page import MODULES, api_page, entries

HERE = [m for m in MODULES if importlib.util.find_spec(m)]
ENTRIES = {f"{m}.{e.name}": e for m in HERE for e in entries(m)}
TEXTS = {e.name: e.text for e in ENTRIES.values()}


def test_the_page_is_up_to_date():
    written = Path(minibn.testing.__file__).with_name("API.md").read_text(encoding="utf-8")
    assert written == api_page(), "run: python -m minibn.testing api > minibn/testing/API.md"


@pytest.mark.parametrize("module", HERE)
def test_every_public_name_has_an_entry(module):
    names = {entry.name for entry in entries(module)}
    assert names == set(getattr(importlib.import_module(module), "__all__", names))
    assert names
    page = api_page()
    assert all(f"### {name}\n" in page for name in names)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_docstring_names_every_argument_or_whose_arguments_they_are(name):
    entry = ENTRIES[name]
    assert entry.text, "it has no docstring"
    others = [TEXTS.get(other, "") for other in re.findall(r"`(\w+)`", entry.text)]
    texts = "\n".join(
        [entry.text, *others, *(TEXTS["check_vjp"] for t in others if "check_vjp" in t)]
    )
    missing = [p for p in entry.parameters if not re.search(rf"\b{p}\b", texts)]
    assert not missing


def test_the_page_has_the_defaults_as_they_are_written():
    page = api_page()
    assert "    entries: int=ENTRIES," in page
    assert "arrays(" in page and "draw: Any" not in page
    assert "class Vacuous(GradientError)" in page
    assert " at 0x" not in page
