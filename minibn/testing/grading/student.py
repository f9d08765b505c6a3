"""A solution seen through its style: a case goes in, arrays in the spec's layout come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibn.errors import did_you_mean
from minibn.testing.grading.solution import (
    CannotRun,
    Namespace,
    SolutionProcess,
    Stopped,
    StudentError,
)
from minibn.testing.grading.spec import Case, SpecError
from minibn.testing.grading.styles import Style

Step = tuple[str, Mapping[str, np.ndarray], "np.ndarray | None"]


@dataclass
class Result:
    """Of one step. gradients: None without a cotangent; `cut`: inputs that no gradient reaches."""

    out: np.ndarray
    gradients: list[np.ndarray | None] | None = None
    cut: list[str] = field(default_factory=list)
    state: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Student:
    """The solution and its style. `dtype` is that of the arrays it gets.

    modified   names of arguments that some call has changed
    calls      that ended without an error; `stopped`: why the first one that did not end
    """

    solution: SolutionProcess | Namespace
    style: Style
    defined: Mapping[str, str]
    dtype: Any = np.float64
    seed: int = 0
    modified: set[str] = field(default_factory=set)
    calls: int = 0
    stopped: str = ""

    def steps(self, settings: Mapping[str, Any], steps: Sequence[Step]) -> list[Result]:
        """Calls of one object, or with one dict of settings: (mode, inputs, cotangent) each, mode
        "train" or "eval". Raises StudentError."""
        style, names = self.style, list(steps[0][1])
        backward = any(g is not None for _, _, g in steps)
        needed = style.defines if backward else style.defines[:1]
        if missing := [name for name in needed if name not in self.defined]:
            near = did_you_mean(missing[0], self.defined) if self.defined else ""
            raise StudentError(f"{missing[0]} is not defined. {near}".rstrip())
        given = dict(settings)
        request = {
            "how": style.how,
            "defines": list(needed),
            "inputs": names,
            "library": style.library,
            "construct": list(style.construct(steps[0][1], given)),
            "parameters": {key: list(value) for key, value in style.parameters.items()},
            "state": list(style.state),
            "steps": [
                {
                    "mode": mode,
                    "inputs": [style.layout.to(name, self._cast(x)) for name, x in inputs.items()],
                    "rest": list(style.arguments(given, mode)),
                    "keywords": style.keywords(given, mode),
                    "cotangent": None if g is None else style.layout.to("out", self._cast(g)),
                    "seed": self.seed,
                }
                for mode, inputs, g in steps
            ],
        }
        try:
            answer = self.solution.answer(request)
        except Stopped as error:
            self.stopped = self.stopped or str(error)
            raise
        self.calls += 1
        self.modified |= set(answer["modified"])
        return [self._result(step, names) for step in answer["steps"]]

    def run(
        self,
        case: Case,
        cotangent: np.ndarray | None = None,
        inputs: Sequence[np.ndarray] | None = None,
        mode: str = "train",
    ) -> Result:
        """One forward pass, and a backward pass for a cotangent; `inputs` instead of the case's."""
        arrays = case.inputs if inputs is None else dict(zip(case.inputs, inputs, strict=True))
        return self.steps(case.settings, [(mode, arrays, cotangent)])[0]

    def _cast(self, x: Any) -> np.ndarray:
        x = np.asarray(x)
        return x.astype(self.dtype) if x.dtype.kind == "f" else x.copy()

    def _result(self, step: Mapping[str, Any], names: list[str]) -> Result:
        layout = self.style.layout
        gradients = step["gradients"]
        if gradients is not None:
            gradients = [
                d if d is None or i >= len(names) else layout.back(names[i], d)
                for i, d in enumerate(gradients)
            ]
        return Result(
            layout.back("out", step["out"]),
            gradients,
            [names[i] for i in step["cut"]],
            step["state"],
        )


def find_style(styles: Sequence[Style], defined: Mapping[str, str], name: str = "") -> Style:
    """The style of which the solution defines the most. `name` demands a style, or one that calls
    the function or class of that name. CannotRun if the solution defines nothing that fits,
    SpecError if the spec has no such style."""
    possible = [s for s in styles if not name or name in (s.name, s.defines[0])]
    if not possible:
        names = {s.name: None for s in styles} | {s.defines[0]: None for s in styles}
        raise SpecError(f"there is no style {name!r} in this spec. {did_you_mean(name, names)}")
    scores = [
        sum(1.0 if n in defined else -0.5 for n in s.defines)
        if defined.get(s.defines[0]) in s.kinds
        else 0.0
        for s in possible
    ]
    if not any(scores):
        wanted = "; ".join(f"{s.signature} ({s.name})" for s in possible)
        raise CannotRun(
            f"none of the functions that are asked for is defined. Define one of: {wanted}. The "
            "solution defines "
            f"{', '.join(f'{key} ({kind})' for key, kind in defined.items()) or 'nothing'}"[:600]
        )
    return possible[scores.index(max(scores))]
