"""What all figures share: small files in the variants' own colours, legends, numbers of axes."""

import os

import numpy as np
import pytest
from PIL import Image

from experiments.output import markdown_table
from experiments.views import plotting, series, step_axis, tables


@pytest.fixture
def panel():
    with plotting.own_style():
        yield plotting.subplots(figsize=(4, 3))


def rgb(shade):
    return np.array([int(shade[i : i + 2], 16) for i in (1, 3, 5)])


def test_the_palette_of_a_file_keeps_the_colour_of_every_variant(panel, tmp_path):
    figure, axes = panel
    many = plotting.colour_scale("coolwarm", 0, 1).to_rgba(np.linspace(0, 1, 300))
    for i, shade in enumerate(many):  # more colours than a palette holds
        axes.axvspan(i, i + 1, color=shade)
    for i, shade in enumerate(plotting.COLOURS.values()):
        axes.axhline(i, color=shade, linewidth=2)
    with Image.open(plotting.save(figure, tmp_path, "one")) as image:
        assert image.mode == "P"
        pixels = np.array(image.convert("RGB")).astype(int).reshape(-1, 3)
    for variant, shade in plotting.COLOURS.items():
        assert abs(pixels - rgb(shade)).max(axis=1).min() < 20, variant


@plotting.own_style()
def test_a_full_figure_is_a_small_file_of_at_most_1000_pixels(tmp_path):
    figure, grid = plotting.subplots(4, 4, figsize=(plotting.WIDEST, 8))
    rng = np.random.default_rng(0)
    for axes in grid.flat:
        for shade in plotting.COLOURS.values():
            axes.plot(rng.standard_normal(100), color=shade)
    path = plotting.save(figure, tmp_path, "one")
    with Image.open(path) as image:
        assert image.width == 1000
    assert path.stat().st_size < 250_000, "of noise, which nothing compresses"


@plotting.own_style()
def test_the_rows_of_a_legend_are_about_equally_long():
    figure, _ = plotting.subplots(figsize=(plotting.WIDEST, 3))
    plotting.legend_below(figure, plotting.variant_entries(list(plotting.COLOURS)[:9]), columns=8)
    assert figure.legends[0]._ncols == 5, "five and four, not eight and one"


def test_a_legend_that_is_wider_than_its_figure_gets_more_rows(panel):
    figure, _ = panel
    plotting.legend_below(figure, plotting.variant_entries(list(plotting.COLOURS)[:9]), columns=8)
    box = figure.legends[0].get_window_extent(figure.canvas.get_renderer())
    assert len(figure.legends) == 1
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


@pytest.mark.parametrize(
    ("tick", "words"),
    [
        (0, "0"), (0.0002, "0.0002"), (50, "50"), (10000, "10000"), (1e6, "$10^{6}$"),
        (-1e7, "$-10^{7}$"), (2e6, r"$2 \cdot 10^{6}$"), (1.5e-5, r"$1.5 \cdot 10^{-5}$"),
    ],
)  # fmt: skip
def test_ticks_are_plain_numbers_as_long_as_they_are_short(tick, words):
    assert plotting._in_words(tick) == words


def test_curvature_of_large_and_negative_numbers_has_ticks_that_leave_room(panel):
    _, axes = panel
    axes.plot([-1e7, 1e8])
    axes.set_yscale("symlog", linthresh=1e3)
    plotting.plain_numbers(axes)
    ticks = axes.get_yticks().tolist()
    assert ticks == [-1e7, -1e5, -1e3, 0, 1e3, 1e5, 1e7]


def test_an_axis_of_steps_names_the_last_power_of_ten_that_is_nearly_reached(panel):
    _, axes = panel
    step_axis.early_steps(axes, 9950)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", "10", "100", "1k", "10k"]


def test_batchnorms_line_is_broad_only_beside_that_of_l2():
    assert series.line_width("batchnorm", ("standard", "l2")) > 2
    assert series.line_width("batchnorm", ("standard",)) == series.line_width("l2", ("l2",)) < 2


# Tables


def test_a_table_has_a_head_a_rule_rows_and_a_note():
    assert markdown_table(("a", "b"), [("1", "2")], "note") == (
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n(note)"
    )
    assert markdown_table(("a", "b"), []) == ""


def test_numbers_of_a_summary_are_short_and_not_finite_ones_null():
    assert tables.short(123456.0) == 123500.0
    assert tables.short(float("inf")) is tables.short(float("nan")) is None


def test_a_logarithmic_axis_stays_where_ticks_beyond_it_are_finite():
    low, high = plotting.log_limits([], [np.array([1e-300, 7e295])])
    assert (low, high) == pytest.approx((1e-100 / 1.5, 1.5e100), rel=1e-9, abs=0)
    assert plotting.log_limits([np.array([2.0, 2.0])]) == (2 / 1.5, 3.0)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_figure_is_written_whole_or_not_at_all(kind, panel, tmp_path, monkeypatch):
    """A disk that fills up amid a figure, and a kill, leave the one that was there."""
    figure, axes = panel
    plotting.save(figure, tmp_path, "one")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    axes.plot([0, 1])
    seen = []

    def replace(source, target):
        seen.append(target.name)
        assert target.read_bytes() == before[target.name], "untouched until the new one is whole"
        if target.suffix == f".{kind}":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        plotting.save(figure, tmp_path, "one")
    assert seen[-1] == f"one.{kind}"
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after[f"one.{kind}"] == before[f"one.{kind}"]
    assert set(after) == set(before), "no half files"
