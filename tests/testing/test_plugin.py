"""The pytest plugin: sessions in a process of their own, in an empty folder."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support.installed_plugin import ROOT, write_entry_point

from _minibn_pytestplugin import CHOICES, pytest_configure
from minibn.testing import GradReport, InputReport
from minibn.testing.commands import profiles
from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.plugin import Digits

HAS_ITS_TABLE = "digits of gradients"

CHECKS = """
import numpy as np
import pytest
from hypothesis import given
from minibn.testing import GradientError, check_vjp
from minibn.testing.strategies import arrays, within

drawn = []

def tanh(x):
    return np.tanh(x)

def tanh_vjp(g, x):
    return g * (1 - np.tanh(x) ** 2)

@given(arrays((2, 2), within(3)))
def test_drawn(x):
    drawn.append(x)
    check_vjp(tanh, tanh_vjp, x)

def test_as_many_as_the_profile_says():
    assert len(drawn) == {examples}

def test_of_a_lambda():
    check_vjp(lambda x: 3 * x, lambda g, x: 3 * g, np.ones(2))

def test_wrong_on_purpose():
    with pytest.raises(GradientError):
        check_vjp(tanh, lambda g, x: g, np.ones(2))
"""

WRONG = """
from hypothesis import Phase, settings

@settings(phases=[Phase.generate])
@given(arrays((2, 2), within(3)))
def test_wrong(x):
    check_vjp(np.exp, lambda g, x: 1 * g, x, name="exp, wrongly")
"""


@pytest.fixture
def session(tmp_path):
    """Run pytest on a file of tests, with minibn installed; gives its exit code and output."""
    write_entry_point(tmp_path)

    def run(source, *flags, **files):
        for name, text in {"test_theirs": source, **files}.items():
            (tmp_path / f"{name}.py").write_text(text)
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *flags],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "CI": ""},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("flags", [(), ("-v",)])
def test_a_session_without_gradient_checks_imports_neither_minibn_nor_numpy(session, flags):
    source = """
def test_theirs(pytestconfig):
    import sys
    assert pytestconfig.pluginmanager.has_plugin("minibn")
    assert not {"minibn", "numpy"} & set(sys.modules)
"""
    code, out = session(source, *flags)
    assert code == 0, out
    assert HAS_ITS_TABLE not in out


@pytest.mark.parametrize("flag", ["--gradients=quick", "--minibn-gradients=quick"])
def test_the_plugin_is_switched_off_by_its_name(session, flag):
    source = """
def test_theirs(pytestconfig):
    assert not pytestconfig.pluginmanager.has_plugin("minibn")
"""
    code, out = session(source, "-p", "no:minibn", "-v")
    assert code == 0, out
    code, out = session(source, "-p", "no:minibn", flag)
    assert code == 4 and "unrecognized arguments" in out


THEIR_OPTION = """
def pytest_addoption(parser):
    {parser}.addoption("--gradients", {how})
"""


@pytest.mark.parametrize("parser", ["parser", "parser.getgroup('theirs')"])
@pytest.mark.parametrize(
    "how", ["action='store_true'", "choices=['none', 'all']", "dest='minibn', default='no'"]
)
@pytest.mark.parametrize("place", ["conftest", "plugin"])
def test_an_option_of_that_name_of_somebody_else_stays_theirs(session, place, how, parser):
    theirs = THEIR_OPTION.format(parser=parser, how=how)
    files = {"conftest": theirs} if place == "conftest" else {"their_plugin": theirs}
    flags = ["-p", "their_plugin"] * (place == "plugin")
    flags.append("--gradients" if "store_true" in how else "--gradients=all")
    ours = "--minibn-gradients=quick"
    code, out = session(CHECKS.format(examples=5), *flags, ours, **files)
    assert code == 0 and HAS_ITS_TABLE in out, out
    code, out = session("def test_theirs(): pass", *flags, **files)
    assert code == 0 and HAS_ITS_TABLE not in out, out


def test_verbose_prints_the_table_too(session):
    code, out = session(CHECKS.format(examples=100), "-v")
    assert code == 0 and HAS_ITS_TABLE in out, out


def test_without_checks_there_is_no_table():
    digits = Digits()
    digits.pytest_terminal_summary(None)
    digits.pytest_unconfigure()


def test_quick_draws_ten_and_prints_the_digits_worst_first(session):
    code, out = session(CHECKS.format(examples=5) + WRONG, "--gradients=quick")
    assert code == 1, out
    assert "1 failed, 4 passed" in out
    lines = out[out.index(HAS_ITS_TABLE) :].splitlines()
    assert lines[1].split()[2:] == ["checks", "least", "median", "demanded", "verdicts", "oracles"]
    assert [line.split("  ")[0] for line in lines[2:5]] == [
        "exp, wrongly", "tanh", "test_of_a_lambda"
    ]  # fmt: skip
    assert "wrong 1" in lines[2], "the last failure, not each on the way there"
    assert "agrees 5" in lines[3]
    assert lines[5].startswith("covered: up to 2 axes, sides to 2, magnitudes ")
    assert lines[6] == "1 more checks failed in tests that passed, as expected"


def test_a_profile_of_the_project_keeps_its_meaning_and_the_option_chooses_it(session):
    conftest = """
from hypothesis import settings
settings.register_profile("ci", max_examples=7, derandomize=True, database=None)
settings.register_profile("dev", max_examples=3, database=None)
settings.load_profile("dev")
"""
    code, out = session(CHECKS.format(examples=7), "--gradients=ci", conftest=conftest)
    assert code == 0 and HAS_ITS_TABLE in out, out
    code, out = session(CHECKS.format(examples=3), conftest=conftest)
    assert code == 0 and HAS_ITS_TABLE not in out, out


def configured(**options):
    """What pytest calls the plugin with: options, and no verbosity."""
    return SimpleNamespace(
        getoption=lambda flag, default=None: options.get(flag.strip("-").replace("-", "_")),
        option=SimpleNamespace(verbose=0),
    )


def test_two_choices_of_a_profile_are_refused():
    with pytest.raises(pytest.UsageError, match="Give one of them"):
        pytest_configure(configured(minibn_gradients="ci", hypothesis_profile="dev"))


def test_without_hypothesis_the_option_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(pytest.UsageError, match=r"pip install 'minibn\[test\]'"):
        pytest_configure(configured(minibn_gradients="quick"))


def test_the_profiles_are_those_of_the_option():
    from hypothesis import settings

    profiles.register()
    assert tuple(profiles.PROFILES) == CHOICES
    nightly = settings.get_profile("nightly")
    assert (nightly.max_examples, nightly.derandomize, nightly.print_blob) == (2000, False, True)
    assert settings.get_profile("quick").derandomize
    assert all(settings.get_profile(name).deadline is None for name in CHOICES)


def report(verdict, digits, *faults, **more):
    found = InputReport(0, (2,), "float64", "", verdict, digits, 9.0, how="complex step, x", **more)
    return GradReport("f", [found], list(faults))


def test_the_table_counts_digits_verdicts_and_oracles():
    table = DigitsTable()
    for found in (report("agrees", 10), report("agrees", 12), report("agrees", 14), GradReport("")):
        table.add("f", found)
    table.add("f", report("zero", 15.9))
    row = table.rows["f"]
    assert (row.checks, row.least, row.median, row.demanded) == (5, 10, 12, 9)
    assert row.cells()[-2:] == ("agrees 4, zero 1", "complex step")
    assert table.failures == 0


def test_a_value_between_two_slopes_has_no_digits():
    table = DigitsTable()
    table.add("abs", report("agrees", 15.9, kinks=1))
    assert table.rows["abs"].cells()[2:] == ("-", "-", "-", "agrees 1", "one-sided, at kinks")


def test_a_report_that_is_told_twice_counts_once_as_it_is_at_the_end_of_its_test():
    digits = Digits()
    digits.pytest_unconfigure()  # it hears what is told here
    found = report("vacuous", 0)
    for _ in range(2):  # second derivatives and models are told before and after their last word
        digits.add_report(found)
    found.inputs[0].verdict = "zero"
    digits._settle(SimpleNamespace(name="test_it"), failed=False)
    assert digits.table.rows["test_it"].verdicts == {"zero": 1}
    assert digits.reports == []


def test_failures_come_first_then_the_fewest_digits_and_long_tables_are_cut():
    table = DigitsTable()
    for name, found in {
        "exact": report("agrees", 15),
        "empty": report("empty", 0),
        "impure": report("agrees", 15, "the vjp modifies its cotangent in place"),
        "rough": report("agrees", 9.5),
    }.items():
        table.add(name, found)
    assert [row.name for row in table.worst_first()] == ["impure", "rough", "exact", "empty"]
    assert table.rows["impure"].verdicts == {"fault": 1}
    assert table.table(most=1).splitlines()[-2] == "... and 3 more, none of them worse"
    assert table.failures == 1
