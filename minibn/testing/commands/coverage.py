"""What many checks have covered, as one line: axes, sides, magnitudes, memory layouts, kinks.

>>> import numpy as np
>>> from minibn.testing import check_vjp
>>> coverage = Coverage()
>>> for x in (np.array(3e-12), np.full((1, 2, 9), 2e11).T):
...     coverage.add(check_vjp(lambda x: x * x, lambda g, x: 2 * g * x, x))
>>> print(coverage)
covered: 0-d, up to 3 axes, sides to 9, magnitudes 3e-12 to 2e+11, layouts C, Fortran
"""

from __future__ import annotations

import math

from minibn.testing.report import GradReport, InputReport

LAYOUTS = (
    "C",
    "Fortran",
    "reversed",
    "gapped",
    "broadcast",
    "of other order",
)  # as `layout_of` says


class Coverage:
    """Adds up the inputs of reports. A magnitude is that of an array's largest entry."""

    def __init__(self) -> None:
        self.axes: set[int] = set()
        self.side = 0
        self.has_empty = False
        self.magnitudes = (math.inf, 0.0)
        self.layouts: set[str] = set()
        self.kinks = 0

    def add(self, report: GradReport) -> None:
        for x in report.inputs:
            self._add_input(x)

    def _add_input(self, x: InputReport) -> None:
        self.axes.add(len(x.shape))
        self.side = max(self.side, *x.shape, 0)
        self.has_empty |= 0 in x.shape
        self.layouts.add(x.layout)
        self.kinks += x.kinks > 0
        if x.magnitude:
            least, most = self.magnitudes
            self.magnitudes = min(least, x.magnitude), max(most, x.magnitude)

    def as_data(self) -> dict[str, object]:
        return {
            "axes": sorted(self.axes),
            "longest side": self.side,
            "empty": self.has_empty,
            "magnitudes": self.magnitudes if self.magnitudes[1] else None,
            "layouts": [name for name in LAYOUTS if name in self.layouts],
            "kinks": self.kinks,
        }

    def __str__(self) -> str:
        if not self.axes:
            return "covered: nothing"
        parts = ["0-d"] * (0 in self.axes) + ["empty"] * self.has_empty
        if most := max(self.axes):
            parts += [f"up to {most} axes" if most > 1 else "1 axis", f"sides to {self.side}"]
        if self.magnitudes[1]:
            parts.append("magnitudes {:.0e} to {:.0e}".format(*self.magnitudes))
        if known := [name for name in LAYOUTS if name in self.layouts]:
            parts.append(f"layouts {', '.join(known)}")
        if self.kinks:
            parts.append(f"kinks in {self.kinks} gradients")
        return f"covered: {', '.join(parts)}"


def events(report: GradReport) -> set[str]:
    """What to count of a check, for `hypothesis.event`."""
    return {
        f"{what} of an input"
        for x in report.inputs
        for what in (f"{len(x.shape)} axes", f"layout {x.layout}", _decade(x.magnitude))
    }


def _decade(magnitude: float) -> str:
    return f"magnitude 1e{math.floor(math.log10(magnitude)):+03d}" if magnitude else "magnitude 0"
