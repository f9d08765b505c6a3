"""The views of the landscape: their figures and tables."""

import json

import numpy as np
import pytest
import synthetic
from studies import settings

from experiments import paper
from experiments.training.command_line import UsageError
from experiments.training.study import Study
from experiments.vgg.settings import check
from experiments.views import curvature as curvature_figures
from experiments.views import gradient_change as gradient_change_figures
from experiments.views import landscape as landscape_figures
from experiments.views import probe_tables, step_sizes
from experiments.views.plotting import COLOURS
from experiments.views.series import group_runs
from minibn.errors import DataError

MODULES = (landscape_figures, gradient_change_figures, curvature_figures)
PLAN = [(v, 0.1, s) for v in ("standard", "batchnorm", "l1", "noisy-standard") for s in (0, 1)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("landscape") / "study"
    plan = [*PLAN, ("standard", 0.5, 0), ("batchnorm", 0.5, 0)]
    return synthetic.study(folder, plan, streams=("metrics", "landscape", "curvature"))


@pytest.fixture(scope="module")
def drawn(study):
    """Every figure of the study, by name, instead of files."""
    with synthetic.catch_figures(*MODULES) as figures:
        for module in MODULES:
            module.plot(study.runs(), study.folder)
        yield figures


@pytest.fixture
def figures():
    """The figures that the test draws."""
    with synthetic.catch_figures(*MODULES) as figures:
        yield figures


def with_probes(folder, variant, probes, lr=0.1):
    """A study of one run with these records in landscape.jsonl; other keys are those of a probe
    on which nothing changes."""
    study = synthetic.study(folder, [(variant, lr, 0)], streams=())
    sizes = [0.5 * lr, 4 * lr]
    still = {
        "lr": lr, "direction": "gradient", "loss": 1.0, "gradient_norm": 1.0, "step_sizes": sizes,
        "losses": [1.0, 1.0], "gradient_change": [1.0, 1.0], "cosine": [1.0, 1.0],
        "beta": [1.0, 1.0], "saturated": False, "at_ceiling": False,
    }  # fmt: skip
    lines = "".join(json.dumps({**still, **probe}) + "\n" for probe in probes)
    (study.runs()[0].folder / "landscape.jsonl").write_text(lines)
    return study


def at_the_papers_sizes(**ends):
    """The entries of a record with the paper's four step sizes at lr 0.1, from their first and last
    values; the middle ones are the first's."""
    ends = {"losses": [1.0, 1.0], "gradient_change": [1.0, 1.0], "beta": [1.0, 1.0], **ends}
    record = {key: [first, first, first, last] for key, (first, last) in ends.items()}
    return {**record, "cosine": [1.0] * 4, "step_sizes": [0.05, 0.1, 0.2, 0.4]}


def cells(text):
    """(variant, rate) -> name of a column -> cell, of a markdown table; "+" marks a paper's."""
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    names = [n if "paper's" not in n else rows[0][i - 1] + "+" for i, n in enumerate(rows[0])]
    return {(row[0], row[1]): dict(zip(names, row, strict=True)) for row in rows[2:]}


def test_a_file_a_rate_and_direction_is_drawn(tmp_path):
    probes = [{"step": 0}, {"step": 0, "direction": "random"}, {"step": 50}]
    runs = with_probes(tmp_path / "study", "batchnorm", probes).runs()
    paths = landscape_figures.plot(runs, tmp_path / "figures")
    paths += gradient_change_figures.plot(runs, tmp_path / "figures")
    names = ["landscape-lr0.1", "landscape-random-lr0.1", "gradient-change-lr0.1"]
    assert [path.stem for path in paths] == names
    assert all(path.stat().st_size > 1000 for path in paths)
    assert all(path.with_suffix(".svg").stat().st_size > 1000 for path in paths)


def test_nothing_is_drawn_and_tabled_without_records(tmp_path):
    study = synthetic.study(tmp_path / "study", [("standard", 0.1, 0)], streams=("metrics",))
    runs = study.runs()
    for module in MODULES:
        assert module.plot(runs, tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()
    assert probe_tables.landscape_table(runs) == probe_tables.steps_table(runs) == ""
    assert probe_tables.summary(runs[0], 9) == {}


def test_a_band_goes_from_the_least_to_the_largest_over_the_step_sizes(tmp_path):
    probes = [{"step": 0, "losses": [3.0, 2.0]}, {"step": 9, "losses": [1.0, None]}]
    group = group_runs(with_probes(tmp_path / "study", "standard", probes).runs())[0]
    low, high = landscape_figures.band(group, "losses")
    assert low.median.tolist() == [2, 1]
    assert high.median.tolist() == [3, np.inf]


def test_effective_beta_is_the_largest_of_a_probe(tmp_path):
    probes = [{"step": 0, "beta": [3.0, 2.0]}, {"step": 9, "beta": [3.0, 8.0]}]
    group = group_runs(with_probes(tmp_path / "study", "standard", probes).runs())[0]
    assert landscape_figures.effective_beta(group).median.tolist() == [3, 8]


def test_probes_in_another_direction_stay_out_of_the_gradients_figure(tmp_path):
    probes = [{"step": 0}, {"step": 0, "direction": "random", "losses": [7.0, 9.0]}]
    group = group_runs(with_probes(tmp_path / "study", "standard", probes).runs())[0]
    assert landscape_figures.band(group, "losses")[1].median.tolist() == [1]
    assert landscape_figures.band(group, "losses", "random")[1].median.tolist() == [9]


def test_step_0_is_inside_every_panel(drawn):
    for name in ("landscape-lr0.1", "landscape-variants-lr0.1"):
        for axes in drawn[name].axes:
            assert axes.get_xlim()[0] < 0
            assert 0 in axes.get_xticks()
            assert axes.lines[0].get_xdata()[0] == 0


def test_a_panel_is_linear_in_steps_with_the_first_hundred_at_its_left(tmp_path, figures):
    probes = [{"step": s} for s in (0, 1, 50, 100, 1000, 1900)]
    landscape_figures.plot(with_probes(tmp_path / "a", "standard", probes).runs(), tmp_path)
    for axes in figures["landscape-lr0.1"].axes:
        (strip,) = axes.child_axes
        for part in (axes, strip):
            assert part.get_xscale() == "linear"
            assert part.lines[0].get_xdata().tolist() == [0, 1, 50, 100, 1000, 1900]
            assert part.get_ylim() == axes.get_ylim()
            assert part.get_yscale() == axes.get_yscale()
        assert strip.get_xlim() == pytest.approx((0, 100), abs=6)
        assert strip.get_xticks().tolist() == [0, 100]
        figure = axes.figure
        figure.canvas.draw()
        right = strip.get_window_extent().x1
        assert right < axes.transData.transform((0, 1))[0], "it hides nothing of the panel"
        assert min(axes.get_xticks()) > 0


def test_variants_keep_their_colours(drawn):
    figure = drawn["landscape-variants-lr0.1"]
    variants = [axes.get_title().replace("\n", "") for axes in figure.axes[:4]]
    assert variants == ["standard", "batchnorm", "noisy-standard", "l1"]
    for i, axes in enumerate(figure.axes):
        assert axes.lines[0].get_color() == COLOURS[variants[i % 4]]


def test_a_figure_for_all_variants_is_drawn_only_where_there_are_more_than_two(drawn):
    assert "landscape-variants-lr0.1" in drawn
    assert "landscape-variants-lr0.5" not in drawn


def test_the_papers_curve_stands_beside_the_gradients_at_its_rate_alone(drawn):

    def dots(name):
        lines = [line for axes in drawn[name].axes for line in axes.lines]
        return [line for line in lines if line.get_marker() in ("^", "v")]

    ends = {(line.get_marker(), *line.get_ydata()[[0, 2]]) for line in dots("landscape-lr0.1")}
    for pair in (*paper.LOSS_RANGE.values(), *paper.CHANGE_RANGE.values()):
        assert {("v", pair[0][0], pair[1][0]), ("^", pair[0][1], pair[1][1])} <= ends
    assert dots("landscape-lr0.5") == []


def levels(axes):
    """The heights of the horizontal lines."""
    lines = [line for line in axes.lines if line.get_linestyle() == "--"]
    return sorted(float(line.get_ydata()[0]) for line in lines)


def test_the_floor_of_beta_and_the_edge_of_stability_are_marked(tmp_path, figures):
    probes = [{"step": 0, "step_sizes": [0.01, 0.4]}, {"step": 1, "step_sizes": [0.01, 0.4]}]
    landscape_figures.plot(with_probes(tmp_path / "a", "standard", probes).runs(), tmp_path)
    assert levels(figures["landscape-lr0.1"].axes[2]) == pytest.approx([20, 100])
    probes = [{"step": 0}, {"step": 1}]
    landscape_figures.plot(with_probes(tmp_path / "b", "standard", probes).runs(), tmp_path)
    assert levels(figures["landscape-lr0.1"].axes[2]) == pytest.approx(
        [
            20,
        ]
    )
    texts = [text.get_text() for text in figures["landscape-lr0.1"].legends[0].get_texts()]
    assert "1/(smallest step) = 2/lr = 20" in texts


def test_a_probe_that_was_not_finite_leaves_the_panel_at_its_top(tmp_path, figures):
    probes = [{"step": s, "losses": [1.0, 2.0]} for s in range(9)]
    probes[4]["losses"] = [1.0, None]
    landscape_figures.plot(with_probes(tmp_path / "a", "standard", probes, lr=0.2).runs(), tmp_path)
    axes = figures["landscape-lr0.2"].axes[0]
    upper = axes.lines[1].get_ydata()
    assert upper[4] > axes.get_ylim()[1] > upper[3]
    assert np.isfinite(upper).all()


def test_the_legend_says_how_often_beta_was_saturated(tmp_path, figures):
    probes = [{"step": s, "saturated": s == 0} for s in (0, 5, 10, 15)]
    landscape_figures.plot(with_probes(tmp_path / "a", "standard", probes).runs(), tmp_path)
    texts = [text.get_text() for text in figures["landscape-lr0.1"].legends[0].get_texts()]
    assert "standard (beta saturated in 25% of training)" in texts


def test_a_flag_counts_for_the_steps_up_to_the_next_probe(tmp_path):
    probes = [{"step": s, "saturated": s < 5} for s in (0, 1, 2, 10, 20)]
    group = group_runs(with_probes(tmp_path / "a", "standard", probes).runs())[0]
    assert landscape_figures.share(group, "saturated") == pytest.approx(10 / 30)


def test_lines_of_the_gradients_change_go_from_blue_to_red(drawn):
    axes = drawn["gradient-change-lr0.1"].axes[0]
    ours = [line for line in axes.lines if line.get_marker() != "o"]
    assert len(ours) == len(synthetic.probed(200, 50))
    late, first = ours[0].get_color(), ours[-1].get_color()
    assert first[2] > first[0] and late[0] > late[2], "red, green, blue"
    assert ours[-1].get_linestyle() == "--", "step 0 is dashed"
    assert ours[0].get_xdata() == pytest.approx([0.05, 0.1, 0.2, 0.4])
    theirs = [line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert theirs == [list(paper.CHANGE_BY_STEP_SIZE["standard"])]


def test_curvature_stands_beside_the_edge_of_stability(drawn):
    figure = drawn["curvature-lr0.5"]
    assert levels(figure.axes[0]) == levels(figure.axes[1]) == [4]
    assert [line.get_color() for line in figure.axes[1].lines[:2]] == [
        COLOURS["standard"], COLOURS["batchnorm"]
    ]  # fmt: skip


def test_the_largest_eigenvalue_is_drawn_and_an_undefined_curvature_left_out(tmp_path, figures):
    study = synthetic.study(tmp_path / "study", [("l1", 0.1, 0)], streams=())
    records = [
        {"step": 0, "lr": 0.1, "along_gradient": None, "eigenvalues": [3.0, 7.0, -9.0],
         "trace": 1.0, "trace_error": 0.1},
        {"step": 4, "lr": 0.1, "along_gradient": -2.0, "eigenvalues": [5.0], "trace": None,
         "trace_error": None},
    ]  # fmt: skip
    lines = "".join(json.dumps(r) + "\n" for r in records)
    (study.runs()[0].folder / "curvature.jsonl").write_text(lines)
    curvature_figures.plot(study.runs(), tmp_path)
    along, largest, trace = figures["curvature-lr0.1"].axes
    assert along.lines[0].get_ydata().tolist() == [-2]
    assert largest.lines[0].get_ydata().tolist() == [7, 5]
    assert trace.lines[0].get_ydata().tolist() == [1]


def test_the_error_of_the_trace_is_drawn_of_a_single_seed_alone(tmp_path, figures):
    for name, seeds in (("one", [0]), ("two", [0, 1])):
        plan = [("l1", 0.1, seed) for seed in seeds]
        study = synthetic.study(tmp_path / name, plan, streams=("curvature",))
        curvature_figures.plot(study.runs(), tmp_path)
        trace = figures["curvature-lr0.1"].axes[2]
        assert len(trace.containers) == (seeds == [0]), name


def test_no_legend_lies_over_a_panel(drawn):
    assert len(drawn) == 7
    for name, figure in drawn.items():
        assert synthetic.legends_over_panels(figure) == [], name


def test_no_legend_is_cut_off(drawn):
    for name, figure in drawn.items():
        assert synthetic.legends_cut_off(figure) == [], name


def test_the_table_holds_medians_over_training_beside_the_papers(tmp_path):
    early = {"losses": [1.0, 9.0], "gradient_change": [120.0, 140.0], "beta": [24.0, 9.0]}
    late = {"losses": [1.0, 1.2], "gradient_change": [5.0, 14.0], "beta": [20.0, 3.0]}
    ends = ((0, early), (1, early), (100, late), (200, late))
    probes = [{"step": s, **at_the_papers_sizes(**values)} for s, values in ends]
    probes[3]["saturated"] = True
    runs = with_probes(tmp_path / "study", "batchnorm", probes).runs()
    row = cells(probe_tables.landscape_table(runs))["batchnorm", "0.1"]
    assert (row["loss: width"], row["loss: width+"]) == ("0.2", "0.2")
    assert (row["change: width"], row["change: width+"]) == ("9", "9.4")
    assert (row["change, step 0"], row["change, step 0+"]) == ("140", "135")
    assert (row["beta: median"], row["beta: median+"]) == ("20", "20.0")
    assert (row["beta: largest"], row["beta: largest+"]) == ("24", "25")
    assert (row["beta, step 0"], row["saturated"], row["at ceiling"]) == ("24", "33%", "0%")


def test_equal_steps_stand_beside_the_papers(tmp_path):
    seen = at_the_papers_sizes(losses=[1.0, 2.0], beta=[7.0, 3.0])
    probes = [{"step": 100, **seen}, {"step": 150, **seen}]
    runs = with_probes(tmp_path / "study", "batchnorm", probes).runs()
    row = cells(probe_tables.steps_table(runs))["batchnorm", "100"]
    assert (row["loss"], row["loss+"]) == ("1 to 2", "2.95 to 4.57")
    assert (row["effective beta"], row["effective beta+"]) == ("7", "20")
    assert "| 150 |" not in probe_tables.steps_table(runs)


def test_a_summary_keeps_the_first_and_the_last_probe_and_no_more_than_asked_for(study):
    run = Study(study.folder).runs()[0]
    probes = probe_tables.summary(run, 4)["landscape"]
    assert len(probes["step"]) == 4
    assert (probes["step"][0], probes["step"][-1]) == (0, 150)
    json.loads(json.dumps(probes, allow_nan=False))


# Which step sizes


def with_sizes(sizes, **values):
    """The entries of a record with these step sizes; each value is 1 where none is given."""
    keys = ("losses", "gradient_change", "cosine", "beta")
    return {"step_sizes": sizes, **{key: values.get(key, [1.0] * len(sizes)) for key in keys}}


MANY = [0.001, 0.003, 0.01, 0.05, 0.1, 0.2, 0.4]


def test_a_band_is_over_the_papers_step_sizes_where_probes_have_more(tmp_path, figures):
    losses = [9.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0]
    beta = [99.0, 1.0, 1.0, 8.0, 7.0, 7.0, 7.0]
    probes = [{"step": s, **with_sizes(MANY, losses=losses, beta=beta)} for s in (0, 100)]
    runs = with_probes(tmp_path / "study", "batchnorm", probes).runs()
    landscape_figures.plot(runs, tmp_path)
    figure = figures["landscape-lr0.1"]
    least, largest, *_ = figure.axes[0].lines
    assert (least.get_ydata()[0], largest.get_ydata()[0]) == (2, 3)
    assert figure.axes[2].lines[0].get_ydata()[0] == 8
    title = figure.get_suptitle()
    assert "over the step sizes 0.05, 0.1, 0.2, 0.4, of those from 0.001 to 0.4" in title
    assert any(line.get_marker() == "^" for line in figure.axes[0].lines), "the paper's"
    row = cells(probe_tables.landscape_table(runs))["batchnorm", "0.1"]
    assert (row["loss: width"], row["beta: median"]) == ("1", "8")
    assert "step sizes: 0.05, 0.1, 0.2, 0.4 at lr 0.1" in probe_tables.landscape_table(runs)


def test_bands_over_other_step_sizes_are_not_compared_with_the_papers(tmp_path, figures):
    probes = [{"step": s, **with_sizes([0.001, 0.01])} for s in (0, 100)]
    runs = with_probes(tmp_path / "study", "batchnorm", probes).runs()
    landscape_figures.plot(runs, tmp_path)
    figure = figures["landscape-lr0.1"]
    assert "over the step sizes 0.001, 0.01" in figure.get_suptitle()
    assert not any(line.get_marker() in ("^", "v") for a in figure.axes for line in a.lines)
    assert probe_tables.steps_table(runs) == ""
    assert cells(probe_tables.landscape_table(runs))["batchnorm", "0.1"]["loss: width+"] == ""


def test_variants_are_compared_over_the_step_sizes_that_they_share(tmp_path):
    one = with_probes(tmp_path / "a", "standard", [{"step": 0, **with_sizes([0.01, 0.1])}])
    two = with_probes(tmp_path / "b", "batchnorm", [{"step": 0, **with_sizes([0.1, 0.3])}])
    groups = group_runs([*one.runs(), *two.runs()])
    assert step_sizes.sizes_to_show(groups) == (0.1,)
    other = with_probes(tmp_path / "c", "l1", [{"step": 0, **with_sizes([0.7])}])
    with pytest.raises(DataError, match="no step size in common"):
        step_sizes.sizes_to_show([*groups, *group_runs(other.runs())])


def test_whether_beta_is_saturated_is_asked_of_the_step_sizes_that_are_shown(tmp_path):
    change = [0.1, 0.3, 1.0, 5.0, 5.0, 5.0, 5.0]  # proportional up to 0.05, constant from there
    beta = [c / size for c, size in zip(change, MANY, strict=True)]
    record = {"saturated": False, **with_sizes(MANY, gradient_change=change, beta=beta)}
    of_all = step_sizes.at_sizes(record, MANY)
    of_papers = step_sizes.at_sizes(record, (0.05, 0.1, 0.2, 0.4))
    assert of_all is record
    assert of_papers["saturated"] and of_papers["at_floor"] and not of_papers["at_ceiling"]
    assert of_papers["gradient_change"] == [5.0] * 4


def test_probes_of_vgg_must_be_finite():
    for words in (("--lr", "0.1", "1e308"), ("--lr", "1e200", "--probe-sizes", "1e200")):
        check(settings(*words, "--probe-every", "0"))
        with pytest.raises(UsageError, match=r"^--lr 1e\+\d+ times --probe-sizes .* finite number"):
            check(settings(*words, "--probe-every", "1"))
