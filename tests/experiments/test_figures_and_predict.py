"""Figures, tables and predictions come from the files of a study."""

import json
import shutil

import numpy as np
import pytest
import synthetic
from studies import TWO, main, runs

from experiments import (
    figures,
    gpu_check,
    norm_figures,
    paper,
    predict,
    series,
    vgg_figures,
    vgg_tables,
)
from experiments.study import Run, Study, write_json
from minibn import use
from minibn.data import Batches, normalize
from minibn.errors import DataError
from reference_models.vgg import VGG


@pytest.fixture
def study(whole_of_two, tmp_path):
    """A copy of a trained study, to draw into."""
    return Study(shutil.copytree(whole_of_two, tmp_path / "study"))


@pytest.fixture(scope="module")
def drawn(whole_of_two, whole, tmp_path_factory):
    """Two studies drawn together: the folder."""
    out = tmp_path_factory.mktemp("drawn")
    vgg_figures.draw([Study(whole_of_two), Study(whole)], out)
    return out


def test_drawing_leaves_figures_table_and_summary(drawn, whole_of_two):
    for name in ("accuracy", "distributions", "drift"):
        for ending in ("png", "svg"):
            assert (drawn / "figures" / f"{name}.{ending}").stat().st_size > 1000
    assert "| noisy-batchnorm | 0.05 | 0 | 8 |" in (drawn / "table.md").read_text()
    summary = json.loads((drawn / "summary.json").read_text())
    assert set(summary["runs"]) == {r.name for r in runs(whole_of_two)}


def test_the_summary_names_no_path_of_the_machine_that_trained(drawn, whole_of_two):
    text = (drawn / "summary.json").read_text()
    assert "data_dir" not in text
    assert str(whole_of_two) not in text


def test_drawing_from_the_command_line_names_the_figures_and_gives_the_same_bytes(
    drawn, whole_of_two, whole, tmp_path, capsys
):
    studies = [str(whole_of_two), str(whole)]
    assert vgg_figures.main([*studies, "--out", str(tmp_path / "again")]) == 0
    said = capsys.readouterr().out
    assert "Verdict at lr 0.05" in said
    for name in ("accuracy", "distributions", "drift"):
        assert f"{name}.png" in said
    for file in ("figures/accuracy.svg", "figures/drift.svg", "summary.json", "table.md"):
        assert (tmp_path / "again" / file).read_bytes() == (drawn / file).read_bytes()


def test_studies_of_different_networks_are_not_drawn_together(study, tmp_path):
    other = shutil.copytree(study.folder, tmp_path / "other")
    content = json.loads((other / "study.json").read_text())
    content["settings"]["width"] = 1.0
    write_json(other / "study.json", content)
    with pytest.raises(DataError, match=r"width 1\.0.*like with like"):
        vgg_figures.draw([study, Study(other)])


def test_a_study_without_results_is_named(tmp_path, capsys):
    assert vgg_figures.main([str(tmp_path)]) == 2
    assert vgg_figures.main([]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "no study" in lines[0] and "which study?" in lines[1]


def test_a_run_that_diverged_stands_in_the_table_with_its_step(tmp_path, capsys):
    arguments = [*TWO, "--steps", "4", "--out", tmp_path / "wild"]
    arguments[arguments.index("--lr") + 1] = "1e12"
    assert main(*arguments, draw=True) == 0
    assert "diverged at step" in (tmp_path / "wild" / "table.md").read_text()
    assert "diverged at step" in capsys.readouterr().out


def test_the_smoothed_curve_is_the_mean_of_the_last_values():
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    expected = [1.0, 1.5, 2.0, 3.0, 17 / 3]
    np.testing.assert_allclose(figures.smooth(values, 3), expected)


class Fake:
    """A run that claims a training accuracy."""

    result = None

    def __init__(self, variant, accuracy, lr=0.1, seed=0):
        settings = {"data": "cifar10"}
        self.config = {"variant": variant, "lr": lr, "seed": seed, "settings": settings}
        self.accuracy = accuracy

    def records(self, name):
        if name == "metrics":
            return [{"step": s, "accuracy": self.accuracy} for s in range(1101)]
        return [{"updates": 1000, "accuracy": self.accuracy}]


def fake_runs(scores, **config):
    return [Fake(v, a, **config) for v, a in scores.items()]


PAPERS = {
    "standard": 0.5, "batchnorm": 0.9, "noisy-batchnorm": 0.7, "noisy-standard": 0.1,
    "l1": 0.91, "l2": 0.9, "linf": 0.89,
}  # fmt: skip
AT_HALF = {"standard": 0.1, "batchnorm": 0.8}


def test_the_verdict_states_what_is_seen():
    said = vgg_tables.make_verdict([*fake_runs(PAPERS), *fake_runs(AT_HALF, lr=0.5)])
    assert said.startswith("Verdict at lr 0.1, 1 seed: ")
    assert "NOT" not in said and "undecided" not in said
    assert "linf trains as well as BatchNorm (0.89 against 0.90)" in said
    assert "at lr 0.5 BatchNorm trains and the standard network does not (0.80 against 0" in said


@pytest.mark.parametrize(("first", "second"), [("standard", "batchnorm")])
def test_the_verdict_states_what_is_not_seen(first, second):
    swapped = {**PAPERS, first: PAPERS[second], second: PAPERS[first]}
    assert "NOT seen: BatchNorm trains faster" in vgg_tables.make_verdict(fake_runs(swapped))


def test_the_verdict_sees_an_lp_norm_that_does_worse_and_a_standard_network_that_trains():
    runs = [*fake_runs({**PAPERS, "l2": 0.8}), *fake_runs({**AT_HALF, "standard": 0.3}, lr=0.5)]
    said = vgg_tables.make_verdict(runs)
    assert "NOT seen: l2 trains as well" in said
    assert "NOT seen: at lr 0.5 BatchNorm trains and the standard network does not" in said


def test_the_verdict_is_undecided_where_seeds_overlap():
    runs = [Fake("standard", a, seed=i) for i, a in enumerate((0.5, 0.5, 0.75))]
    runs += [Fake("batchnorm", a, seed=i) for i, a in enumerate((0.7, 0.8, 0.9))]
    said = vgg_tables.make_verdict(runs)
    assert "3 seeds: undecided, seeds overlap: BatchNorm trains faster" in said
    runs[2].accuracy = 0.6
    assert "3 seeds: BatchNorm trains faster" in vgg_tables.make_verdict(runs)


def test_the_table_of_several_seeds_names_the_median_the_least_and_the_largest():
    runs = [Fake("batchnorm", a, seed=i) for i, a in enumerate((0.88, 0.9, 0.91))]
    text = vgg_tables.against_the_paper(runs)
    assert (
        "| batchnorm | 0.1 | 1000 | 90.0 (88.0 to 91.0) | 83 | 90.0 (88.0 to 91.0) | 76 |" in text
    )


def test_the_table_stands_beside_the_papers_numbers_at_equal_steps():
    text = vgg_tables.against_the_paper(fake_runs({"batchnorm": 0.9}))
    assert "| batchnorm | 0.1 | 1000 | 90.0 | 83 | 90.0 | 76 |" in text
    assert "| batchnorm | 0.1 | 2000 |" not in text


def test_every_row_of_the_papers_numbers_has_a_value_for_each_step():
    for row in [*paper.TRAIN.values(), *paper.TEST.values()]:
        assert len(row) == len(paper.STEPS)


def test_predict_agrees_with_the_accuracy_that_training_measured(study, capsys):
    for run in runs(study.folder):
        assert predict.main([str(run.folder)]) == 0
        said = capsys.readouterr().out
        measured = run.records("test")[-1]["accuracy"]
        last = next(line for line in said.splitlines() if line.startswith("all"))
        assert float(last.split()[-1]) == pytest.approx(measured, abs=5e-4)
        assert (run.folder / "confusion.png").stat().st_size > 1000


def test_predict_can_re_estimate_the_running_statistics_without_noise(study, capsys):
    run = runs(study.folder)[0]
    assert run.config["noise"]
    before = run.checkpoint_path.read_bytes()
    assert predict.main([str(run.folder), "--reestimate", "2"]) == 0
    assert "20 test images" in capsys.readouterr().out
    assert run.checkpoint_path.read_bytes() == before
    with use("numpy"):
        model, data, _ = predict.trained(run)
        predict.reestimate(model, data, run.config, 2)
        size, stream = run.config["settings"]["batch_size"], run.config["seed"]
        batches = Batches(data.train_images, data.train_labels, size, stream)
        firsts = [model[0](normalize(batches.batch(i)[0])).data for i in range(2)]
    expected = np.mean([f.mean((0, 1, 2)) for f in firsts], axis=0)
    np.testing.assert_allclose(model.norm1.running_mean.data, expected, rtol=1e-4, atol=1e-6)


def test_confusion_counts_true_classes_in_rows():
    counts = predict.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "which run"),
        (["nowhere"], "no config.json"),
        (["RUN", "--backend", "cupyy"], "Did you mean 'cupy'"),
        (["RUN", "--bach-size", "3"], "Did you mean --batch-size"),
        (["RUN", "--batch-size", "0"], "at least 1"),
    ],
)
def test_predict_says_in_one_line_what_is_wrong(study, capsys, arguments, says):
    run = str(runs(study.folder)[0].folder)
    assert predict.main([run if a == "RUN" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_predict_refuses_a_damaged_checkpoint_and_other_data(study, capsys):
    one, other = runs(study.folder)
    one.checkpoint_path.write_bytes(one.checkpoint_path.read_bytes()[:500])
    assert predict.main([str(one.folder)]) == 2
    assert "damaged" in capsys.readouterr().err
    write_json(other.folder / "config.json", {**other.config, "data_fingerprint": "0"})
    assert predict.main([str(other.folder)]) == 2
    assert "changed since" in capsys.readouterr().err


def test_predict_refuses_a_run_without_a_checkpoint(study, capsys):
    run = Run(runs(study.folder)[0].folder)
    run.checkpoint_path.unlink()
    assert predict.main([str(run.folder)]) == 2
    assert "no checkpoint yet" in capsys.readouterr().err


def test_the_gpu_check_rehearses_on_the_strict_double(tmp_path, capsys):
    small = ["--steps", "1", "--rounds", "1", "--batch-size", "4", "--model", "vgg11"]
    arguments = ["--backend", "strict", "--width", "0.05", *small, "--out", str(tmp_path)]
    assert gpu_check.main(arguments) == 0
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert found["batchnorm"]["worst_relative"] <= gpu_check.TOLERANCE
    assert "differ by at most" in capsys.readouterr().out


@pytest.mark.parametrize("model", VGG)
def test_every_network_shows_all_layers_of_the_paper(model):
    assert list(paper.shown_layers(model).values()) == list(paper.LAYERS)


def test_the_time_of_a_run_adds_up_over_its_sittings(whole):
    run = runs(whole)[0]
    spent = [record["seconds"] for record in run.records("timings")]
    assert vgg_tables.seconds(run) == pytest.approx(sum(spent), abs=0.05)
    assert all(s >= 0 for s in spent)


def test_the_drift_is_the_median_change_of_the_mean_between_successive_steps():
    records = [
        {"step": s, "mean": m} for s, m in [(0, 0.0), (1, 0.5), (10, 2.0), (11, 1.0), (20, 9)]
    ]
    assert vgg_tables.successive(records, "mean") == ([0, 10], [0.5, 1.0])


def test_the_drift_table_has_a_row_for_each_layer_and_the_norms_input_where_there_is_one(drawn):
    rows = [line for line in (drawn / "table.md").read_text().splitlines() if "paper's 13" in line]
    cells = {row.split("|")[1].strip(): row.split("|")[4].strip() for row in rows}
    assert cells["standard"] == ""
    assert float(cells["noisy-batchnorm"]) > 0


def test_each_file_of_a_figure_that_was_laid_out_is_drawn_once(tmp_path):
    plt = figures.pyplot()
    figure, axes = plt.subplots()
    axes.set_title("drawn")
    figure.tight_layout()
    real, drawn = figure.draw, []

    def draw(renderer):
        drawn.append(renderer)
        return real(renderer)

    figure.draw = draw
    assert figures.save(figure, tmp_path, "one").stat().st_size > 1000
    assert len(drawn) == 2, "once for the PNG, once for the SVG"


# Figures of many runs, drawn from files that nobody trained

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
    layers = paper.shown_layers("vgg16")
    with synthetic.kept(vgg_figures, norm_figures) as kept:
        vgg_figures.accuracy_figure(many, None, 4)
        vgg_figures.distribution_figure(many, layers, None)
        vgg_figures.drift_figure(many, layers, None)
        norm_figures.draw(many, None, 4)
        yield kept


def ours(axes):
    """The lines that are not the paper's, nor a cross where a run diverged."""
    return [line for line in axes.lines if line.get_marker() not in ("o", "x")]


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
    assert texts == [*figures.in_order(synthetic.KINDS), *rates, "the paper's"]


def test_the_lp_norms_stand_beside_standard_batchnorm_and_the_paper(views):
    left, _ = views["norms-lp"].axes
    five = ("standard", "batchnorm", "l1", "l2", "linf")
    assert [line.get_color() for line in ours(left)] == [figures.COLOURS[v] for v in five]
    assert "norms-others" not in views, "nobody trained them"
    titles = [axes.get_title() for axes in views["histograms-lp"].axes]
    assert titles == list(five)


def test_histograms_are_of_the_papers_layer_and_in_the_order_of_training(many, views):
    assert "of layer 11" in views["histograms-lp"].get_suptitle()
    axes = views["histograms-lp"].axes[0]
    shown = [int(text.get_text()) for text in axes.get_yticklabels()]
    assert shown == [0, 50, 100, 150]
    group = next(g for g in series.grouped(many) if (g.variant, g.lr) == ("standard", 0.1))
    record = vgg_tables.first_units(group.runs[0])[11, "activation"][0]
    edges = axes.lines[0].get_xdata()
    assert (edges[0], edges[-1]) == tuple(record["range"])


def test_distributions_and_drift_show_the_papers_four_variants(views):
    four = list(vgg_figures.FOUR)
    assert [axes.get_title() for axes in views["distributions"].axes[:4]] == four
    shown = {line.get_color() for axes in views["drift"].axes for line in axes.lines}
    assert shown == {figures.COLOURS[v] for v in four}


def test_no_legend_of_many_runs_lies_over_a_panel(views):
    for name, figure in views.items():
        assert synthetic.covered(figure) == [], name


def test_a_legend_over_a_panel_would_be_found():
    plt = figures.pyplot()
    figure, axes = plt.subplots()
    axes.plot([0, 1], label="a line")
    axes.legend()
    assert synthetic.covered(figure) == ["['a line']"]
    plt.close(figure)


def test_runs_without_the_records_of_a_view_leave_it_undrawn(tmp_path):
    study = synthetic.study(tmp_path / "study", [("l1", 0.1, 0)], streams=())
    found = study.runs()
    layers = paper.shown_layers("vgg16")
    assert vgg_figures.accuracy_figure(found, tmp_path / "figures", 4) == []
    assert vgg_figures.distribution_figure(found, layers, tmp_path / "figures") == []
    assert vgg_figures.drift_figure(found, layers, tmp_path / "figures") == []
    assert norm_figures.draw(found, tmp_path / "figures", 4) == []
    assert not (tmp_path / "figures").exists()


def test_where_a_run_diverged_stands_a_cross(tmp_path):
    end = {"status": "diverged", "step": 20}
    study = synthetic.study(
        tmp_path / "study", [("standard", 0.1, 0)], steps=20, streams=("metrics",), result=end
    )
    with synthetic.kept(vgg_figures) as kept:
        vgg_figures.accuracy_figure(study.runs(), tmp_path, 4)
    crosses = [line for line in kept["accuracy"].axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [19]


def test_the_summary_of_sixty_runs_is_a_small_file(tmp_path):
    plan = [(v, lr, s) for v in synthetic.KINDS for lr in (0.1, 0.5) for s in range(5)][:60]
    streams = ("metrics", "test", "landscape", "shift")
    study = synthetic.study(tmp_path / "study", plan, steps=300, every=20, streams=streams)
    content = vgg_tables.summary(study.settings, study.runs(), 6)
    vgg_tables.write_summary(tmp_path / "summary.json", content)
    assert (tmp_path / "summary.json").stat().st_size < 150_000
    assert json.loads((tmp_path / "summary.json").read_text()) == content
    assert len(content["environments"]) == 1
    one = content["runs"]["standard-lr0.1-seed0"]
    assert len(one["step"]) == len(one["train_accuracy"]) >= 10
    assert set(one) >= {"landscape", "shift", "test", "loss"}


# Colours


def test_the_colours_of_before_are_as_they_were():
    first = {"standard": "#c0392b", "batchnorm": "#1f77b4"}
    second = {"noisy-batchnorm": "#2ca02c", "noisy-standard": "#e08e0b"}
    assert list(figures.COLOURS.items())[:4] == [*first.items(), *second.items()]


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
    """CIELAB of a hexadecimal colour as somebody with that blindness sees it."""
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
    assert min(distances.values()) > 26, min(distances, key=distances.get)


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_no_two_of_the_later_colours_look_alike(blindness):
    later = list(figures.COLOURS)[4:]
    seen = {name: lab(shade, blindness) for name, shade in figures.COLOURS.items()}
    distances = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a in seen for b in later if a != b}
    assert min(distances.values()) > 12, min(distances, key=distances.get)


def test_a_variant_without_a_colour_is_grey_and_last():
    assert figures.colour("mine") == figures.UNKNOWN
    assert figures.in_order(["mine", "l1", "standard", "l1"]) == ["standard", "l1", "mine"]


def test_limits_of_a_logarithmic_axis_leave_out_rare_outliers_but_not_what_must_be_seen():
    values = np.append(np.full(999, 10.0), [1e9, np.inf])
    low, high = figures.log_limits([values], [np.array([1.0])])
    assert (low, high) == pytest.approx((1 / 1.5, 15))
    assert figures.log_limits([]) == pytest.approx((1 / 1.5, 1.5))
