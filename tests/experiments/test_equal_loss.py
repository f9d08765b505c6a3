"""`equal_loss`: two networks compared where their training losses are equal."""

import dataclasses
import json

import numpy as np
import pytest
import synthetic

from experiments import equal_loss, landscape
from experiments.claiming.at_equal_loss import CENTRES
from experiments.claiming.streams import RunStreams, keep
from experiments.views import comparison_at_equal_loss as comparison
from experiments.views import equal_loss as figures
from minibn.errors import DataError

SIZES = (0.01, 0.1, 0.4)


def run(variant, seed=0, init="glorot_uniform", pace=400.0, rough=1.0, steps=2000, every=10):
    """A training whose loss falls at this pace. What its probes see depends on the loss alone,
    times `rough`; the change of the loss is in proportion to the step size."""
    at = np.arange(steps)
    loss = 2.3 * np.exp(-at / pace)
    probed = at[::every]
    here, sizes = loss[probed], np.array(SIZES)
    change = rough * here[:, None] ** 2 * sizes
    tables = {
        "metrics": {"step": at.astype(np.float32), "loss": loss.astype(np.float32)},
        "landscape:gradient": {
            "step": probed.astype(np.float32), "loss": here,
            "step_sizes": np.tile(sizes, (len(probed), 1)), "losses": here[:, None] + change,
            "gradient_change": 5 * change, "beta": 5 * change / sizes,
        },
    }  # fmt: skip
    settings = {"model": "vgg16", "width": 0.25, "init": init, "precision": "fp32", "lr": [0.1]}
    return RunStreams(
        study="study", kind="vgg_cifar", variant=variant, lr=0.1, seed=seed, settings=settings,
        environment={}, result=None, seconds=0.0, norm="none", data="0", tables=tables,
    )  # fmt: skip


@pytest.fixture
def drawn():
    with synthetic.catch_figures(figures) as found:
        yield found


def test_progress_is_taken_out_and_roughness_left():
    """A standard network that learns three times as slowly and whose loss changes twice as much."""
    runs = [run("standard", pace=1200.0, rough=2.0), run("batchnorm", pace=400.0)]
    (found,) = comparison.compare(runs)
    for measure, quotients in found.quotients.items():
        at_loss, at_step = quotients[0, :-1], quotients[0, -1]
        known = np.isfinite(at_loss).all(1)
        assert known[:4].all()
        assert at_loss[known] == pytest.approx(np.full((known.sum(), 3), 2.0), rel=0.08), measure
        assert (at_step > 2.5).all(), "at equal steps the slower one seems rougher still"


def test_a_measure_is_taken_at_its_step_size():
    table = run("standard").tables["landscape:gradient"]
    changes = comparison.measured(table, "gradient_change", (0.01, 0.4))
    assert changes == pytest.approx(table["gradient_change"][:, [0, 2]])
    table["gradient_change"][3, 2] = np.nan
    assert np.isinf(comparison.measured(table, "gradient_change", (0.01, 0.4))[3, 1])


def test_the_band_of_the_loss_is_over_the_walk_up_to_its_step_size():
    """Down and up again to where it began: the band keeps what lies between."""
    table = {"loss": np.array([2.0]), "step_sizes": np.array([SIZES])}
    table["losses"] = np.array([[1.5, 2.0, 5.0]])
    assert comparison.measured(table, "loss_band", SIZES).tolist() == [[0.5, 0.5, 3.5]]
    assert comparison.measured(table, "relative_loss_band", SIZES).tolist() == [[0.25, 0.25, 1.75]]
    table["losses"][0, 2] = np.nan
    assert np.isinf(comparison.measured(table, "loss_band", SIZES)[0, 2])


def test_a_loss_that_one_network_jumps_over_has_no_number(drawn, tmp_path):
    slow, fast = run("standard", pace=500.0), run("batchnorm", pace=60.0, every=40)
    (found,) = comparison.compare([slow, fast])
    empty = found.probes[0, 1] == 0
    assert empty.any() and not empty.all()
    assert (np.isnan(found.quotients["beta"][0, :-1]).all(1) == empty).all()
    figures.figure([found], tmp_path)
    labels = [t.get_text() for t in drawn["equal-loss-batchnorm"].axes[0].get_xticklabels()]
    assert labels[:-1] == [
        f"{centre:g}\nn={0 if none else 1}" for centre, none in zip(CENTRES, empty, strict=True)
    ]
    line = drawn["equal-loss-batchnorm"].axes[0].lines[2]
    assert np.isnan(line.get_ydata()).tolist() == empty.tolist(), "the line is interrupted there"


def test_a_quotient_is_of_two_runs_of_one_seed():
    runs = [run("standard", s, rough=r) for s, r in ((0, 2.0), (1, 4.0), (2, 8.0))]
    runs += [run("batchnorm", s, rough=r) for s, r in ((0, 1.0), (1, 1.0), (7, 1.0))]
    (found,) = comparison.compare(runs)
    assert found.seeds == (0, 1)
    assert found.quotients["beta"][:, 2, 0] == pytest.approx([2.0, 4.0])
    assert found.count().tolist() == [2] * 6


def test_runs_that_are_not_compared_are_named(drawn, tmp_path, capsys):
    blind = run("l1")
    del blind.tables["landscape:gradient"]
    figures.plot([run("standard"), run("batchnorm"), run("batchnorm", 7), blind], tmp_path)
    for text in (capsys.readouterr().out, (tmp_path / "table.md").read_text()):
        (line,) = [line for line in text.splitlines() if line.startswith("Not compared")]
        assert "batchnorm at lr 0.1, seed 7" in line and "l1 at lr 0.1, seed 0" in line
        assert "standard" not in line and "batchnorm at lr 0.1, seed 0" not in line


def test_equal_steps_are_those_that_both_runs_have():
    """One of them is still in training."""
    whole, half = run("standard", steps=2000), run("batchnorm", steps=1000)
    (found,) = comparison.compare([whole, half])
    assert found.quotients["beta"][0, -1] == pytest.approx(np.ones(3))


def test_initialisations_stand_in_rows_of_one_figure_a_variant(drawn, tmp_path, capsys):
    runs = [
        run(variant, seed, init, rough=rough)
        for init in ("glorot_uniform", "he_normal")
        for variant, rough in (("standard", 2.0), ("batchnorm", 1.0), ("l1", 1.5))
        for seed in range(3)
    ]
    figures.plot(runs, tmp_path)
    assert set(drawn) == {"equal-loss-batchnorm", "equal-loss-l1"}
    for name, figure in drawn.items():
        grid = np.array(figure.axes).reshape(2, 4)
        rows = [axes.get_ylabel().splitlines()[0] for axes in grid[:, 0]]
        assert rows == ["init glorot_uniform", "init he_normal"]
        assert len({axes.get_ylim() for axes in grid.flat}) == 1, "equal scales"
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts == ["η = 0.01", "η = 0.1", "η = 0.4"]
        assert synthetic.texts_over_texts(figure) == [], name
        assert synthetic.texts_cut_off(figure) == [], name
        assert synthetic.points_that_do_not_show(figure) == [], name
        assert synthetic.legends_over_panels(figure) == [], name
    printed = capsys.readouterr().out
    assert "| batchnorm | he_normal | 0.1 | beta | 0.1 |" in printed
    assert "| 0.4 |" in (tmp_path / "table.md").read_text()
    (first, *_) = json.loads((tmp_path / "summary.json").read_text())["comparisons"]
    assert np.shape(first["quotients"]["beta"]) == (3, len(CENTRES) + 1, 3)
    assert np.shape(first["probes"]) == (3, 2, len(CENTRES))


def test_step_sizes_that_not_all_probes_have_are_left_out():
    one, other = run("standard"), run("batchnorm")
    table = other.tables["landscape:gradient"]
    for key in ("step_sizes", "losses", "gradient_change", "beta"):
        table[key] = table[key][:, 1:]
    (found,) = comparison.compare([one, other])
    assert found.sizes == (0.1, 0.4)
    table["step_sizes"] = table["step_sizes"] * 1.7
    with pytest.raises(DataError, match="no step size in common"):
        comparison.compare([one, other])


def test_what_can_not_be_compared_is_refused():
    one, other = run("standard"), run("batchnorm", init="he_normal")
    with pytest.raises(DataError, match="Train both with --probe-every"):
        comparison.compare([one, other])  # of two initialisations
    wider = dataclasses.replace(other, settings={**other.settings, "width": 1.0})
    with pytest.raises(DataError, match=r"has width 1.0, .* 0\.25"):
        comparison.compare([one, wider])
    with pytest.raises(DataError, match="other data"):
        comparison.compare([one, dataclasses.replace(other, data="1")])
    with pytest.raises(DataError, match="no run with probes"):
        comparison.compare([])


# The command


def small(folder, **options):
    plan = [(v, 0.1, s) for v in ("standard", "batchnorm") for s in (0, 1)]
    return synthetic.study(folder, plan, steps=800, every=20, streams=("metrics", "landscape"))


def test_a_study_and_what_was_kept_of_it_give_the_same_numbers(tmp_path, drawn, capsys):
    study = small(tmp_path / "study")
    kept = keep(study, tmp_path / "kept")
    assert equal_loss.main([str(study.folder), "--out", str(tmp_path / "a")]) == 0
    assert equal_loss.main([str(kept), "--out", str(tmp_path / "b")]) == 0
    a, b = ((tmp_path / x / "summary.json").read_text() for x in "ab")
    assert a == b
    assert json.loads(a)["comparisons"][0]["seeds"] == [0, 1]


def test_a_studys_own_tables_are_left_alone(tmp_path, drawn):
    study = small(tmp_path / "study")
    before = {path.name for path in study.folder.iterdir()}
    assert equal_loss.main([str(study.folder)]) == 0
    assert {path.name for path in study.folder.iterdir()} - before == {"equal_loss"}
    assert (study.folder / "equal_loss" / "table.md").exists()


def test_bad_input_is_one_line_with_the_remedy(tmp_path, capsys):
    kept = tmp_path / "study.npz"
    kept.write_bytes(b"")
    for words, remedy in (
        ([], "which studies?"),
        ([str(tmp_path), "--quick"], "--quick alone"),
        ([str(tmp_path / "no")], "there is no study"),
        ([str(kept)], "--out DIR is needed"),
        ([str(kept), "--out", str(tmp_path / "o")], "can't be read"),
        (["--quick", "--seed", "-1"], "--seed -1 must be at least 0"),
    ):
        assert equal_loss.main(words) == 2
        said = capsys.readouterr().err
        assert remedy in said and said.count("\n") == 1


def test_quick_trains_both_initialisations_once_and_then_goes_on(tmp_path, drawn, monkeypatch):
    calls = []

    def train(flags):
        calls.append(flags)
        if "--out" in flags:
            study = small(tmp_path / "out" / flags[flags.index("--init") + 1])
            for one in study.runs():
                config = json.loads((one.folder / "config.json").read_text())
                config["settings"]["init"] = study.folder.name
                (one.folder / "config.json").write_text(json.dumps(config))
        return 0

    monkeypatch.setattr(landscape, "main", train)
    words = ["--quick", "--seed", "3", "--out", str(tmp_path / "out")]
    assert equal_loss.main(words) == equal_loss.main(words) == 0
    inits = [flags[flags.index("--init") + 1] for flags in calls[:2]]
    assert inits == ["glorot_uniform", "he_normal"]
    assert all("--quick" in flags and "3" in flags for flags in calls[:2])
    for begun, resumed in zip(calls[:2], calls[2:], strict=True):
        assert resumed == [word.replace("--out", "--resume") for word in begun]
    assert len(drawn["equal-loss-batchnorm"].axes) == 8


def test_when_its_training_is_stopped_quick_ends_with_its_exit_code(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr(landscape, "main", lambda flags: 130)
    assert equal_loss.main(["--quick", "--out", str(tmp_path / "out")]) == 130
    assert not drawn
