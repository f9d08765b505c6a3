"""The tutorial, minibn/testing/README.md: its code runs, in order, and prints what stands there.

Numbers are compared as numbers, since last digits differ between machines: to 1e-6, digits that
agree to within two, numbers of calls to within a half (rounding decides how many steps are tried),
and what is itself a rounding error not at all.
"""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "minibn" / "testing" / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
TINY = 1e-13


def blocks():
    return [(code, shown or "") for code, shown in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


def same(printed: str, shown: str) -> bool:
    if NUMBER.sub("#", printed) != NUMBER.sub("#", shown):
        return False
    for line, other in zip(printed.splitlines(), shown.splitlines(), strict=True):
        slack = 2.0 if "digits agree" in line else 0.0
        share = 0.5 if " calls; " in line else 1e-6
        for a, b in zip(NUMBER.findall(line), NUMBER.findall(other), strict=True):
            x, y = float(a), float(b)
            if max(abs(x), abs(y)) > TINY and abs(x - y) > slack + share * abs(y):
                return False
    return True


def test_the_code_of_the_tutorial_prints_what_stands_there():
    names: dict = {}
    for code, shown in blocks():
        needs = re.match(r"# needs (\w+)", code)
        if needs and importlib.util.find_spec(needs[1]) is None:
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(code, str(PAGE), "exec"), names)
        if not code.startswith("# needs"):
            assert same(said.getvalue(), shown), f"{code}\nprints\n{said.getvalue()}"


def test_there_is_something_to_run_and_something_to_compare():
    assert len(blocks()) >= 8
    assert sum(bool(shown) for _, shown in blocks()) >= 6


@pytest.mark.parametrize(
    "printed, shown, alike",
    [
        ("15.1 digits agree", "14.2 digits agree", True),
        ("0.3 digits agree", "14.2 digits agree", False),
        ("worst 0.123456789", "worst 0.123456788", True),
        ("worst 0.123", "worst 0.124", False),
        ("sin: 84 + 27 calls; 30 more", "sin: 96 + 27 calls; 22 more", True),
        ("sin: 84 + 27 calls; 30 more", "sin: 840 + 27 calls; 30 more", False),
        ("a", "b", False),
    ],
)
def test_numbers_are_compared_as_numbers(printed, shown, alike):
    assert same(printed, shown) is alike
