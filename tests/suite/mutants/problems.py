"""The problems on which mutants are checked: hand-written ones, and drawn ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from minibn.testing.problem import Problem
from suite.registry import CASES


def draw_examples(strategy: st.SearchStrategy[Any], n: int) -> list[Any]:
    """`n` examples of a strategy, always the same ones.

    Every third of three times as many, since hypothesis often draws variations of its last example.
    """
    found: list[Any] = []  # hypothesis's draws depend on the source of `collect`

    @settings(
        max_examples=3 * n, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return (found[::3] if len(found) > n else found)[:n]


def plain_problems(case: str, n: int = 5) -> list[Problem]:
    """`n` hand-written problems of a case; [] if its row has none."""
    make = CASES[case].plain
    if make is None:
        return []
    made = [make(np.random.default_rng(k)) for k in range(n)]
    return [Problem(f, inputs, k) for k, (f, inputs) in enumerate(made)]
