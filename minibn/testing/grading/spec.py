"""A spec: the function that is asked for, the styles in which it may be written, cases and points.

A teacher's own spec is a Python file that sets `SPEC = Spec(...)`, as those in `specs/` do.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minibn.errors import did_you_mean
from minibn.testing.grading.solution_file import describe
from minibn.testing.grading.styles import STYLES, Style

SHIPPED = (
    "batch_norm", "layer_norm", "conv2d", "max_pool2d", "softmax_cross_entropy", "dropout",
)  # fmt: skip


class SpecError(Exception):
    """There is no such spec, or it is no spec; the message names the remedy."""


@dataclass(frozen=True)
class Case:
    """A point at which the solution is called.

    kind      a few words, to which parts refer: "a batch of one"
    inputs    name -> array, in the order of the arguments; all are differentiated
    settings  name -> value: eps, stride, labels
    zero_gradient  names of inputs whose gradient is known to be zero here
    """

    kind: str
    inputs: dict[str, np.ndarray]
    settings: dict[str, Any] = field(default_factory=dict)
    zero_gradient: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        return sum(x.size for x in self.inputs.values())


@dataclass(frozen=True)
class Part:
    """Something that is worth points: all of them, or none.

    on     the kinds of cases; None: all those that no other part of the same class names
    needs  left out in a style that does not provide this
    """

    points: float
    on: str | None = None
    name: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Values(Part):
    """The output of the forward pass."""


@dataclass(frozen=True)
class Gradient(Part):
    """The gradient of the input `of`."""

    of: str = "x"


@dataclass(frozen=True)
class Unmodified(Part):
    """No call changes its arguments."""


@dataclass(frozen=True)
class KeepsFloat32(Part):
    """Output and gradients of float32 inputs are float32."""


@dataclass(frozen=True)
class Check(Part):
    """Anything else: look(student, rng) yields a sentence for each thing that is wrong."""

    look: Callable[[Any, np.random.Generator], Iterator[str]] = lambda student, rng: iter(())


@dataclass(frozen=True)
class Spec:
    """What is asked for.

    title         of the feedback
    forward       (*inputs, **settings) -> out in NumPy, written so that complex numbers pass: the
                  derivatives are taken from it. It is never shown
    cases         rng -> the cases
    styles        how a solution may be written; of several that fit the first is taken
    parts         in the order of the feedback
    random        forward also takes mask=: the solution's own, found from its output by
                  `mask(case, out)`, which raises ValueError with a sentence if that is impossible
    follow_through  the gradient of a wrong forward pass gets its points if it is that one's
    """

    title: str
    forward: Callable[..., np.ndarray]
    cases: Callable[[np.random.Generator], Sequence[Case]]
    styles: Sequence[Style]
    parts: Sequence[Part]
    mask: Callable[[Case, np.ndarray], np.ndarray] | None = None
    follow_through: bool = False

    def __post_init__(self) -> None:
        if unknown := {style.name for style in self.styles} - set(STYLES):
            raise SpecError(f"there is no style {sorted(unknown)}. There are {', '.join(STYLES)}.")
        if not self.parts or any(part.points < 0 for part in self.parts):
            raise SpecError("parts need points of 0 or more.")
        cases = self.cases(np.random.default_rng(0))
        if not cases:
            raise SpecError("cases(rng) gives no case.")
        kinds, inputs = {case.kind for case in cases}, set(cases[0].inputs)
        for part in self.parts:
            if part.on is not None and part.on not in kinds:
                raise SpecError(f"a part is about {part.on!r}. {did_you_mean(part.on, kinds)}")
            if isinstance(part, Gradient) and part.of not in inputs:
                raise SpecError(f"a part is about {part.of!r}. {did_you_mean(part.of, inputs)}")

    def chosen(self, part: Part, cases: Sequence[Case]) -> list[int]:
        """The positions of the cases that a part is about."""
        if part.on is not None:
            return [k for k, case in enumerate(cases) if case.kind == part.on]
        others = [p for p in self.parts if type(p) is type(part) and _about(p) == _about(part)]
        elsewhere = {p.on for p in others if p.on is not None}
        return [k for k, case in enumerate(cases) if case.kind not in elsewhere]


def _about(part: Part) -> str:
    return part.of if isinstance(part, Gradient) else ""


def find_spec(name: str | Path | Spec) -> Spec:
    """A shipped spec by its name, or that of a file. Raises SpecError."""
    if isinstance(name, Spec):
        return name
    if name in SHIPPED:
        return importlib.import_module(f"minibn.testing.grading.specs.{name}").SPEC
    path = Path(name)
    if path.suffix != ".py":
        raise SpecError(
            f"there is no spec {str(name)!r}. {did_you_mean(name, SHIPPED)} A spec of yours is a "
            "Python file that sets SPEC."
        )
    if not path.is_file():
        raise SpecError(f"there is no file {path}.")
    made = importlib.util.spec_from_file_location(path.stem, path)
    assert made is not None and made.loader is not None  # of a .py file
    module = importlib.util.module_from_spec(made)
    try:
        made.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SpecError(f"{path}: {describe(error, path.resolve().parent)}") from error
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, Spec):
        raise SpecError(f"{path} must set SPEC = Spec(...), see minibn/testing/grading/README.md.")
    return spec
