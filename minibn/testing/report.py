"""The report of a check: for each input the digits that agree, as text and as data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from textwrap import wrap
from typing import Any

FULL = 15.95  # digits of a float64
LONGEST = 5000  # bytes of a script that is shown
MEASURED = 400  # entries of a larger failure that is explained as well

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
    return min(FULL, max(0.0, math.log10(scale) - math.log10(difference)))


@dataclass
class InputReport:
    """The result for the gradient of one input: its position, name, shape and dtype, and

    verdict   "agrees", "wrong", "vacuous" (both sides are zero), "zero" (as declared),
              "inconclusive" (the oracles contradict each other, or rounding hides the gradient),
              "empty" (no entries)
    digits    to which gradient and oracle agree, relative to the largest entry; `demanded`: to
              how many they must, by the oracle's error and the conditioning
    oracles   name -> digits agreed with the gradient, or the reason why it abstains
    kinks     the number of outputs whose slopes from the left and from the right differ
    too_small  the number of entries that are below the tolerance, and so were not judged
    order     of the Taylor remainder: 2 if the gradient is right, 1 if not
    how       it was compared: which oracle, every entry or how many directions
    sides     the reason for the verdict: which oracles are for and which against the gradient
    worst     the entry with the largest error: index (None if directions were compared),
              analytic, numeric, tolerance; `cotangent`: the number (0 or 1) of its cotangent
    missed    the chance that a gradient wrong by 0.1 % of its norm would have passed
    magnitude, layout   the largest entry of the input in size, and its memory layout
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
    magnitude: float = 0.0
    layout: str = "C"

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
    """What the first wrong gradient looks like: sentences, a screen, a standalone script.

    remark      on the error's size, if there is no sentence that explains it
    text_calls  how often f was called to make it
    doubtful    there are so few entries that other sentences would fit as well
    """

    sentences: list[str] = field(default_factory=list)
    screen: str = ""
    script: str = ""
    remark: str = ""
    text_calls: int = 0
    doubtful: bool = False


def size_of(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """The shortest axis, up to three, and the number of entries: of two failures the one with the
    larger pair shows more of a pattern, as two numbers on an axis are often opposite or ordered."""
    sides = [n for shape in shapes for n in shape]
    return min(3, *sides) if sides else 0, sum(map(math.prod, shapes))


def larger_of(one: GradReport | None, other: GradReport) -> GradReport:
    """The failure that shows more of a pattern, as long as its entries can all be measured."""
    if one is None or (one.size < other.size and other.entries <= MEASURED):
        return other
    return one


@dataclass
class GradReport:
    """The report of one check, of a name and a seed.

    inputs     a report for each input
    faults     what is wrong with f or the vjp as a whole, a sentence each
    notes      what is worth knowing and no fault, a sentence each
    diagnose   makes the diagnosis, on first use
    calls      how often f was called for the check; `counted`: f, which counts them
    larger     the report of the largest failure of the same test, which shows more of a pattern
    left_out   whether a property test left this example out, as vacuous or inconclusive
    """

    name: str
    inputs: list[InputReport] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seed: int = 0
    diagnose: Callable[[], Diagnosis] = field(default=Diagnosis, repr=False)
    calls: int = 0
    counted: Any = field(default=None, repr=False)
    larger: GradReport | None = field(default=None, repr=False)
    left_out: bool = False

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Measured entry by entry on first use; empty if no gradient is wrong."""
        return self.diagnose()

    def __getstate__(self) -> dict[str, Any]:  # for other processes: without the functions
        plain = {"diagnose": Diagnosis, "diagnosis": self.diagnosis, "counted": None}
        return vars(self) | plain

    @property
    def screen(self) -> str:
        """The diagnosis as text: the worst entries, a picture of them, an explanation."""
        return self.diagnosis.screen

    @property
    def script(self) -> str:
        """A standalone script that reproduces the failure; empty if no gradient is wrong."""
        return self.diagnosis.script

    @property
    def passed(self) -> bool:
        return not self.faults and all(x.passed for x in self.inputs)

    @property
    def only_vacuous(self) -> bool:
        """Whether the check failed, and only because both sides of a comparison are zero."""
        judged = (x.passed or x.verdict == "vacuous" for x in self.inputs)
        return not self.passed and not self.faults and all(judged)

    @property
    def undecided(self) -> bool:
        """Whether the check failed, and nothing that it compared is wrong: it was vacuous, or
        inconclusive."""
        judged = (x.passed or x.verdict in ("vacuous", "inconclusive") for x in self.inputs)
        return not self.passed and not self.faults and all(judged)

    @property
    def digits(self) -> float:
        """Of the input that agrees least."""
        judged = [x.digits for x in self.inputs if x.verdict not in ("empty", "zero", "vacuous")]
        return min(judged, default=FULL)

    @property
    def entries(self) -> int:
        """Of the inputs together."""
        return self.size[1]

    @property
    def size(self) -> tuple[int, int]:
        """As `size_of`."""
        return size_of([x.shape for x in self.inputs])

    def line_of(self, name: str) -> str:
        """The line of one input, or of one parameter of a model."""
        return next(x.line() for x in self.inputs if x.label == name)

    def __str__(self) -> str:
        lines = [f"{self.name}: {'the gradient agrees' if self.passed else 'FAILED'}"]
        lines += [f"  {fault}" for fault in self.faults]
        for x in self.inputs:
            lines.append("  " + x.line())
            if not x.passed and x.verdict != "vacuous":
                if not x.sides.endswith("and none with it"):  # else that says it all
                    lines += [f"    {oracle}: {_agreement(a)}" for oracle, a in x.oracles.items()]
                lines += [f"    {x.sides}"] if x.sides else []
        lines += [f"  note: {note}" for note in self.notes]
        if missed := max((x.missed for x in self.inputs if x.verdict == "agrees"), default=0.0):
            lines.append(
                "  Along random directions an error of 0.1 % of the gradient's norm is missed with "
                f"a chance of {missed:.0e} at most."
            )
        if self.screen:
            lines += ["", self.screen, *self._larger_lines()]
            lines.append(
                f"f was called {self.calls} times for the check, {self.text_calls} times for this "
                "text."
            )
        if len(self.script) > LONGEST:
            lines += [
                "",
                f"A script that reproduces it is in report.script ({len(self.script)} bytes).",
            ]
        elif self.script:
            lines += ["", "To reproduce it:", "", self.script.rstrip()]
        return "\n".join(lines)

    @property
    def explained_larger(self) -> GradReport | None:
        """The larger failure, if its explanation says more: this one has none, or only one that
        few entries would fit by chance."""
        larger = self.larger
        if larger is None or larger is self or larger.entries <= self.entries:
            return None
        own = self.diagnosis
        if own.sentences and not own.doubtful:
            return None
        patterns = [
            re.sub(r"[-\d.e]+", "#", d.sentences[0]) if d.sentences else ""
            for d in (own, larger.diagnosis)
        ]
        return larger if patterns[1] and patterns[0] != patterns[1] else None

    @property
    def text_calls(self) -> int:
        """Calls of f for the description of the error, of a larger failure's too."""
        own, larger = self.diagnosis.text_calls, self.larger
        if self.explained_larger is None and "diagnosis" not in vars(larger or self):
            return own
        return own + (larger.diagnosis.text_calls if larger not in (None, self) else 0)

    def _larger_lines(self) -> list[str]:
        if (larger := self.explained_larger) is None:
            return []
        shapes = ", ".join(str(x.shape) for x in larger.inputs)
        wrong = next(x.label for x in larger.inputs if not x.passed)
        text = " ".join(larger.diagnosis.sentences)
        return wrap(
            f"At a larger failing problem, which tells more, of shapes {shapes}, {wrong}: {text}",
            100,
        )

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
            "calls": self.calls,
            "larger": None if (larger := self.explained_larger) is None else {
                "shapes": [x.shape for x in larger.inputs],
                "sentences": larger.diagnosis.sentences,
            },
        }  # fmt: skip
        return json.dumps(_plain(whole), allow_nan=False)

    def settle(self, raises: bool) -> GradReport:
        """Call the listeners, then return the report, or raise it as an error if it fails."""
        __tracebackhide__ = True
        for listen in listeners:
            listen(self)
        if raises and not self.passed:
            raise (Vacuous if self.only_vacuous else GradientError)(self)
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
