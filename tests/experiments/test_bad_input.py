"""Bad input ends with one line that names the remedy and exit code 2, and writes nothing."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from studies import ONE, STEPS, TWO, assert_same_study, main, runs

from experiments import gpu_check, predict
from experiments.training import study as study_module
from experiments.training.command_line import UsageError
from experiments.training.json_files import read_json, write_json
from experiments.training.study import Run, Study
from experiments.training.study_lock import lock_study
from minibn.backend import available, get_backend
from minibn.ops.conv import Conv2d


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that must be refused, and returns the one line of its error."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(*arguments) == 2
        written = capsys.readouterr()
        (line,) = written.err.splitlines()
        assert line.startswith("python -m experiments.vgg_cifar: ")
        assert "Traceback" not in line and "None" not in line
        return line.partition(": ")[2]

    return run


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and folder, with its content."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
    }


# what is given -> what the line must say: the culprit and the remedy
REFUSED = {
    "--modl vgg11": "'--modl'. Did you mean '--model'?",
    "--learnrate 0.1": "unknown argument '--learnrate'",
    "--step 3": "Did you mean '--steps'?",  # an abbreviation is not accepted
    "spurious": "unknown argument 'spurious'. There are --help, --quick",
    "--quick=yes": "--quick",
    "--model vgg12": "'vgg12' is unknown. Did you mean 'vgg1",
    "--model resnet": "There are vgg11, vgg13, vgg16, vgg19",
    "--variants batchnrom": "Did you mean 'batchnorm'?",
    "--variants standard,batchnorm": "Did you mean '",
    "--data shape": "Did you mean 'shapes'?",
    "--backend cuppy": "Did you mean 'cupy'?",
    "--kernels fats": "Did you mean 'fast'?",
    "--kernels always": "There are fast, lean, reference",
    "--width 0.01": "< 1 channels in layer 1. Use at least 0.0156",
    "--width 0": "--width 0.0 must be above 0",
    "--width -1": "--width -1.0 must be above 0",
    "--width nan": "--width nan must be a finite number",
    "--width inf": "--width inf must be a finite number",
    "--width 1e300": "Take a smaller one",
    "--width 1e308": "Take a smaller one",
    "--lr 0": "--lr 0.0 must be above 0",
    "--lr 0.1 -0.1": "--lr -0.1 must be above 0",
    "--lr nan": "--lr nan must be a finite number",
    "--lr 1e999": "--lr inf must be a finite number",
    "--lr 0.1 0.10": "--lr names something twice",
    "--lr 0.1 0.10000001": "must differ in six digits",
    "--lr": "--lr: expected at least one argument",
    "--lr fast": "--lr: 'fast' is not a number",
    "--steps 0": "--steps 0 must be at least 1",
    "--steps -5": "--steps -5 must be at least 1",
    "--steps 1e3": "--steps: '1e3' is not a whole number",
    "--steps 99999999999999999999": "is too large",
    "--batch-size 0": "--batch-size 0 must be at least 1",
    "--batch-size 41": "--batch-size 41 is more than the 40 training images. Use a smaller",
    "--eval-every 0": "--eval-every 0 must be at least 1",
    "--record-every -1": "--record-every -1 must be at least 0",
    "--checkpoint-every 0": "--checkpoint-every 0 must be at least 1",
    "--train-size 0": "--train-size 0 must be at least 1",
    "--test-size -1": "--test-size -1 must be at least 1",
    "--threads 0": "--threads 0 must be at least 1",
    "--momentum 1": "--momentum 1.0 must lie in [0, 1)",
    "--momentum -0.1": "--momentum -0.1 must lie in [0, 1)",
    "--momentum nan": "--momentum nan must lie in [0, 1)",
    "--weight-decay -1": "--weight-decay -1.0 must be at least 0",
    "--weight-decay inf": "--weight-decay inf must be a finite number",
    "--seed -1": "--seed -1 must be at least 0",
    "--seed 1.5": "--seed: '1.5' is not a whole number",
    "--seed 3 3": "--seed names something twice",
    "--variants standard standard": "--variants names something twice: standard standard",
    "--head big": "neither 'linear' nor widths such as '512,512'",
    "--head 0,5": "neither 'linear' nor widths",
    "--head 99999999999999999999": "Take a smaller one",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_arguments_are_refused_in_one_line_and_nothing_is_written(
    given: str, here: Path, refused: Callable[..., str]
) -> None:
    line = refused(*ONE, "--out", "deep/study", *given.split())
    assert REFUSED[given] in line
    assert os.listdir(here) == []


def test_a_real_command_line_has_no_traceback(here: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "experiments.vgg_cifar", "--modl", "vgg11"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        "python -m experiments.vgg_cifar: unknown argument '--modl'. Did you mean '--model'?\n"
    )
    assert os.listdir(here) == []


@pytest.mark.skipif("cupy" in available(), reason="CuPy and a GPU are here")
def test_cupy_that_cannot_run_is_named_and_nothing_is_written(
    here: Path, refused: Callable[..., str]
) -> None:
    line = refused(*ONE, "--backend", "cupy", "--out", "study")
    assert "backend 'cupy'" in line and "nstall" in line
    assert os.listdir(here) == []


def test_missing_data_leave_no_study_that_blocks_the_same_out(
    here: Path, refused: Callable[..., str]
) -> None:
    (here / "empty").mkdir()
    (here / "study").mkdir()
    for folder in ("empty", "nowhere"):
        for out in ("new/deep", "study"):
            line = refused(
                *ONE, "--data", "cifar10", "--data-dir", folder, "--steps", 2, "--out", out
            )
            assert folder in line and "--data-dir" in line and "--data shapes" in line
    assert sorted(os.listdir(here)) == ["empty", "study"], "a folder that was there stays"
    assert os.listdir(here / "study") == []
    assert main(*ONE, "--steps", 2, "--out", "study") == 0


def test_an_out_that_cannot_be_used_is_refused_and_left_as_it_was(
    here: Path, whole: Path, refused: Callable[..., str]
) -> None:
    (here / "file").write_text("mine")
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("mine")
    before, study = snapshot(here), snapshot(whole)
    assert "holds a study already" in (line := refused(*ONE, "--out", whole))
    assert f"--resume {whole}" in line
    assert "--out file is not an empty folder" in refused(*ONE, "--out", "file")
    assert "--out full is not an empty folder" in refused(*ONE, "--out", "full")
    assert "--out  is not" not in refused(*ONE, "--out", "")
    for unwritable in ("file/study", "/dev/null/x", "/proc/nowhere/x"):
        line = refused(*ONE, "--out", unwritable)
        assert f"--out {unwritable} can't be written" in line and "Choose another" in line
    assert "too long" in refused(*ONE, "--out", "x" * 300)
    assert (snapshot(here), snapshot(whole)) == (before, study)


def test_resume_and_out_exclude_each_other(whole: Path, refused: Callable[..., str]) -> None:
    assert "exclude each other" in refused("--resume", whole, "--out", "elsewhere")


def test_resume_of_what_is_no_study_says_so(here: Path, refused: Callable[..., str]) -> None:
    (here / "empty").mkdir()
    (here / "file").write_text("")
    for folder in ("empty", "nowhere", "file", "file/below"):
        assert f"--resume {folder}: there is no study" in refused("--resume", folder)
    assert os.listdir(here / "empty") == []


DIFFERING = {
    "--lr 0.2": ["--lr 0.2 (the study: 0.05)"],
    "--lr 0.05 0.1": ["--lr 0.05 0.1 (the study: 0.05)"],
    "--model vgg13 --width 0.5": [
        "--model vgg13 (the study: vgg11)",
        "--width 0.5 (the study: 0.03125)",
    ],
    "--variants standard": ["--variants standard (the study: noisy-batchnorm)"],
    "--backend strict": ["--backend strict (the study: numpy)"],
    "--checkpoint-every 5": ["--checkpoint-every 5 (the study: 3)"],
    "--quick": ["--quick True (the study: False)"],
    "--steps 7": [f"--steps 7 (the study: {STEPS})", "only --steps may be raised"],
    "--threads 2": ["--threads 2 (the study: 1)", "--force"],
    "--kernels lean": ["--kernels lean (the study: fast)", "--force"],
    "--steps 0": ["--steps 0"],
}


@pytest.mark.parametrize("given", DIFFERING)
def test_resume_lists_the_settings_that_differ_and_changes_nothing(
    given: str, whole: Path, refused: Callable[..., str]
) -> None:
    before = snapshot(whole)
    line = refused("--resume", whole, *given.split())
    for part in DIFFERING[given]:
        assert part in line
    assert snapshot(whole) == before


def test_resume_with_the_same_settings_spelt_out_is_accepted(whole: Path) -> None:
    before = snapshot(whole)
    assert main("--resume", whole, *ONE, "--steps", STEPS) == 0
    assert snapshot(whole) == before


def test_other_threads_are_accepted_by_force_alone(here: Path, refused: Callable[..., str]) -> None:
    assert main(*ONE, "--steps", 2, "--out", "study") == 0
    line = refused("--resume", "study", "--steps", 4, "--threads", 2)
    assert "--threads 2 (the study: 1)" in line and "--force" in line
    assert main("--resume", "study", "--steps", 4, "--threads", 2, "--force") == 0
    assert runs(here / "study")[0].config["environment"]["threads"] == 2


def test_other_kernels_are_accepted_by_force_alone(here: Path, refused: Callable[..., str]) -> None:
    assert main(*ONE, "--steps", 2, "--out", "study") == 0
    more = ("--resume", "study", "--steps", 4, "--kernels", "reference")
    assert "--kernels reference (the study: fast)" in refused(*more)
    assert main(*more, "--force") == 0
    (run,) = runs(here / "study")
    assert run.config["settings"]["kernels"] == "reference"
    assert main("--resume", "study", "--steps", 5) == 0, "what was forced is the study's now"


def test_a_run_that_began_with_other_kernels_than_its_study_is_refused(
    here: Path, refused: Callable[..., str]
) -> None:
    assert main(*ONE, "--steps", 2, "--out", "study") == 0
    (run,) = runs(here / "study")
    config = run.config
    config["settings"]["kernels"] = "lean"
    (run.folder / "config.json").write_text(json.dumps(config))
    line = refused("--resume", "study", "--steps", 4)
    assert "kernels (lean then, fast now)" in line and "--force" in line


def test_a_number_of_threads_that_is_none_is_one_line_and_writes_nothing(
    here: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    at = ONE.index("--threads")
    default = [*ONE[:at], *ONE[at + 2 :]]
    for bad in ("0", "two", "-1", "1.5"):
        monkeypatch.setenv("MINIBN_NUM_THREADS", bad)
        assert f"MINIBN_NUM_THREADS={bad!r}" in refused(*default, "--out", "study")
        assert os.listdir(here) == []
    assert main(*ONE, "--steps", 1, "--out", "given") == 0, "--threads stands in its place"
    for program, arguments in ((predict, ["nowhere"]), (gpu_check, ["--rehearse"])):
        assert program.main(arguments) == 2
        assert "MINIBN_NUM_THREADS='1.5'" in capsys.readouterr().err


def test_other_data_are_refused_unless_forced(here: Path, refused: Callable[..., str]) -> None:
    assert main(*ONE, "--steps", 2, "--out", "study") == 0
    (run,) = runs(here / "study")
    config = run.config
    config["data_fingerprint"] = "0" * 64
    (run.folder / "config.json").write_text(json.dumps(config))
    before = snapshot(here)
    line = refused("--resume", "study", "--steps", 4)
    assert "the data (another --data-dir?)" in line and "--force" in line
    assert snapshot(here) == before, "the study's steps were raised all the same"
    assert main("--resume", "study", "--steps", 4, "--force") == 0


def test_data_that_cannot_be_had_on_resume_change_nothing(
    here: Path, refused: Callable[..., str]
) -> None:
    assert main(*ONE, "--steps", 2, "--out", "study") == 0
    change_settings(here / "study" / "study.json", data="cifar10")
    before = snapshot(here)
    assert "nowhere" in refused("--resume", "study", "--steps", 5, "--data-dir", "nowhere")
    assert snapshot(here) == before


@pytest.fixture
def stopped(here: Path, whole_of_two: Path) -> Run:
    """The second run of a copy of a study, whose end is cut off. The first is finished."""
    shutil.copytree(whole_of_two, here / "study")
    _, run = runs(here / "study")
    (run.folder / "result.json").unlink()
    return run


STUDIES = {
    "": "study.json can't be read",
    "{": "study.json can't be read",
    "[1, 2]": "study.json can't be read",
    "\x00\x01": "study.json can't be read",
    '{"experiment": "vgg_cifar"}': "lacks settings",
    '{"experiment": "other", "settings": {}}': "is a study of other",
    '{"experiment": "vgg_cifar", "settings": 7}': "study.json can't be read: its settings can't be",
    '{"experiment": "vgg_cifar", "settings": null}': "its settings can't be null",
    '{"experiment": "vgg_cifar", "settings": []}': "its settings can't be []",
    '{"experiment": "vgg_cifar", "settings": "x"}': "its settings can't be",
    '{"experiment": ["vgg_cifar"], "settings": {}}': "its experiment can't be [",
    '{"experiment": "vgg_cifar", "settings": {"steps": 8}}': "lacks quick, seed, backend",
    '{"experiment": "vgg_cifar", "settings": {"steps": "many"}}': """'steps' can't be "many""",
    '{"experiment": "vgg_cifar", "settings": {"steps": null}}': "'steps' can't be null",
    '{"experiment": "vgg_cifar", "settings": {"lr": 0.1}}': "'lr' can't be 0.1",
    '{"experiment": "vgg_cifar", "settings": {"variants": []}}': "'variants' can't be []",
    '{"experiment": "vgg_cifar", "settings": {"depth": 3}}': "'depth' is unknown",
}


@pytest.mark.parametrize("content", STUDIES)
def test_a_damaged_study_is_one_line(
    content: str, here: Path, stopped: Run, refused: Callable[..., str]
) -> None:
    (here / "study" / "study.json").write_text(content)
    before = snapshot(here)
    assert STUDIES[content] in refused("--resume", "study")
    assert snapshot(here) == before


def change_settings(path: Path, **changes: object) -> None:
    """Set settings of a study.json, and seal it anew; None takes one away."""
    content = read_json(path)
    settings = {**content["settings"], **changes}
    content["settings"] = {k: v for k, v in settings.items() if v is not None or k not in changes}
    write_json(path, content, sealed=True)


def test_a_stored_setting_with_which_no_experiment_can_work_is_one_line(
    here: Path, stopped: Run, refused: Callable[..., str]
) -> None:
    change_settings(here / "study" / "study.json", lr=[float("nan")])
    assert "--lr nan" in refused("--resume", "study")


def test_a_study_that_lacks_settings_is_not_filled_with_todays_defaults(
    here: Path, stopped: Run, refused: Callable[..., str]
) -> None:
    change_settings(here / "study" / "study.json", steps=None, lr=None)
    before = snapshot(here)
    line = refused("--resume", "study")
    assert "study/study.json lacks steps, lr. Restore it, or start a new --out." in line
    assert snapshot(here) == before


def test_a_study_that_another_process_trains_is_refused_and_left_alone(
    here: Path, stopped: Run, whole_of_two: Path, refused: Callable[..., str]
) -> None:
    with lock_study(here / "study"):
        before = snapshot(here)
        line = refused("--resume", "study")
        assert snapshot(here) == before
    assert line == f"study is being trained by process {os.getpid()}. Wait for it, or end it."
    assert main("--resume", "study") == 0
    assert_same_study(here / "study", whole_of_two)


def test_a_new_study_that_another_process_took_is_not_removed(here: Path) -> None:
    study = Study.create(here / "study", "vgg_cifar", {})
    with (
        lock_study(study.folder),
        pytest.raises(UsageError, match="is being trained"),
        study.remove_on_failure(),
        lock_study(study.folder),
    ):
        pass
    assert study.exists


def test_where_files_cannot_be_locked_a_study_goes_on_without(
    here: Path, stopped: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_study(here / "study"):
        assert main("--resume", "study") == 0
    assert not (here / "study" / ".lock").exists()
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    assert main("--resume", "study") == 0


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_a_flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def without_its_third_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))


def replaced(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def with_value(key: str, value: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


DAMAGES = [
    ("checkpoint/latest.npz", cut_in_half, "latest.npz is damaged"),
    ("checkpoint/latest.npz", with_a_flipped_bit, "latest.npz is damaged"),
    ("checkpoint/latest.npz", replaced(""), "latest.npz is damaged"),
    ("checkpoint/latest.npz", replaced("PK garbage" * 99), "latest.npz is damaged"),
    ("config.json", Path.unlink, "config.json is missing"),
    ("config.json", cut_in_half, "config.json can't be read"),
    ("config.json", replaced("{}"), "config.json can't be read: it lacks variant"),
    ("config.json", with_value("variant", ["standard"]), "its variant can't be ["),
    ("config.json", with_value("lr", "fast"), "its lr can't be "),
    ("config.json", with_value("seed", 0.5), "its seed can't be 0.5"),
    ("config.json", with_value("settings", None), "its settings can't be null"),
    ("config.json", with_value("environment", 3), "its environment can't be 3"),
    ("result.json", replaced('{"status": "done", "steps": "8"}'), "its steps can't be "),
    ("result.json", replaced("[]"), "result.json can't be read"),
    ("result.json", replaced('{"status": "diverged"}'), "result.json can't be read"),
    ("metrics.jsonl", Path.unlink, "metrics.jsonl is missing"),
    ("metrics.jsonl", without_its_third_line, "metrics.jsonl is damaged"),
    ("metrics.jsonl", replaced("{}\n"), "metrics.jsonl is damaged"),
    ("metrics.jsonl", replaced("[" * 100_000 + "\n"), "metrics.jsonl is damaged"),
    ("test.jsonl", replaced("no JSON\n"), "test.jsonl is damaged"),
]


@pytest.mark.parametrize(("file", "damage", "complaint"), DAMAGES)
def test_a_damaged_run_is_one_line_that_names_the_file_and_nothing_is_lost(
    file: str,
    damage: Callable[[Path], object],
    complaint: str,
    stopped: Run,
    refused: Callable[..., str],
) -> None:
    damage(stopped.folder / file)
    (stopped.folder / "checkpoint" / "previous.npz").unlink()  # else it would go on from that
    before = snapshot(stopped.folder)
    line = refused("--resume", stopped.folder.parent.parent)
    assert complaint in line and str(stopped.folder) in line
    assert "estore" in line or "Delete" in line
    assert snapshot(stopped.folder) == before


def test_a_checkpoint_of_another_run_is_refused(
    here: Path, stopped: Run, refused: Callable[..., str]
) -> None:
    shutil.copy(runs(here / "study")[0].checkpoint_path, stopped.checkpoint_path)
    assert "belongs to run noisy-batchnorm" in refused("--resume", "study")


def test_after_deleting_a_damaged_run_as_told_the_study_is_whole_again(
    here: Path, stopped: Run, whole_of_two: Path, refused: Callable[..., str]
) -> None:
    (stopped.folder / "config.json").unlink()
    assert f"delete {stopped.folder}" in refused("--resume", here / "study")
    shutil.rmtree(stopped.folder)
    assert main("--resume", "study") == 0
    assert_same_study(here / "study", whole_of_two)


def test_a_disk_that_fills_up_is_one_line_and_the_study_continues_afterwards(
    here: Path, whole_of_two: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, syncs = os.fsync, iter(range(1, 1000))

    def fsync(handle: int) -> None:
        if next(syncs) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        line = refused(*TWO, "--steps", STEPS, "--out", "study")
    assert "No space left on device. Free space. Continue:" in line
    assert "--resume study" in line
    assert main("--resume", "study") == 0
    assert_same_study(here / "study", whole_of_two)


def test_exhausted_memory_is_one_line_with_advice(
    here: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_step(*arguments: object) -> None:
        raise MemoryError

    from experiments.vgg import runs as vgg_runs

    monkeypatch.setattr(vgg_runs, "one_step", one_step)
    assert "Take a smaller --batch-size" in refused(*ONE, "--out", "study")
    assert os.listdir(here) == []


@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_exhausted_memory_is_told_with_what_was_asked_and_what_there_is(
    backend: str, here: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def convolve(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 3.05 GiB for an array.\nA second line")

    monkeypatch.setattr(Conv2d, "forward", convolve)
    monkeypatch.setattr(get_backend(backend), "memory", lambda: {"total": 8e9, "free": 1e9})
    line = refused(*ONE, "--kernels", "reference", "--backend", backend, "--out", "study")
    assert "Memory is exhausted: Unable to allocate 3.05 GiB for an array; 1.0 of 8.0 GB" in line
    assert "Take a smaller --batch-size or --width" in line


def test_a_study_goes_on_on_another_backend_only_with_force(
    whole: Path, here: Path, refused: Callable[..., str]
) -> None:
    study = here / "study"
    shutil.copytree(whole, study)
    more = ("--resume", study, "--steps", STEPS + 1, "--backend", "strict")
    assert "--force" in refused(*more)
    assert main(*more, "--force") == 0
    (run,) = runs(study)
    assert len(run.records("metrics")) == STEPS + 1
    assert run.config["environment"]["backend"] == "strict"


def test_the_default_folder_is_made_under_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module.time, "strftime", lambda form: "20260101-120000")
    assert main(*ONE, "--steps", 1) == 0
    assert (here / "runs" / "vgg_cifar" / "20260101-120000" / "study.json").exists()
