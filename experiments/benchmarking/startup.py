"""Start-up times of commands, each in a fresh process."""

from __future__ import annotations

import time

from experiments.benchmarking.memory import child
from experiments.benchmarking.timing import Times

IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"

# What is timed -> (Python's arguments, whether the process prints the seconds itself)
COMMANDS: dict[str, tuple[tuple[str, ...], bool]] = {
    "python -c pass": (("-c", "pass"), False),
    "import numpy": (("-c", IMPORT.format("numpy")), True),
    "import minibn": (("-c", IMPORT.format("minibn")), True),
    "python -m experiments.vgg_cifar --help": (("-m", "experiments.vgg_cifar", "--help"), False),
}


def start_up(rounds: int) -> dict[str, Times]:
    """Seconds of each command in `rounds` processes, after one that fills the disk's cache. An
    import (NumPy's included) is timed inside its process, a whole command from outside."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, (arguments, prints) in COMMANDS.items():
            began = time.perf_counter()
            printed = child(*arguments)
            spent = float(printed) if prints else time.perf_counter() - began
            if turn:
                found[name].append(spent)
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}
