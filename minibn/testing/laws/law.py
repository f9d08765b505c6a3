"""A law: one sentence, one function that checks it, one test, one line in the docs.

    @law("algebra of the vjp", "The vjp of a zero cotangent is exactly zero.")
    def zero_at_the_zero_cotangent(problem, backend): ...

The function raises AssertionError where the sentence is false. What it is given is drawn:

    check(problem, backend)          about every op and layer: `problem` is drawn by its row in
                                     the registry, or is somebody's own (`check_laws`)
    check(subject, drawn, backend)   about named subjects (ops, optimizers, layers), which are found
                                     by `subject(name)`; `drawn` is from the law's own strategy

Either way `law.run(case, examples, backend)` draws examples for the case of that name and checks
each. Hypothesis is needed here: install `minibn[test]`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from minibn.backend import Backend, get_backend, use
from minibn.testing.commands.profiles import share
from minibn.testing.problem import Problem
from minibn.testing.registry import CASES, LAYERS

Draw = Callable[[str], st.SearchStrategy[Any]]


def points_of(case: str) -> st.SearchStrategy[Any]:
    """The problems of an op's row in the registry, or of a layer's ("nn.Conv2d")."""
    if case in CASES:
        return CASES[case].problems
    return LAYERS[case.removeprefix("nn.")].problems.map(lambda drawn: drawn.problem())


@dataclass(frozen=True)
class Law:
    """A sentence with the function that checks it.

    over      the names of the cases that it is about.
    draw      name of a case -> strategy of what `check` is given.
    subject   name of a case -> what the law is about (None: the drawn problem says it all).
    devices   whether the law says something on other backends than NumPy, too.
    examples  how many are drawn in a profile of 25 examples, in others in proportion.
    """

    group: str
    sentence: str
    check: Callable[..., None]
    over: tuple[str, ...]
    draw: Draw
    subject: Callable[[str], Any] | None = None
    devices: bool = True
    examples: int = 8

    @property
    def name(self) -> str:
        return self.check.__name__

    @property
    def generic(self) -> bool:
        """Whether it is about any op or layer at all."""
        return self.subject is None and self.over == ANYTHING

    def applies_to(self, case: str) -> bool:
        return case in self.over

    def __call__(self, *what: Any) -> None:
        """Check one example, with `backend` last. Whatever goes wrong is a broken law."""
        try:
            with use(what[-1].name):
                self.check(*what)
        except Exception as error:  # whatever goes wrong is a broken law
            raise self.broken(error) from error

    def broken(self, error: Exception) -> AssertionError:
        told = f"{type(error).__name__}: {error}"
        if isinstance(error, AssertionError):
            told = str(error) or "it is false"
        return AssertionError(f"law broken: {self.sentence}\n  [{self.name}] {told}")

    def run(
        self,
        case: str,
        examples: int | None = None,
        backend: str | Backend = "numpy",
        subject: Any = None,
        shrink: bool = True,
    ) -> None:
        """Check the law on examples drawn for `case`. Raises AssertionError if one breaks it.

        subject: stands in for what the case names: somebody's own batch_norm, say.
        shrink: look for a small example that breaks it, too, which takes a second or more.
        """
        if not self.applies_to(case):
            raise ValueError(f"law {self.name} is not about {case!r}; it is about {self.over}.")
        there = get_backend(backend) if isinstance(backend, str) else backend
        if subject is None and self.subject is not None:
            subject = self.subject(case)
        about = () if self.subject is None else (subject,)

        @settings(
            max_examples=share(self.examples) if examples is None else examples,
            deadline=None,  # a busy machine breaks no law
            suppress_health_check=[HealthCheck.too_slow],
            report_multiple_bugs=False,
            phases=[phase for phase in Phase if shrink or phase is not Phase.shrink],
        )
        @given(self.draw(case))
        def examine(drawn: Any) -> None:
            self(*about, drawn, there)

        try:
            examine()
        except AssertionError:
            raise
        except Exception as error:  # in drawing, or another one each time
            raise self.broken(error) from error


EVERY_OP = tuple(CASES)
EVERY_LAYER = tuple(f"nn.{name}" for name in LAYERS)
ANYTHING = EVERY_OP + EVERY_LAYER
LAWS: dict[str, Law] = {}
GROUPS = (
    "algebra of the vjp", "aliasing", "broadcasting", "linearity and homogeneity", "purity",
    "memory layout", "dtype", "determinism", "graph", "backends", "second order", "batch_norm",
    "BatchNorm layer", "l_p batch norms", "norms of an example", "convolution, then batch_norm",
    "l_p norms", "convolution", "pooling", "softmax and cross-entropy", "layers", "optimizers",
    "kernels",
)  # fmt: skip


def law(
    group: str,
    sentence: str,
    *,
    over: Iterable[str] = ANYTHING,
    draw: Draw | st.SearchStrategy[Any] = points_of,
    subject: Callable[[str], Any] | None = None,
    devices: bool = True,
    examples: int = 8,
) -> Callable[[Callable[..., None]], Law]:
    """Register the decorated function as the law of that sentence (see `Law` for the settings)."""
    drawn = draw if callable(draw) else (lambda case: draw)

    def register(check: Callable[..., None]) -> Law:
        if group not in GROUPS:
            raise ValueError(f"law: group {group!r} is unknown. Use one of {GROUPS}.")
        made = Law(group, sentence, check, tuple(over), drawn, subject, devices, examples)
        if made.name in LAWS:
            raise ValueError(f"law: {made.name} is registered already. Names are unique.")
        LAWS[made.name] = made
        return made

    return register


def check_laws(
    problem: Problem, backend: str | Backend = "numpy", without: Collection[str] = ()
) -> None:
    """Put somebody's own op through every law that is about any op.

    problem: the op as a function of arrays or Tensors, at a point of its domain. Laws are about
    everything but the numbers: that those are right is `check_problem`'s to say.
    without: names of laws, or of groups, to leave out.
    Raises AssertionError that names every law that is broken, and how.

    >>> import numpy as np
    >>> from minibn import ops
    >>> check_laws(Problem(lambda x, y: ops.exp(x) * y, (np.ones((2, 3)), np.ones(3))))
    """
    there = get_backend(backend) if isinstance(backend, str) else backend
    known = {law.name for law in LAWS.values()} | {law.group for law in LAWS.values()}
    if unknown := set(without) - known:
        raise ValueError(f"check_laws: without={sorted(unknown)}: there are no such laws.")
    asked = [
        law
        for law in LAWS.values()
        if law.generic
        and (law.devices or there.name == "numpy")
        and law.group not in without
        and law.name not in without
    ]
    broken = []
    for one in asked:
        try:
            one(problem, there)
        except AssertionError as error:
            broken.append(str(error))
    if broken:
        raise AssertionError(
            f"{len(broken)} of {len(asked)} laws are broken\n\n" + "\n\n".join(broken)
        )
