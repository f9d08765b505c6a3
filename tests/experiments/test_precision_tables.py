"""What `experiments.precision` prints of products and of trainings."""

from pathlib import Path

import numpy as np
import pytest
from known_studies import add_run, study

from experiments import precision
from experiments.precision import Layer, Options, errors, layers, main, table_of_trainings
from experiments.training.study import Study
from minibn.errors import DataError

SMALL = Layer(4, 16, 8)


def test_every_shape_of_the_network_is_measured_once() -> None:
    found = layers("vgg16")
    assert [(layer.side, layer.C, layer.F) for layer in found] == [
        (32, 3, 64), (32, 64, 64), (16, 64, 128), (16, 128, 128), (8, 128, 256), (8, 256, 256),
        (4, 256, 512), (4, 512, 512), (2, 512, 512), (0, 512, 10),
    ]  # fmt: skip


@pytest.mark.parametrize("layer", [SMALL, Layer(0, 30, 10)])
@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_errors_are_those_of_the_digits(layer: Layer, backend: str) -> None:
    fp32, tf32, bf16 = errors(layer, Options(backend=backend, batch_size=2))
    assert all(0 < e < 2e-6 for e in fp32)
    for found, half in ((tf32, 2.0**-11), (bf16, 2.0**-8)):
        assert all(0.3 * half < e < half for e in found)


def test_the_command_prints_a_row_a_product(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(precision, "layers", lambda model: [SMALL])
    assert main(["--batch-size", "1"]) == 0
    out = capsys.readouterr().out
    assert "| conv2d 16 → 8, 4×4 |" in out and "| product | fp32 | tf32 | bf16 |" in out


def test_more_images_than_memory_are_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["--batch-size", str(10**12)]) == 2
    said = capsys.readouterr().err
    assert "Memory is exhausted: Unable to allocate" in said and said.count("\n") == 1


def studies(tmp_path: Path) -> list[Study]:
    """fp32 and bf16 with two seeds each, and known accuracies."""
    found = [study(tmp_path / name, precision=name) for name in ("fp32", "bf16")]
    for one, accuracies in zip(found, ((0.5, 0.7), (0.49, 0.68)), strict=True):
        for seed, accuracy in enumerate(accuracies):
            add_run(one, "batchnorm", seed, accuracy)
    return found


def test_trainings_stand_beside_each_other_with_their_spread(tmp_path: Path) -> None:
    rows = table_of_trainings(studies(tmp_path)).splitlines()
    assert rows[2] == (
        "| batchnorm | 0.1 | fp32 | 2 | 0.4 (0.3 to 0.5) | 0.600 (0.500 to 0.700) "
        "| 0.600 (0.500 to 0.700) | between seeds: 0.2 |"
    )
    assert rows[3] == (
        "| batchnorm | 0.1 | bf16 | 2 | 0.415 (0.32 to 0.51) | 0.585 (0.490 to 0.680) "
        "| 0.585 (0.490 to 0.680) | 0.015 (0.01 to 0.02) |"
    )


def test_a_study_in_the_same_precision_is_called_by_what_else_differs(tmp_path: Path) -> None:
    one, other = study(tmp_path / "1"), study(tmp_path / "2", precision="fp32", threads=2)
    for each in (one, other):
        add_run(each, "l1")
    assert "| l1 | 0.1 | fp32, threads 2 | 1 |" in table_of_trainings([one, other])


def test_a_run_that_diverged_has_no_loss(tmp_path: Path) -> None:
    one, other = study(tmp_path / "1"), study(tmp_path / "2", precision="tf32")
    add_run(one, "standard")
    run = add_run(other, "standard", diverged=3)
    assert np.isnan(precision.loss(run))
    assert "| standard | 0.1 | tf32 | 1 |  | 0.100 |" in table_of_trainings([one, other])


def test_studies_that_differ_in_more_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one, other = study(tmp_path / "1"), study(tmp_path / "2", precision="tf32", width=0.25)
    with pytest.raises(DataError, match="width"):
        table_of_trainings([one, other])
    assert main([str(one.folder)]) == 2
    assert "which other studies?" in capsys.readouterr().err
