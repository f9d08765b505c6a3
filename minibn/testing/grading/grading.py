"""`grade`: the points of a solution, from its file or from the names of a notebook."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minibn.testing.grading.judging import Judge, PartResult
from minibn.testing.grading.result import Grade
from minibn.testing.grading.solution import (
    CannotRun,
    Namespace,
    SolutionProcess,
    StudentError,
)
from minibn.testing.grading.spec import Part, Spec, find_spec
from minibn.testing.grading.student import Student, find_style


def grade(
    spec: str | Path | Spec,
    solution: str | Path | Mapping[str, Any],
    *,
    style: str = "",
    seed: int = 0,
    explain: bool = True,
    time_limit: float = 60,
    part_limit: float = 10,
    memory_limit: int = 4096,
) -> Grade:
    """Grade a solution: the path of a .py or .ipynb file, or the names of a notebook, `globals()`.

    spec          the name of a shipped spec, the path of one, or a Spec
    style         one of STYLES, or the name of a function or class of the solution; else it is
                  found from what the solution defines
    seed          of the cases
    explain       measure what a wrong gradient looks like, which takes a second or two
    time_limit    seconds that the solution may use in all; part_limit: for one part
    memory_limit  megabytes

    A file runs in a process of its own, within the limits; names are called here, without limits.
    Raises SpecError, and FileNotFoundError for a path without a file; whatever the solution does is
    in the Grade.
    """
    wanted = find_spec(spec)
    start = time.monotonic()
    if isinstance(solution, Mapping):
        run: SolutionProcess | Namespace = Namespace(solution)
        name = "the notebook"
    else:
        path = Path(solution)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}.")
        run = SolutionProcess(path, time_limit, part_limit, memory_limit)
        name = path.name
    result = Grade(wanted.title, name)
    with run:
        try:
            defined = run.names()
            chosen = find_style(wanted.styles, defined, style)
            student = Student(run, chosen, defined, seed=seed)
            result.style = chosen.name
            result.parts = _parts(Judge(wanted, student, seed, explain), result)
            if student.stopped and not student.calls:
                result.error = student.stopped
        except CannotRun as error:
            result.error = str(error)
            result.parts = [_lost(part) for part in wanted.parts]
    result.printed = str(run.printed)
    result.seconds = time.monotonic() - start
    return result


def _parts(judge: Judge, result: Grade) -> list[PartResult]:
    spec, student, style = judge.spec, judge.student, judge.student.style
    if style.on_tensors:
        student.dtype = _precision(judge, student)
    parts = []
    for part in spec.parts:
        if part.needs and part.needs not in style.provides:
            result.left_out.append(part.name or part.needs)
        else:
            parts.append(judge.part(part))
    return parts


def _precision(judge: Judge, student: Student) -> Any:
    """float32 if the solution's tensors hold nothing else."""
    try:
        out = student.run(judge.drawn[0]).out
    except StudentError:
        return np.float64
    return np.float32 if out.dtype == np.float32 else np.float64


def _lost(part: Part) -> PartResult:
    return PartResult(part.name or type(part).__name__, 0.0, part.points)
