"""The program that judges claims: what it prints and writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from claim_studies import add_run, pair, study

from experiments import claims


def test_the_command_prints_the_table_and_writes_it_without_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = study(tmp_path / "s", steps=2000, data_dir=str(tmp_path))
    for seed in (0, 1):
        add_run(made, "batchnorm", seed, 0.9, steps=2000)
        add_run(made, "standard", seed, 0.5, steps=2000)
        add_run(made, "noisy-batchnorm", seed, 0.5, steps=2000)
    linear = study(tmp_path / "linear", "deep_linear")
    add_run(linear, "batchnorm", lr=1e-6, diverged=4)
    out = tmp_path / "out"
    assert claims.main([str(made.folder), str(linear.folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "BatchNorm trains faster at lr 0.1" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == ["Fig. 1a", "≥ 0.02", "0.26", "0.4 (0.4 to 0.4)", "2", "**reproduced**"]
    assert "| **contradicted** |" in said  # noisy BatchNorm is far from BatchNorm here
    text = (out / "claims.md").read_text()
    content = json.loads((out / "claims.json").read_text(), parse_constant=lambda c: 1 / 0)
    for written in (text, json.dumps(content)):
        assert str(tmp_path) not in written
    assert f"| all | {len(claims.CLAIMS)} |" in text and row in text
    for what in claims.CLAIMS:
        assert text.count(f"`{what.id}`") == 1
    entry = content["claims"][0]
    assert entry["seeds"] == {"0": pytest.approx(0.4), "1": pytest.approx(0.4)}
    assert (entry["n"], entry["verdict"]) == (2, "reproduced")
    described = content["studies"]["deep_linear"]["runs"]["batchnorm-lr1e-06-seed0"]
    assert described == {"result": {"status": "diverged", "step": 4}, "commit": "c"}
    assert content["studies"]["vgg_cifar"]["settings"]["steps"] == 2000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which study?"),
        (["nowhere"], "there is no study"),
        (["s", "wide"], "like with like"),
        (["s", "other"], "is a study of cooking. Give one of deep_linear or "),
        (["s", "--outt", "x"], "Did you mean '--out'?"),
    ],
)
def test_what_cannot_be_judged_ends_in_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    study(Path("s"))
    study(Path("wide"), width=1.0)
    study(Path("other"), "cooking")
    assert claims.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.claims: ") and says in line


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_file_as_out_is_refused_before_anything_is_judged(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study(Path("s"))
    Path("file").touch()
    assert claims.main(["s", "--out", out]) == 2
    said, error = capsys.readouterr()
    assert said == "" and error.count("\n") == 1
    assert f"--out {out} " in error and error.endswith(" a file, not a folder. Choose another.\n")


def test_ctrl_c_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(tmp_path / "s")
    monkeypatch.setattr(claims, "verdicts", interrupted)
    assert claims.main([str(made.folder)]) == 130
    said, error = capsys.readouterr()
    assert said.split() == ["Stopped."] and error == ""


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_record_without_its_key_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = study(tmp_path / "s", steps=1)
    for variant in ("batchnorm", "standard"):
        add_run(made, variant, steps=1, landscape=[{"step": 0, "direction": "gradient"}])
    assert claims.main([str(made.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("lack 'losses'. Restore them, or train that run again.")


def test_claims_need_no_matplotlib(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9], [0.5])
    program = (
        "import sys; sys.modules['matplotlib'] = None; from experiments import claims; "
        f"sys.exit(claims.main([{str(made.folder)!r}]))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr
