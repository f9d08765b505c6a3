"""The parts of the benchmark: each measures one thing, prints its table and returns its record."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.benchmarking import machine as machine_
from experiments.benchmarking.cases import (
    OURS,
    Case,
    Step,
    apart,
    contend,
    contend_in_stages,
)
from experiments.benchmarking.comparison import (
    compare,
    head_of,
    progress,
    race_all,
    record_of,
    say_losses_apart,
)
from experiments.benchmarking.memory import peak
from experiments.benchmarking.others import Convolution
from experiments.benchmarking.startup import start_up
from experiments.benchmarking.timing import Contender, Timings, in_turn, single_phase
from experiments.output import say, say_table
from minibn.autograd.profiling import profile as profile_
from minibn.fast.cpu import memory as memory_
from minibn.fast.cpu import threads as threads_


@dataclass(frozen=True)
class Bench:
    """What the parts share. pytorch: the module of PyTorch's side, None if it isn't installed."""

    pytorch: Any
    threads: int
    rounds: int
    models: tuple[str, ...]
    variants: tuple[str, ...]
    batches: tuple[int, ...]
    width: float
    scaling_batches: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    scaling_widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    product: int = 4096  # the size of the large product
    megabytes: int = 256  # of the large copy

    def case(self, model: str, variant: str, batch: int) -> Case:
        return Case(model, variant, batch, self.width)

    @property
    def main_case(self) -> Case:
        """The case of the parts that measure a single network."""
        return self.case(self.models[0], "batchnorm", self.batches[0])

    def all_cases(self) -> Iterator[Case]:
        """Every network and variant at every batch size."""
        for batch, model, variant in itertools.product(self.batches, self.models, self.variants):
            yield self.case(model, variant, batch)

    def unless_it_fails(self, what: Any, who: str) -> AbstractContextManager[None]:
        """On a CPU a failure ends the run."""
        return nullcontext()

    @contextmanager
    def on_threads(self, threads: int) -> Iterator[None]:
        """Inside, both libraries use so many threads."""
        with threads_.limit_threads(threads):
            if self.pytorch:
                self.pytorch.set_threads(threads)
            try:
                yield
            finally:
                if self.pytorch:
                    self.pytorch.set_threads(self.threads)


def _race(bench: Bench, case: Case, lean: bool = False) -> tuple[Timings, dict[str, Any]]:
    """(times, how far apart the losses are before the first and after the last step)."""
    steps, before = contend(case, bench.pytorch, lean)
    contenders = [Contender(name, single_phase("total", step)) for name, step in steps.items()]
    found = in_turn(contenders, bench.rounds)
    after = apart(steps)
    del contenders, steps
    _tidy()
    return found, {"losses_apart": {"first": before, "last": after}}


def _tidy() -> None:
    gc.collect()
    memory_.release()


def machine(bench: Bench) -> dict[str, Any]:
    rates = {"minibn": machine_.product_rate(bench.product, 5)}
    if bench.pytorch:
        rates["PyTorch"] = bench.pytorch.product_rate(bench.product, 5)
    bandwidth = machine_.copy_bandwidth(bench.megabytes, 7)
    say(
        f"float32 product of size {bench.product}: "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s ({name})" for name, rate in rates.items())
        + f"; copy: {bandwidth / 1e9:.1f} GB/s, read and written bytes"
    )
    return {"product_flops": {"fp32": max(rates.values())}, "copy_bytes_per_second": bandwidth}


def steps(bench: Bench) -> list[dict[str, Any]]:
    results, lines = race_all(bench.all_cases(), partial(_race, bench))
    say(f"\nMedians (quartiles) of {bench.rounds} rounds.\n")
    say_table(head_of("step", results[0]["times"]), lines)
    if bench.pytorch:
        say("\nratio: our median over that of PyTorch's better layout; paired: the median of the")
        say("rounds' own ratios.")
        say_losses_apart(results)
        quiet = [r for r in results if not r["case"]["variant"].startswith("noisy")]
        if quiet:
            last = max(result["losses_apart"]["last"] for result in quiet)
            say(f"Where nothing is drawn, those after {bench.rounds + 1} steps by {last:.0e}.")
    return results


def layers(bench: Bench) -> list[dict[str, Any]]:
    results, lines, head = [], [], []
    case = bench.main_case
    for name, contenders in contend_in_stages(case, bench.pytorch):
        found = in_turn(contenders, bench.rounds)
        head = head_of("layer", found)
        for phase in ("forward", "backward"):
            cells, _ = compare(found, phase)
            lines.append([f"{name} {phase}", *cells])
        _, ratio = compare(found)
        results.append({"layer": name, **record_of(found, ratio)})
        progress(name, found, ratio)
        del contenders
        _tidy()
    sums = {
        name: sum(r["times"][name]["median_ms"] for r in results) for name in results[0]["times"]
    }
    lines.append(
        ["all", *(f"{ms:.0f}" for ms in sums.values()), *[""] * (len(head) - len(sums) - 1)]
    )
    say(f"\nLayers of {case}, alone.\n")
    say_table(head, lines)
    return results


def profile(bench: Bench) -> dict[str, Any]:
    step = Step(bench.main_case)
    step()
    with profile_() as found:
        step()
    say(f"One step of {bench.main_case}:\n\n{found}")
    rows = [dataclasses.asdict(row) for row in found.rows]
    return {"case": vars(bench.main_case), "elapsed_ms": found.elapsed_ms, "rows": rows}


def memory(bench: Bench) -> list[dict[str, Any]]:
    if sys.platform == "win32":
        say("Not measured: on Windows Python cannot read a process's peak memory.")
        return []
    layouts = {f"PyTorch {name}": name for name in bench.pytorch.LAYOUTS} if bench.pytorch else {}
    contenders = {f"{OURS} fast": "fast", f"{OURS} lean": "lean", **layouts}
    results, lines = [], []
    for model in bench.models:
        case = dataclasses.replace(bench.main_case, model=model)
        peaks = {name: peak(case, which, bench.threads) for name, which in contenders.items()}
        found, _ = _race(dataclasses.replace(bench, pytorch=None), case, lean=True)
        times = [str(phases["total"]) for phases in found.values()]
        lines.append([str(case), *(f"{p['step'] / 1e6:.0f}" for p in peaks.values()), *times])
        results.append({"case": vars(case), "bytes": peaks, **record_of(found, None)})
    head = [
        "peak memory of a step",
        *(f"{name}, MB" for name in contenders),
        "fast, ms",
        "lean, ms",
    ]
    say("Above the process with model and batch loaded.\n")
    say_table(head, lines)
    say('\nlean: minibn.kernels("lean"), which recomputes what "fast" keeps for the backward pass.')
    return results


def scaling(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    main = bench.main_case
    threads = sorted({n for n in (1, 2, bench.threads) if n <= bench.threads})
    runs = {
        "batch": [
            (dataclasses.replace(main, batch=n), bench.threads) for n in bench.scaling_batches
        ],
        "width": [
            (dataclasses.replace(main, width=w), bench.threads) for w in bench.scaling_widths
        ],
        "threads": [(main, n) for n in threads],
    }
    results: dict[str, list[dict[str, Any]]] = {}
    for axis, cases in runs.items():
        lines, results[axis] = [], []
        for case, n in cases:
            value = n if axis == "threads" else getattr(case, axis)
            with bench.on_threads(n):
                label = f"{axis} {value}".format
                (result,), (row,) = race_all([case], partial(_race, bench), label=label)
            per_image = result["times"][OURS]["median_ms"] / case.batch
            lines.append([value, *row[1:], f"{per_image:.2f}"])
            results[axis].append({**result, "threads": n})
        head = [*head_of(axis, results[axis][0]["times"]), "minibn, ms/image"]
        say(f"\n{main.model} {main.variant} by {axis}.\n")
        say_table(head, lines)
        say()
    return results


def others(bench: Bench) -> dict[str, Any]:
    batch = bench.main_case.batch
    contenders = list(Convolution(batch).contenders(bench.pytorch))
    found = in_turn(contenders, min(bench.rounds, 3))
    least = min(phases["total"].median for phases in found.values())
    lines = [
        [name, str(phases["total"]), f"{phases['total'].median / least:.1f}"]
        for name, phases in found.items()
    ]
    head = ["convolution 3×3, 64->64, 32 px", "ms", "times the fastest"]
    say(f"Batch {batch}, forward and backward.\n")
    say_table(head, lines)
    missing = [name for name in ("mygrad", "pydynet") if name not in found]
    if missing:
        say(f"\nNot installed: {', '.join(missing)}.")
    return {"batch": batch, **record_of(found, None)}


def startup(bench: Bench) -> dict[str, Any]:
    found = start_up(min(bench.rounds, 7))
    say_table(["start-up", "ms"], [[name, str(times)] for name, times in found.items()])
    return {name: times.record() for name, times in found.items()}


# A part's name -> its title, and what measures it
PARTS: dict[str, tuple[str, Callable[[Bench], Any]]] = {
    "machine": ("The machine", machine),
    "startup": ("Start-up", startup),
    "steps": ("Training steps", steps),
    "profile": ("Profile by op", profile),
    "layers": ("Layers", layers),
    "memory": ("Memory", memory),
    "scaling": ("Scaling", scaling),
    "others": ("Other libraries in NumPy", others),
}
