"""A checker on the catalogue: which mistakes it finds, which right gradients it complains about."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn.testing import check_vjp
from suite.functions.function import FUNCTIONS, RIGHT, WRONG, Point, Right, Wrong
from suite.mutants.peers import PEERS, Peer
from suite.mutants.problems import draw_examples
from suite.mutants.run import progress

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


def listed(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def of_peer(peer: Peer) -> Ask:
    """Another project's checker: what it raises is "wrong"; it has no other verdict."""

    def ask(f: Any, vjp: Any, point: Point, settings: dict, seed: int = 0) -> End:
        def gradients(g: Any, *inputs: Any) -> tuple[Any, ...]:
            return listed(vjp(g, *inputs))

        def array(*inputs: Any) -> np.ndarray:
            return np.asarray(f(*inputs))

        try:
            peer.check(array, gradients, point, np.random.default_rng((seed, 5)))
        except Exception as error:  # each peer has errors of its own
            return "wrong", " ".join(f"{type(error).__name__}: {error}".split())
        return "agrees", ""

    return ask


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


@dataclass
class FunctionResults:
    """checker -> name -> what it says: about mistakes, at hand-written points only and at all; and
    about right gradients, which should be nothing."""

    kinds: dict[str, str]
    by_hand: dict[str, dict[str, str]]
    found: dict[str, dict[str, str]]
    complaints: dict[str, dict[str, str]]

    @property
    def survivors(self) -> list[str]:
        """Mistakes that check_vjp does not find."""
        return [name for name, said in self.found[OURS].items() if not said]

    @property
    def false_alarms(self) -> list[str]:
        """Right gradients that check_vjp complains about."""
        return [name for name, said in self.complaints[OURS].items() if said]


OURS = "check_vjp"


def run_functions(*, peers: bool = True, drawn: int = DRAWN) -> FunctionResults:
    """Every checker on the whole catalogue."""
    asks = {p.name: of_peer(p) for p in PEERS.values() if p.installed and peers} | {OURS: ours}
    kinds = {name: PEERS[name].kind if name in PEERS else "ours" for name in asks}
    results = FunctionResults(kinds, {}, {}, {})
    for i, (name, ask) in enumerate(asks.items()):
        by_hand = {n: finding(w, w.points, ask) for n, w in WRONG.items()}
        results.by_hand[name] = by_hand
        results.found[name] = {
            n: by_hand[n] or finding(w, points_of(w, drawn), ask) for n, w in WRONG.items()
        }
        results.complaints[name] = {
            n: complaint(r, points_of(r, drawn), ask) for n, r in RIGHT.items()
        }
        progress(f"functions: {i + 1} of {len(asks)} checkers")
    progress("")
    return results


HEADER = ("checker", "kind", "by hand", "and drawn", "alarms usual", "alarms hard")


def summary(results: FunctionResults) -> list[tuple[str, ...]]:
    """A row for each checker: mistakes found, right gradients that it complains about."""

    def count(said: dict[str, str]) -> str:
        return f"{sum(map(bool, said.values()))}/{len(said)}"

    rows = []
    for name, kind in results.kinds.items():
        said = results.complaints[name]
        usual, hard = (
            {n: words for n, words in said.items() if RIGHT[n].usual == u} for u in (True, False)
        )
        counts = (results.by_hand[name], results.found[name], usual, hard)
        rows.append((name, kind, *map(count, counts)))
    return rows


def as_data(results: FunctionResults) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "wrong": {
            name: {
                "function": wrong.of.name, "family": wrong.of.family, "sentence": wrong.sentence,
                "by_hand": {c: said[name] for c, said in results.by_hand.items()},
                "found": {c: said[name] for c, said in results.found.items()},
            }
            for name, wrong in WRONG.items()
        },
        "right": {
            name: {
                "function": right.of.name, "why": right.why,
                "complaints": {c: said[name] for c, said in results.complaints.items()},
            }
            for name, right in RIGHT.items()
        },
        "summary": [dict(zip(HEADER, row, strict=True)) for row in summary(results)],
    }  # fmt: skip
