"""The report of a check: for each input the digits that agree, as text and as data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

FULL = 15.95  # digits of a float64
LONGEST = 5000  # bytes of a script that is shown

listeners: list[
    Callable[[GradReport], None]
] = []  # called with every report, as by the pytest plugin


@contextmanager
def without_listeners():
    """Inside, the listeners are not called: these reports are parts of a larger one."""
    saved = listeners[:]
    listeners.clear()
    try:
        yield
    finally:
        listeners[:] = saved


class GradientError(AssertionError):
    """A gradient is wrong, or could not be judged. `report` says which, where, and why."""

    def __init__(self, report: GradReport) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:  # only when it is printed: a diagnosis takes time
        return str(self.report)


class Vacuous(GradientError):
    """Both sides of the comparison are zero: the check could not have failed."""


def digits(difference: float, scale: float) -> float:
    """The decimal digits to which two numbers of size `scale` agree if they differ by `difference`.

    >>> digits(1e-7, 10.0)
    8.0
    """
    if difference == 0:
        return FULL
    if not (math.isfinite(difference) and scale > 0):
        return 0.0
    return min(FULL, max(0.0, -math.log10(difference / scale)))


@dataclass
class InputReport:
    """The result for the gradient of one input.

    verdict   "agrees", "wrong", "vacuous" (both sides are zero), "zero" (as declared),
              "inconclusive" (the oracles contradict each other), "empty" (no entries)
    digits    to which gradient and oracle agree, relative to the largest entry; `demanded`: to
              how many they must, by the oracle's error and the conditioning
    oracles   name -> digits agreed with the gradient, or the reason why it abstains
    kinks     the number of outputs whose slopes from the left and from the right differ
    too_small  the number of entries that are below the tolerance, and so were not judged
    missed    the chance that a gradient wrong by 0.1 % of its norm would have passed
    """

    position: int
    shape: tuple[int, ...]
    dtype: str
    name: str = ""
    verdict: str = "agrees"
    digits: float = FULL
    demanded: float = 0.0
    oracles: dict[str, Any] = field(default_factory=dict)
    order: float | None = None
    how: str = ""
    kinks: int = 0
    too_small: int = 0
    missed: float = 0.0
    sides: str = ""
    worst: dict[str, Any] | None = None
    cotangent: int = 0  # number of the cotangent with the worst entry

    @property
    def passed(self) -> bool:
        return self.verdict in ("agrees", "zero", "empty")

    @property
    def label(self) -> str:
        return self.name or f"input {self.position}"

    def line(self) -> str:
        start = f"{self.label}  {self.shape} {self.dtype}"
        if self.verdict == "empty":
            return f"{start}: empty, so only shape and dtype were checked"
        if self.verdict == "zero":
            return f"{start}: zero, as declared ({self.how})"
        if self.verdict == "vacuous":
            return f"{start}: VACUOUS, {self.sides}"
        mark = "" if self.passed else f" {self.verdict.upper()}:"
        kinks = f", {self.kinks} kink{'s' * (self.kinks > 1)}" if self.kinks else ""
        small = f", {self.too_small} too small to judge" if self.too_small else ""
        return (
            f"{start}:{mark} {self.digits:.1f} digits agree, {self.demanded:.1f} demanded"
            f" ({self.how}{small}{kinks})"
        )


@dataclass(frozen=True)
class Diagnosis:
    """What the first wrong gradient looks like: sentences, a screen, a standalone script."""

    sentences: list[str] = field(default_factory=list)
    screen: str = ""
    script: str = ""


@dataclass
class GradReport:
    """The report of one check.

    inputs     a report for each input
    faults     what is wrong with f or the vjp as a whole, a sentence each
    notes      what is worth knowing and no fault, a sentence each
    diagnose   makes the diagnosis, on first use
    """

    name: str
    inputs: list[InputReport] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    diagnose: Callable[[], Diagnosis] = field(default=Diagnosis, repr=False)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Measured entry by entry on first use; empty if no gradient is wrong."""
        return self.diagnose()

    def __getstate__(self) -> dict[str, Any]:  # for other processes: without the functions
        return vars(self) | {"diagnose": Diagnosis, "diagnosis": self.diagnosis}

    @property
    def screen(self) -> str:
        return self.diagnosis.screen

    @property
    def script(self) -> str:
        return self.diagnosis.script

    @property
    def passed(self) -> bool:
        return not self.faults and all(x.passed for x in self.inputs)

    @property
    def digits(self) -> float:
        """Of the input that agrees least."""
        judged = [x.digits for x in self.inputs if x.verdict not in ("empty", "zero", "vacuous")]
        return min(judged, default=FULL)

    def line_of(self, name: str) -> str:
        """The line of one input, or of one parameter of a model."""
        return next(x.line() for x in self.inputs if x.label == name)

    def __str__(self) -> str:
        lines = [f"{self.name}: {'the gradient agrees' if self.passed else 'FAILED'}"]
        lines += [f"  {fault}" for fault in self.faults]
        for x in self.inputs:
            lines.append("  " + x.line())
            if not x.passed and x.verdict != "vacuous":
                lines += [f"    {oracle}: {_agreement(a)}" for oracle, a in x.oracles.items()]
                lines += [f"    {x.sides}"] if x.sides else []
        lines += [f"  note: {note}" for note in self.notes]
        if missed := max((x.missed for x in self.inputs), default=0.0):
            lines.append(
                "  Along random directions an error of 0.1 % of the gradient's norm is missed with "
                f"a chance of {missed:.0e} at most."
            )
        if self.screen:
            lines += ["", self.screen]
        if len(self.script) > LONGEST:
            lines += [
                "",
                f"A script that reproduces it is in report.script ({len(self.script)} bytes).",
            ]
        elif self.script:
            lines += ["", "To reproduce it:", "", self.script.rstrip()]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Everything as one JSON object (numbers that JSON lacks, such as NaN, as strings)."""
        whole = {
            "name": self.name,
            "passed": self.passed,
            "digits": self.digits,
            "seed": self.seed,
            "faults": self.faults,
            "notes": self.notes,
            "inputs": [asdict(x) for x in self.inputs],
            **asdict(self.diagnosis),
        }
        return json.dumps(_plain(whole), allow_nan=False)

    def settle(self, raises: bool) -> GradReport:
        """Call the listeners, then return the report, or raise it as an error if it fails."""
        for listen in listeners:
            listen(self)
        if raises and not self.passed:
            only_vacuous = not self.faults and all(
                x.passed or x.verdict == "vacuous" for x in self.inputs
            )
            raise (Vacuous if only_vacuous else GradientError)(self)
        return self


def _agreement(answer: Any) -> str:
    return f"agrees to {answer:.1f} digits" if isinstance(answer, float) else str(answer)


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    if isinstance(x, float):
        return x if math.isfinite(x) else repr(x)
    return x if isinstance(x, (str, int, type(None))) else str(x)
