"""Which kernel is fastest for each call of a training step: all kernels that fit are timed.

The answers of a kernel's `pays` come from measurements, which hold for the machine of that time.
Here every call of a step of VGG (an op with the shapes of its inputs) is repeated by each kernel
that fits and by the op's definition, forward and vjp, and the fastest is printed beside the chosen
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import minibn
from experiments.benchmarking.device import Device
from experiments.output import say_table
from experiments.training.step import one_step
from experiments.vgg.runs import network, sgd
from experiments.vgg.settings import Settings
from minibn.autograd.dispatch import find_kernel
from minibn.autograd.observers import Observer, observe_with
from minibn.backend import backend_of
from minibn.fast.precision import MANTISSA, current, precision
from minibn.fast.selection import kernels_of
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.linalg import MatMul

REPEATS = 10
ROUNDED = (Conv2d, Conv2dInputGrad, Conv2dWeightGrad, MatMul)  # timed in each precision


@dataclass(frozen=True)
class Call:
    """An op and its inputs, of a training step."""

    op: Any
    inputs: tuple[Any, ...]

    @property
    def shapes(self) -> str:
        return " ".join("x".join(map(str, a.shape)) for a in self.inputs)


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
    device: Device, call: Call, way: Any, repeats: int = REPEATS
) -> dict[str, float] | str:
    """Milliseconds of forward and of vjp; or the error, as text."""
    way.needs_input_grad = call.op.needs_input_grad = (True,) * len(call.inputs)
    way.keep = True
    try:
        out = way.forward(*call.inputs)
        g = device.backend.xp.ones_like(out)
        for _ in range(2):  # compiled, warm
            way.forward(*call.inputs)
            way.vjp(g, out, *call.inputs)
        return {
            "forward": 1000 * device.clock.seconds(lambda: way.forward(*call.inputs), repeats),
            "vjp": 1000 * device.clock.seconds(lambda: way.vjp(g, out, *call.inputs), repeats),
        }
    except Exception as error:  # reported; the other ways are still timed
        return f"{type(error).__name__}: {error}"[:200]


def calls_of(settings: Settings, batch: int) -> list[Call]:
    """The calls of a training step of each variant that the paper compares first."""
    calls: dict[tuple[str, str], Call] = {}
    for variant in ("batchnorm", "noisy-batchnorm", "standard"):
        model = network(settings, variant, seed=0)
        with record_calls(calls):
            images = np.zeros((batch, 32, 32, 3), np.uint8)
            one_step(model, sgd(settings, model, 0.1), images, np.arange(batch) % 10)
    return list(calls.values())


def compare_kernels(device: Device, settings: Settings, batch: int) -> Iterator[dict[str, Any]]:
    """Yields the growing record after each call. Prints a table at the end."""
    record: dict[str, Any] = {"batch": batch, "calls": []}
    rows = []
    for call in calls_of(settings, batch):
        name, shapes = type(call.op).__name__, call.shapes
        for digits in MANTISSA if isinstance(call.op, ROUNDED) else ("fp32",):
            with precision(digits), minibn.no_grad():
                ways = {way: time_call(device, call, run) for way, run in candidates(device, call)}
            device.tidy()
            record["calls"].append({"op": name, "shapes": shapes, "precision": digits, "ms": ways})
            yield record
            ms = {way: sum(t.values()) for way, t in ways.items() if isinstance(t, dict)}
            if ms:
                chosen, best = next(iter(ways)), min(ms, key=lambda way: ms[way])
                took = f"{ms[chosen]:.3f}" if chosen in ms else "failed"
                rows.append([name, shapes, digits, chosen, took, best, f"{ms[best]:.3f}"])
    head = ["op", "shapes", "", "chosen", "ms", "fastest", "ms"]
    say_table(head, rows)
    record["better"] = [row for row in rows if row[3] != row[5]]
    yield record
