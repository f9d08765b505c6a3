"""Where a new study lies, and what is left of one that could not begin."""

import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import KILLED, ONE, STEPS, assert_same_study, killed, main

from experiments import __main__ as entry
from experiments import benchmark, plot
from experiments.training import study as study_module
from experiments.training.command_line import UsageError, expand, parse, parse_folders
from experiments.training.run import Run
from experiments.training.settings import ImageSettings
from experiments.training.study import Study


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_starts_in_one_second_get_a_folder_each(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module.time, "strftime", lambda form: "20260101-120000")
    for _ in range(3):
        assert main(*ONE, "--steps", 1) == 0
    found = sorted((here / "runs" / "vgg_cifar").iterdir())
    assert [folder.name[15:] for folder in found] == ["", "-2", "-3"]
    for folder in found:
        assert main("--resume", folder) == 0


def test_many_starts_at_once_get_a_folder_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module.time, "strftime", lambda form: "20260101-120000")
    made, start = [], threading.Barrier(8)

    def begin() -> None:
        start.wait()
        made.append(Study.create_by_time("vgg_cifar", "vgg_cifar", {}).folder)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8
    assert all(Study(folder).exists for folder in made)


def test_of_two_starts_with_one_out_the_second_changes_nothing(here: Path) -> None:
    first = Study.create(here / "study", "vgg_cifar", {"steps": 1})
    second = Study(here / "study")
    with pytest.raises(UsageError, match="holds a study already"), second.remove_on_failure():
        second._new_folders = []  # it saw an empty folder
        second._write("vgg_cifar", {"steps": 2})
    assert first.settings == {"steps": 1}


def test_a_tilde_stands_for_the_home_folder_in_every_path(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    given = ["--out=~/x", "--resume=~", "--data-dir", "~/data"]
    found = parse(ImageSettings, given, program="p", description="")
    home = str(here / "home")
    assert found == {"out": f"{home}/x", "resume": home, "data_dir": f"{home}/data"}
    for options, flag in ((plot.Options, "--out=~/x"), (benchmark.Options, "--json=~/x")):
        (value,) = parse(options, [flag], program="p", description="").values()
        assert value == f"{home}/x"
    assert parse_folders(plot.Options, ["~/a", "b~"], program="p", description="")[0] == [
        Path(home) / "a", Path("b~")
    ]  # fmt: skip
    assert expand("./~") == "./~"
    with pytest.raises(UsageError, match=r"no home folder ~nobody-here. .* \./~nobody-here/x"):
        expand("~nobody-here/x")
    assert main(*ONE, "--steps", 1, "--out=~/x") == 0
    assert main("--resume=~/x") == 0
    assert os.listdir(here) == ["home"]


def accepted(folder: Path) -> str:
    """Which of --out and --resume takes the folder, and trains in it to the end."""
    if (folder / "study.json").exists():
        assert main("--resume", folder) == 0
        return "--resume"
    assert main(*ONE, "--steps", STEPS, "--out", folder) == 0
    return "--out"


BEGINNING = {
    "before sync": "--out",
    "before rename of study.json": "--out",
    "after rename of study.json": "--resume",
    "before run": "--resume",
    "before rename of .lease": "--resume",
    "after rename of .lease": "--resume",
    "before rename of config.json": "--resume",
}


@pytest.mark.parametrize("moment", BEGINNING)
def test_what_is_killed_before_its_first_config_can_be_used(
    moment: str, here: Path, whole: Path
) -> None:
    assert killed(moment, *ONE, "--steps", STEPS, "--out", here / "study").returncode < 0
    assert accepted(here / "study") == BEGINNING[moment]
    assert_same_study(here / "study", whole)


def test_a_disk_that_is_full_at_any_write_leaves_what_out_or_resume_accepts(
    here: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    for whole_syncs in range(8):
        left = itertools.chain([True] * whole_syncs, itertools.repeat(False))

        def fsync(handle: int, left: Iterator[bool] = left) -> None:
            if not next(left):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        folder = here / f"full-after-{whole_syncs}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            assert main(*ONE, "--steps", STEPS, "--out", folder) == 2
        if folder.exists():
            assert (folder / "study.json").exists()
            accepted(folder)
            assert_same_study(folder, whole)


def test_no_space_for_the_first_config_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def begin(run: Run, *arguments: object, **settings: object) -> None:
        run.checkpoint_path.parent.mkdir(parents=True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Run, "begin", begin)
        for out in ("new/deep", "there"):
            (here / "there").mkdir(exist_ok=True)
            assert main(*ONE, "--steps", 1, "--out", out) == 2
            assert "No space left" in capsys.readouterr().err
    assert os.listdir(here) == ["there"] and os.listdir(here / "there") == []
    assert main(*ONE, "--steps", 1, "--out", "there") == 0


def test_an_experiment_can_be_named_after_the_package(here: Path) -> None:
    command = [sys.executable, "-m", "experiments", "vgg_cifar", *ONE, "--steps", "1"]
    found = subprocess.run(
        [*command, "--out", "study"], capture_output=True, text=True, check=False, cwd=here,
        env={**os.environ, "PYTHONPATH": str(KILLED.parent.parent.parent)},
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert "1 of 1 runs to do" in found.stdout and "Tools:" not in found.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vgg_cifr", "--quick"], "'vgg_cifr' is unknown. Did you mean 'vgg_cifar'?"),
        (["vgg-cifar"], "Did you mean 'vgg_cifar'?"),
        (["training.loop"], "There are vgg_cifar, "),
        (["--quick", "vgg_cifar"], "Its name comes first: python -m experiments vgg_cifar --quick"),
        (["vgg_cifar", "--quik"], "unknown argument '--quik'. Did you mean '--quick'?"),
        (["plot"], "which study?"),
    ],
)
def test_what_the_package_does_not_know_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert entry.main(arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert words in line and out == ""
