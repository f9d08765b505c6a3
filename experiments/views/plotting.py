"""Plotting: figures are made from the files of a study, never from a training in progress.

Figures are small files for a README: at most 10 inches wide at 100 dots an inch, with a palette.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minibn import checkpoint

# One colour a variant, in every figure, in the order of legends and tables. From the fifth on, each
# differs from all before it, for colour-blind readers too (CIELAB distances
# under Machado et al. 2009's simulations: at least 27 among standard, batchnorm, l1, l2 and linf).
COLOURS = {
    "standard": "#c0392b",
    "batchnorm": "#1f77b4",
    "noisy-batchnorm": "#2ca02c",
    "noisy-standard": "#e08e0b",
    "l1": "#8a1ff0",
    "l2": "#111111",
    "linf": "#4cc3f0",
    "layernorm": "#8c564b",
    "groupnorm": "#93c383",
    "instancenorm": "#8c8c8c",
    "rmsnorm": "#25048b",
    "weightstandardisation": "#b08cf5",
    "groupnorm-weightstandardisation": "#4e075f",
    "frozen-batchnorm": "#045c5c",
    "l1-centred": "#4e41bd",
    "linf-centred": "#e1b4be",
    "l2-mean-of-norm": "#691a17",
    "linf-mean-of-norm": "#e3e275",
}
UNKNOWN = "#5f5f5f"  # a variant that is not ours
WIDEST = 10.0  # inches: then the smallest text can still be read at a README's 900 pixels
HUGE = 1e100  # of a logarithmic axis: near 1e308, matplotlib's ticks beyond it overflow
DASHES = ("-", "--", "-.", ":")
PAPER = {"linestyle": (0, (1, 1.5)), "linewidth": 1.1, "marker": "o", "markersize": 4.0}
LARGEST, LEAST = {**PAPER, "marker": "^"}, {**PAPER, "marker": "v"}
RATE_MARKS = ("o", "s", "D", "^")  # the paper's curves of several rates
DOTTED = {"linestyle": (0, (1, 1.5)), "linewidth": 1.3}  # one number of the paper's, as a line


def colour(variant: str) -> str:
    """The colour of a variant; grey if it has none."""
    return COLOURS.get(variant, UNKNOWN)


def in_order(variants: Iterable[str]) -> list[str]:
    """Each variant once, in the order of COLOURS; those without a colour come last, by name."""
    order = list(COLOURS)
    return sorted(set(variants), key=lambda v: (order.index(v) if v in order else len(order), v))


MODULES = ("backends.backend_agg", "cm", "colors", "figure", "lines", "ticker")  # no pyplot
STYLE = {
    "figure.dpi": 100,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titley": 1.0,  # else each rendering measures all labels for its place
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "minibn",
}


@functools.cache
def load_matplotlib() -> Any:
    """matplotlib, whose own import fails if MPLBACKEND names a backend that is not installed, such
    as a notebook's, or the matplotlibrc can't be read. The variables, and the backend of pyplot,
    stay as the user chose them."""
    imported = "matplotlib" in sys.modules
    before = {name: os.environ.get(name) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        try:
            importlib.import_module("matplotlib")
        except Exception:  # of a matplotlibrc that is no text; half of it is imported
            for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
                del sys.modules[name]
            os.environ["MATPLOTLIBRC"] = os.devnull
        for module in MODULES:
            importlib.import_module(f"matplotlib.{module}")
        matplotlib = sys.modules["matplotlib"]
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    if backend and not imported:
        with contextlib.suppress(ValueError):  # it is not installed
            matplotlib.rcParams["backend"] = backend
    return matplotlib


@contextmanager
def own_style() -> Iterator[None]:
    """A context, or a decorator of a function that draws and saves figures: matplotlib's defaults
    and STYLE, whatever the user's matplotlibrc and rcParams say; those are as before afterwards."""
    matplotlib = load_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def subplots(rows: int = 1, columns: int = 1, *, figsize: Any = None, **options: Any) -> Any:
    """(figure, axes) as from `pyplot.subplots`, on a canvas of our own: no display, no backend, and
    nothing to close. Raises RuntimeError outside of `own_style`."""
    matplotlib = load_matplotlib()
    if matplotlib.rcParams["svg.hashsalt"] != STYLE["svg.hashsalt"]:
        raise RuntimeError("subplots: a figure is drawn within own_style(), to its last label.")
    figure = matplotlib.figure.Figure(figsize=figsize)
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


@own_style()
def save(figure: Any, folder: Path, name: str) -> Path:
    """Write NAME.svg, and NAME.png with a palette, a third as large; each whole or not at all.
    Returns the PNG's path."""
    from PIL import Image  # matplotlib's own

    folder.mkdir(parents=True, exist_ok=True)
    figure.set_layout_engine(None)  # the layout is done: else each file is rendered twice
    with checkpoint.atomic_write(folder / f"{name}.svg") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    png = io.BytesIO()
    figure.savefig(png, format="png")
    with Image.open(png) as image:
        few = image.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    with checkpoint.atomic_write(folder / f"{name}.png") as file:
        few.save(file, format="png", optimize=True)
    return folder / f"{name}.png"


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of the last `window` values, at each place (fewer at the start)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)


def fill_band(axes: Any, x: Any, low: Any, high: Any, colour: str, alpha: float) -> None:
    """A band from `low` to `high`; a bar where there is a single place."""
    if len(x) == 1:
        axes.vlines(x, low, high, color=colour, alpha=alpha, linewidth=5)
    else:
        axes.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)


def visible(x: Any) -> dict[str, Any]:
    """Style of a line through these places: a single one is no line, but a point."""
    return {"marker": "o", "markersize": 4} if len(x) == 1 else {}


def fan(axes: Any, steps: Sequence[int], quantiles: np.ndarray, colour: str) -> None:
    """Quantiles over time, (steps, 7) for 1 5 25 50 75 95 99 %: bands around the median."""
    for low, high, alpha in ((0, 6, 0.15), (1, 5, 0.25), (2, 4, 0.45)):
        fill_band(axes, steps, quantiles[:, low], quantiles[:, high], colour, alpha)
    axes.plot(steps, quantiles[:, 3], color=colour, linewidth=1.2, **visible(steps))


def legend_below(figure: Any, handles: Sequence[Any], title: str = "", columns: int = 8) -> None:
    """Lay the figure out with one legend under all panels, in rows of about equal length and at
    most `columns` entries, fewer where they are wider than the figure; and with room for it and a
    title."""
    height = figure.get_figheight()
    if title:
        figure.suptitle(title, fontsize=10)
    renderer = figure.canvas.get_renderer()
    for most in range(min(columns, len(handles)), 0, -1):
        rows = -(-len(handles) // most)
        across = -(-len(handles) // rows)
        legend = figure.legend(handles=handles, loc="lower center", ncol=across, columnspacing=1.5)
        if most == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            break
        legend.remove()
    figure.tight_layout(rect=(0, (0.1 + 0.19 * rows) / height, 1, 1))


def colour_scale(name: str, low: float, high: float) -> Any:
    """The colours of a colour map from `low` to `high`: its `to_rgba` maps numbers to colours."""
    matplotlib = load_matplotlib()
    return matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(low, high), name)


def entry(label: str, **style: Any) -> Any:
    """A line of a legend; grey if no colour is named."""
    return load_matplotlib().lines.Line2D([], [], label=label, **{"color": "0.35", **style})


def variant_entries(variants: Iterable[str]) -> list[Any]:
    """A line of a legend for each variant."""
    return [
        entry(variant, color=colour(variant), linewidth=2) for variant in dict.fromkeys(variants)
    ]


def depth_note(layers: Mapping[int, int]) -> str:
    """What brackets behind layers mean, for a title; "" if there are none. layers: a layer -> the
    paper's that it stands for."""
    others = any(layer != of_paper for layer, of_paper in layers.items())
    return "in brackets: the paper's layer that lies as deep" if others else ""


def heading(*lines: Sequence[str]) -> str:
    """A title: lines of parts, of which those that say nothing are left out."""
    texts = ["; ".join(part for part in line if part) for line in lines]
    return "\n".join(text for text in texts if text)


def left_out(shown: Iterable[str], every: Iterable[str], where: str = "") -> str:
    """Which of all variants a figure does not show, for its title; "" if it shows all of them.
    where: the figure that does."""
    seen = set(shown)
    lacking = [v for v in in_order(every) if v not in seen]
    return f"not here: {', '.join(lacking)}" + f" ({where})" * bool(where) if lacking else ""


def log_limits(
    curves: Iterable[np.ndarray], always: Iterable[np.ndarray] = ()
) -> tuple[float, float]:
    """Limits of a logarithmic axis: 1.5 times beyond the middle 98 % of the positive finite values,
    and beyond all of `always`; but never beyond HUGE."""
    known = np.concatenate([*curves, [np.nan]])
    known = known[np.isfinite(known) & (known > 0)]
    ends = np.quantile(known, (0.01, 0.99)).tolist() if len(known) else []
    ends += [float(v) for values in always for v in values if v > 0]
    low, high = np.clip([min(ends, default=1.0), max(ends, default=1.0)], 1 / HUGE, HUGE).tolist()
    return low / 1.5, high * 1.5


def plain_numbers(axes: Any) -> None:
    """5, 10, 20, 50 instead of powers of ten, on a logarithmic y-axis that spans only one or two of
    them; on a symlog one, 0 and negative numbers as well."""
    low, high = axes.get_ylim()
    symlog = axes.get_yscale() == "symlog"
    if not symlog and high / low >= 100:
        return
    first = round(np.log10(axes.yaxis.get_transform().linthresh)) if symlog else -9
    every = 2 if symlog and high / 10.0**first > 1e5 else 1
    powers = 10.0 ** np.arange(first, 15, every)
    for multiples in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        sizes = np.outer(multiples, powers).ravel()
        ticks = np.unique([*sizes, 0, *-sizes])
        ticks = ticks[(low <= ticks) & (ticks <= high)]
        if len(ticks) > 2:
            break
    axes.set_yticks(ticks, [_in_words(t) for t in ticks])
    axes.set_yticks([], minor=True)


def _in_words(tick: float) -> str:
    """5000, but 10⁶ and 2·10⁶."""
    if tick == 0 or 0.99e-4 < abs(tick) < 1e5:
        return f"{tick:g}"
    factor, power = f"{tick:.1e}".split("e")
    factor = factor.removesuffix(".0")
    times = {"1": "", "-1": "-"}.get(factor, rf"{factor} \cdot ")
    return f"${times}10^{{{int(power)}}}$"
