"""Copies of minibn in a folder of their own, to edit or to run without a part."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns("__pycache__", "results")


def copy_of_minibn(folder: Path) -> Path:
    """`folder`, with a copy of the library in it."""
    shutil.copytree(ROOT / "minibn", folder / "minibn", ignore=NOT_COPIED)
    return folder


def without_kernels(folder: Path) -> Path:
    """A copy of minibn without `fast/`, in a folder of its own."""
    copy_of_minibn(folder)
    shutil.rmtree(folder / "minibn" / "fast")
    return folder


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in that folder, which it imports minibn from, and only from there: without `site`
    (-S) an editable installation does not help out with what the copy lacks."""
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(folder), *installed]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
