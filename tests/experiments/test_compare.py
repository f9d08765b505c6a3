"""Two studies beside each other: where their curves part, and by how much."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import compare
from experiments.training.study import Study

SETTINGS = {
    "model": "vgg11", "width": 0.5, "head": "linear", "data": "shapes", "batch_size": 16,
    "steps": 20, "threads": 1, "kernels": "reference", "precision": "fp32",
}  # fmt: skip
FALLING = np.linspace(3, 2, 20)


def made(folder: Path, curves: dict[int, Any], data: str = "d", **settings: Any) -> Study:
    """A study with these losses, by seed."""
    study = Study.create(folder, "vgg_cifar", {**SETTINGS, **settings})
    for seed, losses in curves.items():
        run = study.run(f"batchnorm-lr0.1-seed{seed}")
        config = {"variant": "batchnorm", "lr": 0.1, "seed": seed, "settings": SETTINGS}
        run.begin({**config, "data_fingerprint": data, "environment": {"threads": 1}})
        for step, loss in enumerate(losses):
            metric = {"step": step, "loss": float(loss), "accuracy": 0.5 + seed / 10, "lr": 0.1}
            run.stream("metrics").append(metric)
        test = {"step": len(losses) - 1, "updates": len(losses), "accuracy": 0.25}
        run.stream("test").append(test)
        run.finish({"status": "done", "steps": len(losses)})
    return study


def cells(table: str, name: str) -> list[str]:
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.strip("|").split("|")[1:]]


NAME = "batchnorm-lr0.1-seed0"


def test_equal_curves_never_part(tmp_path: Path) -> None:
    a, b = (made(tmp_path / name, {0: FALLING}) for name in "ab")
    row = cells(compare.make_table(a, b), NAME)
    assert row == ["20", "never", "never", "0 at 0", "0", "0.500, 0.500", "0.250, 0.250"]


def test_the_table_tells_the_steps_at_which_curves_differ_and_part(tmp_path: Path) -> None:
    other = FALLING.copy()
    other[4:] += 1e-6
    other[9:] += 0.05
    other[15] -= 0.5
    a, b = made(tmp_path / "a", {0: FALLING}), made(tmp_path / "b", {0: other})
    row = cells(compare.make_table(a, b), NAME)
    assert row[:4] == ["20", "4", "9", "0.45 at 15"]


def test_the_smoothed_difference_averages_noise_away_but_not_an_offset(tmp_path: Path) -> None:
    noise = 0.1 * (-1) ** np.arange(20)
    a = made(tmp_path / "a", {0: FALLING})
    for name, other, gap in (("noisy", FALLING + noise, 0), ("offset", FALLING + 0.1, 0.1)):
        (pair,) = compare.between(a, made(tmp_path / name, {0: other}))
        assert pair.window() == 2
        assert pair.gap() == pytest.approx(gap, abs=1e-9)


def test_seeds_of_the_first_study_stand_beside_the_difference(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {0: FALLING, 1: FALLING + 0.25, 2: FALLING + 0.5})
    table = compare.make_table(a, made(tmp_path / "b", {0: FALLING + 0.01}))
    assert cells(table, f"{NAME} and seed 1")[3].startswith("0.25 at")
    assert "batchnorm-lr0.1-seed1 and seed 2" in table
    assert "0.01 between the studies, 0.25 to 0.5 between two seeds." in table


def test_only_the_steps_that_both_have_are_compared(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a", {0: FALLING[:7]}), made(tmp_path / "b", {0: FALLING})
    assert cells(compare.make_table(a, b), NAME)[:2] == ["7", "never"]


def test_studies_are_called_by_the_settings_that_differ(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain", {0: FALLING})
    fast = made(tmp_path / "fast", {0: FALLING}, kernels="fast")
    assert compare.labels_of(fast, plain) == ("kernels fast", "kernels reference")
    twin = made(tmp_path / "twin", {0: FALLING}, kernels="fast", data_dir="elsewhere")
    assert compare.labels_of(fast, twin) == (str(fast.folder), str(twin.folder))


def test_the_command_prints_the_table_and_draws_the_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made(tmp_path / "a", {0: FALLING, 1: FALLING + 0.3}, kernels="fast")
    made(tmp_path / "b", {0: FALLING}, kernels="reference")
    out = tmp_path / "out"
    folders = [str(tmp_path / name) for name in "ab"]
    assert compare.main([*folders, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "A: kernels fast; B: kernels reference." in said and "compare.png" in said
    assert (out / "compare.md").read_text() in said
    assert (out / "figures" / "compare.svg").stat().st_size > 1000
    assert compare.main(folders) == 0
    assert (tmp_path / "a" / "compare.md").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a"], "which two studies?"),
        (["a", "a", "a"], "which two studies?"),
        (["a", "wide"], "like with like"),
        (["a", "seeds"], "no run in common"),
        (["a", "data"], "was trained on other data"),
        (["a", "nowhere"], "there is no study"),
        (["a", "a", "--outt", "x"], "Did you mean '--out'?"),
    ],
)
def test_what_cannot_be_compared_ends_in_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "a", {0: FALLING})
    made(tmp_path / "wide", {0: FALLING}, width=1.0)
    made(tmp_path / "seeds", {3: FALLING})
    made(tmp_path / "data", {0: FALLING}, data="other")
    assert compare.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.compare: ") and says in line
