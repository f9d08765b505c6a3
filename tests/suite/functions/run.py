"""A checker on the catalogue: which mistakes it finds, which right gradients it complains about."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.testing import check_vjp
from suite.functions.function import FUNCTIONS, Point, Right, Wrong
from suite.mutants.problems import draw_examples

# What a check of one point ends with: "agrees", "vacuous", "inconclusive", "wrong", and its words.
End = tuple[str, str]
Ask = Callable[[Callable[..., Any], Callable[..., Any], Point, dict[str, Any], int], End]

DRAWN = 10  # points of each function


def ours(
    f: Callable[..., Any], vjp: Callable[..., Any], point: Point, settings: dict, seed: int = 0
) -> End:
    """The verdict of check_vjp, of the worst input; what else it raises is "wrong"."""
    try:
        report = check_vjp(f, vjp, *point, seed=seed, raises=False, diagnose=False, **settings)
    except Exception as error:  # an error of the vjp is a finding
        return "wrong", f"{type(error).__name__}: {error}"
    if report.faults:
        return "wrong", "; ".join(report.faults)
    for verdict in ("wrong", "inconclusive", "vacuous"):
        for entry in report.inputs:
            if entry.verdict == verdict:
                return verdict, f"{entry.line()}; {entry.sides}"
    return "agrees", report.inputs[0].line()


def copied(point: Point) -> Point:
    """The arrays with their memory layout, but memory of their own where that can be written."""
    return tuple(
        x.copy(order="K") if isinstance(x, np.ndarray) and x.flags.owndata else x for x in point
    )


@functools.cache
def drawn_points(name: str, n: int = DRAWN) -> list[Point]:
    """Points of a function's strategy, always the same."""
    strategy = FUNCTIONS[name].drawn
    return draw_examples(strategy, n) if strategy is not None and n else []


def finding(wrong: Wrong, points: list[Point], ask: Ask = ours, seed: int = 0) -> str:
    """What the checker says at the first of these points where it calls the vjp wrong, and the
    right one not; "" if there is none."""
    for point in points:
        verdict, words = quietly(ask, *wrong.make(), point, wrong.settings, seed)
        if verdict == "wrong":
            right = quietly(ask, wrong.of.f, wrong.of.vjp, point, wrong.settings, seed)
            if right[0] != "wrong":
                return words
    return ""


def complaint(right: Right, points: list[Point], ask: Ask = ours, seed: int = 0) -> str:
    """What the checker says at the first of these points where it does not end as it may; "" if
    there is none. Drawn points may be flat."""
    for point in points:
        hand_written = any(point is p for p in right.points)
        allowed = ("agrees", *right.ends, *(() if hand_written else ("vacuous",)))
        verdict, words = quietly(ask, *right.pair, point, right.settings, seed)
        if verdict not in allowed:
            return f"{verdict}: {words}"
    return ""


def quietly(ask: Ask, f: Any, vjp: Any, point: Point, settings: dict, seed: int) -> End:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return ask(f, vjp, copied(point), settings, seed)


def points_of(entry: Wrong | Right, drawn: int = DRAWN) -> list[Point]:
    """Hand-written points, then drawn ones if the entry is about the function's usual points."""
    return [*entry.points, *(drawn_points(entry.of.name, drawn) if entry.usual else ())]
