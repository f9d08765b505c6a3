"""Drawing: figures are made from the files of a study, never from a training in progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {
    "standard": "#c0392b",
    "batchnorm": "#1f77b4",
    "noisy-batchnorm": "#2ca02c",
    "noisy-standard": "#e08e0b",
}
DASHES = ("-", "--", ":", "-.")


def pyplot() -> Any:
    """matplotlib without a screen, with our style."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.titley": 1.0,  # else every draw measures all labels of all ticks for its place
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "svg.hashsalt": "minibn",
        }
    )
    return plt


def save(figure: Any, folder: Path, name: str) -> Path:
    """NAME.png and NAME.svg; returns the path of the PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.set_layout_engine(None)  # it is laid out: else each file is drawn twice for its layout
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png")
    pyplot().close(figure)
    return folder / f"{name}.png"


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of the last `window` values, at each place (fewer at the start)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)


def fan(axes: Any, steps: Sequence[int], quantiles: np.ndarray, colour: str) -> None:
    """Quantiles over time, (steps, 7) for 1 5 25 50 75 95 99 %: bands around the median."""
    for low, high, alpha in ((0, 6, 0.15), (1, 5, 0.25), (2, 4, 0.45)):
        axes.fill_between(
            steps, quantiles[:, low], quantiles[:, high], color=colour, alpha=alpha, linewidth=0
        )
    axes.plot(steps, quantiles[:, 3], color=colour, linewidth=1.2)
