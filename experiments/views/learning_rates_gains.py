"""What a norm gains over the standard network in `learning_rates`, and how much of it comes from a
rate that the standard network does not tolerate (the question of Bjorck et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.output import markdown_table
from experiments.views.learning_rates_outcomes import (
    Outcome,
    at,
    best_rate,
    smallest_common_rate,
)
from experiments.views.series import spread


def gains(found: Sequence[Outcome], variant: str, base: str = "standard") -> dict[str, Any] | None:
    """How much better `variant` is than `base`, in training accuracy, by seed:

    at_small_rate   at `small_rate`, the smallest at which every run of both learns (or None):
                    there Bjorck et al. find little difference
    equal_rate      at `base_rate`, the best rate of `base`
    own_rate        more than that at `rate`, its own best rate (or None)

    None if there is no run of one of them, or no run of `base` learns.
    """
    if not {base, variant} <= {o.variant for o in found}:
        return None
    base_rate, rate = best_rate(found, base), best_rate(found, variant)
    if base_rate is None:
        return None
    small = smallest_common_rate(found, (base, variant))

    def more(better: tuple[str, float | None], worse: tuple[str, float | None]) -> dict[int, float]:
        if better[1] is None or worse[1] is None:
            return {}
        a, b = (at(found, name, lr) for name, lr in (better, worse))  # type: ignore[arg-type]  # no None
        return {seed: a[seed].train - b[seed].train for seed in a if seed in b}

    return {
        "small_rate": small,
        "at_small_rate": more((variant, small), (base, small)),
        "base_rate": base_rate,
        "equal_rate": more((variant, base_rate), (base, base_rate)),
        "rate": rate,
        "own_rate": more((variant, rate), (variant, base_rate)),
    }


def gains_table(found: Sequence[Outcome]) -> str:
    """Markdown: what each variant gains over the standard network, and how much of it comes from
    a rate that the standard network does not tolerate. Empty without a standard network."""
    rows = []
    for variant in dict.fromkeys(o.variant for o in found):
        gain = gains(found, variant)
        if variant == "standard" or not gain:
            continue
        cells = [
            f"{spread(list(gain[key].values()), '+.3f')} at {gain[lr]:g}" if gain[key] else "none"
            for key, lr in (
                ("at_small_rate", "small_rate"),
                ("equal_rate", "base_rate"),
                ("own_rate", "rate"),
            )
        ]
        rows.append((variant, *cells))
    head = (
        "variant",
        "over standard, at the smallest rate at which both learn",
        "over standard, at the standard network's best rate",
        "more by the variant's own best rate",
    )
    note = "training accuracy; the last two columns add up to best against best; none: no such rate"
    return markdown_table(head, rows, note)
