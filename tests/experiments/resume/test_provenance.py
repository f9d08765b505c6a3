"""A config says where its run came from, and a run goes on only where it goes on bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from studies import ONE, main, runs

import minibn
from experiments.training import provenance
from experiments.training.session import require_unchanged
from minibn.fast.selection import WITHOUT

ROOT = Path(minibn.__file__).parent.parent
PRINT = "from experiments.training.provenance import commit; print(commit())"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def repository(folder: Path) -> str:
    """A repository of somebody else's, with a commit. Returns that."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    (folder / "thesis.txt").write_text("mine")
    git(folder, "add", "thesis.txt")
    git(folder, "commit", "-qm", "mine")
    return git(folder, "rev-parse", "HEAD")


def copy_to(folder: Path) -> None:
    """Install minibn there, as pip does."""
    for package in ("minibn", "experiments", "reference_models"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)


def commit_of(folder: Path, **variables: str) -> str:
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", PRINT], cwd=folder, capture_output=True, text=True, check=True,
        env={**environ, "PYTHONPATH": str(folder), **variables},
    ).stdout.strip()  # fmt: skip


@pytest.mark.parametrize("place", [".venv/lib/site-packages", "."])
def test_the_commit_of_a_users_own_repository_is_not_recorded(place: str, tmp_path: Path) -> None:
    repository(tmp_path)
    copy_to(tmp_path / place)
    assert commit_of(tmp_path / place) == "unknown"


def test_minibns_own_checkout_is_recorded_also_inside_of_another(tmp_path: Path) -> None:
    other = repository(tmp_path)
    own = tmp_path / "minibn"
    own.mkdir()
    copy_to(own)
    git(own, "init", "-q")
    git(own, "add", ".")
    git(own, "commit", "-qm", "all")
    head = git(own, "rev-parse", "HEAD")
    assert commit_of(own) == head != other
    (own / "minibn" / "errors.py").write_text((own / "minibn" / "errors.py").read_text() + "\n")
    assert commit_of(own) == f"{head}+changes"
    inside = {"GIT_DIR": str(tmp_path / ".git"), "GIT_WORK_TREE": str(tmp_path)}
    assert commit_of(own, **inside) == f"{head}+changes", "as inside of a hook of git's"


def test_a_config_names_the_blas_and_the_instruction_sets(whole: Path) -> None:
    threadpool_info = pytest.importorskip("threadpoolctl").threadpool_info
    environment = runs(whole)[0].config["environment"]
    pools = [p for p in threadpool_info() if p["user_api"] == "blas" and "numpy" in p["filepath"]]
    for pool in pools:
        for key in ("internal_api", "version", "architecture"):
            assert pool[key] in environment["blas"]
    assert environment["simd"] == " ".join(provenance.simd())


@pytest.mark.parametrize(
    ("key", "words"),
    [("blas", "BLAS (OpenBLAS 0.1 Haswell then, "), ("simd", "the instruction sets that NumPy")],
)
def test_another_blas_is_refused_unless_forced(
    key: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "study"
    assert main(*ONE, "--steps", 2, "--out", folder) == 0
    (run,) = runs(folder)
    path, config = run.folder / "config.json", run.config
    config["environment"][key] = "OpenBLAS 0.1 Haswell"
    path.write_text(json.dumps(config))
    more = ("--resume", folder, "--steps", 4)
    before = path.read_text(), (folder / "study.json").read_text()
    assert main(*more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and "--force" in line and "not go on bit for bit" in line
    assert (path.read_text(), (folder / "study.json").read_text()) == before
    assert main("--resume", folder) == 0, "what has ended can be plotted everywhere"
    assert main(*more, "--force") == 0
    assert run.config["environment"][key] == provenance.environment(Backend(), 1)[key], (
        "of the machine that went on"
    )
    assert main("--resume", folder, "--steps", 5) == 0


def test_kernels_that_are_turned_off_are_noted_and_a_resume_has_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    assert main(*ONE, "--steps", 2, "--out", folder) == 0
    (run,) = runs(folder)
    assert "without_kernels" not in run.config["environment"]
    monkeypatch.setenv(WITHOUT, "FusedSGD")
    assert provenance.environment(Backend(), 1)["without_kernels"] == "FusedSGD"
    assert main("--resume", folder, "--steps", 4) == 2
    assert "$MINIBN_WITHOUT_KERNELS (unset then, FusedSGD now)" in capsys.readouterr().err


class Backend:
    name = "numpy"

    def describe(self) -> dict[str, Any]:
        return {}


@pytest.mark.skipif(
    "SkylakeX" not in " ".join(provenance.blas("numpy")), reason="OpenBLAS would choose no other"
)
def test_other_kernels_of_openblas_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    command = [sys.executable, "-m", "experiments.vgg_cifar"]
    begun = [*command, *ONE, "--steps", "2", "--checkpoint-every", "1", "--out", str(folder)]
    environ = {**os.environ, "MPLBACKEND": "Agg"}
    assert subprocess.run(begun, env=environ, capture_output=True, check=False).returncode == 0
    found = subprocess.run(
        [*command, "--resume", str(folder), "--steps", "3"], capture_output=True, text=True,
        env={**environ, "OPENBLAS_CORETYPE": "Haswell"}, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert "SkylakeX then, " in found.stderr and "Haswell now" in found.stderr


def test_a_run_on_another_gpu_goes_on_and_says_so(capsys) -> None:
    config: dict[str, Any] = {
        "data_fingerprint": "0", "settings": {"kernels": "fast", "precision": "fp32"}
    }  # fmt: skip
    before, now = (
        {**config, "environment": {"threads": 1, "backend": "cupy", "device": device}}
        for device in ("A100", "H200")
    )
    require_unchanged(cast(Any, SimpleNamespace(name="a run", config=before)), now, force=False)
    assert "a run: device was A100, is H200: it goes on" in capsys.readouterr().out
