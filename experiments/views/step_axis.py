"""Axes of steps: linear with the first hundred beside them, or logarithmic.

Claims about a training are about its later steps, and the first differ most from all others. So an
axis is linear, and a strip at the left of the panel shows the first steps at the same heights.
"""

from __future__ import annotations

from typing import Any

from experiments.views.plotting import load_matplotlib

FIRST = 100  # steps that a strip shows
STRIP, GAP = 0.26, 0.05  # shares of a panel's width


def step_axes(axes: Any, last: float) -> list[Any]:
    """The axes that steps are drawn into, each of them everything: these, linear up to `last`, and
    in a training of more than 2·FIRST steps a strip at their left, with the first FIRST steps at
    the same heights."""
    matplotlib = load_matplotlib()
    end = 1.06 * max(last, 1)
    if last <= 2 * FIRST:
        axes.set_xlim(-0.03 * end, end)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(3, integer=True))
        return [axes]
    start = STRIP + GAP
    axes.set_xlim(-end * start / (1 - start), end)
    ticks = matplotlib.ticker.MaxNLocator(3, steps=(1, 2, 5, 10)).tick_values(0, last)
    ticks = [t for t in ticks if 0.4 * end < t <= end]  # beside the strip's last
    axes.set_xticks(ticks, [short_number(t) for t in ticks])
    strip = axes.inset_axes((0, 0, STRIP, 1), sharey=axes)
    strip.set_xlim(-0.05 * FIRST, 1.05 * FIRST)
    strip.set_xticks([0, FIRST])
    strip.tick_params(left=False, labelleft=False)
    strip.tick_params(which="minor", left=False, labelleft=False)
    strip.spines["left"].set_visible(False)
    strip.spines["right"].set(visible=True, color="0.6")
    return [axes, strip]


def short_number(step: float) -> str:
    """5k instead of 5000."""
    return f"{step / 1000:g}k" if step >= 1000 else f"{step:g}"


def strip_note(last: float) -> str:
    """What `step_axes` makes of a training this long, for a title; "" if it makes no strip."""
    return f"left of each panel: its first {FIRST} steps" if last > 2 * FIRST else ""


def early_steps(axes: Any, last: float) -> None:
    """An axis of steps that shows step 0 and the first ten as well as the last: linear up to 1,
    logarithmic from there."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.35)
    ticks = [0, *(10**k for k in range(6) if 10**k <= 1.06 * last)]  # 10k of 9,950
    axes.set_xticks(ticks, [short_number(t) for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.25, max(last, 1) * 1.15)


def thousands(axes: Any) -> None:
    """5k instead of 5000 on an axis of steps, and few of them, for narrow panels."""
    axes.xaxis.set_major_locator(load_matplotlib().ticker.MaxNLocator(3, integer=True))
    axes.xaxis.set_major_formatter(lambda t, _: short_number(t))
