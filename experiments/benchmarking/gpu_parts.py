"""The parts of the benchmark on a GPU: each measures one thing, prints its table, returns its
record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from experiments.benchmarking import launches, parts
from experiments.benchmarking.cases import OURS, Case
from experiments.benchmarking.comparison import head_of, race_all, say_losses_apart
from experiments.benchmarking.gpu import GpuBench, OurStep, about, build_step, race, way_of
from experiments.benchmarking.machine import least_seconds
from experiments.output import say, say_table
from minibn.fast.precision import MANTISSA

PRECISIONS = tuple(MANTISSA)
REPEATS, IN_A_ROW = 5, 10  # measurements of the machine, calls in each; the best mean counts
STEPS_OF_PEAK = 3  # the second starts with the first one's gradients


def machine(bench: GpuBench) -> dict[str, Any]:
    """Copy bandwidth and product rates in both libraries; the better one counts."""
    sides = {OURS: bench.device} | ({"PyTorch": bench.theirs} if bench.theirs else {})
    size, flop = bench.megabytes * 250_000, 2 * bench.product**3

    def best(side: Any, work: Callable[[], Any]) -> float:
        seconds = least_seconds(work, REPEATS, side.clock, IN_A_ROW)
        bench.tidy()
        return seconds

    copies = {name: 8 * size / best(side, side.copying(size)) for name, side in sides.items()}
    products = {
        name: {p: flop / best(side, side.multiplying(bench.product, p)) for p in PRECISIONS}
        for name, side in sides.items()
    }
    say(f"Copy on the device ({bench.megabytes} MB, read and written bytes) and product of random")
    say(f"matrices of size {bench.product}; the best of {REPEATS}.\n")
    rows = [
        [name, f"{copies[name] / 1e9:.0f}", *(f"{rate / 1e12:.1f}" for rate in by.values())]
        for name, by in products.items()
    ]
    say_table(["", "copy, GB/s", *(f"{p}, TFLOP/s" for p in PRECISIONS)], rows)
    return {
        "by_library": {n: {"copy_bytes_per_second": copies[n], "product_flops": products[n]}
                       for n in sides},
        "copy_bytes_per_second": max(copies.values()),
        "product_flops": {p: max(by[p] for by in products.values()) for p in PRECISIONS},
    }  # fmt: skip


def _races(
    bench: GpuBench,
    part: str,
    cases: Iterable[Case],
    names: list[str],
    label: Callable[[Case], str] = str,
) -> list[dict[str, Any]]:
    results, lines = race_all(
        cases,
        lambda case: race(bench, case, names),
        names=names,
        label=label,
        save=partial(bench.save, part),
    )
    if not results:
        say("\nNothing could be timed.")
        return results
    few, many = (f(result["steps_a_round"] for result in results) for f in (min, max))
    say(f"\nMedians (quartiles) of {bench.rounds} rounds, each of {few} to {many} steps.\n")
    say_table(head_of("step", names), lines)
    if bench.pytorch:
        say("\n" + "\n".join(about(bench, names)))
        say(f"ratio: our median ({OURS} graph, where it is) over that of PyTorch's best here;")
        say("paired: the median of the rounds' own ratios.")
        say_losses_apart(results)
    unsettled = [
        f"{Case(**result['case'])} ({name})"
        for result in results
        for name, settled in result["settled"].items()
        if not settled
    ]
    if unsettled:
        say(f"The warm-up did not settle: {', '.join(unsettled)}.")
    return results


def steps(bench: GpuBench) -> list[dict[str, Any]]:
    """Every network, variant and batch, against PyTorch's eager mode."""
    return _races(bench, "steps", bench.all_cases(), bench.contenders(bench.ways, ["eager"]))


def compiled(bench: GpuBench) -> list[dict[str, Any]]:
    """Against PyTorch's graphs and compiler, which takes long for each case: all networks and
    variants at the first batch, the main one at the others."""
    first, main = bench.batches[0], bench.main_case
    cases = [case for case in bench.all_cases() if case.batch == first]
    cases += [dataclasses.replace(main, batch=batch) for batch in bench.batches[1:]]
    names = bench.contenders(bench.ways, ["graph", "compiled"])
    return _races(bench, "compiled", cases, names)


def precision(bench: GpuBench) -> list[dict[str, Any]]:
    """The first variant of every network in every precision, against PyTorch's eager mode and its
    graph in the same: all networks at the first batch, then at the next."""
    cases = [
        dataclasses.replace(bench.main_case, model=model, batch=batch, precision=p)
        for batch in bench.batches
        for model in bench.models
        for p in PRECISIONS
    ]
    names = bench.contenders(bench.ways, ["eager", "graph"])
    say(f"{bench.main_case.variant}:\n")
    return _races(
        bench, "precision", cases, names,
        lambda case: f"{case.model}, batch {case.batch}, {case.precision}",
    )  # fmt: skip


def kernels(bench: GpuBench) -> dict[str, Any]:
    step = OurStep(bench.main_case)
    for _ in range(bench.warm_up):
        step.update()
    found = launches.shares(bench.device, step.update, bench.rounds)
    share = {kernel.name: kernel.ms / found.step_ms for kernel in found.kernels}
    rows = [[k.name, k.launches, f"{k.ms:.3f}", f"{share[k.name]:.1%}"] for k in found.kernels]
    rest = f"{found.rest_ms / found.step_ms:.1%}"
    rows += [
        ["(library calls, CuPy's kernels, gaps)", "", f"{found.rest_ms:.3f}", rest],
        ["step", sum(k.launches for k in found.kernels), f"{found.step_ms:.3f}", ""],
    ]
    say(f"An eager step of {bench.main_case}, whose launches wait in the queue; medians of")
    say(f"{bench.rounds}. Without events around its launches it takes {found.bare_ms:.3f} ms.\n")
    say_table(["kernel", "launches", "ms", "share"], rows)
    return {
        "case": vars(bench.main_case), "step_ms": found.step_ms, "bare_ms": found.bare_ms,
        "kernels": [{**vars(k), "share": share[k.name]} for k in found.kernels],
    }  # fmt: skip


def memory(bench: GpuBench) -> list[dict[str, Any]]:
    """Every network, variant and batch, and the main network with a batch that fills the device."""
    names = bench.contenders(["eager", "lean", "graph"], ["eager"])
    results, lines = [], []
    for case in [*bench.all_cases(), dataclasses.replace(bench.main_case, batch=bench.large_batch)]:
        peaks = {}
        for name in names:
            with bench.unless_it_fails(case, name):
                peaks[name] = _peak(bench, case, name)
            bench.tidy()
        cells = [f"{peaks[name]['step'] / 1e6:.0f}" if name in peaks else "-" for name in names]
        lines.append([str(case), *cells])
        results.append({"case": vars(case), "bytes": peaks})
        bench.save("memory", results)
    head = ["peak memory of a step", *(f"{name}, MB" for name in names)]
    say("\nOf arrays, above those of the loaded model and batch.\n")
    say_table(head, lines)
    say('\nlean: minibn.kernels("lean"), which recomputes what "fast" keeps for the backward pass.')
    return results


def _peak(bench: GpuBench, case: Case, name: str) -> dict[str, int]:
    def prepare() -> Callable[[], Any]:
        step, ways = build_step(bench, case, name), [way_of(name)]

        def work() -> None:
            if ways:  # at the first step, so that the peak includes the memory of a capture
                step.become(ways.pop())
            step.update()

        return work

    return bench.side(name).peak(prepare, STEPS_OF_PEAK)


# A part's name -> its title, and what measures it. The longest is last: a run may be cut off.
PARTS: dict[str, tuple[str, Callable[[GpuBench], Any]]] = {
    "machine": ("The machine", machine),
    "steps": ("Training steps", steps),
    "precision": ("Precisions", precision),
    "kernels": ("Kernels", kernels),
    "profile": ("Profile by op", parts.profile),
    "compiled": ("Training steps against graphs and a compiler", compiled),
    "memory": ("Memory", memory),
}
