"""`experiments.explosion`: the gradients that are measured, their records, views, bad input."""

import json
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from studies import run_here

from experiments import explosion, plot
from experiments.explosion import NETWORKS, QUICK, Settings, check, factor_per_layer, layers, normal
from experiments.training.json_files import read_json, write_json
from experiments.training.session import preset
from experiments.training.study import Run, Study
from experiments.views import explosion as explosion_figures
from experiments.views.explosion_tables import Found, Kind, factors_table, theory_of
from minibn import to_numpy

TINY = [
    *("--depth", "4", "8", "--width", "96", "--batch-size", "16"),
    *("--linear-batch-sizes", "8", "16"),
]

main = partial(run_here, explosion, explosion_figures)


def records(folder: Path) -> list[dict]:
    return [r for run in Study(folder).runs() for r in run.records("gradients")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted study of two seeds."""
    folder = tmp_path_factory.mktemp("explosion") / "study"
    assert main(*TINY, "--seed", 0, 1, "--out", folder) == 0
    return folder


# What is measured


def test_the_factor_is_that_of_a_geometric_sequence_whatever_both_ends_are() -> None:
    squares = [1e9, *(3.0 * 1.5**k for k in range(6, 0, -1)), 1e-9]  # from the input to the output
    assert factor_per_layer(squares) == pytest.approx(1.5, rel=1e-12)
    assert factor_per_layer([1.0, 5.0, 5.0, 1.0]) == pytest.approx(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradients_are_slopes_of_the_output_against_the_cotangent(name: str) -> None:
    shape, seed, h = (4, 6), 5, 1e-6
    ((_, squares),) = explosion.squared_norms(NETWORKS[name], [3], shape, seed)
    network = list(layers(NETWORKS[name], 3, shape[1], seed))
    cotangent = to_numpy(normal(shape, seed, "cotangent", 3))
    assert squares[3] == pytest.approx((cotangent**2).sum())

    def along(y: np.ndarray, start: int) -> float:
        for layer in network[start:]:
            y = to_numpy(layer(y))
        return float((cotangent * y).sum())

    y = to_numpy(normal(shape, seed, "input"))
    for start in range(3):
        bumps = h * np.eye(y.size).reshape(-1, *shape)
        slopes = [(along(y + b, start) - along(y - b, start)) / (2 * h) for b in bumps]
        assert squares[start] == pytest.approx(np.square(slopes).sum(), rel=1e-5)
        y = to_numpy(network[start](y))


def test_networks_of_one_seed_have_the_same_weights_whatever_their_norm_and_depth() -> None:
    deep = [layer.linear.weight.data for layer in layers(NETWORKS["relu"], 5, 6, seed=2)]
    other = [p.linear.weight.data for p in layers(NETWORKS["linear-batchnorm"], 3, 6, seed=2)]
    for a, b in zip(deep, other, strict=False):
        assert a.tobytes() == b.tobytes()
    assert len({w.tobytes() for w in deep}) == 5, "layers differ"


def test_the_theory_is_of_the_squared_norm() -> None:
    found = [theory_of(Kind("linear-batchnorm", B)) for B in (8, 16, 64)]
    assert [t.factor for t in found if t] == [6 / 5, 14 / 13, 62 / 61]
    assert {t.margin for t in found if t} == {0.02}
    assert theory_of(Kind("relu-batchnorm", 128)) == (math.pi / (math.pi - 1), 0.05)
    assert theory_of(Kind("relu", 128)) == (1.0, 0.05)
    assert theory_of(Kind("relu-layernorm", 128)) is None


@pytest.mark.parametrize(
    ("name", "B", "within"),
    [("relu", 64, 0.05), ("relu-batchnorm", 64, 0.05), ("linear-batchnorm", 16, 0.02)],
)
def test_wide_networks_have_the_factor_of_the_theory(name: str, B: int, within: float) -> None:
    found = [
        factor_per_layer(squares)
        for seed in (0, 1)
        for _, squares in explosion.squared_norms(NETWORKS[name], [24], (B, 256), seed)
    ]
    theory = theory_of(Kind(name, B))
    assert theory and np.mean(found) == pytest.approx(theory.factor, rel=within)


def test_skip_connections_stop_the_exponential_growth() -> None:
    def factors(name: str) -> list[float]:
        found = explosion.squared_norms(NETWORKS[name], [8, 24], (32, 96), 0)
        return [factor_per_layer(squares) for _, squares in found]

    assert min(factors("relu-batchnorm")) > 1.4
    short, long = factors("relu-batchnorm-skip")
    assert 1 < long < short < 1.4


# Records


def test_every_network_is_measured_at_every_depth(whole: Path) -> None:
    found = [(r["network"], r["batch_size"], r["depth"]) for r in records(whole)]
    sizes = {name: (16,) if of.relu else (8, 16) for name, of in NETWORKS.items()}
    expected = [(name, B, d) for name, of in sizes.items() for B in of for d in (4, 8)]
    assert found == expected * 2, "of two seeds"
    for r in records(whole):
        assert len(r["squared_norms"]) == r["depth"] + 1
        assert r["factor"] == pytest.approx(factor_per_layer(r["squared_norms"]), rel=1e-5)
    assert len({r["factor"] for r in records(whole)}) == len(found), "seeds and networks differ"


def test_a_run_that_was_killed_is_measured_again(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    assert main(*TINY, "--seed", 0, 1, "--out", folder) == 0
    last = Study(folder).runs()[-1].folder
    (last / "result.json").unlink()
    lines = (last / "gradients.jsonl").read_text().splitlines(keepends=True)
    (last / "gradients.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    assert main("--resume", folder) == 0
    assert records(folder) == records(whole)
    assert all(run.result == {"status": "done", "steps": 1} for run in Study(folder).runs())


def test_the_strict_backend_gives_the_same(whole: Path, tmp_path: Path) -> None:
    assert main(*TINY, "--backend", "strict", "--out", tmp_path / "strict") == 0
    first = records(whole)[: len(records(tmp_path / "strict"))]
    for ours, theirs in zip(records(tmp_path / "strict"), first, strict=True):
        assert ours["squared_norms"] == pytest.approx(theirs["squared_norms"], rel=1e-5)


def test_a_network_whose_units_are_all_dead_has_no_factor(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    s = Settings(depth=(60,), width=2, batch_size=4, linear_batch_sizes=(4,), seed=(0,))
    explosion.measure(s, run, explosion.plans(s)[0])
    of = {r["network"]: r for r in run.records("gradients")}
    assert of["relu"]["factor"] is None and of["relu"]["squared_norms"][0] == 0
    assert of["relu-batchnorm-skip"]["factor"] > 1
    table = factors_table(Found({0: list(of.values())}))
    assert "| relu | 4 | - |" in table


# Views


def test_figure_table_and_summary_are_made_from_files(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(*TINY, "--seed", 2, "--out", tmp_path / "other") == 0
    out = tmp_path / "drawn"
    assert plot.main([str(whole), str(tmp_path / "other"), "--out", str(out)]) == 0
    text = (out / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert "mean of 3 seeds" in text and "| 1.4669 | 5% |" in text and "| 1.2000 | 2% |" in text
    assert (out / "figures" / "explosion.png").stat().st_size > 10_000
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["seeds"]) == ["0", "1", "2"]
    first = records(whole)[0]
    label = f"{first['network']}, B = {first['batch_size']}"
    assert summary["seeds"]["0"][label]["4"] == pytest.approx(first["factor"], rel=1e-5)
    mean = np.mean([s["relu, B = 16"]["8"] for s in summary["seeds"].values()])
    assert "| relu | 16 | " in text and f"{mean:.4f} (" in text


def test_a_study_of_one_seed_draws_its_own_figure(tmp_path: Path) -> None:
    assert main(*TINY, "--out", tmp_path / "study", plot=True) == 0
    assert (tmp_path / "study" / "figures" / "explosion.png").exists()


def test_networks_of_different_widths_do_not_share_a_figure(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(*TINY, "--width", 32, "--out", tmp_path / "narrow") == 0
    capsys.readouterr()
    assert plot.main([str(whole), str(tmp_path / "narrow"), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has width 32" in line and "like with like" in line


def test_a_study_without_gradients_is_one_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = read_json(whole / "study.json")
    (tmp_path / "study").mkdir()
    write_json(tmp_path / "study" / "study.json", content, sealed=True)
    assert plot.main([str(tmp_path / "study")]) == 2
    assert "has no gradients yet. Continue it with --resume." in capsys.readouterr().err


# Bad input

REFUSED = {
    "--depht 3": "Did you mean '--depth'?",
    "--depth 2": "--depth 2 must be at least 3",
    "--depth 8 501": "--depth 501 must be at most 500: squares overflow beyond",
    "--depth 8 8": "--depth names something twice: 8 8",
    "--width 1": "--width 1 must be at least 2",
    "--width 1000000": "is more than a machine holds. Take less.",
    "--batch-size 3": "--batch-size 3 must be at least 4",
    "--linear-batch-sizes 8 3": "--linear-batch-sizes 3 must be at least 4",
    "--steps 3": "unknown argument '--steps'",
    "--precision bf16": "the gradients are measured in float64. Leave it out.",
    "--seed 1 1": "--seed names something twice",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_input_is_one_line_and_writes_nothing(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(*given.split(), "--out", "study") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.explosion: ") and REFUSED[given] in line
    assert os.listdir(tmp_path) == []


def test_defaults_and_quick_pass_their_own_check() -> None:
    check(Settings())
    check(preset(Settings, QUICK, {"quick": True}))
