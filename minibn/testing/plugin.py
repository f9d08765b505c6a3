"""The pytest plugin: `--gradients=quick|ci|nightly`, and a table of the digits that agreed.

The option chooses how many problems hypothesis draws (`profiles.py`). With it, or with `-v`, the
session ends with a table of the gradient checks that ran. A check that failed in a test that passed
was expected to fail, and is only counted. With pytest-xdist the table is not printed.

A session without gradient checks pays for the import of minibn and NumPy, some 0.15 s; hypothesis
is not imported before it is needed, and nothing is printed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.commands.profiles import register
from minibn.testing.report import GradReport, listeners

CHOICES = ("quick", "ci", "nightly")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("minibn", "gradient checks of minibn.testing").addoption(
        "--gradients",
        choices=CHOICES,
        help="how many problems hypothesis draws: 5, 100 or 2000 (or as the project's profile "
        "of this name says); and a table of digits at the end",
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--gradients")
    if chosen:
        _load_profile(config, chosen)
    if chosen or config.option.verbose > 0:
        config.pluginmanager.register(Digits(), "minibn digits")


def _load_profile(config: pytest.Config, chosen: str) -> None:
    """In place of the profile that the conftest loaded; a project's own profiles are kept."""
    other = config.getoption("--hypothesis-profile", None)
    if other:
        raise pytest.UsageError(
            f"--gradients={chosen} and --hypothesis-profile={other} both choose a profile of "
            "hypothesis. Give one of them."
        )
    try:
        from hypothesis import settings
    except ModuleNotFoundError:
        raise pytest.UsageError(
            f"--gradients={chosen} chooses how many problems hypothesis draws, and hypothesis is "
            "not installed: pip install 'minibn[test]'"
        ) from None

    register()
    settings.load_profile(chosen)


class Digits:
    """Listens to the checks of a session, test by test, and prints the table."""

    def __init__(self) -> None:
        self.reports: list[GradReport] = []  # of the test that runs
        self.table = DigitsTable()
        self.expected_failures = 0
        self.left_out = 0  # vacuous examples
        listeners.append(self.add_report)

    def add_report(self, report: GradReport) -> None:
        self.reports.append(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self.reports.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call":
            self._settle(item, report.failed)
        return report

    def _settle(self, item: pytest.Item, failed: bool) -> None:
        once = list({id(report): report for report in self.reports}.values())
        self.left_out += sum(report.left_out for report in once)
        once = [report for report in once if not report.left_out]
        wrong = [report for report in once if not report.passed]
        if not failed:
            self.expected_failures += len(wrong)
        last = wrong[-1] if wrong and failed else None  # those before it: hypothesis shrinks
        for report in once:
            if report.passed or report is last:
                self.table.add(_name(report.name, item), report)
        self.reports.clear()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.table.rows and not self.left_out:
            return
        terminalreporter.section("digits of gradients")
        if self.table.rows:
            terminalreporter.write_line(self.table.table())
        if self.left_out:
            terminalreporter.write_line(
                f"{self.left_out} drawn examples were left out as vacuous: the gradient and its "
                "oracle were zero there"
            )
        if self.expected_failures:
            terminalreporter.write_line(
                f"{self.expected_failures} more checks failed in tests that passed, as expected"
            )

    def pytest_unconfigure(self) -> None:
        listeners.remove(self.add_report)


def _name(name: str, item: pytest.Item) -> str:
    """Of the check; of its test, if the function has none."""
    return item.name if name.split(",")[0] in ("the function", "partial", "f", "forward") else name
