"""Our speed and memory on a CPU or a GPU beside PyTorch's, measured alternately in one process.

    python -m experiments.benchmark [--json FILE]
    python -m experiments.benchmark --parts steps --models vgg16 --batch 128 --rounds 15
    python -m experiments.benchmark --quick
    python -m experiments.benchmark --backend cupy

Training steps (forward, backward, SGD) of VGG with BatchNorm, without, and with noisy BatchNorm;
each layer alone; a profile by op; the peak memory of a step; scaling with batch, width and threads;
what the machine can do; start-up; one convolution in other NumPy libraries. PyTorch gets the same
weights, batch and threads; of its memory layouts the faster one counts. Without PyTorch ours are
timed alone. It takes about a quarter of an hour on two cores, on a machine without other work.

On a GPU: training steps with momentum and weight decay, eager and as a captured graph, against
PyTorch's eager mode with TF32, its CUDA graphs and its compiler, timed by events; every precision;
each kernel's share; memory. `--backend strict` rehearses that on NumPy, `--backend emulated` with
the CUDA kernels compiled for the host: both slowly, so with `--quick`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.benchmarking import gpu_parts, parts
from experiments.benchmarking.cases import Disagreement
from experiments.benchmarking.device import device_of
from experiments.benchmarking.gpu import GpuBench
from experiments.benchmarking.machine import Bystanders, header, shares
from experiments.benchmarking.memory import ChildFailed
from experiments.benchmarking.parts import Bench
from experiments.benchmarking.targets import ROUNDS, Verdict, gpu_verdicts, verdicts
from experiments.output import say, say_table
from experiments.training.command_line import UsageError, at_least, one_of, parse, setting
from experiments.training.entry_point import program
from experiments.training.json_files import write_json
from experiments.training.loop import clock, cores
from experiments.training.variants import variant_name
from experiments.vgg.settings import VARIANTS
from minibn import use
from minibn.fast.cuda.emulator import emulate
from reference_models.vgg import VGG, vgg

PROGRAM = "python -m experiments.benchmark"
DISTURBED = 0.03  # of the cores, used by other processes: above, times mean little
BACKENDS = ("numpy", "cupy", "strict", "emulated")
WAYS = ("eager", "graph", "lean", "reference")
PARTS: dict[str, dict[str, Any]] = dict.fromkeys(BACKENDS, gpu_parts.PARTS) | {"numpy": parts.PARTS}


@dataclass(frozen=True)
class Options:
    backend: str = setting(
        "numpy",
        "what to measure: numpy, the CPU; cupy, a GPU; strict or emulated, its rehearsal",
        choices=BACKENDS,
    )
    quick: bool = setting(False, "tiny sizes, to test that it works; the numbers mean nothing")
    json: str | None = setting(
        None, "write everything to this file", kind=str, metavar="FILE", path=True
    )
    rounds: int = setting(ROUNDS, f"rounds; verdicts need at least {ROUNDS}")
    parts: tuple[str, ...] = setting(
        tuple(PARTS["numpy"]),
        f"what to measure: {', '.join(PARTS['numpy'])}; on a GPU: {', '.join(PARTS['cupy'])}, all "
        "of them unless you choose",
        metavar="NAME",
    )
    models: tuple[str, ...] = setting(("vgg16", "vgg11"), "networks", choices=VGG)
    variants: tuple[str, ...] = setting(
        ("batchnorm", "standard", "noisy-batchnorm"),
        "variants (or the names of their norms)",
        choices=VARIANTS,
        also="--norm",
        convert=variant_name,
    )
    # Parts about one network take the first model with the first batch.
    batch: tuple[int, ...] = setting((128, 16), "images per step; 128 512 2048 on a GPU")
    width: float = setting(1.0, "factor on the networks' channels")
    threads: int | None = setting(None, "threads of all contenders (default: all cores)", kind=int)
    ways: tuple[str, ...] = setting(
        WAYS[:2], "how ours train on a GPU; reference: by the definitions", choices=WAYS
    )
    alone: bool = setting(False, "time ours alone, without PyTorch")
    precision: str = setting(
        "fp32", "what factors are rounded to; tf32 on a GPU", choices=gpu_parts.PRECISIONS
    )


# TF32: PyTorch's default is fp32 in products, and its tuning guide recommends to change that.
GPU: dict[str, Any] = {
    "parts": tuple(PARTS["cupy"]), "batch": (128, 512, 2048), "precision": "tf32"
}  # fmt: skip
QUICK: dict[str, Any] = {"models": ("vgg11",), "batch": (8,), "width": 0.125, "rounds": 1}
QUICK_SIZES: dict[str, Any] = {
    "scaling_batches": (4, 8), "scaling_widths": (0.0625, 0.125), "product": 256, "megabytes": 8
}  # fmt: skip
GPU_SIZES: dict[str, Any] = {"product": 8192, "megabytes": 1024}
GPU_QUICK_SIZES: dict[str, Any] = {
    "product": 64, "megabytes": 1, "large_batch": 16, "warm_up": 1, "patience": 2
}  # fmt: skip
SHARES = ("our step", "GFLOP", "GFLOP/s", "of product rate", "GB", "GB/s", "of copy bandwidth")


def check(options: Options) -> None:
    """Raise UsageError for options that can't work, before anything is timed."""
    one_of("--backend", options.backend, BACKENDS)
    one_of("--precision", options.precision, gpu_parts.PRECISIONS)
    if options.backend == "numpy" and options.precision != "fp32":
        raise UsageError(f"--precision {options.precision} is for a GPU. Add --backend cupy.")
    known = {
        "parts": tuple(PARTS[options.backend]),
        "models": tuple(VGG),
        "ways": WAYS,
        "variants": tuple(VARIANTS),
    }
    for flag, names in known.items():
        for name in getattr(options, flag):
            one_of(f"--{flag}", name, names)
    at_least("--rounds", options.rounds, 1)
    for batch in options.batch:
        at_least("--batch", batch, 2)  # BatchNorm behind the last pooling has one value an image
    at_least("--width", options.width, 0, above=True)
    if options.threads is not None:
        at_least("--threads", options.threads, 1)
    for model in options.models:
        try:
            vgg(model, width=options.width)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if options.json is not None:
        path = Path(options.json)
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"--json {path} is no file in a folder that exists. Name another.")


def pytorch_side(backend: str = "numpy") -> Any:
    """The module of PyTorch's contenders, or None without PyTorch (on a GPU: without its CUDA
    build)."""
    if importlib.util.find_spec("torch") is None:
        return None
    name = "pytorch" if backend == "numpy" else "pytorch_gpu"
    side = importlib.import_module(f"experiments.benchmarking.{name}")  # it needs PyTorch
    return None if backend == "cupy" and side.Device().name != "cuda" else side


@contextmanager
def _bench(options: Options, save: Callable[[str, Any], None]) -> Iterator[Bench]:
    """What the parts share, with the backend in use and the threads of both libraries set."""
    pytorch = None if options.alone else pytorch_side(options.backend)
    threads = options.threads or cores()
    shared = (
        pytorch, threads, options.rounds, options.models, options.variants, options.batch,
        options.width,
    )  # fmt: skip
    if options.backend == "numpy":
        bench = Bench(*shared, **(QUICK_SIZES if options.quick else {}))
        with bench.on_threads(threads):
            yield bench
        return
    rehearsal = emulate() if options.backend == "emulated" else nullcontext()
    with use("strict" if options.backend == "emulated" else options.backend) as backend, rehearsal:
        bench = GpuBench(
            *shared,
            device=device_of(backend),
            theirs=pytorch and pytorch.Device(),
            precision=options.precision,
            ways=options.ways,
            save=save,
            **(GPU_QUICK_SIZES if options.quick else GPU_SIZES),
        )
        with bench.on_threads(threads):
            yield bench


def measure(options: Options) -> dict[str, Any]:
    """Measure the chosen parts, print, and return the record; it is written after every part, on a
    GPU after every case."""
    began = time.perf_counter()
    record: dict[str, Any] = {"rounds": options.rounds, "bystanders": {}, "targets": []}

    def save(part: str, results: Any) -> None:
        record[part] = results
        record["targets"] = [{**vars(v), "verdict": str(v)} for v in _verdicts(options, record)]
        _write(options, record)

    with _bench(options, save) as bench:
        record["header"] = header(bench.threads, bench.pytorch)
        record["left_out"] = getattr(bench, "left_out", [])
        for key, value in record["header"].items():
            if value is not None:
                say(f"{key:<12} {value}")
        if not bench.pytorch and not options.alone:
            cuda = " with CUDA" if options.backend == "cupy" else ""
            alone = "is not installed, so ours are timed alone. To compare: pip install torch"
            say(f"PyTorch{cuda} {alone}")
        for name, (title, measure) in PARTS[options.backend].items():
            if name in options.parts:
                say(f"\n## {title}  [{clock(time.perf_counter() - began)}]\n")
                bystanders, results = Bystanders(), None
                with bench.unless_it_fails(title, "the whole part"):
                    results = measure(bench)
                record["bystanders"][name] = share = bystanders.share()
                if share is not None and share > DISTURBED:
                    say(f"\nDISTURBED: meanwhile other processes used {share:.0%} of the cores.")
                if results is not None:
                    save(name, results)
    if "machine" in record and "steps" in record:
        say("\n## Shares of the machine\n")
        say_table(SHARES, shares(record))
        say("\nBy the direct method's counts (`benchmarking.machine.Cost` lists them): Winograd's")
        say("convolution does less, and may exceed 100%. A share is a floor over the time: what")
        say("the arithmetic, or the traffic, alone would take at the measured rates.")
    _judge(options, record)
    _write(options, record)
    say(f"\nDone in {clock(time.perf_counter() - began)}.")
    return record


def _verdicts(options: Options, record: dict[str, Any]) -> list[Verdict]:
    """The verdicts on the targets; none with --quick or of a rehearsal."""
    judge = {"numpy": verdicts, "cupy": gpu_verdicts}.get(options.backend)
    return list(judge(record)) if judge and not options.quick else []


def _judge(options: Options, record: dict[str, Any]) -> None:
    if results := _verdicts(options, record):
        rows = [
            [v.what, f"{v.found:.2f}", v.at_most, "" if v.aim is None else v.aim, v]
            for v in results
        ]
        say("\n## Targets\n")
        say_table(["target", "found", "at most", "aim", "verdict"], rows)
        if options.rounds < ROUNDS:
            say(f"\n{options.rounds} rounds are too few to decide: --rounds {ROUNDS} or more.")
        if any(share is not None and share > DISTURBED for share in record["bystanders"].values()):
            say(
                "\nSome parts were disturbed by other processes. Repeat them when those have ended."
            )


def _write(options: Options, record: dict[str, Any]) -> None:
    if options.json is None:
        return
    try:
        write_json(Path(options.json), record)
    except OSError as error:
        raise OSError(
            f"--json {options.json} can't be written: {error.strerror or error}. What was measured "
            "stands above. Free space, or name another file."
        ) from None


def _exit_code(record: dict[str, Any]) -> int:
    """1 if something failed that should have run, else 0; prints what failed."""
    mistakes = [f"{m['what']} ({m['who']})" for m in record["left_out"] if m["mistake"]]
    if mistakes:
        say(f"\nFAILED, see left_out in --json: {'; '.join(mistakes)}.")
    return 1 if mistakes else 0


@program(
    PROGRAM,
    stopped="Stopped; --json has the parts that were done.",
    remedy="Take a smaller --batch.",
    errors=(Disagreement, ChildFailed),
)
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the results. Returns the exit code."""
    given = parse(Options, arguments, program=PROGRAM, description=__doc__)
    gpu = given.get("backend", "numpy") != "numpy"
    quick = bool(given.get("quick"))
    options = Options(**{**(GPU if gpu else {}), **(QUICK if quick else {}), **given})
    check(options)
    return _exit_code(measure(options))


if __name__ == "__main__":
    sys.exit(main())
