"""Our speed and memory on a CPU beside PyTorch's, measured in turn in one process.

    python -m experiments.benchmark [--json FILE]
    python -m experiments.benchmark --parts steps --models vgg16 --batch 128 --rounds 15
    python -m experiments.benchmark --quick

Training steps (forward, backward, SGD) of VGG with BatchNorm, without, and with noisy BatchNorm;
each layer alone; a profile by op; the peak memory of a step; scaling with batch, width and threads;
what the machine can do; start-up; one convolution in other NumPy libraries. PyTorch gets the same
weights, batch and threads, and counts with the better of its layouts. Without PyTorch ours are
timed alone. It takes about a quarter of an hour on two cores, and wants the machine for itself.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.benchmarking.cases import Disagreement
from experiments.benchmarking.machine import Bystanders, header, shares
from experiments.benchmarking.memory import ChildFailed
from experiments.benchmarking.parts import PARTS, Bench
from experiments.benchmarking.report import say, table
from experiments.benchmarking.targets import ROUNDS, verdicts
from experiments.running.command_line import UsageError, at_least, one_of, parse, report, setting
from experiments.running.streams import write_json
from experiments.running.training import clock, cores
from experiments.vgg.settings import VARIANTS
from reference_models.vgg import VGG, vgg

PROGRAM = "python -m experiments.benchmark"
DISTURBED = 0.03  # of the cores, taken by other processes: more, and times mean little


@dataclass(frozen=True)
class Options:
    quick: bool = setting(False, "tiny sizes, to see that it works; its figures mean nothing")
    json: str | None = setting(None, "write everything to this file", kind=str)
    rounds: int = setting(ROUNDS, f"rounds; targets want at least {ROUNDS}")
    parts: tuple[str, ...] = setting(tuple(PARTS), f"what to measure: {', '.join(PARTS)}")
    models: tuple[str, ...] = setting(("vgg16", "vgg11"), f"networks: {', '.join(VGG)}")
    variants: tuple[str, ...] = setting(
        ("batchnorm", "standard", "noisy-batchnorm"), f"variants: {', '.join(VARIANTS)}"
    )
    # Parts about one network take the first model with the first batch.
    batch: tuple[int, ...] = setting((128, 16), "images per step")
    width: float = setting(1.0, "factor on the networks' channels")
    threads: int | None = setting(None, "threads of all contenders (default: all cores)", kind=int)


QUICK: dict[str, Any] = {"models": ("vgg11",), "batch": (8,), "width": 0.125, "rounds": 1}
QUICK_SIZES: dict[str, Any] = {
    "scaling_batches": (4, 8), "scaling_widths": (0.0625, 0.125), "product": 256, "megabytes": 8
}  # fmt: skip
SHARES = ("our step", "GFLOP", "GFLOP/s", "of product rate", "GB", "GB/s", "of copy bandwidth")


def check(options: Options) -> None:
    """Raise UsageError for options that can't work, before anything is timed."""
    known = {"parts": tuple(PARTS), "models": tuple(VGG), "variants": tuple(VARIANTS)}
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


def pytorch_side() -> Any:
    """The module of PyTorch's contenders, or None without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    from experiments.benchmarking import pytorch

    return pytorch


def benchmark(options: Options) -> dict[str, Any]:
    """Measure the chosen parts, print, and return the record; it is written after every part."""
    began = time.perf_counter()
    threads = options.threads or cores()
    pytorch = pytorch_side()
    sizes = QUICK_SIZES if options.quick else {}
    bench = Bench(
        pytorch, threads, options.rounds, options.models, options.variants, options.batch,
        options.width, **sizes,
    )  # fmt: skip
    record: dict[str, Any] = {"header": header(threads, pytorch), "rounds": options.rounds}
    record["bystanders"] = {}
    for key, value in record["header"].items():
        if value is not None:
            say(f"{key:<12} {value}")
    if not pytorch:
        say("PyTorch is not installed, so ours are timed alone. To compare: pip install torch")
    with bench.on_threads(threads):
        for name, (title, measure) in PARTS.items():
            if name in options.parts:
                say(f"\n## {title}  [{clock(time.perf_counter() - began)}]\n")
                bystanders = Bystanders()
                record[name] = measure(bench)
                record["bystanders"][name] = taken = bystanders.share()
                if taken is not None and taken > DISTURBED:
                    say(f"\nDISTURBED: meanwhile other processes took {taken:.0%} of the cores.")
                _write(options, record)
    if "machine" in record and "steps" in record:
        say("\n## Shares of the machine\n\n" + table(SHARES, shares(record)))
        say("\nBy the direct method's counts (`benchmarking.machine.Cost` lists them): Winograd's")
        say("convolution does less, and may exceed 100%.")
    _judge(options, record)
    _write(options, record)
    say(f"\nDone in {clock(time.perf_counter() - began)}.")
    return record


def _judge(options: Options, record: dict[str, Any]) -> None:
    found = [] if options.quick else list(verdicts(record))
    record["targets"] = [{**vars(v), "verdict": str(v)} for v in found]
    if found:
        rows = [
            [v.what, f"{v.found:.2f}", v.at_most, "" if v.aim is None else v.aim, v] for v in found
        ]
        say("\n## Targets\n\n" + table(["target", "found", "at most", "aim", "verdict"], rows))
        if options.rounds < ROUNDS:
            say(f"\n{options.rounds} rounds decide nothing: --rounds {ROUNDS} or more.")
        if any(taken is not None and taken > DISTURBED for taken in record["bystanders"].values()):
            say(
                "\nSome parts were disturbed by other processes. Repeat them when those have ended."
            )


def _write(options: Options, record: dict[str, Any]) -> None:
    if options.json is not None:
        write_json(Path(options.json), record)


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        given = parse(
            Options,
            sys.argv[1:] if arguments is None else arguments,
            program=PROGRAM,
            description=str(__doc__).partition("\n\n")[0],
        )
        options = Options(**{**(QUICK if given.get("quick") else {}), **given})
        check(options)
        benchmark(options)
        return 0
    except MemoryError:
        return report(PROGRAM, MemoryError("Memory is exhausted. Take a smaller --batch."))
    except KeyboardInterrupt:
        say("\nStopped; --json has the parts that were done.")
        return 130
    except (UsageError, Disagreement, ChildFailed, OSError) as error:
        return report(PROGRAM, error)


if __name__ == "__main__":
    sys.exit(main())
