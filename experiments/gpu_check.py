"""What only a GPU can show, in one sitting: that CuPy computes what NumPy does, how fast, and the
paper's own trainings.

    python -m experiments.gpu_check --data-dir DIR [--sitting 9m] [--out DIR]
    python -m experiments.gpu_check --prepare      compile the kernels, where there is no GPU
    python -m experiments.gpu_check --rehearse     everything in tiny sizes, on the CPU

Parts, in the order of their worth, each a process with a limit to its time (in 9 minutes):

    losses   45 s   50 steps of every variant, beside NumPy's losses, which are carried in a file
    steps    90 s   VGG-16 and VGG-11 in fp32, tf32 and bf16, beside PyTorch, eager and as a graph
    paper    5 min  the paper's setting on CIFAR-10: as many runs as the time holds
    laws     60 s   the tests marked gpu: the laws of ops and kernels
    kernels  60 s   each call of a step by each kernel, each product by each tile

A part that crashes, or whose losses are wrong, is run again without a captured graph, then by the
definitions in minibn.ops instead of our kernels, and so are the parts after it. `--without` turns
off a part, or one thing that may be wrong: the graph, all CUDA kernels or one of them, PyTorch, the
recorders, what --prepare compiled; or the other ways, if a part is to be tried in the first alone.

Results are written to --out at once: a log and a JSON file for each part, gpu_check.json and
summary.md with the outcome of each, and gpu_check.tar.gz with all small files (below 16 MiB). After
an interruption, or in another sitting, the same command goes on: finished parts are not repeated,
unless --only names them.

Exit code 0: everything is done and as it must be. 1: it isn't. 2: it can't run here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.gpu.parts import NAMES, all_parts, first_way
from experiments.gpu.prepare import FOLDER, prepare
from experiments.gpu.sitting import PATIENCE, Sitting
from experiments.training.command_line import (
    UsageError,
    flag_name,
    one_of,
    parse,
    setting,
)
from experiments.training.entry_point import check_out, program
from experiments.training.json_files import read_json
from experiments.training.loop import cores
from experiments.training.settings import PRECISIONS
from experiments.training.signals import interrupts
from minibn.backend import get_backend
from minibn.data import load
from minibn.errors import BackendUnavailable, DataError
from minibn.fast.cuda.kernel_list import KERNELS
from minibn.fast.cuda.program import PREPARED
from minibn.fast.selection import WITHOUT

PROGRAM = "python -m experiments.gpu_check"
BACKENDS = ("cupy", "strict", "emulated")
IDENTITY = ("backend", "rehearse", "precision")  # what a folder is about
UNITS = {"s": 1, "m": 60, "h": 3600, "": 60}
OWN_KERNELS = tuple(sorted({kernel.__name__ for kernels in KERNELS.values() for kernel in kernels}))
THINGS = ("graph", "cuda", "pytorch", "recorders", "prepared", "other-ways")


@dataclass(frozen=True)
class Options:
    sitting: str = setting("9m", "time for all of it: 9m, 540s, 1h", metavar="TIME")
    data_dir: str | None = setting(
        None, "where CIFAR-10 lies (else the cache, else a download)", kind=str, path=True
    )
    without: tuple[str, ...] = setting(
        (), f"leave out parts; or {', '.join(THINGS)}; or a kernel: {', '.join(OWN_KERNELS)}",
        kind=str, metavar="NAME",
    )  # fmt: skip
    only: tuple[str, ...] = setting(
        (), f"these parts, again: {', '.join(NAMES)}", kind=str, metavar="PART"
    )
    # As PyTorch's documentation recommends.
    precision: str = setting("tf32", "precision of the trainings", choices=PRECISIONS)
    prepare: bool = setting(False, "compile the kernels into --out for an H100 or H200, then end")
    rehearse: bool = setting(False, "tiny sizes, without a GPU: the numbers mean nothing")
    backend: str | None = setting(
        None,
        "cupy, and of a rehearsal strict, unless you choose; emulated: with CUDA's kernels, by g++",
        kind=str,
        choices=BACKENDS,
    )
    out: str = setting("runs/gpu_check", "folder for all results", path=True)

    @property
    def seconds(self) -> float:
        """The time of the sitting."""
        found = re.fullmatch(r"([\d.]+) *([smh]?)", self.sitting)
        try:
            return float(found[1]) * UNITS[found[2]] if found else float("nan")
        except ValueError:
            return float("nan")


def check(options: Options) -> None:
    """Raise UsageError, BackendUnavailable or DataError for what can't work."""
    if not options.seconds > 0:
        raise UsageError(f"--sitting {options.sitting} is no time. Say 9m, 540s or 1h.")
    one_of("--precision", options.precision, PRECISIONS)
    for name in options.only:
        one_of("--only", name, NAMES)
    for name in options.without:
        one_of("--without", name, (*NAMES, *THINGS, *OWN_KERNELS))
    left = set(options.only or NAMES) - set(options.without)
    if not left:
        raise UsageError("--without leaves no part. Leave out less.")
    check_out(options.out)
    cores()
    if options.prepare:
        return
    one_of("--backend", str(options.backend), BACKENDS)
    get_backend("strict" if options.backend == "emulated" else options.backend)
    if not options.rehearse:
        if options.backend != "cupy":
            raise UsageError(f"--backend {options.backend} is for a rehearsal. Add --rehearse.")
        if "paper" not in options.without:
            try:
                load("cifar10", options.data_dir)
            except DataError as error:
                raise DataError(f"{error} Or leave the trainings out: --without paper.") from None


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
    parts = all_parts(options, folder)
    todo = [part for part in parts if not options.only or part.name in options.only]
    sitting = Sitting(folder, {"options": vars(options)}, _environment(options, folder))
    before = [p for p in todo if sitting.status(p) in ("done", "cut off") and not options.only]
    for part in before:
        print(f"{part.name}: done before. Again: --only {part.name}")
    stopped = False
    try:
        way = sitting.last_way(first_way(options), options.only)
        sitting.holds_the_way = "other-ways" in options.without
        left = [part for part in todo if part not in before]
        sitting.run(left, options.seconds, way, PATIENCE if options.rehearse else 1)
    except KeyboardInterrupt:
        stopped = True
        sitting.write()
    print(f"\n{sitting.summary()}\n\nEverything small is in {sitting.pack()}", flush=True)
    if stopped:
        print("Stopped. The same command goes on.")
        return 130
    return 0 if all(sitting.outcomes[part.name].is_right for part in todo) else 1


def _environment(options: Options, folder: Path) -> dict[str, str]:
    """Variables for the parts' processes."""
    found: dict[str, str] = {}
    # CuPy's own reductions, which every test of ours runs, in the place of CUB's.
    found["CUPY_ACCELERATORS"] = os.environ.get("CUPY_ACCELERATORS", "")
    if off := [name for name in options.without if name in OWN_KERNELS]:
        found[WITHOUT] = ",".join(off)
    if (folder / FOLDER).exists() and "prepared" not in options.without:
        found[PREPARED] = str(folder / FOLDER)
    return found


def prepare_kernels(options: Options) -> int:
    """Compile what a sitting launches. Returns the exit code."""
    if importlib.util.find_spec("cupy") is None:
        raise BackendUnavailable(
            "--prepare compiles by NVRTC, through CuPy: neither needs a GPU. Install them: pip "
            "install 'minibn[nvrtc]'"
        )
    folder = Path(options.out).absolute() / FOLDER
    for line in prepare(folder, options.precision):
        print(line, flush=True)
    files = [*folder.glob("*.cubin")]
    print(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB, in {folder}")
    print("Take the folder along, and name it there: --out", options.out)
    return 0


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, and print the results. Returns the exit code."""
    options = Options(**parse(Options, arguments, program=PROGRAM, description=__doc__))
    if options.backend is None:
        options = replace(options, backend="strict" if options.rehearse else "cupy")
    try:
        check(options)
        return prepare_kernels(options) if options.prepare else sit(options)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = "Free space, or fix that: the same command goes on; or name another --out."
        raise OSError(f"{error.strerror or error}{where}. {remedy}") from error


if __name__ == "__main__":
    sys.exit(main())
