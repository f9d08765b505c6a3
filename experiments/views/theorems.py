"""Figure, tables and summary of `theorems` studies, from their files.

theorems.png   how BatchNorm changes a unit's gradient, by layer over the training, and residuals
table.md       which forms hold, which are violated how often, and the shares in numbers
summary.json   the same as data, seed by seed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.training.comparability import require_comparable
from experiments.training.json_files import write_json
from experiments.training.study import Study
from experiments.views.plotting import WIDEST, fill_band, own_style, plain_numbers, save, subplots
from experiments.views.step_axis import early_steps
from experiments.views.theorems_tables import (
    TARGET,
    Found,
    conditions,
    find_records,
    identities,
    orders,
    residuals,
    shares,
    summary,
    values,
)
from minibn import checkpoint

POINTS: dict[str, Any] = {"linewidth": 1.4, "marker": ".", "markersize": 4}
# No variant's colours: at least 20 from each of them in CIELAB.
PLUM, GREEN, FOREST = "#90135d", "#2ad096", "#164a01"
PINK, LIME, LILAC = "#f187db", "#a8c428", "#a558e3"
REMOVED = {"mean": (PLUM, "mean (along 1)"), "correlation": (GREEN, "correlation (along y_hat)")}
FACTORS = {
    "scaling": (FOREST, "-", "gamma²/sigma²"),
    "reduction": (PINK, "--", "‖∇_y L̂‖²/‖∇_y L‖²"),
    "weight_reduction": (LIME, "-", "‖∇_w L̂‖²/‖∇_w L‖²"),
}
LINES = {
    "4.1": (PLUM, "-", "4.1"), "4.2a": (GREEN, "-", "4.2a"),
    "4.2 Hessian": (FOREST, "-", "4.2, full Hessian"), "4.5": (LILAC, "-", "4.5"),
    "4.1 printed": (PINK, "--", "4.1 of v3 (1/√m)"),
    "4.1 without eps": (LIME, "--", "4.1 with 1/m, no eps"),
}  # fmt: skip


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw the figure, write table.md and summary.json, and print the tables and paths.

    Raises DataError if there is nothing to plot, or if the studies are not of one scale.
    """
    found, out = find_records(studies), out or studies[0].folder
    require_comparable(studies, free=("steps",))  # curves may be of different lengths
    out.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join((identities(found), orders(found), conditions(found), shares(found)))
    checkpoint.write_text(out / "table.md", text + "\n")
    settings = {k: v for k, v in studies[0].settings.items() if k != "data_dir"}
    write_json(out / "summary.json", {"settings": settings, "seeds": summary(found)})
    print(f"\n{text}\n\nFigure: {figure(found, out / 'figures')}")


def band(axes: Any, f: Found, layer: int, key: str, colour: str, style: str, label: str) -> None:
    """Median and quartiles over units and seeds at each step."""
    found = [(step, values(f.at(layer, step), key)) for step in f.steps]
    found = [(step, v[v > 0]) for step, v in found if (v > 0).any()]  # for a logarithm
    low, middle, high = (
        np.array([np.quantile(v, (0.25, 0.5, 0.75)) for _, v in found]).reshape(-1, 3).T
    )
    steps = [step for step, _ in found]
    fill_band(axes, steps, low, high, colour, alpha=0.18)
    axes.plot(steps, middle, style, color=colour, label=label, **POINTS)


@own_style()
def figure(f: Found, folder: Path) -> Path:
    figure, grid = subplots(
        3, len(f.layers), figsize=(min(WIDEST, 2.4 + 3.1 * len(f.layers)), 7.6),
        sharex=True, sharey="row", squeeze=False,
    )  # fmt: skip
    for column, layer in zip(grid.T, f.layers, strict=True):
        m = f.at(layer, f.steps[0])[0]["m"]
        units = len(f.at(layer, f.steps[0]))
        column[0].set_title(f"layer {layer}: m = {m:,},\nn = {units} units")
        for key, (colour, label) in REMOVED.items():
            band(column[0], f, layer, key, colour, "-", label)
        column[0].axhline(1 / m, color="#111111", linestyle=":", linewidth=1.2, label="1/m: chance")
        for key, (colour, style, label) in FACTORS.items():
            band(column[1], f, layer, key, colour, style, label)
        column[1].axhline(1, color="#8c8c8c", linewidth=0.8, zorder=0)
        for name, (colour, style, label) in LINES.items():
            worst = [residuals(f.at(layer, step), name).max() for step in f.steps]
            heights = [w if w > 0 else np.nan for w in worst]  # Lemma 4.5 at step 0: 0 = 0
            column[2].plot(f.steps, heights, style, color=colour, label=label, **POINTS)
        column[2].axhline(TARGET, color="#111111", linestyle=":", linewidth=1.2, label="target")
        column[2].set_xlabel("step of training")
    labels = ("share of ‖∇_y L‖² removed", "factor on the squared gradient", "relative residual")
    titles = ("removed by the norm:", "factors:", "largest of all units:")
    for row, label, title in zip(grid, labels, titles, strict=True):
        row[0].set(ylabel=label, yscale="log")
        row[-1].legend(
            loc="center left", bbox_to_anchor=(1.02, 0.5), title=title, title_fontsize=8.5,
            alignment="left", handlelength=1.5,
        )  # fmt: skip
    for axes in grid.flat:
        early_steps(axes, f.steps[-1])
        plain_numbers(axes)
    seeds = sorted(f.units)
    over = f"units, seed {seeds[0]}" if len(seeds) == 1 else f"units of {len(seeds)} seeds"
    figure.suptitle(
        "What BatchNorm makes of a unit's gradient (Theorem 4.1): median and quartiles over the n "
        f"{over}\nm: values of a unit in a batch",
        fontsize=10,
    )
    figure.tight_layout()
    return save(figure, folder, "theorems")
