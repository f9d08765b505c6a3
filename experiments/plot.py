"""Figures and tables of finished or unfinished studies, made again from their files.

    python -m experiments.plot STUDY [STUDY ...] [--out DIR]

Studies of one kind (VGG trainings, the deep linear network, theorems, ...) are plotted together:
several seeds give medians with bands. Files are written into the first study of a kind, or into
--out, with a folder for each kind if there are several.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.training.command_line import parse_studies, setting
from experiments.training.entry_point import check_out, program
from experiments.training.study import Study
from experiments.views import (
    deep_linear,
    explosion,
    learning_rates,
    scale_invariance,
    theorems,
    vgg,
)

PROGRAM = "python -m experiments.plot"
VIEWS = {
    "vgg_cifar": vgg.plot,
    "deep_linear": deep_linear.plot,
    "theorems": theorems.plot,
    "learning_rates": learning_rates.plot,
    "explosion": explosion.plot,
    "scale_invariance": scale_invariance.plot,
}


@dataclass(frozen=True)
class Options:
    out: str | None = setting(None, "folder for figures, tables and summaries", kind=str, path=True)


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> None:
    """Plot, kind by kind. Returns the exit code."""
    folders, options = parse_studies(Options, arguments, program=PROGRAM, description=__doc__)
    check_out(options.out)
    out = None if options.out is None else Path(options.out)
    studies = [Study.open(folder, tuple(VIEWS), "STUDY") for folder in folders]
    kinds = dict.fromkeys(study.kind for study in studies)
    for kind in kinds:
        of_kind = [study for study in studies if study.kind == kind]
        VIEWS[kind](of_kind, out / kind if out and len(kinds) > 1 else out)


if __name__ == "__main__":
    sys.exit(main())
