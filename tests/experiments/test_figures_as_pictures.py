"""What a reader sees: no text over text, equal scales, points, and nothing left out in silence."""

import numpy as np
import pytest
import synthetic

from experiments.views import accuracy, curvature, distributions, gradient_change, landscape, shift
from experiments.views.series import group_runs, seeds_of
from experiments.views.step_axis import step_axes

MODULES = (accuracy, distributions, shift, landscape, gradient_change, curvature)
STREAMS = ("metrics", "test", "distributions", "landscape", "shift", "curvature")
PLAN = [(v, 0.1, s) for v in synthetic.KINDS for s in range(2)]
PLAN += [(v, 0.5, 0) for v in ("standard", "batchnorm")]


def draw(folder, plan=PLAN, **options):
    """All figures of a synthetic study, by name."""
    runs = synthetic.study(folder / "study", plan, streams=STREAMS, **options).runs()
    with synthetic.catch_figures(*MODULES) as figures:
        accuracy.plot(runs, folder, 4)
        for module in MODULES[1:]:
            module.plot(runs, folder)
    return figures


@pytest.fixture(scope="module", params=["vgg11", "vgg16"])
def drawn(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return draw(folder, model=request.param, steps=300, every=20)


def test_no_text_lies_over_another(drawn):
    assert len(drawn) == 17
    for name, figure in drawn.items():
        assert synthetic.texts_over_texts(figure) == [], name


def test_no_text_is_cut_off(drawn):
    for name, figure in drawn.items():
        assert synthetic.texts_cut_off(figure) == [], name


def test_text_over_text_would_be_found(drawn):
    figure = drawn["drift"]
    text = figure.text(0.5, 0.5, "one")
    other = figure.text(0.5, 0.5, "another")
    assert ("one", "another") in synthetic.texts_over_texts(figure)
    text.remove(), other.remove()


def test_variants_are_compared_on_equal_scales(drawn):
    for name in ("distributions", "landscape-variants-lr0.1"):
        rows = {}
        for axes in drawn[name].axes:
            rows.setdefault(axes.get_subplotspec().rowspan.start, set()).add(axes.get_ylim())
        assert all(len(limits) == 1 for limits in rows.values()), name
    assert len({axes.get_xlim() for axes in drawn["histograms-lp"].axes}) == 1


def test_a_figure_of_one_unit_names_the_unit_and_the_seed(drawn):
    for name in ("distributions", "drift"):
        assert "seed 0" in drawn[name].get_suptitle()
        labels = [axes.get_ylabel() for axes in drawn[name].axes]
        assert sum("unit 0" in label for label in labels) == 5
    assert "unit 0 of layer" in drawn["histograms-lp"].get_suptitle()
    assert "seed 0, one of 2" in drawn["gradient-change-lr0.1"].get_suptitle()


def test_variants_that_a_figure_does_not_show_are_named_in_it(drawn):
    for name in ("distributions", "drift"):
        assert "not here: l1, l2, linf" in drawn[name].get_suptitle()
    for name in ("landscape-lr0.1", "shift"):
        others = "not here: noisy-batchnorm, noisy-standard, l1, l2, linf ("
        assert others in drawn[name].get_suptitle(), name
    assert (
        "not here: batchnorm at 0.5, l1 at 0.1, l2 at 0.1" in drawn["accuracy-noise"].get_suptitle()
    )
    assert "not here" not in drawn["accuracy"].get_suptitle()
    assert "not here" not in drawn["landscape-variants-lr0.1"].get_suptitle()


def test_a_title_says_how_many_seeds_a_median_is_of(drawn):
    assert "median of n = 2 seeds, band: least to largest" in drawn["accuracy-lp"].get_suptitle()
    assert "median of n seeds, see the legend" in drawn["accuracy"].get_suptitle()
    texts = [text.get_text() for text in drawn["accuracy"].legends[0].get_texts()]
    assert "standard, n = 2 at lr 0.1, 1 at lr 0.5" in texts
    assert "l1, n = 2" in texts
    assert "seed 0" in drawn["landscape-lr0.5"].get_suptitle()


def test_the_papers_curves_differ_by_rate(drawn):
    lines = [
        line
        for line in drawn["accuracy-rates"].axes[0].lines
        if line.get_marker() not in ("None", "x")
    ]
    looks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == 4
    texts = [text.get_text() for text in drawn["accuracy-rates"].legends[0].get_texts()]
    assert {"the paper's, lr 0.1", "the paper's, lr 0.5"} <= set(texts)


def test_the_papers_curves_stand_beside_its_own_data_set_alone(tmp_path):
    figures = draw(tmp_path, steps=300, every=50, data="shapes")
    for name, figure in figures.items():
        legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert "the paper's" not in " ".join([*legends, figure.get_suptitle()]), name
        lines = [line for axes in figure.axes for line in axes.lines]
        marks = {line.get_marker() for line in lines if line.get_linestyle() != "-"}
        assert marks <= {"None"}, name


def test_single_points_are_drawn_as_points(tmp_path):
    figures = draw(tmp_path, steps=1, every=1)
    assert {"accuracy", "landscape-lr0.1", "shift", "curvature-lr0.1"} <= set(figures)
    for name, figure in figures.items():
        assert synthetic.points_that_do_not_show(figure) == [], name
    test = figures["accuracy"].axes[1]
    assert [line.get_marker() for line in test.lines] == ["o"] * 9


def test_a_single_point_without_a_marker_would_be_found(tmp_path):
    figures = draw(tmp_path, plan=[("standard", 0.1, 0)], steps=1, every=1)
    line = figures["accuracy"].axes[1].lines[0]
    line.set_marker("None")
    assert synthetic.points_that_do_not_show(figures["accuracy"]) == [line]


def test_a_training_hardly_longer_than_a_strip_has_none(drawn):
    axes = drawn["landscape-lr0.1"].axes[0]
    assert len(axes.child_axes) == 1
    axes = axes.figure.add_axes((0, 0, 1, 1))
    assert step_axes(axes, 200) == [axes]
    assert axes.get_xlim()[0] < 0 < 200 < axes.get_xlim()[1]
    axes.remove()


def test_seeds_of_a_title_are_named_or_counted(tmp_path):
    plan = [("l1", 0.1, 7), ("l2", 0.1, 8), ("linf", 0.1, 8)]
    study = synthetic.study(tmp_path / "study", plan, streams=())
    l1, *others = group_runs(study.runs())
    assert seeds_of([l1]) == "seed 7"
    assert seeds_of(others) == "seed 8"
    assert seeds_of([l1, *others]) == "one seed each"


def test_drift_panels_of_a_column_share_their_scale(drawn):
    grid = np.array(drawn["drift"].axes).reshape(-1, 4)
    for column in grid.T:
        assert len({axes.get_ylim() for axes in column}) == 1
