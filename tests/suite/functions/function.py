"""A function of NumPy arrays with its right vjp, its wrong ones, and the points to check them at.

@function(at=[normal(2, 3)])                # points: arrays, or tuples of them
def square(x):
    return x * x

@square.right
def square_vjp(g, x):
    return 2 * g * x

@square.wrong()
def square_without_the_two(g, x):
    '''The factor of the power rule is missing.'''
    return g * x

square.hard("square_of_tiny_values", 1e-12 * normal(3), why="What is hard about it.")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn.testing.strategies import arrays, real

Point = tuple[Any, ...]
Vjp = Callable[..., Any]
Pair = tuple[Callable[..., Any], Vjp]

FUNCTIONS: dict[str, Function] = {}
WRONG: dict[str, Wrong] = {}
RIGHT: dict[str, Right] = {}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers, always the same for a seed."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


@dataclass(frozen=True)
class Wrong:
    """A wrong vjp, described by one sentence. `make()` gives a fresh pair (f, vjp), since some
    mistakes are about what is remembered between two calls."""

    name: str
    of: Function
    sentence: str
    make: Callable[[], Pair]
    points: list[Point]
    usual: bool  # these are the function's own points, to which drawn ones are added
    settings: dict[str, Any]


@dataclass(frozen=True)
class Right:
    """A right vjp at points where a checker may complain about it, and `why` it may.

    ends   how a check of it may end beside agreement: "vacuous" or "inconclusive"
    """

    name: str
    of: Function
    why: str
    points: list[Point]
    usual: bool
    settings: dict[str, Any]
    ends: tuple[str, ...] = ()

    @property
    def pair(self) -> Pair:
        return self.of.f, self.of.vjp


@dataclass
class Function:
    """f, its right vjp, hand-written points, a strategy of points; `settings` are keywords that
    `check_vjp` needs for it."""

    name: str
    family: str
    f: Callable[..., Any]
    points: list[Point]
    drawn: st.SearchStrategy[Point] | None
    settings: dict[str, Any] = field(default_factory=dict)
    vjp: Vjp = lambda *_: None

    def __call__(self, *inputs: Any) -> Any:
        return self.f(*inputs)

    def right(self, vjp: Vjp) -> Vjp:
        """A decorator: the right vjp."""
        self.vjp = vjp
        return vjp

    def wrong(
        self,
        *,
        at: Sequence[Any] = (),
        makes_pair: bool = False,
        **settings: Any,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A decorator: a wrong vjp, or with `makes_pair` a function that makes f and a wrong vjp.

        at     the points that show the mistake, where the function's own do not
        """

        def enter(mistake: Callable[..., Any]) -> Callable[..., Any]:
            make = mistake if makes_pair else (lambda: (self.f, mistake))
            name, sentence = mistake.__name__, " ".join(str(mistake.__doc__).split())
            if name in WRONG:
                raise ValueError(f"functions: there are two mistakes called {name!r}. Rename one.")
            own = [as_point(p) for p in at]
            WRONG[name] = Wrong(
                name, self, sentence, make, own or self.points,
                not own, self.settings | settings,
            )  # fmt: skip
            return mistake

        return enter

    def hard(self, name: str, *at: Any, why: str, ends: tuple[str, ...] = (), **settings: Any):
        """Points where the right vjp is easily called wrong."""
        if name in RIGHT:
            raise ValueError(f"functions: two right gradients are called {name!r}. Rename one.")
        points = [as_point(p) for p in at]
        RIGHT[name] = Right(name, self, why, points, False, self.settings | settings, ends)


def as_point(point: Any) -> Point:
    return point if isinstance(point, tuple) else (point,)


def function(
    *,
    at: Sequence[Any],
    domains: Any = real,
    textures: Sequence[str] = ("integers", "dyadic", "normal", "heavy"),
    drawn: st.SearchStrategy[Point] | str = "arrays",
    ends: tuple[str, ...] = (),
    **settings: Any,
) -> Callable[[Callable[..., Any]], Function]:
    """A decorator: enter f under its name.

    at        hand-written points, the usual ones
    drawn     a strategy of points; "arrays": arrays of the first point's shapes in these `domains`
              (one for all inputs, or one each); "none"
    ends      how a check may end at these points beside agreement, as for `Right`
    """

    def enter(f: Callable[..., Any]) -> Function:
        points = [as_point(p) for p in at]
        strategy = None if isinstance(drawn, str) else drawn
        if drawn == "arrays":
            each = domains if isinstance(domains, tuple) else (domains,) * len(points[0])
            shapes = [np.shape(x) for x in points[0]]
            strategy = st.tuples(
                *(arrays(s, d, textures) for s, d in zip(shapes, each, strict=True))
            )
        name, family = f.__name__, f.__module__.rpartition(".")[2]
        if name in FUNCTIONS:
            raise ValueError(f"functions: there are two called {name!r}. Rename one.")
        made = Function(name, family, f, points, strategy, settings)
        FUNCTIONS[name] = made
        usual = "The points that one writes by hand, and drawn ones."
        RIGHT[name] = Right(name, made, usual, points, True, settings, ends)
        return made

    return enter
