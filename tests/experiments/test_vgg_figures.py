"""Figures of many runs: variants, rates and seeds in one picture; and the colours of variants."""

import json
from pathlib import Path

import numpy as np
import pytest
import synthetic

from experiments import paper
from experiments.linear.settings import VARIANTS as LINEAR
from experiments.vgg.settings import VARIANTS
from experiments.views import accuracy as accuracy_figures
from experiments.views import distributions as distribution_figures
from experiments.views import plotting as figures
from experiments.views import series, tables, vgg_tables
from experiments.views import theorems as theorems_figures

NOWHERE = Path("nowhere")  # a folder for figures that are not saved
MANY = [(v, 0.1, seed) for v in synthetic.KINDS for seed in range(3)]
MANY += [(v, lr, seed) for v in ("standard", "batchnorm") for lr in (0.01, 0.5) for seed in (0, 1)]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The runs of a study of seven variants, three rates and three seeds."""
    folder = tmp_path_factory.mktemp("many") / "study"
    study = synthetic.study(folder, MANY, streams=("metrics", "test", "distributions"))
    return [series.ReadOnce(run.folder) for run in study.runs()]


@pytest.fixture(scope="module")
def views(many):
    """Every figure of many runs, by name."""
    with synthetic.catch_figures(accuracy_figures, distribution_figures) as plots:
        accuracy_figures.plot(many, NOWHERE, 4)
        distribution_figures.plot(many, NOWHERE)
        yield plots


def ours(axes):
    """The lines that are not the paper's, nor a cross where a run diverged."""
    return [line for line in axes.lines if line.get_marker() not in (*figures.RATE_MARKS, "x")]


def test_the_accuracy_of_many_runs_is_a_line_a_variant_and_rate(views):
    left, right = views["accuracy"].axes
    assert len(ours(left)) == len(ours(right)) == 11
    styles = {(line.get_color(), line.get_linestyle()) for line in ours(left)}
    assert len(styles) == 11
    solid = {line.get_color() for line in ours(left) if line.get_linestyle() == "-"}
    assert solid == {figures.COLOURS[v] for v in synthetic.KINDS}, "the main rate is solid"


def test_the_legend_of_many_runs_names_each_variant_and_each_rate_once(views):
    texts = [text.get_text() for text in views["accuracy"].legends[0].get_texts()]
    rates = ["lr 0.1", "lr 0.01", "lr 0.5"]
    names = {"standard": ", n = 2 at lr 0.01, 3 at lr 0.1, 2 at lr 0.5"}
    names["batchnorm"] = names["standard"]
    variants = [v + names.get(v, ", n = 3") for v in figures.in_order(synthetic.KINDS)]
    assert sorted(texts) == sorted([*variants, *rates])


def test_the_lp_norms_stand_beside_standard_batchnorm_and_the_paper(views):
    left, _ = views["accuracy-lp"].axes
    five = ("standard", "batchnorm", "l1", "l2", "linf")
    assert [line.get_color() for line in ours(left)] == [figures.COLOURS[v] for v in five]
    assert "accuracy-others" not in views, "nobody trained them"
    titles = [axes.get_title() for axes in views["histograms-lp"].axes]
    assert titles == list(five)


def papers(axes):
    return [line for line in axes.lines if line.get_marker() in figures.RATE_MARKS]


def test_rates_and_noise_have_views_of_their_own_with_the_papers_curves(views):
    left, _ = views["accuracy-rates"].axes
    assert len(ours(left)) == 6
    assert len(papers(left)) == 4, "standard and batchnorm at 0.1 and 0.5"
    noise = {line.get_color() for line in ours(views["accuracy-noise"].axes[0])}
    assert noise == {figures.COLOURS[v] for v in distribution_figures.FOUR}


def test_the_papers_curves_stay_out_of_a_full_figure_and_end_with_ours(views):
    assert papers(views["accuracy"].axes[0]) == []
    for line in papers(views["accuracy-lp"].axes[0]):
        assert max(line.get_xdata()) <= 200


def test_a_study_of_one_family_is_one_figure(tmp_path):
    plan = [(v, 0.1, 0) for v in distribution_figures.FOUR]
    study = synthetic.study(tmp_path / "study", plan, steps=120, streams=("metrics",))
    with synthetic.catch_figures(accuracy_figures) as plots:
        accuracy_figures.plot(study.runs(), tmp_path, 4)
    assert list(plots) == ["accuracy"]
    assert len(papers(plots["accuracy"].axes[0])) == 3


def test_histograms_are_of_the_papers_layer_and_in_the_order_of_training(many, views):
    assert "of layer 11" in views["histograms-lp"].get_suptitle()
    axes = views["histograms-lp"].axes[0]
    shown = [int(text.get_text()) for text in axes.get_yticklabels()]
    assert shown == [0, 50, 100, 150]
    group = next(g for g in series.group_runs(many) if (g.variant, g.lr) == ("standard", 0.1))
    record = vgg_tables.first_units(group.runs[0])[11, "activation"][0]
    edges = axes.lines[0].get_xdata()
    assert (edges[0], edges[-1]) == tuple(record["range"])


def test_distributions_and_drift_show_the_papers_four_variants(views):
    four = list(distribution_figures.FOUR)
    assert [axes.get_title() for axes in views["distributions"].axes[:4]] == four
    shown = {line.get_color() for axes in views["drift"].axes for line in axes.lines}
    assert shown == {figures.COLOURS[v] for v in four}


def test_the_papers_median_drift_stands_beside_changes_to_the_next_step_alone(views):
    for i, axes in enumerate(views["drift"].axes):
        layer, column = list(paper.LAYERS)[i // 4], i % 4
        table = {0: paper.DRIFT, 2: paper.VARIANCE_DRIFT}.get(column, {})
        expected = {(figures.COLOURS[v], table[v, k]) for v, k in table if k == layer}
        assert {(line.get_color(), line.get_ydata()[0]) for line in papers(axes)} == expected


def test_what_moved_since_step_0_is_drawn_at_the_recorded_steps_and_not_at_those_behind_them(views):
    since = views["drift"].axes[1].lines
    assert {tuple(line.get_xdata()) for line in since} == {(50, 100, 150)}
    mean = [{"step": s, "mean": m} for s, m in ((0, 1.0), (1, 9.0), (50, 3.0), (51, 7.0))]
    assert distribution_figures._since_first(mean, "mean") == ([50], [2.0])


def test_no_legend_of_many_runs_lies_over_a_panel(views):
    for name, figure in views.items():
        assert synthetic.legends_over_panels(figure) == [], name


def test_a_legend_over_a_panel_would_be_found():
    with figures.own_style():
        figure, axes = figures.subplots()
        axes.plot([0, 1], label="a line")
        axes.legend()
        assert synthetic.legends_over_panels(figure) == ["['a line']"]


def test_runs_without_the_records_of_a_view_leave_it_undrawn(tmp_path):
    study = synthetic.study(tmp_path / "study", [("l1", 0.1, 0)], streams=())
    found = study.runs()
    assert accuracy_figures.plot(found, tmp_path / "figures", 4) == []
    assert distribution_figures.plot(found, tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_where_a_run_diverged_stands_a_cross(tmp_path):
    end = {"status": "diverged", "step": 20}
    study = synthetic.study(
        tmp_path / "study", [("standard", 0.1, 0)], steps=20, streams=("metrics",), result=end
    )
    with synthetic.catch_figures(accuracy_figures) as plots:
        accuracy_figures.plot(study.runs(), tmp_path, 4)
    crosses = [line for line in plots["accuracy"].axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [19]


def test_the_summary_of_sixty_runs_is_a_small_file(tmp_path):
    plan = [(v, lr, s) for v in synthetic.KINDS for lr in (0.1, 0.5) for s in range(5)][:60]
    streams = ("metrics", "test", "landscape", "shift")
    study = synthetic.study(tmp_path / "study", plan, steps=300, every=20, streams=streams)
    content = vgg_tables.summary(study.settings, study.runs(), 6)
    tables.write_summary(tmp_path / "summary.json", content)
    assert (tmp_path / "summary.json").stat().st_size < 150_000
    assert json.loads((tmp_path / "summary.json").read_text()) == content
    assert content["environments"] == [synthetic.ENVIRONMENT]
    assert {run["environment"] for run in content["runs"].values()} == {0}
    one = content["runs"]["standard-lr0.1-seed0"]
    assert len(one["step"]) == len(one["train_accuracy"]) >= 10
    assert set(one) >= {"landscape", "shift", "test", "loss"}


# Colours


def test_the_colours_of_before_are_as_they_were():
    first = {"standard": "#c0392b", "batchnorm": "#1f77b4"}
    second = {"noisy-batchnorm": "#2ca02c", "noisy-standard": "#e08e0b"}
    assert list(figures.COLOURS.items())[:4] == [*first.items(), *second.items()]


def test_every_variant_has_a_colour_of_its_own_and_stands_in_a_figure_of_its_family():
    assert set(figures.COLOURS) == set(VARIANTS)
    assert set(LINEAR) <= set(figures.COLOURS), "the deep linear network's"
    assert len(set(figures.COLOURS.values())) == len(VARIANTS)
    families = [v for family in accuracy_figures.NORM_FAMILIES.values() for v in family]
    assert sorted([*families, *accuracy_figures.BESIDE]) == sorted(VARIANTS)


def test_the_figure_of_the_theorems_has_no_variants_colours():
    shades = {s for s, _ in theorems_figures.REMOVED.values()}
    shades |= {
        s for s, *_ in (*theorems_figures.FACTORS.values(), *theorems_figures.LINES.values())
    }
    distances = {
        (shade, variant): np.linalg.norm(lab(shade, "none") - lab(other, "none"))
        for shade in shades
        for variant, other in figures.COLOURS.items()
    }
    assert min(distances.values()) > 20, min(distances, key=distances.get)


# Severe forms as matrices on linear RGB (Machado, Oliveira & Fernandes 2009)
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(shade, blindness):
    """CIELAB of a hexadecimal colour, as it is seen with that colour blindness."""
    rgb = np.array([int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    xyz = np.array(XYZ) @ seen / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_lp_norms_differ_from_each_other_and_from_the_first_two_for_colour_blind_readers(
    blindness,
):
    names = ("standard", "batchnorm", "l1", "l2", "linf")
    seen = {name: lab(figures.COLOURS[name], blindness) for name in names}
    distances = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a in names for b in names if a < b}
    assert min(distances.values()) > 26, distances


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_no_two_of_the_later_colours_look_alike(blindness):
    later = list(figures.COLOURS)[4:]
    seen = {name: lab(shade, blindness) for name, shade in figures.COLOURS.items()}
    distances = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a in seen for b in later if a != b}
    assert min(distances.values()) > 12, distances


def test_a_variant_without_a_colour_is_grey_and_last():
    assert figures.colour("mine") == figures.UNKNOWN
    assert figures.in_order(["mine", "l1", "standard", "l1"]) == ["standard", "l1", "mine"]


def test_limits_of_a_logarithmic_axis_leave_out_rare_outliers_but_not_what_must_be_seen():
    values = np.append(np.full(999, 10.0), [1e9, np.inf])
    low, high = figures.log_limits([values], [np.array([1.0])])
    assert (low, high) == pytest.approx((1 / 1.5, 15))
    assert figures.log_limits([]) == pytest.approx((1 / 1.5, 1.5))
