"""What only a GPU can show, in one command: that CuPy computes what NumPy does, and how fast.

    python -m experiments.gpu_check --data cifar10 --data-dir DIR [--out DIR] [--minutes 25]
    python -m experiments.gpu_check --only tests benchmark
    python -m experiments.gpu_check --backend strict --quick       a rehearsal on the CPU

Parts, in this order, each a process with a limit to its time: the environment, the tests marked
`gpu` that are about a GPU, losses and the analysis on both backends, the machine and each kernel's
share, all kernels and all tiles at each call of a step, the benchmark against PyTorch, the paper's
settings for one variant, a batch of 8,192, all other tests marked `gpu`, and `reproduce --scale
paper` for as long as there is time.

Results are written to --out at once: a log and a JSON file for each part, gpu_check.json and
summary.md with the outcome of each, and gpu_check.tar.gz with all small files. After an
interruption the same command goes on: finished parts are not repeated, unless --only names them.

Exit code 0: everything is done and as it must be. 1: it isn't. 2: it can't run here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.gpu.parts import NAMES, all_parts
from experiments.gpu.sitting import Sitting
from experiments.training.command_line import (
    UsageError,
    at_least,
    flag_name,
    one_of,
    parse,
    setting,
)
from experiments.training.entry_point import check_out, program
from experiments.training.json_files import read_json
from experiments.training.loop import cores
from experiments.training.settings import DATA, PRECISIONS
from experiments.training.signals import interrupts
from minibn.backend import get_backend
from minibn.data import load

PROGRAM = "python -m experiments.gpu_check"
BACKENDS = ("cupy", "strict")
IDENTITY = ("backend", "quick", "data", "precision", "seed")  # what a folder is about


@dataclass(frozen=True)
class Options:
    backend: str = setting(
        "cupy", "what to check against numpy: cupy, or strict for a rehearsal", choices=BACKENDS
    )
    quick: bool = setting(
        False, "tiny sizes, to test that everything runs; the numbers mean nothing"
    )
    only: tuple[str, ...] = setting((), "these parts, again", kind=str, choices=NAMES)
    minutes: float = setting(25.0, "time for this sitting; parts that do not fit are left out")
    data: str = setting("shapes", "the data set; reproduce wants cifar10", choices=DATA)
    data_dir: str | None = setting(None, "where CIFAR-10 lies", kind=str, path=True)
    # As PyTorch's documentation recommends, and as PyTorch is timed.
    precision: str = setting("tf32", "precision of what is timed", choices=PRECISIONS)
    seed: int = setting(0, "root seed of the paper's trainings")
    out: str = setting("runs/gpu_check", "folder for all results", path=True)


def check(options: Options) -> None:
    """Raise UsageError, BackendUnavailable or DataError for what can't work."""
    one_of("--backend", options.backend, BACKENDS)
    one_of("--data", options.data, DATA)
    one_of("--precision", options.precision, PRECISIONS)
    for name in options.only:
        one_of("--only", name, NAMES)
    at_least("--minutes", options.minutes, 0, above=True)
    at_least("--seed", options.seed, 0)
    check_out(options.out)
    get_backend(options.backend)
    cores()
    load(options.data, options.data_dir)


def same_as_before(options: Options, folder: Path) -> None:
    """Raise UsageError if the folder holds results with other options of IDENTITY: their finished
    parts would count as done, such as a rehearsal's on a GPU."""
    path = folder / "gpu_check.json"
    if not path.exists():
        return
    before = read_json(path, options=dict)["options"]
    differ = [
        f"{flag_name(name)} {before.get(name)}, not {value}"
        for name, value in vars(options).items()
        if name in IDENTITY and before.get(name) != value
    ]
    if differ:
        raise UsageError(
            f"--out {folder} holds results with {'; '.join(differ)}. Name another --out."
        )


@interrupts()
def sit(options: Options) -> int:
    """Run the parts that are not done, within the time. Returns the exit code."""
    folder = Path(options.out).absolute()
    same_as_before(options, folder)
    todo = [p for p in all_parts(options, folder) if not options.only or p.name in options.only]
    sitting = Sitting(folder, {"options": vars(options)})
    before = [p for p in todo if sitting.status(p) == "done" and not options.only]
    for part in before:
        print(f"{part.name}: done before. Again: --only {part.name}")
    stopped = False
    try:
        sitting.run([part for part in todo if part not in before], options.minutes)
    except KeyboardInterrupt:
        stopped = True
        sitting.write()
    print(f"\n{sitting.summary()}\n\nEverything small is in {sitting.pack()}", flush=True)
    if stopped:
        print("Stopped. The same command goes on.")
        return 130
    return 0 if {sitting.status(part) for part in todo} <= {"done", "goes on"} else 1


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, and print the results. Returns the exit code."""
    options = Options(**parse(Options, arguments, program=PROGRAM, description=__doc__))
    try:
        check(options)
        return sit(options)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = "Free space, or fix that: the same command goes on; or name another --out."
        raise OSError(f"{error.strerror or error}{where}. {remedy}") from error


if __name__ == "__main__":
    sys.exit(main())
