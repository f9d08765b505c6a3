"""The pytest plugin `minibn`: `--gradients=quick|ci|nightly`, and a table of digits that agreed.

`-p no:minibn` switches it off. `--gradients` is short for `--minibn-gradients`; where a conftest or
another plugin has an option of that name, the long one alone is ours.

This module is not in the package, since pytest loads it in every session, and whoever loads a part
of minibn loads NumPy. A session imports minibn when `--gradients` is given, or when its tests do.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

CHOICES = ("quick", "ci", "nightly")
OPTION, SHORT = "--minibn-gradients", "--gradients"
HELP = (
    "how many problems hypothesis draws: 5, 100 or 2000 (or as the project's profile of this name "
    "says); and a table of digits at the end"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add(parser, OPTION)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """The short name is ours if it is free after all conftests and plugins added their options."""
    result = yield
    if is_free(parser, SHORT):
        add(parser, SHORT)
    return result


def add(parser: pytest.Parser, name: str) -> None:
    group = parser.getgroup("minibn", "gradient checks of minibn.testing")
    group.addoption(name, dest="minibn_gradients", choices=CHOICES, help=HELP)


def is_free(parser: pytest.Parser, name: str) -> bool:
    """Whether the option `name` is unknown so far."""
    try:
        _, unknown = parser.parse_known_and_unknown_args([name])
    except (pytest.UsageError, SystemExit):  # it takes a value
        return False
    return name in unknown


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("minibn_gradients")
    if chosen:
        load_profile(config, chosen)
    config.pluginmanager.register(DigitsWhenUsed(config, chosen), "minibn-when-used")


def load_profile(config: pytest.Config, chosen: str) -> None:
    """In place of the profile that the conftest loaded; a project's own profiles are kept."""
    other = config.getoption("--hypothesis-profile", None)
    if other:
        raise pytest.UsageError(
            f"{SHORT}={chosen} and --hypothesis-profile={other} both choose a profile of "
            "hypothesis. Give one of them."
        )
    try:
        from hypothesis import settings
    except ModuleNotFoundError:
        raise pytest.UsageError(
            f"{SHORT}={chosen} chooses how many problems hypothesis draws, and hypothesis is "
            "not installed: pip install 'minibn[test]'"
        ) from None
    from minibn.testing.commands.profiles import register

    register()
    settings.load_profile(chosen)


class DigitsWhenUsed:
    """Registers `minibn.testing.plugin.Digits` once the tests have imported `minibn.testing`.

    With `--gradients`, or with `-v`. Checks in a test that is the first to import it, inside of its
    body, are counted with `--gradients` only.
    """

    def __init__(self, config: pytest.Config, chosen: str | None) -> None:
        self.config = config
        self.is_wanted = bool(chosen) or config.option.verbose > 0
        if chosen:
            self.register_digits()

    def pytest_runtest_setup(self) -> None:
        if self.is_wanted and "minibn.testing.report" in sys.modules:
            self.register_digits()

    def register_digits(self) -> None:
        from minibn.testing.plugin import Digits

        self.is_wanted = False
        self.config.pluginmanager.register(Digits(), "minibn-digits")
