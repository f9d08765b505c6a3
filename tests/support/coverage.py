"""How often a strategy draws what it claims, over examples that are always the same ones."""

from collections import Counter

import numpy as np
from hypothesis import Phase, find, given, settings

EXAMPLES = 200


def examples(strategy, count=EXAMPLES):
    """The same examples on every run."""
    drawn = []

    @settings(max_examples=count, derandomize=True, database=None, phases=[Phase.generate])
    @given(strategy)
    def collect(example):
        drawn.append(example)

    collect()
    return drawn


def shares(drawn, **claims):
    """How often each claim holds, as a share of the examples."""
    counts = Counter(name for x in drawn for name, holds in claims.items() if holds(x))
    return {name: counts[name] / len(drawn) for name in claims}


def demand(drawn, claims, at_least):
    found = shares(drawn, **claims)
    missing = {name: share for name, share in found.items() if share < at_least}
    assert not missing, f"drawn too rarely, below {at_least:.0%}: {missing}"


def smallest(strategy, holds):
    """What an example that holds shrinks to."""
    quick = settings(max_examples=2000, derandomize=True, database=None)
    return find(strategy, holds, settings=quick)


def ties(x):
    return np.unique(x).size < x.size
