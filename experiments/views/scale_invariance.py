"""Placeholder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.training.study import Study


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    pass
