"""Figure, table and summary of `explosion` studies, from their files.

explosion.png   squared gradient norms from the output to the input, and the factors' deviations
                from the theory's
table.md        the factor per layer of each network and depth, beside the theory's
summary.json    the same as data, seed by seed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.training.comparability import require_comparable
from experiments.training.json_files import float_array, write_json
from experiments.training.study import Study
from experiments.views.explosion_tables import (
    Found,
    Kind,
    factors_table,
    find_records,
    summary,
    theory_of,
)
from experiments.views.plotting import (
    DOTTED,
    WIDEST,
    colour,
    colour_scale,
    own_style,
    save,
    subplots,
)
from experiments.views.series import line_width, over_seeds, plot_curve
from minibn import checkpoint

# The variant whose colour a network has, and its dashes. BatchNorm, l1 and l2 lie on each other.
STYLES: dict[str, tuple[str, Any]] = {
    "relu": ("standard", "-"),
    "relu-batchnorm": ("batchnorm", "-"),
    "relu-layernorm": ("layernorm", (0, (6, 1.5, 1, 1.5))),
    "relu-l1": ("l1", (0, (1, 2))),
    "relu-l2": ("l2", (0, (4, 4))),
    "relu-linf": ("linf", "-"),
    "relu-skip": ("standard", "--"),
    "relu-batchnorm-skip": ("batchnorm", "--"),
}


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw the figure, write table.md and summary.json, and print the table and the path.

    Raises DataError if there is nothing to plot, or if the studies are not of one size.
    """
    found, out = find_records(studies), out or studies[0].folder
    require_comparable(studies)
    out.mkdir(parents=True, exist_ok=True)
    text = factors_table(found)
    checkpoint.write_text(out / "table.md", text + "\n")
    write_json(out / "summary.json", {"settings": studies[0].settings, "seeds": summary(found)})
    width = studies[0].settings["width"]
    print(f"\n{text}\n\nFigure: {figure(found, width, out / 'figures')}")


@own_style()
def figure(f: Found, width: int, folder: Path) -> Path:
    figure, (left, middle, right) = subplots(1, 3, figsize=(WIDEST, 4.9))
    deepest = f.depths[-1]
    for kind in f.kinds:
        if kind.network in STYLES:
            variant, dashes = STYLES[kind.network]
            thick = line_width(variant, ("l2",)) if dashes == "-" else 1.5
            growth(left, f, kind, deepest, colour(variant), linestyle=dashes, linewidth=thick)
    linear = [kind for kind in f.kinds if kind.network not in STYLES]
    shades = colour_scale("viridis", 0, 1).to_rgba(np.linspace(0, 0.85, len(linear)))
    for kind, shade in zip(linear, shades, strict=True):
        growth(middle, f, kind, deepest, shade)
    left.set_title(f"ReLU, {deepest} layers")
    middle.set_title(f"linear with BatchNorm, {deepest} layers")
    for axes in (left, middle):
        axes.set(xlabel="layers from the output", yscale="log")
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=7.5, ncol=2, handlelength=2.2,
            columnspacing=1.0, title="factor per layer; dotted: theory", title_fontsize=7.5,
        )  # fmt: skip
    left.set_ylabel("‖gradient‖² / that of the output")
    deviations(right, f)
    seeds = len(f.by_seed)
    which = f"seed {min(f.by_seed)}" if seeds == 1 else f"{seeds} seeds: median, least to largest"
    figure.suptitle(
        f"Gradients of pre-activations at initialisation, width {width}; {which}", fontsize=10
    )
    figure.tight_layout()
    return save(figure, folder, "explosion")


def growth(axes: Any, f: Found, kind: Kind, depth: int, shade: Any, **style: Any) -> None:
    """‖G_l‖² over that of the output's random cotangent, over the distance from the output; without
    the input's."""
    curves = []
    for record in f.at(kind, depth):
        squares = float_array(record["squared_norms"][:0:-1], np.nan)
        curves.append((range(len(squares)), squares / squares[0]))
    curve = over_seeds(curves)
    plot_curve(axes, curve, shade, **style)
    name = f"B = {kind.batch_size}" if kind.network == "linear-batchnorm" else kind.network
    axes.lines[-1].set_label(f"{name}: {np.nanmean(f.factors(kind, depth)):.3f}")
    theory = theory_of(kind)
    if theory is not None and len(curve.median) > 1:
        away = np.arange(1, depth)
        line = curve.median[1] * theory.factor ** (away - 1)
        axes.plot(away, line, color="#111111", zorder=3, **DOTTED)


def deviations(axes: Any, f: Found) -> None:
    """Each seed's factor against the theory's, by network and depth, in the claim's margins."""
    judged = [(kind, theory) for kind in f.kinds if (theory := theory_of(kind)) is not None]
    shades = colour_scale("plasma", 0, 1).to_rgba(np.linspace(0, 0.85, len(f.depths)))
    for row, (kind, theory) in enumerate(judged):
        margin = 100 * theory.margin
        axes.fill_between(
            (row - 0.45, row + 0.45), -margin, margin, color="#8c8c8c", alpha=0.25, linewidth=0
        )
        for k, (depth, shade) in enumerate(zip(f.depths, shades, strict=True)):
            percent = 100 * (f.factors(kind, depth) / theory.factor - 1)
            place = row + 0.7 * ((k + 0.5) / len(f.depths) - 0.5)
            label = f"{depth} layers" if row == 0 else None
            axes.plot(
                np.full(len(percent), place), percent, "o", color=shade, markersize=3, alpha=0.7,
                label=label,
            )  # fmt: skip
            if len(percent) > 1:
                ends = [place - 0.08, place + 0.08]
                axes.plot(ends, [np.nanmean(percent)] * 2, color="black", linewidth=2)
    axes.axhline(0, color="black", linewidth=0.8)
    names = [f"{kind.network}\nB = {kind.batch_size}" for kind, _ in judged]
    axes.set_xticks(range(len(judged)), names, rotation=60, fontsize=7.5)
    axes.grid(False, axis="x")
    axes.set(title="against the theory (grey: margin)", ylabel="deviation of the factor, %")
    axes.legend(
        loc="lower right", fontsize=7.5, ncol=2, handlelength=0.8, columnspacing=0.8,
        title="a dot a seed, bars: means", title_fontsize=7.5,
    )  # fmt: skip
