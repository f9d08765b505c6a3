"""What `_minibn_pytestplugin` registers in a session of pytest that checks gradients: a table.

The session ends with a table of the gradient checks that ran. A check that failed in a test that
passed was expected to fail, and is only counted. With pytest-xdist the table is not printed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.report import GradReport, listeners


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
                f"{self.left_out} drawn examples were left out: vacuous (the gradient and its "
                "oracle were zero there), or inconclusive (too few digits could be seen)"
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
