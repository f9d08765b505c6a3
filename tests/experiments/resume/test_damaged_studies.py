"""A damaged study goes on to the same results, or ends in one line; never in silence.

Each file of a small study, interrupted or finished, is damaged in many ways. `--resume` must end
with exit code 2 and one line that names the file, with nothing written; or the results are those of
an undisturbed study, bit for bit.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from studies import ONE, STEPS, TWO, assert_same_study, killed, main, runs

from experiments import claims, compare, plot
from experiments.training.json_files import read_json, write_json
from experiments.training.study import Run
from minibn import checkpoint

STREAMS = ("metrics", "test", "distributions", "landscape", "shift", "curvature", "timings")
CHECKPOINTS = ("checkpoint/latest.npz", "checkpoint/previous.npz")


def lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def with_another_digit(content: bytes) -> bytes:
    at = [m.start() for m in re.finditer(rb"[0-9]", content)]
    middle = at[len(at) // 2]
    digit = b"%d" % ((int(content[middle : middle + 1]) + 1) % 10)
    return content[:middle] + digit + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda content: None,
    "empty": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "without its last line": lambda content: b"".join(lines(content)[:-1]),
    "without its first line": lambda content: b"".join(lines(content)[1:]),
    "zeros": lambda content: bytes(len(content)),
    "half zeros": lambda content: content[: len(content) // 2].ljust(len(content), b"\0"),
    "reordered": lambda content: b"".join(lines(content)[::-1]),
    "another digit": with_another_digit,
    "first line twice": lambda content: lines(content)[0] + content,
    "last line twice": lambda content: content + lines(content)[-1],
    "no text": lambda content: b"\xff\xfe" + content,
}


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was killed two steps after its second checkpoint, when it had their lines."""
    folder = tmp_path_factory.mktemp("interrupted") / "study"
    killed("before 2nd rename of previous.npz", *ONE, "--steps", STEPS, "--out", folder)
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file with its content, but for that of the lock."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


class Copy:
    """A copy of a study, to be damaged again and again."""

    def __init__(self, study: Path, whole: Path, copy: Path, capsys: Any) -> None:
        self.study, self.whole, self.copy, self.capsys = study, whole, copy, capsys

    @property
    def run(self) -> Path:
        return next((self.copy / "runs").iterdir())

    def anew(self) -> Path:
        """The folder of the run in a fresh copy."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.study, self.copy)
        return self.run

    def resume(self, *named: str, may_lack_checkpoint: bool = False) -> str:
        """Go on. Asserts that it ends in one line, with one of the files `named`, or as the whole
        study. Returns what was printed."""
        before = snapshot(self.copy)
        self.capsys.readouterr()
        code = main("--resume", self.copy)
        out, err = self.capsys.readouterr()
        if code == 2:
            (line,) = err.splitlines()
            assert any(name in line for name in named), line
            assert re.search("estore|Move|Delete|delete", line), line
            assert snapshot(self.copy) == before
        else:
            assert (code, err) == (0, "")
            if may_lack_checkpoint and "checkpoint" in out:
                for file in CHECKPOINTS:
                    (self.run / file).parent.mkdir(exist_ok=True)
                    shutil.copy(runs(self.whole)[0].folder / file, self.run / file)
            assert_same_study(self.copy, self.whole)
        return out + err


@pytest.fixture(params=["finished", "interrupted"])
def copy(
    request: pytest.FixtureRequest, whole: Path, interrupted: Path, tmp_path: Path, capsys: Any
) -> Copy:
    study = {"finished": whole, "interrupted": interrupted}[request.param]
    return Copy(study, whole, tmp_path / "study", capsys)


@pytest.fixture
def finished(whole: Path, tmp_path: Path, capsys: Any) -> Copy:
    return Copy(whole, whole, tmp_path / "study", capsys)


@pytest.fixture
def stopped(interrupted: Path, whole: Path, tmp_path: Path, capsys: Any) -> Copy:
    return Copy(interrupted, whole, tmp_path / "study", capsys)


def damages(copy: Copy, file: str, names: Iterable[str] = tuple(DAMAGES)) -> Iterator[tuple]:
    """(name, content, damaged content) of a file of a fresh copy, for each damage."""
    for name in names:
        path = copy.anew() / file
        content = path.read_bytes()
        damaged = DAMAGES[name](content)
        if damaged != content:
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            yield name, content, damaged


@pytest.mark.parametrize("stream", STREAMS)
def test_a_damaged_stream_is_named_unless_the_checkpoint_is_older(stream: str, copy: Copy) -> None:
    path = copy.anew() / CHECKPOINTS[0]
    before = checkpoint.load(path)[0]["streams"][stream]["bytes"]
    for name, content, damaged in damages(copy, f"{stream}.jsonl"):
        follows = copy.study != copy.whole and damaged and damaged[:before] == content[:before]
        said = copy.resume(f"{stream}.jsonl")
        assert (f"{stream}.jsonl" in said) == (not follows), name


def test_a_damaged_config_is_named(copy: Copy) -> None:
    for name, *_ in damages(copy, "config.json"):
        said = copy.resume("config.json")
        assert "config.json" in said or name == "without its last byte"  # a line's end


def test_a_damaged_result_is_named_or_written_again(finished: Copy) -> None:
    for name, *_ in damages(finished, "result.json"):
        said = finished.resume("result.json")
        assert "result.json" in said or name in ("deleted", "without its last byte")


def test_a_damaged_checkpoint_is_told_and_changes_no_result(copy: Copy) -> None:
    few = ("deleted", "empty", "half zeros", "another digit")  # each trains the last steps again
    for name, *_ in damages(copy, CHECKPOINTS[0], DAMAGES if copy.study == copy.whole else few):
        said = copy.resume(may_lack_checkpoint=True)
        ignored = ("first line twice", "no text")  # a zip file may follow on anything
        assert ("latest.npz is" in said) == (name not in ignored), name


def test_a_damaged_checkpoint_that_is_not_the_last_changes_no_result(copy: Copy) -> None:
    for _ in damages(copy, CHECKPOINTS[1], ("deleted", "empty", "another digit")):
        copy.resume(may_lack_checkpoint=True)


@pytest.mark.parametrize("file", ["study.json", "config.json", "result.json"])
def test_a_misspelt_key_or_another_value_is_named_or_does_not_matter(
    file: str, finished: Copy
) -> None:
    run = finished.anew()
    path = finished.copy / file if file == "study.json" else run / file
    content = json.loads(path.read_text())
    for changed in changes(content):
        finished.anew()
        path.write_text(json.dumps(changed))
        finished.resume(file, "study.json", "--", may_lack_checkpoint=True)


def changes(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object with each key misspelt, or each value replaced, here or further below."""
    for key, value in content.items():
        others = {k: v for k, v in content.items() if k != key}
        yield {**others, key + "x": value}
        if isinstance(value, dict):
            yield from ({**content, key: changed} for changed in changes(value))
        if key != "steps" and value is not None:  # steps may be raised
            yield {**content, key: None}


def with_manifest(path: Path, **changed: Any) -> None:
    """Write the checkpoint again, whole, with other values in its manifest; ... takes one away."""
    manifest, states = checkpoint.load(path)
    manifest = {k: v for k, v in {**manifest, **changed}.items() if v is not ...}
    checkpoint.save(path, manifest, states)


@pytest.mark.parametrize(
    "changed",
    [
        {"streams": ...}, {"streams": None}, {"streams": []}, {"streams": {"metrics": None}},
        {"streams": {"metrics": {}}}, {"streams": {"metrics": {"bytes": "1", "sha256": ""}}},
        {"streams": {"metrics": {"bytes": -1, "sha256": ""}}},
        {"streams": {"../../../mine": {"bytes": 0, "sha256": ""}}},
        {"step": ...}, {"step": "6"}, {"step": -1}, {"step": True}, {"run": ...}, {"run": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_of_another_kind_is_one_line(changed: dict[str, Any], stopped: Copy) -> None:
    with_manifest(stopped.anew() / CHECKPOINTS[0], **changed)
    assert "latest.npz" in stopped.resume("latest.npz")
    assert not (stopped.run / "result.json").exists()


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(stopped: Copy) -> None:
    (stopped.anew() / CHECKPOINTS[0]).write_bytes(b"PK")
    said = stopped.resume()
    assert "latest.npz is damaged: previous.npz stands in, after 3 steps" in said
    assert f"1 of 1 runs to do, {STEPS - 3} steps" in said


def test_of_two_damaged_checkpoints_the_last_is_named_and_nothing_is_written(
    stopped: Copy,
) -> None:
    stopped.anew()
    for file in CHECKPOINTS:
        (stopped.run / file).write_bytes(b"PK")
    assert "latest.npz is damaged" in stopped.resume("latest.npz")
    assert not (stopped.run / "result.json").exists()


def test_a_finished_run_says_that_its_checkpoint_is_damaged(finished: Copy) -> None:
    finished.anew()
    (finished.run / CHECKPOINTS[0]).write_bytes(b"PK")
    assert "latest.npz is damaged: previous.npz" in finished.resume(may_lack_checkpoint=True)


def test_more_steps_after_a_damaged_checkpoint_equal_an_undisturbed_study(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "study"
    assert main(*ONE, "--steps", 7, "--out", folder) == 0  # its last test accuracy goes away
    (runs(folder)[0].folder / CHECKPOINTS[0]).write_bytes(b"")
    assert main("--resume", folder, "--steps", STEPS) == 0
    assert "previous.npz stands in, after 6 steps" in capsys.readouterr().out
    assert_same_study(folder, whole)


def test_a_stream_that_a_finished_run_did_not_write_is_named(finished: Copy) -> None:
    shutil.copy(finished.anew() / "shift.jsonl", finished.run / "mine.jsonl")
    assert "mine.jsonl" in finished.resume("mine.jsonl")


def test_what_reads_a_study_names_a_stream_that_was_changed(
    copy: Copy, capsys: pytest.CaptureFixture
) -> None:
    path = copy.anew() / "test.jsonl"
    path.write_bytes(with_another_digit(path.read_bytes()))
    study, out = str(copy.copy), str(copy.copy.parent / "out")
    for program, words in ((plot, [study]), (claims, [study]), (compare, [study, study])):
        assert program.main([*words, "--out", out]) == 2
        assert "test.jsonl is damaged: its SHA-256" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_run_that_the_study_does_not_ask_for_is_named(
    whole_of_two: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(whole_of_two, folder)
    path = folder / "study.json"
    content = read_json(path)
    content["settings"]["lr"] = [0.06]
    write_json(path, content, sealed=True)
    before = snapshot(folder)
    assert main("--resume", folder) == 2
    assert "study.json asks for no run noisy-batchnorm-lr0.05-seed0" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_one_damaged_run_of_two_keeps_the_other_from_being_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "study"
    assert main(*TWO, "--steps", 4, "--out", folder) == 0
    last = runs(folder)[-1].folder / "shift.jsonl"
    last.write_bytes(with_another_digit(last.read_bytes()))
    before = snapshot(folder)
    assert main("--resume", folder, "--steps", STEPS) == 2
    assert "shift.jsonl is damaged" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_a_file_that_another_process_appended_to_is_not_written_to(tmp_path: Path) -> None:
    run = Run(tmp_path)
    stream = run.stream("metrics")
    stream.append({"step": 0})
    stream.flush()
    stream.path.write_bytes(stream.path.read_bytes() * 2)
    stream.append({"step": 1})
    with pytest.raises(ValueError, match="changed by another process"):
        stream.flush()
    assert stream.path.read_text() == '{"step": 0}\n' * 2
