"""What the tables and summaries of every kind of study share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.running.study import Run, Study
from minibn import checkpoint
from minibn.errors import DataError

# How the line of a verdict ends, on one seed and on several
JUDGED = (
    "One seed decides nothing; see experiments.claims.",
    "What that says of the paper: experiments.claims.",
)


def require_same(studies: Sequence[Study], settings: Sequence[str]) -> None:
    """Raise DataError unless these settings are the same in all of the studies."""
    first = studies[0]
    for study in studies[1:]:
        for key in settings:
            if study.settings[key] != first.settings[key]:
                raise DataError(
                    f"{study.folder} has {key} {study.settings[key]}, {first.folder} "
                    f"{first.settings[key]}: figures compare like with like. Draw them apart."
                )


def seconds(run: Run) -> float:
    """Time spent training, over every sitting."""
    return round(sum(record["seconds"] for record in run.records("timings")), 1)


def write_summary(path: Path, content: dict[str, Any]) -> None:
    """JSON with a line a run."""
    head = json.dumps({**content, "runs": None}, indent=2).removesuffix("null\n}")
    lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in content["runs"].items())
    checkpoint.write_text(path, f"{head}{{\n{lines}\n  }}\n}}\n")
