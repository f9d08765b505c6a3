"""What `python -m pytest --gradients=quick` runs: every gradient, within a minute."""

import os
import subprocess
import sys

from suite.registry import CASES, LAYERS
from support.copies import ROOT
from support.installed_plugin import write_entry_point


def collected(tmp_path, *arguments):
    write_entry_point(tmp_path)
    quick = ["--gradients=quick", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-p", "minibn", *quick, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def test_quick_checks_each_row_leaves_out_what_is_slow_and_says_so(tmp_path):
    text = collected(tmp_path)
    for name in CASES:
        assert f"test_gradients.py::test_the_gradient_agrees_with_the_oracles[{name}]" in text
    layer = "test_the_gradient_of_every_layer_is_right_in_its_input_and_its_parameters[numpy-"
    for name in LAYERS:
        assert f"{layer}{name}]" in text
    for folder in ("tests/fast", "tests/gpu", "tests/experiments", "tests/parity", "tests/meta"):
        assert folder not in text
    assert "deselected" in text
    assert "It left out kernels" in text


def test_quick_runs_the_whole_of_a_file_that_is_named(tmp_path):
    text = collected(tmp_path, "tests/backend/test_backend.py")
    assert text.count("test_backend.py::") > 20
    assert "left out" not in text
