"""Shared by the tables and summaries of every kind of study."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from experiments.training.study import Run
from minibn import checkpoint

CLASSES = 10  # of both data sets of the VGG trainings
CHANCE = 1 / CLASSES

# The end of the numbers in one line, for one seed and for several
JUDGED = (
    "One seed decides nothing; see experiments.claims.",
    "What that says of the paper: experiments.claims.",
)


def as_deep(layer: int, of_paper: int) -> str:
    """A layer by its number, and the paper's that it stands for if that is another."""
    return f"{layer}" if layer == of_paper else f"{layer} (paper's {of_paper})"


def short(value: float, digits: int = 4) -> float | None:
    """A number of a summary; None (null) if it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def count_of_seeds(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds != 1)}"


def seconds(run: Run) -> float:
    """Training time in seconds, over all sittings."""
    return round(sum(record["seconds"] for record in run.records("timings")), 1)


def write_summary(path: Path, content: dict[str, Any]) -> None:
    """JSON with a line a run."""
    head = json.dumps({**content, "runs": None}, indent=2).removesuffix("null\n}")
    lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in content["runs"].items())
    checkpoint.write_text(path, f"{head}{{\n{lines}\n  }}\n}}\n")
