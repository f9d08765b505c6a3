"""The views of internal covariate shift."""

import json

import numpy as np
import pytest
import synthetic

from experiments import paper
from experiments.training.json_files import write_json
from experiments.views import probe_tables, series
from experiments.views import shift as shift_figures
from experiments.views.plotting import COLOURS
from experiments.views.series import group_runs

PLAN = [(v, lr, s) for v in ("standard", "batchnorm") for lr in (0.1, 0.01) for s in (0, 1)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shift") / "study"
    return synthetic.study(folder, [*PLAN, ("linf", 0.1, 0)], streams=("metrics", "shift"))


@pytest.fixture(scope="module")
def drawn(study):
    """Every figure of the study, by name, instead of files."""
    with synthetic.catch_figures(shift_figures) as figures:
        shift_figures.plot(study.runs(), study.folder)
        yield figures


def rewrite(study, change):
    """The first run of a study, its shift records changed one by one."""
    run = study.runs()[0]
    lines = [json.dumps({**r, **change(r)}) + "\n" for r in run.records("shift")]
    (run.folder / "shift.jsonl").write_text("".join(lines))
    return run


def test_the_figures_are_drawn_one_for_two_layers_and_one_a_rate_for_all(tmp_path):
    study = synthetic.study(tmp_path / "study", [("batchnorm", 0.01, 0)], steps=4)
    paths = shift_figures.plot(study.runs(), tmp_path / "figures")
    assert [path.stem for path in paths] == ["shift", "shift-layers-lr0.01"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_nothing_is_drawn_and_tabled_without_records(tmp_path):
    study = synthetic.study(tmp_path / "study", [("standard", 0.1, 0)], streams=("metrics",))
    assert shift_figures.plot(study.runs(), tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()
    assert probe_tables.shift_table(study.runs()) == ""


def test_a_row_a_rate_shows_l2_relative_and_cosine_of_the_papers_two_layers(study, drawn):
    axes = np.array(drawn["shift"].axes).reshape(2, 6)
    assert [row[0].get_ylabel().splitlines()[0] for row in axes] == ["lr 0.1", "lr 0.01"]
    titles = [panel.get_title() for panel in axes[0]]
    assert titles == [
        f"{shift_figures.MEASURES[measure]}\nlayer {layer}"
        for measure in ("l2", "relative", "cosine")
        for layer in (5, 10)
    ]
    assert [panel.get_yscale() for panel in axes[0]] == [*["log"] * 4, *["linear"] * 2]
    for panel in axes.flat:
        assert [line.get_color() for line in panel.lines[:2]] != []
        assert panel.lines[0].get_color() == COLOURS["standard"]


def test_the_curves_are_the_layers_own_medians_over_the_seeds(study, drawn):
    group = next(g for g in group_runs(study.runs()) if (g.variant, g.lr) == ("standard", 0.1))
    seeds = [[r["l2"] for r in s if r["layer"] == 10] for s in group.records("shift")]
    drawn = drawn["shift"].axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, np.median(seeds, axis=0))


def test_the_ideal_cosine_and_the_papers_medians_are_drawn(study, drawn):
    l2, cosine = drawn["shift"].axes[0], drawn["shift"].axes[4]
    heights = [
        {round(float(line.get_ydata()[0]), 4) for line in panel.lines} for panel in (l2, cosine)
    ]
    for variant in ("standard", "batchnorm"):
        theirs = paper.SHIFT[variant, 0.1, 5]
        assert theirs[0] in heights[0] and theirs[1] in heights[1]
        assert paper.SHIFT_AT_START[variant, 0.1, 5] in heights[0]
    assert 1.0 in heights[1]
    texts = [text.get_text() for text in drawn["shift"].legends[0].get_texts()]
    assert any("l2: 0, below any logarithmic axis" in text for text in texts)


def test_a_shallower_network_shows_layers_of_the_same_relative_depth(tmp_path):
    study = synthetic.study(tmp_path / "study", [("standard", 0.1, 0)], steps=4)
    run = study.runs()[0]
    config = {**run.config, "settings": {**run.config["settings"], "model": "vgg11"}}
    write_json(run.folder / "config.json", config)
    assert shift_figures.layers_to_show([run]) == {3: 5, 6: 10}
    with synthetic.catch_figures(shift_figures) as figures:
        shift_figures.over_steps([run], tmp_path)
    assert figures["shift"].axes[0].get_title().endswith("\nlayer 3 (paper's 5)")
    assert "in brackets: the paper's layer that lies as deep" in figures["shift"].get_suptitle()


def test_panels_of_one_measure_have_one_scale(drawn):
    axes = np.array(drawn["shift"].axes).reshape(2, 3, 2)
    for measure in range(3):
        assert len({panel.get_ylim() for panel in axes[:, measure].flat}) == 1


def test_every_layer_is_shown_and_what_has_no_value_is_left_out(study, drawn):
    panels = dict(zip(shift_figures.MEASURES, drawn["shift-layers-lr0.1"].axes, strict=True))
    layers = {name: axes.lines[0].get_xdata().tolist() for name, axes in panels.items()}
    assert layers["l2"] == list(range(2, 15)), "layer 1 has none, by definition"
    assert layers["cosine"] == list(range(1, 15))
    assert layers["mean_drift"] == list(range(1, 14)), "the head has no ReLU"
    assert {line.get_color() for line in panels["l2"].lines} >= {
        COLOURS[v] for v in ("standard", "batchnorm", "linf")
    }


def test_every_figure_says_which_of_the_papers_numbers_it_shows(drawn):
    for name in ("shift", "shift-layers-lr0.1"):
        texts = [text.get_text() for text in drawn[name].legends[0].get_texts()]
        assert any(text.startswith(shift_figures.PAPERS) for text in texts), name


def test_an_undefined_cosine_is_passed_over(tmp_path):
    study = synthetic.study(tmp_path / "study", [("standard", 0.1, 0)], streams=("shift",))
    run = rewrite(study, lambda r: {"cosine": None if r["step"] < 100 else 0.25})
    group = group_runs([run])[0]
    assert shift_figures.medians(group, 5, "cosine") == [0.25]
    steps, values = shift_figures.of_layer(group, 5, "cosine")[0]
    assert series.second_half(steps, values) == 0.25
    assert np.isnan(series.second_half(steps, np.full(len(steps), np.nan)))


def test_no_legend_lies_over_a_panel(study, drawn):
    assert set(drawn) == {"shift", "shift-layers-lr0.1", "shift-layers-lr0.01"}
    for name, figure in drawn.items():
        assert synthetic.legends_over_panels(figure) == [], name


def test_the_table_stands_beside_the_papers_numbers(tmp_path):
    study = synthetic.study(tmp_path / "study", [("batchnorm", 0.1, 0)], streams=("shift",))

    def change(record):
        early = record["step"] < 100
        return {"l2": 14.0 if early else 0.8, "cosine": 0.9 if early else 0.4, "relative": 0.3}

    text = probe_tables.shift_table([rewrite(study, change)])
    row = next(line for line in text.splitlines() if line.startswith("| batchnorm | 0.1 | 5 |"))
    cells = [cell.strip() for cell in row.split("|")][4:12]
    assert cells[:4] == ["0.8", "0.83", "14", "14.5"]
    assert cells[4:7] == ["0.3", "0.4", "0.43"]
    assert "| batchnorm | 0.1 | 10 |" in text


def test_a_summary_holds_a_median_for_each_layer(study):
    found = probe_tables.summary(study.runs()[0], 9)["shift"]
    assert set(found) == set(shift_figures.MEASURES)
    assert all(len(values) == 14 for values in found.values())
    assert found["mean_drift"][-1] is None
    json.dumps(found, allow_nan=False)
