"""Every call of a training step by every kernel that can make it: whether the chosen one is the
fastest, and how near it is to what the machine can do.

A call is an op with the shapes of its inputs, recorded from one step of each variant that the paper
compares first. It is repeated by each kernel that fits and by the op's definition, forward and vjp.
`share` is the least time that the arithmetic at the measured rate of products, or the traffic (each
input read once, each output written once) at the measured bandwidth of a copy, would take, over the
time of the chosen kernel.

A product is made by a plan: a tile, and the parts that K is split into. `products.plan` estimates
which is fastest; here all that it chooses between are timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

import minibn
from experiments.benchmarking.device import Device
from experiments.benchmarking.machine import least_seconds
from experiments.output import say, say_table
from experiments.training.json_files import json_number
from experiments.training.step import one_step
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import Settings
from minibn.autograd.dispatch import find_kernel
from minibn.autograd.observers import Observer, observe_with
from minibn.backend import backend_of
from minibn.fast.cuda import products
from minibn.fast.precision import MANTISSA, current, precision
from minibn.fast.selection import kernels_of
from minibn.ops.conv import Conv2d
from minibn.ops.linalg import MatMul

REPEATS = 10
VARIANTS = ("batchnorm", "noisy-batchnorm", "standard")
PRODUCTS = (Conv2d, MatMul)  # timed in each precision


@dataclass(frozen=True)
class Rates:
    """What the machine can do: bytes copied a second, and operations a second by precision."""

    copy: float
    products: dict[str, float]

    @classmethod
    def measured(cls, device: Device, megabytes: int, size: int) -> Rates:
        """The best of some copies of so many megabytes, and of products of size × size."""
        numbers = megabytes * 250_000
        seconds = least_seconds(device.copying(numbers), 3, device.clock, REPEATS)
        by = {
            digits: 2 * size**3
            / least_seconds(device.multiplying(size, digits), 3, device.clock, REPEATS)
            for digits in MANTISSA
        }  # fmt: skip
        device.tidy()
        return cls(8 * numbers / seconds, by)


@dataclass(frozen=True)
class Call:
    """An op and its inputs, of a training step."""

    op: Any
    inputs: tuple[Any, ...]

    @property
    def shapes(self) -> str:
        return " ".join("x".join(map(str, a.shape)) for a in self.inputs)

    def least_seconds(self, out: Any, rates: Rates, digits: str) -> tuple[float, float]:
        """(forward, vjp) at the machine's rates: the vjp reads the inputs and the cotangent, and
        writes a gradient of each input; a product makes one product for each of these."""
        read, written = sum(a.nbytes for a in self.inputs), out.nbytes
        inner = np.prod(self.inputs[-1].shape[:-1]) if isinstance(self.op, PRODUCTS) else 0
        flop = 2 * float(inner) * out.size
        return tuple(
            max(bytes_ / rates.copy, n * flop / rates.products[digits])
            for bytes_, n in ((read + written, 1), (2 * read + written, len(self.inputs)))
        )  # type: ignore[return-value]  # two of them


@contextmanager
def record_calls(calls: dict[tuple[str, str], Call]) -> Iterator[None]:
    """Inside, the calls of ops that have kernels are recorded, one of each op and shapes."""

    class CallRecorder(Observer):
        def wrap(self, call: Any, op: Any, run: Any, node: Any) -> Any:
            def record(*inputs: Any) -> Any:
                if node is None and type(op) in kernels_of(backend_of(*inputs)):
                    made = Call(op, inputs)
                    calls.setdefault((type(op).__name__, made.shapes), made)
                return call(*inputs)

            return record

    with observe_with(CallRecorder()):
        yield


def calls_of(settings: Settings, batch: int, variants: tuple[str, ...] = VARIANTS) -> list[Call]:
    """The calls of a training step of each variant."""
    calls: dict[tuple[str, str], Call] = {}
    for variant in variants:
        model = network(settings, variant, seed=0)
        with record_calls(calls):
            images = np.zeros((batch, 32, 32, 3), np.uint8)
            one_step(model, sgd(settings, model, 0.1), images, np.arange(batch) % 10)
    return list(calls.values())


def candidates(device: Device, call: Call) -> Iterator[tuple[str, Any]]:
    """(name, kernel or op) of each way to compute a call; the chosen one first. The definition
    does not round factors: in "tf32" and "bf16" it is no candidate unless it is chosen."""
    chosen = find_kernel(call.op, list(call.inputs))
    yield ("definition" if chosen is None else type(chosen).__name__), chosen or call.op
    for kernel in kernels_of(device.backend)[type(call.op)]:
        if type(chosen) is not kernel and kernel.fits(call.op, *call.inputs):
            yield kernel.__name__, kernel(call.op)
    if chosen is not None and current() == "fp32":
        yield "definition", call.op


def time_call(
    device: Device, call: Call, way: Any, rates: Rates | None = None, repeats: int = REPEATS
) -> dict[str, Any]:
    """Milliseconds of "forward" and of "vjp", and with `rates` the "share" of each; or the "error",
    as text."""
    way.needs_input_grad = call.op.needs_input_grad = (True,) * len(call.inputs)
    way.keep = True
    try:
        out = way.forward(*call.inputs)
        g = device.backend.xp.ones_like(out)
        for _ in range(2):  # compiled, warm
            way.forward(*call.inputs)
            way.vjp(g, out, *call.inputs)
        took = {
            "forward": device.clock.seconds(lambda: way.forward(*call.inputs), repeats),
            "vjp": device.clock.seconds(lambda: way.vjp(g, out, *call.inputs), repeats),
        }
    except Exception as error:  # reported; the other ways are still timed
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    found: dict[str, Any] = {name: 1000 * seconds for name, seconds in took.items()}
    if rates is not None:
        least = call.least_seconds(out, rates, current())
        found["share"] = [a / b for a, b in zip(least, took.values(), strict=True)]
    return found


def total(took: dict[str, Any]) -> float:
    """Milliseconds of both directions; infinite after an error."""
    return float("inf") if "error" in took else took["forward"] + took["vjp"]


def compare_kernels(
    device: Device, calls: list[Call], rates: Rates, precisions: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Yields a record of each call in each precision, then prints a table of all."""
    rows = []
    for digits in precisions:
        for call in calls:
            if digits != precisions[0] and not isinstance(call.op, PRODUCTS):
                continue
            with precision(digits), minibn.no_grad():
                among = candidates(device, call)
                ways = {name: time_call(device, call, way, rates) for name, way in among}
            device.tidy()
            name, chosen = type(call.op).__name__, next(iter(ways))
            best = min(ways, key=lambda way: total(ways[way]))
            yield {"op": name, "shapes": call.shapes, "precision": digits, "ways": ways,
                   "chosen": chosen, "fastest": best}  # fmt: skip
            share = ", ".join(f"{x:.0%}" for x in ways[chosen].get("share", []))
            times = [f"{total(ways[way]):.3f}" for way in (chosen, best)]
            rows.append([name, call.shapes, digits, chosen, times[0], share, best, times[1]])
    head = ["op", "shapes", "", "chosen", "ms", "of what is possible", "fastest", "ms"]
    say_table(head, rows)


def compare_plans(
    device: Device, calls: list[Call], precisions: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Yields a record of each product of the calls: all its plans. Then prints a table of all."""
    rows, seen = [], set()
    for digits in precisions:
        for call in calls:
            with precision(digits), minibn.no_grad():
                ways = dict(candidates(device, call)) if isinstance(call.op, PRODUCTS) else {}
                way = ways.get("TiledConv2d", ways.get("TiledMatMul"))
                for sizes in sizes_of(device, call, way) if way else ():
                    if sizes in seen:
                        continue
                    seen.add(sizes)
                    chosen, took = products.plan(*sizes), {}
                    for plan in products.plans(*sizes):
                        with products.use_plans({sizes[:4]: plan}):
                            took[plan] = time_call(device, call, way)
                    best = min(took, key=lambda plan: total(took[plan]))
                    times = [f"{total(took[plan]):.3f}" for plan in (chosen, best)]
                    rows.append([*sizes[:4], *times, best])
                    plans = [
                        {"plan": asdict(plan), **found, "ms": json_number(total(found))}
                        for plan, found in took.items()
                    ]
                    yield {"sizes": sizes[:4], "chosen": asdict(chosen), "best": asdict(best),
                           "plans": plans}  # fmt: skip
            device.tidy()
    if rows:
        say_table(["M", "N", "K", "", "call, ms: chosen", "best", "plan"], rows)
        say("\nWhere the best plan is better: mend `products.clocks`, or list it there.")


def sizes_of(device: Device, call: Call, way: Any) -> list[Any]:
    """The sizes for which a call requests a plan: forward, then in the vjp."""
    asked: list[Any] = []
    plan = products.plan

    def spy(*sizes: Any) -> Any:
        asked.append(sizes)
        return plan(*sizes)

    products.problem.cache_clear()
    with patch.object(products, "plan", spy):
        time_call(device, call, way, repeats=1)
    return list(dict.fromkeys(asked))
