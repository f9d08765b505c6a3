"""Figures are the same whatever the user's matplotlib is set to, and change nothing of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import predict
from experiments.views import plotting

DRAW = (
    "import sys; from pathlib import Path; import numpy as np; from experiments import predict;"
    "predict.picture(np.eye(3, dtype=int) * 7, 'abc', 'a_title & more', Path(sys.argv[1]));"
    "assert 'matplotlib.pyplot' not in sys.modules"
)
RC = """
backend: TkAgg
text.usetex: True
text.parse_math: False
font.family: fantasy
figure.figsize: 1, 1
figure.autolayout: True
savefig.dpi: 311
savefig.bbox: tight
savefig.format: pdf
savefig.transparent: True
savefig.facecolor: red
lines.linewidth: 9
axes.prop_cycle: cycler('color', ['k'])
svg.fonttype: none
path.sketch: 3, 100, 2
interactive: True
"""


def drawn(folder: Path, **environment: str) -> tuple[bytes, bytes]:
    """The bytes of the SVG and the PNG that a process with this environment draws."""
    plain = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "MATPLOTLIBRC")}
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(folder)], env=plain | environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    svg, png = folder / "confusion.svg", folder / "confusion.png"
    assert {path.name for path in folder.iterdir()} == {svg.name, png.name}
    return svg.read_bytes(), png.read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    return drawn(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "backend",
    ["module://matplotlib_inline.backend_inline", "module://nowhere", "TkAgg", "no_such_backend"],
)
def test_figures_do_not_depend_on_the_users_backend(plain, backend, tmp_path):
    assert drawn(tmp_path, MPLBACKEND=backend, DISPLAY="") == plain


def test_figures_do_not_depend_on_the_users_matplotlibrc(plain, tmp_path):
    (tmp_path / "matplotlibrc").write_text(RC)
    found = drawn(tmp_path / "figures", MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    assert found == plain


def test_figures_are_drawn_when_the_users_matplotlibrc_can_not_be_read(plain, tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe: : no text\nfont.size: large\n")
    found = drawn(tmp_path / "figures", MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    assert found == plain


def test_figures_change_no_setting_of_the_users(tmp_path, monkeypatch):
    matplotlib = plotting.load_matplotlib()
    with matplotlib.rc_context({"text.usetex": True, "font.size": 31, "svg.hashsalt": "theirs"}):
        before = dict(matplotlib.rcParams)
        predict.picture(np.eye(2, dtype=int), "ab", "a_title", tmp_path)
        assert dict(matplotlib.rcParams) == before


def test_a_figure_outside_of_our_style_is_refused():
    with pytest.raises(RuntimeError, match="own_style"):
        plotting.subplots()
