"""The peak memory of a training step, above the process with model and batch loaded.

Every contender runs in a process of its own, which builds its network and batch, notes its resident
memory, resets the peak (Linux: a 5 to /proc/self/clear_refs), takes three steps and notes the peak.
Where the peak can't be reset, the rise of `ru_maxrss` is taken, which misses what stays below the
peak of loading.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.benchmarking.cases import Case, Step
from minibn.fast.cpu import threads as cpu_threads

with contextlib.suppress(ImportError):  # on Windows, where nothing is measured
    import resource

ROOT = Path(__file__).parent.parent.parent
STEPS = 3  # the second starts with the first one's gradients and used memory


class ChildFailed(Exception):
    """A measuring process ended with an error."""


def peak(case: Case, contender: str, threads: int) -> dict[str, float]:
    """Bytes of a fresh process: {"loaded", "peak", "step": their difference}. contender: "fast" or
    "lean" for ours, or a memory layout of PyTorch. Raises ChildFailed."""
    task = {"case": vars(case), "contender": contender, "threads": threads}
    return json.loads(child("-m", __name__, json.dumps(task), threads=threads))


def child(*arguments: str, threads: int | None = None) -> str:
    """What a Python process with these arguments prints. Raises ChildFailed with its last line."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    if threads is not None:
        environment["MINIBN_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        advice = " Was it short of memory? Take a smaller --batch." if done.returncode < 0 else ""
        raise ChildFailed(f"a measuring process failed: {last}.{advice}")
    return done.stdout


def _status(key: str) -> int | None:
    """A number of bytes from /proc/self/status; None where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            found = [line.split()[1] for line in lines if line.startswith(key + ":")]
    except OSError:
        return None
    return 1024 * int(found[0]) if found else None


def _highest() -> int:
    """`ru_maxrss` in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return _status("VmHWM") is not None and _status("VmRSS") is not None


def _measure(task: dict[str, Any]) -> dict[str, float]:
    case, contender, threads = Case(**task["case"]), task["contender"], task["threads"]
    step: Any
    if contender in ("fast", "lean"):
        step = Step(case, contender)
    else:
        pytorch = importlib.import_module("experiments.benchmarking.pytorch")  # it needs PyTorch
        pytorch.set_threads(threads)
        step = pytorch.Step(case, contender, case.network())
    gc.collect()
    exact = _reset_peak()
    loaded = (_status("VmRSS") if exact else None) or _highest()
    with cpu_threads.limit_threads(threads):
        for _ in range(STEPS):
            step()
    highest = (_status("VmHWM") if exact else None) or _highest()
    return {"loaded": loaded, "peak": highest, "step": highest - loaded, "exact": exact}


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))))
