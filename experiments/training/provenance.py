"""What a run's result may depend on beside its settings: versions, commit, device, BLAS."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import minibn
from minibn.fast.selection import without_kernels


@functools.cache
def commit() -> str:
    """The commit of minibn's source, with "+changes" if files differ; "unknown" outside minibn's
    own checkout, such as in a virtual environment inside another repository."""
    package = Path(minibn.__file__).resolve().parent
    root = package.parent
    # Git would take these variables for the repository, wherever the source lies.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, check=True, env=environ,
        ).stdout.strip()  # fmt: skip

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return "unknown"
        git("ls-files", "--error-unmatch", "minibn/__init__.py", "experiments/__main__.py")
        changes = "+changes" if git("status", "--porcelain", "-uno") else ""
        return git("rev-parse", "HEAD") + changes
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def blas(of: str = "") -> list[str]:
    """Each BLAS that is loaded: name, version, and the architecture whose kernels run. of: a part
    of the library's path; if none has it, all are listed. None without threadpoolctl."""
    try:
        import threadpoolctl
    except ModuleNotFoundError:
        return []
    loaded = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    chosen = [pool for pool in loaded if of in pool["filepath"]] or loaded
    names = [
        f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip()
        for pool in chosen
    ]
    return list(dict.fromkeys(names))


def simd() -> list[str]:
    """The instruction sets that NumPy's own loops use here."""
    found = np.show_config(mode="dicts") or {}
    return list(found.get("SIMD Extensions", {}).get("found", []))


def environment(backend: Any, threads: int) -> dict[str, Any]:
    """What a run's result may depend on beside its settings."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "minibn": minibn.__version__,
        "commit": commit(),
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": threads,
        "blas": ", ".join(blas("numpy")) or "unknown",
        "simd": " ".join(simd()),
        **backend.describe(),
        **({"without_kernels": " ".join(sorted(off))} if (off := without_kernels()) else {}),
    }
