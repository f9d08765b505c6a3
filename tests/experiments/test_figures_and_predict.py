"""Figures, tables and predictions come from the files of a study."""

import json
import shutil

import numpy as np
import pytest
from studies import TWO, main, runs

from experiments import compare, paper, plot, predict
from experiments.training.json_files import read_json, write_json
from experiments.training.study import Run, Study
from experiments.views import plotting as figures
from experiments.views import tables, vgg_tables
from experiments.views import vgg as vgg_figures
from minibn import checkpoint, use
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
    vgg_figures.plot([Study(whole_of_two), Study(whole)], out)
    return out


def test_plotting_leaves_figures_table_and_summary(drawn, whole_of_two):
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


def test_plotting_from_the_command_line_names_the_figures_and_gives_the_same_bytes(
    drawn, whole_of_two, whole, tmp_path, capsys
):
    studies = [str(whole_of_two), str(whole)]
    assert plot.main([*studies, "--out", str(tmp_path / "again")]) == 0
    said = capsys.readouterr().out
    assert "means over the seeds; at lr 0.05, 1 seed: standard " in said
    for name in ("accuracy", "distributions", "drift"):
        assert f"{name}.png" in said
    for file in ("figures/accuracy.svg", "figures/drift.svg", "summary.json", "table.md"):
        assert (tmp_path / "again" / file).read_bytes() == (drawn / file).read_bytes()


def test_studies_of_different_networks_are_not_drawn_together(study, tmp_path):
    other = shutil.copytree(study.folder, tmp_path / "other")
    content = read_json(other / "study.json")
    content["settings"]["width"] = 1.0
    write_json(other / "study.json", content, sealed=True)
    with pytest.raises(DataError, match=r"width 1\.0.*like with like"):
        vgg_figures.plot([study, Study(other)])


def test_a_study_without_results_is_named(tmp_path, capsys):
    assert plot.main([str(tmp_path)]) == 2
    assert plot.main([]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "no study" in lines[0] and "which study?" in lines[1]


def test_plotting_into_a_file_is_refused_before_anything_is_read(study, tmp_path, capsys):
    (tmp_path / "file").touch()
    for program in (plot.main, lambda words: compare.main([words[0], *words])):
        assert program([str(study.folder), "--out", str(tmp_path / "file")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--out {tmp_path / 'file'} is a file, not a folder. Choose another." in line


@pytest.mark.parametrize("program", [plot, compare, predict])
def test_ctrl_c_in_a_program_that_reads_studies_is_one_line(program, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    reader = "parse_studies" if program is plot else "parse_folders"
    monkeypatch.setattr(program, reader, interrupted)
    assert program.main(["study"]) == 130
    said, error = capsys.readouterr()
    assert said.split() == ["Stopped."] and error == ""


def test_a_run_that_diverged_stands_in_the_table_with_its_step(tmp_path, capsys):
    arguments = [*TWO, "--steps", "4", "--out", tmp_path / "wild"]
    arguments[arguments.index("--lr") + 1] = "1e12"
    assert main(*arguments, plot=True) == 0
    assert "diverged at step" in (tmp_path / "wild" / "table.md").read_text()
    assert "diverged at step" in capsys.readouterr().out


def test_the_smoothed_curve_is_the_mean_of_the_last_values():
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    expected = [1.0, 1.5, 2.0, 3.0, 17 / 3]
    np.testing.assert_allclose(figures.smooth(values, 3), expected)


class Fake:
    """A run with this training accuracy."""

    def __init__(self, variant, accuracy, lr=0.1, seed=0):
        self.result = {"status": "done"}
        settings = {"data": "cifar10"}
        self.config = {"variant": variant, "lr": lr, "seed": seed, "settings": settings}
        self.accuracy = accuracy

    def records(self, name):
        if name == "metrics":
            return [{"step": s, "accuracy": self.accuracy} for s in range(1101)]
        return [{"updates": 1000, "accuracy": self.accuracy}]


def fake_runs(scores, **config):
    return [Fake(v, a, **config) for v, a in scores.items()]


def test_the_numbers_in_one_line_are_each_variants_mean_rate_by_rate():
    runs = [Fake("standard", a, seed=i) for i, a in enumerate((0.5, 0.5, 0.8))]
    runs += [Fake("batchnorm", 0.9, seed=i) for i in range(3)]
    runs += fake_runs({"standard": 0.1, "batchnorm": 0.8}, lr=0.5)
    assert vgg_tables.in_one_line(runs).startswith(
        "Training accuracy, means over the seeds; at lr 0.1, 3 seeds: standard 0.60, batchnorm "
        "0.90; at lr 0.5, 1 seed: standard 0.10, batchnorm 0.80. "
    )


def test_one_line_of_numbers_says_that_one_seed_decides_nothing():
    once = fake_runs({"standard": 0.5, "batchnorm": 0.9})
    alone = "One seed decides nothing; see experiments.claims."
    assert vgg_tables.in_one_line(once).endswith(alone)
    more = fake_runs({"standard": 0.5, "batchnorm": 0.9}, seed=1)
    assert vgg_tables.in_one_line([*once, *more]).endswith("of the paper: experiments.claims.")
    assert vgg_tables.in_one_line([*once, more[0]]).endswith(alone), "one of the two has one"


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
        last = next(line for line in said.splitlines() if line.startswith("| all"))
        assert float(last.split("|")[3]) == pytest.approx(measured, abs=5e-4)
        assert (run.folder / "confusion.png").stat().st_size > 1000


def test_predict_can_re_estimate_the_running_statistics_without_noise(study, capsys):
    run = runs(study.folder)[0]
    assert run.config["noise"]
    before = run.checkpoint_path.read_bytes()
    assert predict.main([str(run.folder), "--reestimate", "2"]) == 0
    assert "20 test images" in capsys.readouterr().out
    assert run.checkpoint_path.read_bytes() == before
    with use("numpy"):
        model, data, _ = predict.load_run(run)
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
        (["RUN", "--bach-size", "3"], "Did you mean '--batch-size'"),
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
    assert predict.main([str(one.folder)]) == 0
    assert "latest.npz is damaged: previous.npz stands in, after 6" in capsys.readouterr().out
    one.checkpoints.previous.write_bytes(b"PK")
    assert predict.main([str(one.folder)]) == 2
    assert "latest.npz is damaged" in capsys.readouterr().err
    shutil.copy(other.checkpoint_path, one.checkpoint_path)
    assert predict.main([str(one.folder)]) == 2
    assert f"latest.npz belongs to run {other.name}" in capsys.readouterr().err
    write_json(other.folder / "config.json", {**other.config, "data_fingerprint": "0"})
    assert predict.main([str(other.folder)]) == 2
    assert "changed since" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["theorems", "deep_linear"])
def test_predict_names_the_experiment_of_a_run_that_is_no_vgg(study, capsys, kind):
    run = runs(study.folder)[0]
    settings = {**run.config["settings"], "channels": [2, 3]}
    write_json(run.folder / "config.json", {**run.config, "experiment": kind, "settings": settings})
    assert predict.main([str(run.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{run.name} is a run of {kind}: predict takes runs of VGG.")


def test_predict_says_that_a_checkpoint_has_no_weights(study, capsys):
    run = runs(study.folder)[0]
    manifest, states = checkpoint.load(run.checkpoint_path)
    checkpoint.save(run.checkpoint_path, manifest, {"optimizer": states["optimizer"]})
    assert predict.main([str(run.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no weights (its part 'model'). Restore it, or delete" in line


def test_predict_says_of_learning_rates_that_it_keeps_no_checkpoint(study, capsys):
    run = runs(study.folder)[0]
    run.checkpoints.delete()
    settings = {**run.config["settings"], "moments_steps": 40}
    content = {**run.config, "experiment": "learning_rates", "settings": settings}
    write_json(run.folder / "config.json", content)
    assert predict.main([str(run.folder)]) == 2
    assert "one of learning_rates, which keeps none" in capsys.readouterr().err


def test_predict_refuses_a_run_without_a_checkpoint(study, capsys):
    run = Run(runs(study.folder)[0].folder)
    run.checkpoints.delete()
    assert predict.main([str(run.folder)]) == 2
    assert "no checkpoint yet" in capsys.readouterr().err


@pytest.mark.parametrize("model", VGG)
def test_every_network_shows_all_layers_of_the_paper(model):
    assert list(paper.shown_layers(model).values()) == list(paper.LAYERS)


def test_the_time_of_a_run_adds_up_over_its_sittings(whole):
    run = runs(whole)[0]
    spent = [record["seconds"] for record in run.records("timings")]
    assert tables.seconds(run) == pytest.approx(sum(spent), abs=0.05)
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
    with figures.own_style():
        figure, axes = figures.subplots()
        axes.set_title("drawn")
        figure.tight_layout()
    real, drawn = figure.draw, []

    def draw(renderer):
        drawn.append(renderer)
        return real(renderer)

    figure.draw = draw
    assert figures.save(figure, tmp_path, "one").stat().st_size > 1000
    assert len(drawn) == 2, "once for the PNG, once for the SVG"


def test_the_numbers_in_one_line_leave_out_runs_that_have_not_ended():
    ended, unfinished = fake_runs({"standard": 0.5}), fake_runs({"batchnorm": 0.4})
    for run in unfinished:
        run.result = None
    assert "batchnorm" not in vgg_tables.in_one_line([*ended, *unfinished])
    assert vgg_tables.in_one_line(unfinished) == "No run has ended."
