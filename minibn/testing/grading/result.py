"""A grade: points for each part with feedback, as text, as JSON, and as Gradescope reads it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from minibn.testing.grading.judging import PartResult

ALL, SOME_LOST, UNUSABLE, CANNOT_RUN = 0, 1, 2, 3  # exit codes of the command


class PointsLost(AssertionError):
    """The solution has not all points; the message is the feedback."""


@dataclass
class Grade:
    """The result of `grade`. `str(grade)` is the feedback.

    spec      the title of the spec
    solution  the name of the file, or "the notebook"
    style     the style in which it was called, one of STYLES; empty if none fitted
    parts     the results in the order of the spec, each with name, points, max_points, digits
              (None if nothing could be compared) and feedback, a list of sentences
    error     why the solution could not be run; then it has no points
    left_out  names of the parts that this style can't have
    printed   the first 4,000 characters that the solution printed
    seconds   that grading took
    """

    spec: str
    solution: str
    style: str = ""
    parts: list[PartResult] = field(default_factory=list)
    error: str = ""
    left_out: list[str] = field(default_factory=list)
    printed: str = ""
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """The points of all parts together."""
        return float(sum(part.points for part in self.parts))

    @property
    def max_points(self) -> float:
        """The points that the parts are worth, without those that are left out."""
        return float(sum(part.max_points for part in self.parts))

    @property
    def passed(self) -> bool:
        """Whether the solution has all points."""
        return not self.error and all(part.passed for part in self.parts)

    @property
    def exit_code(self) -> int:
        """0: all points; 1: points are lost; 3: the solution could not be run."""
        return CANNOT_RUN if self.error else ALL if self.passed else SOME_LOST

    def scaled(self, to: float) -> float:
        """The points, where all are `to`: the last value of an nbgrader cell that is worth `to`.

        >>> Grade("a spec", "a file", parts=[PartResult("values", 3.0, 4.0)]).scaled(to=10)
        7.5
        """
        return float(to * self.points / self.max_points) if self.max_points else 0.0

    def assert_full(self) -> None:
        """Raises PointsLost, an AssertionError with the feedback, unless all points are reached."""
        if not self.passed:
            raise PointsLost(str(self))

    def __str__(self) -> str:
        style = f" ({self.style})" if self.style else ""
        lines = [
            f"{self.spec}: {self.points:g} of {self.max_points:g} points for {self.solution}{style}"
        ]
        if self.error:
            lines.append(f"  It could not be run: {self.error}")
        for part in self.parts if self.style else []:
            agree = "" if part.digits is None else f", {part.digits:.1f} digits agree"
            lines.append(f"  [{part.points:g}/{part.max_points:g}] {part.name}{agree}")
            lines += [f"      {line}" for line in part.feedback]
        if self.left_out:
            lines.append(f"  Not part of this style: {', '.join(self.left_out)}.")
        if self.printed:
            lines += [
                "  It printed:",
                *(f"      {line}" for line in self.printed.splitlines()[:20]),
            ]
        return "\n".join(lines)

    def as_data(self) -> dict[str, Any]:
        """Everything as dicts, lists, strings and numbers; digits are None if not finite."""
        return {
            "spec": self.spec, "solution": self.solution, "style": self.style,
            "points": self.points, "max_points": self.max_points, "passed": self.passed,
            "exit_code": self.exit_code, "error": self.error, "left_out": self.left_out,
            "seconds": round(self.seconds, 2), "printed": self.printed,
            "parts": [
                {
                    "name": part.name, "points": part.points, "max_points": part.max_points,
                    "passed": part.passed, "feedback": part.feedback,
                    "digits": None if part.digits is None or not math.isfinite(part.digits)
                    else round(part.digits, 2),
                }
                for part in self.parts
            ],
        }  # fmt: skip

    def to_json(self) -> str:
        """`as_data` as JSON."""
        return json.dumps(self.as_data(), indent=1, allow_nan=False)

    def to_gradescope(self) -> str:
        """`results.json` of a Gradescope autograder: a test for each part."""
        tests = [
            {
                "name": part.name, "score": part.points, "max_score": part.max_points,
                "status": "passed" if part.passed else "failed",
                "output": "\n".join(part.feedback),
            }
            for part in self.parts
        ]  # fmt: skip
        whole = {
            "score": self.points,
            "output": f"It could not be run: {self.error}" if self.error else "",
            "execution_time": round(self.seconds),
            "tests": tests,
        }
        return json.dumps(whole, indent=1, allow_nan=False)
