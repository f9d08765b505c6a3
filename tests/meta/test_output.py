"""Every command prints on any standard output: of any encoding, closed, or read by nobody."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.catalogue import EXPERIMENTS, TOOLS
from minibn import console

ROOT = Path(__file__).parent.parent.parent
TINY = ("experiments.theorems", "--quick", "--draws", "1", "--m", "4", "--steps", "2")

# Each prints something that ascii and cp1252 lack, or goes through a `main` of its own.
COMMANDS = [
    ("experiments",),
    ("experiments.claims", "STUDY"),
    ("experiments.plot", "no_such_σ_folder"),
    ("experiments.vgg_cifar", "--σ"),
    ("minibn.testing", "conventions"),
    ("minibn.testing", "laws"),
    ("minibn.testing", "check", "math:σ", "--shapes", "3"),
    ("minibn.testing.laws",),
    ("minibn.fast", "verify", "--check"),
]

ALL_HELP = "import importlib, contextlib\n" + "".join(
    f"with contextlib.suppress(SystemExit): importlib.import_module({name!r}).main(['--help'])\n"
    for name in (
        *(f"experiments.{entry.name}" for entry in (*EXPERIMENTS, *TOOLS)),
        "minibn.fast.__main__",
        "minibn.testing.commands.main",
    )
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A study of the theorems, which was made with standard error closed and ascii output."""
    folder = str(tmp_path_factory.mktemp("output") / "study")
    code, said = shell((*TINY, "--out", folder), "2>&-", PYTHONIOENCODING="ascii:strict")
    assert code == 0 and "Figure:" in said and said.isascii(), said
    yield folder


def shell(command: tuple[str, ...], redirection: str = "", **environment: str) -> tuple[int, str]:
    """(exit code, what was printed) of a command with a redirection of the shell."""
    line = f'"$PYTHON" -m "$@" {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line, "-", *command], cwd=ROOT, capture_output=True,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "backslashreplace")


def assert_orderly(code: int, said: str) -> None:
    assert "Traceback" not in said and "Exception ignored" not in said, said
    assert code in (0, 1, 2), said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_command_prints_in_every_encoding(command, encoding, study):
    command = tuple(word.replace("STUDY", study) for word in command)
    code, said = shell(command, PYTHONIOENCODING=f"{encoding}:strict", PYTHONUTF8="0")
    assert_orderly(code, said)
    assert said.strip() and (encoding != "ascii" or said.isascii())


def test_the_help_of_every_command_prints_in_ascii():
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )  # fmt: skip
    assert_orderly(done.returncode, done.stderr)
    assert done.stdout.count("usage:") == len(EXPERIMENTS) + len(TOOLS) + 2


@pytest.mark.parametrize(
    ("redirection", "command"),
    [
        ("2>&-", ("minibn.testing", "check", "relu", "--examples", "1")),
        ("<&- >&- 2>&-", ("minibn.testing", "check", "relu", "--examples", "1")),
        (">&-", ("experiments.plot", "STUDY")),
        ("2>&-", ("experiments.claims", "STUDY")),
    ],
)
def test_commands_work_with_closed_streams(command, redirection, study):
    command = tuple(word.replace("STUDY", study) for word in command)
    code, said = shell(command, redirection)
    assert_orderly(code, said)
    assert code == 0 and (">&-" in redirection.replace("2>&-", "") or said.strip())


@pytest.mark.parametrize("command", [("experiments",), ("minibn.testing", "laws")], ids=" ".join)
def test_a_command_whose_reader_is_gone_ends_without_a_traceback(command):
    code, said = shell(command, "| true")
    assert code in (0, console.READER_GONE) and said == "", said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
@pytest.mark.parametrize(
    "command",
    [
        ("experiments",), ("experiments.plot", "nowhere"), ("experiments.vgg_cifar", "--help"),
        ("minibn.testing",), ("minibn.testing", "laws"), ("minibn.fast", "--help"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_output_onto_a_full_disk_is_at_most_one_line(command, redirection, buffered):
    code, said = shell(command, redirection, PYTHONUNBUFFERED=buffered)
    assert_orderly(code, said)
    assert said.count("can't be written") <= 1
    if redirection == ">/dev/full" and command == ("minibn.testing", "laws"):
        assert (code, said) == (2, "the output can't be written: No space left on device\n")


def test_a_folder_that_can_not_be_written_is_named_with_the_remedy(study, tmp_path):
    os.symlink("/proc/nowhere", tmp_path / "out")
    code, said = shell(("experiments.plot", study, "--out", str(tmp_path / "out")))
    assert code == 2 and said.count("\n") == 1
    assert f"({tmp_path / 'out'}" in said and said.endswith("Fix that, or use another folder.\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_in_a_folder_that_was_deleted_ends_without_a_traceback(command, study, tmp_path):
    words = [word.replace("STUDY", study) for word in command]
    (tmp_path / "gone").mkdir()
    line = 'cd gone; rmdir ../gone; "$0" -m "$@"'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, *words], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert_orderly(done.returncode, done.stdout + done.stderr)
    assert "can't be written" not in done.stderr


def test_a_training_whose_reader_is_gone_ends_without_a_traceback(tmp_path):
    code, said = shell((*TINY, "--out", str(tmp_path / "study")), "| true")
    assert (code, said) == (console.READER_GONE, "")


def test_a_file_opened_later_never_takes_the_place_of_a_closed_stream(tmp_path):
    program = (
        "import os, sys; from minibn.console import open_closed_streams; open_closed_streams()\n"
        "file = open(sys.argv[1], 'w'); assert file.fileno() > 2\n"
        "os.write(2, b'a warning of a C library'); os.write(1, b'and one more')"
    )
    line = '"$0" -c "$1" "$2" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", line, sys.executable, program, str(tmp_path / "a")], check=True)
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize(
    ("encoding", "errors", "printed"),
    [
        ("ascii", "strict", b"\\u03c3 \\udc80"),
        ("ascii", "surrogateescape", b"\\u03c3 \\udc80"),
        ("cp1252", "strict", b"\\u03c3 \\udc80"),
        ("utf-8", "strict", "σ \\udc80".encode()),
        ("utf-8", "surrogateescape", "σ ".encode() + b"\x80"),
        ("ascii", "replace", b"? ?"),
    ],
)
def test_a_character_that_an_encoding_lacks_is_printed_as_its_escape(encoding, errors, printed):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    console.escape_unprintable(stream)
    stream.write("σ \udc80")
    stream.flush()
    assert stream.buffer.getvalue() == printed
    console.escape_unprintable(io.StringIO())  # a stream without an encoding is left alone
