"""Studies that several tests use, trained once a session."""

from pathlib import Path

import pytest
from studies import ONE, STEPS, TWO, main


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted study of one run."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    assert main(*ONE, "--steps", STEPS, "--out", folder) == 0
    return folder


@pytest.fixture(scope="session")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted study of two runs."""
    folder = tmp_path_factory.mktemp("whole_of_two") / "study"
    assert main(*TWO, "--steps", STEPS, "--out", folder) == 0
    return folder
