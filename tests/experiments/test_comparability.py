"""Which studies may stand in one table or figure."""

from pathlib import Path
from typing import Any

import pytest
from known_studies import add_run, study

from experiments.training.comparability import require_comparable
from minibn.errors import DataError


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": [0.5]},
        {"variants": ["l1"]},
        {"backend": "cupy"},
        {"threads": 9},
        {"probe_every": 7},
        {"probe_sizes": [1.0]},
    ],
)
def test_studies_may_differ_in_what_is_compared_how_it_ran_and_how_often_was_measured(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    require_comparable([study(tmp_path / "1"), study(tmp_path / "2", **changed)])


@pytest.mark.parametrize("changed", [{"batch_size": 8}, {"momentum": 0.9}, {"augment": True}])
def test_all_other_settings_make_the_scale(tmp_path: Path, changed: dict[str, Any]) -> None:
    studies = [study(tmp_path / "1"), study(tmp_path / "2"), study(tmp_path / "3", **changed)]
    (name,) = changed
    with pytest.raises(DataError, match=f"3 has {name} .*like with like"):
        require_comparable(studies)
    require_comparable(studies, free=(name,))


def test_studies_that_saw_other_data_are_not_alike(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    add_run(one, "l1", data="original")
    add_run(two, "l1", 1, data="recompressed")
    with pytest.raises(DataError, match="was trained on other data"):
        require_comparable([one, two])


def test_data_that_is_drawn_belongs_to_the_seed(tmp_path: Path) -> None:
    one, two = (study(tmp_path / name, "deep_linear") for name in ("1", "2"))
    add_run(one, "l1", 0, data="drawn by 0")
    add_run(two, "l1", 1, data="drawn by 1")
    require_comparable([one, two])
    add_run(two, "batchnorm", 0, data="drawn by 7")
    with pytest.raises(DataError, match="was trained on other data"):
        require_comparable([one, two])


def test_bands_over_other_step_sizes_are_other_measurements(tmp_path: Path) -> None:
    quiet = study(tmp_path / "0", probe_sizes=[9.0])  # which probes nothing
    wide, narrow = (
        study(tmp_path / str(size), probe_every=5, probe_sizes=[size]) for size in (1.0, 2.0)
    )
    require_comparable([quiet, wide])
    with pytest.raises(DataError, match=r"has probe_sizes \[2.0\].*like with like"):
        require_comparable([quiet, wide, narrow])
