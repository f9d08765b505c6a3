"""Studies that several tests look at, trained once a session."""

from pathlib import Path

import pytest
from studies import ONE, STEPS, TWO, main


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    assert main(*ONE, "--steps", STEPS, "--out", folder) == 0
    return folder


@pytest.fixture(scope="session")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole_of_two") / "study"
    assert main(*TWO, "--steps", STEPS, "--out", folder) == 0
    return folder
