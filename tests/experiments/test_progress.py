"""The progress of a study: on a terminal one line of 80 characters, elsewhere lines of text."""

import io
import re
import sys

import pytest
from studies import SMALL, main

from experiments.training.loop import Progress
from experiments.training.run import Place


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(steps: int, place: Place, monkeypatch, loss: float = 2.3026) -> list[str]:
    """What a terminal of 80 columns shows, line by line."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    progress = Progress("groupnorm-weightstandardisation lr 0.1 seed 0", 0, steps, place)
    progress.began -= 60.0
    with progress:
        for _ in range(10):
            progress.show(loss, accuracy=0.7654)
            progress.step()
    return [line.strip() for line in re.split(r"[\r\n]+", terminal.getvalue()) if line.strip()]


@pytest.mark.parametrize(
    "steps, place", [(15_000, Place(3, 16, 195_000)), (10, Place(1, 1, 0)), (99_999, Place(16, 16))]
)
def test_the_line_on_a_terminal_is_whole_at_eighty_columns(steps, place, monkeypatch):
    first, *_, last = lines(steps, place, monkeypatch)
    where = f"run {place.number} of {place.runs}"
    assert first == f"{where}: groupnorm-weightstandardisation lr 0.1 seed 0"
    bar = re.fullmatch(
        rf"{where} \|(.{{12}})\| 10/{steps}, loss 2\.303, acc 0\.77, (.+) left", last
    )
    assert bar and len(last) <= 80
    if place.runs == 16 and place.number == 3:
        assert re.fullmatch(r"3(49|5\d) h \d\d min", bar[2])  # 210,000 steps of 6 s


def test_a_study_of_several_runs_counts_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    out = tmp_path / "study"
    study = [*SMALL, "--variants", "standard", "batchnorm", "--steps", "2"]
    assert main(*study, "--out", out) == 0
    text = terminal.getvalue()
    assert "run 1 of 2: standard lr 0.05 seed 0" in text
    assert "run 2 of 2: batchnorm lr 0.05 seed 0" in text


def test_lines_of_text_name_the_run_and_the_time_in_all(tmp_path, capsys):
    study = [*SMALL, "--variants", "standard", "batchnorm", "--steps", "2"]
    assert main(*study, "--out", tmp_path / "study") == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^standard lr 0\.05 .*step 2/2, .* left, run 1 of 2, .* left in all$", said, re.M
    )
    assert re.search(r"^batchnorm lr 0\.05 .*, run 2 of 2, 0 s left in all$", said, re.M)
