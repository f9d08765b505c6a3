"""A law about named cases: rows of the registry, or optimizers, schedules, the tape.

    @law("pooling", "Σ x̄ = Σ g.", over=("avg_pool2d",), draw=points, subject=ops_function)
    def gradient_mass_is_conserved(op, point, backend): ...

Without a subject the function's arguments are (problem, backend), the problem drawn by the case's
row in the registry; with one they are (subject, drawn, backend), with `subject(name)` and `drawn`
from the law's own strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from minibn.backend import Backend, get_backend
from minibn.testing.commands.profiles import share
from minibn.testing.laws.base import LAWS as LAWS_ABOUT_ANYTHING
from minibn.testing.laws.base import Law, add_law
from suite.registry import CASES, LAYERS

Draw = Callable[[str], st.SearchStrategy[Any]]

EVERY_OP = tuple(CASES)
EVERY_LAYER = tuple(f"nn.{name}" for name in LAYERS)
ANYTHING = EVERY_OP + EVERY_LAYER
GROUPS = (
    *dict.fromkeys(law.group for law in LAWS_ABOUT_ANYTHING.values()), "elementwise",
    "linearity and homogeneity", "batch_norm", "BatchNorm layer", "l_p batch norms",
    "norms of an example", "convolution, then batch_norm", "l_p norms", "convolution", "pooling",
    "softmax and cross-entropy", "layers", "optimizers", "kernels", "numbers",
)  # fmt: skip


def points_of(case: str) -> st.SearchStrategy[Any]:
    """The problems of an op's row in the registry, or of a layer's ("nn.Conv2d")."""
    if case in CASES:
        return CASES[case].problems
    return LAYERS[case.removeprefix("nn.")].problems.map(lambda drawn: drawn.problem())


@dataclass(frozen=True)
class RowLaw(Law):
    """A law with the cases that it is about.

    over     the names of the cases.
    draw     name of a case -> strategy of the argument `drawn` of `check`.
    subject  name of a case -> what the law is about (None: the drawn problem).
    """

    over: tuple[str, ...] = ANYTHING
    draw: Draw = points_of
    subject: Callable[[str], Any] | None = None

    @property
    def generic(self) -> bool:
        """Whether it is about any op or layer at all."""
        return self.name in LAWS_ABOUT_ANYTHING

    def applies_to(self, case: str) -> bool:
        return case in self.over

    def run(
        self,
        case: str,
        examples: int | None = None,
        backend: str | Backend = "numpy",
        subject: Any = None,
        shrink: bool = True,
    ) -> None:
        """Check the law on examples drawn for `case`. Raises AssertionError if one breaks it.

        subject: in place of the case's own: another batch_norm, say.
        shrink: also search for a small example that breaks it, which takes a second or more.
        """
        if not self.applies_to(case):
            raise ValueError(f"law {self.name} is not about {case!r}; it is about {self.over}.")
        device = get_backend(backend) if isinstance(backend, str) else backend
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
            self(*about, drawn, device)

        try:
            examine()
        except AssertionError:
            raise
        except Exception as error:  # in drawing, or a different one each time
            raise self.to_error(error) from error


LAWS: dict[str, RowLaw] = {}


def law(
    group: str,
    sentence: str,
    *,
    over: Iterable[str],
    draw: Draw | st.SearchStrategy[Any] = points_of,
    subject: Callable[[str], Any] | None = None,
    devices: bool = True,
    examples: int = 8,
) -> Callable[[Callable[..., None]], RowLaw]:
    """Register the decorated function as the law of that sentence (see `RowLaw`)."""
    drawn = draw if callable(draw) else (lambda case: draw)
    if group not in GROUPS:
        raise ValueError(f"law: group {group!r} is unknown. Use one of {GROUPS}.")

    def register(check: Callable[..., None]) -> RowLaw:
        made = RowLaw(group, sentence, check, devices, examples, tuple(over), drawn, subject)
        return add_law(LAWS, made)

    return register


def about(law: Any) -> str:
    """What a law is about, for the table."""
    if law.generic:
        return f"anything; tested on {len(EVERY_OP)} ops and {len(EVERY_LAYER)} layers"
    if law.over == EVERY_LAYER:
        return f"all {len(EVERY_LAYER)} layers"
    return ", ".join(f"`{name}`" for name in law.over)
