"""Strategies of normalisation problems: channels last, x (..., C), gamma (C,), beta (C,).

Whether a wrong gradient is detected depends on the variance v relative to eps. With v ≫ eps it
makes no difference whether eps is inside or outside of the root; with v ≈ eps the gradients differ
by tens of per cent. And with gamma = 1 and beta = 0, as layers start, a forgotten gamma changes
nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn.testing.strategies.operands import draw_if_strategy, seeds
from minibn.testing.strategies.point import Point
from minibn.testing.strategies.values import nonzero, real

LEADS = ((3,), (5,), (2, 2), (2, 1, 3), (2, 2, 2))


@st.composite
def norm_problems(
    draw: Any,
    variance: str = "any",
    eps: float | st.SearchStrategy[float] | Sequence[float] = (1e-1, 1e-3, 1e-5),
    offset: float = 0.0,
    most_channels: int = 3,
) -> Point:
    """Points of a normalisation f(x, gamma, beta, eps=...).

    variance, of each channel as drawn from:
      "near eps"  eps · 10^U(-1, 1): where eps decides
      "ordinary"  10^U(-1, 2), and means of the same size: where it doesn't matter
      "any"       each channel one of the two
    most_channels: C is at most this.
    offset: added to x in units of the channel's spread; 10⁶ shows cancellation in the variance.
    gamma has no zeros, and both signs; beta is any. Shrinks to three values of one channel.
    Raises ValueError for another `variance`.

    >>> batches = norm_problems(variance="near eps", eps=1e-3)
    """
    if variance not in ("any", "near eps", "ordinary"):
        raise ValueError(f"norm_problems: variance={variance!r}: give any, near eps or ordinary.")
    lead = draw(st.sampled_from(LEADS))
    C = draw(st.integers(1, most_channels))
    e = draw(st.sampled_from(eps)) if isinstance(eps, Sequence) else draw_if_strategy(draw, eps)
    rng = np.random.default_rng(seed := draw(seeds))
    small = {"any": rng.random(C) < 0.5, "near eps": True, "ordinary": False}[variance]
    near, ordinary = e * 10 ** rng.uniform(-1, 1, C), 10 ** rng.uniform(-1, 2, C)
    spread = np.sqrt(np.where(small, near, ordinary))  # (C,)
    x = (rng.standard_normal((*lead, C)) + rng.standard_normal(C) + offset) * spread
    return Point((x, nonzero(rng, (C,)), real(rng, (C,))), {"eps": e}, seed)
