"""Which kernel is fastest where: all that fit, timed at the calls that a training step makes.

What `pays` says of a kernel is a choice made by measurement, and holds for the machine it was made
on. Here every call of a step of VGG (an op with the shapes of its inputs) is repeated by each
kernel that fits and by the op's definition, forward and vjp, and the fastest is named beside the
one that is chosen.
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
from minibn.fast.cuda import cudnn
from minibn.fast.precision import MANTISSA, current, precision
from minibn.fast.selection import kernels_of
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.linalg import MatMul

REPEATS = 10
ROUNDED = (Conv2d, Conv2dInputGrad, Conv2dWeightGrad, MatMul)  # timed in each precision


@dataclass(frozen=True)
class Call:
    """An op at arrays: one of a training step."""

    op: Any
    inputs: tuple[Any, ...]

    @property
    def shapes(self) -> str:
        return " ".join("x".join(map(str, a.shape)) for a in self.inputs)


@contextmanager
def record_calls(calls: dict[tuple[str, str], Call]) -> Iterator[None]:
    """Inside, every call of an op that has kernels is noted, one of each kind and shape."""

    class Noter(Observer):
        def wrap(self, call: Any, op: Any, run: Any, node: Any) -> Any:
            def noted_call(*inputs: Any) -> Any:
                if node is None and type(op) in kernels_of(backend_of(*inputs)):
                    made = Call(op, inputs)
                    calls.setdefault((type(op).__name__, made.shapes), made)
                return call(*inputs)

            return noted_call

    with observe_with(Noter()):
        yield


def candidates(device: Device, call: Call) -> Iterator[tuple[str, Any]]:
    """(name, what has forward and vjp) of each way to compute a call; the chosen one first. The
    definition rounds no factors: where they are to be rounded, it is no candidate."""
    chosen = find_kernel(call.op, list(call.inputs))
    yield ("definition" if chosen is None else type(chosen).__name__), chosen or call.op
    with cudnn.prefer():
        for kernel in kernels_of(device.backend)[type(call.op)]:
            if type(chosen) is not kernel and kernel.fits(call.op, *call.inputs):
                yield kernel.__name__, kernel(call.op)
    if chosen is not None and current() == "fp32":
        yield "definition", call.op


def time_call(
    device: Device, call: Call, way: Any, repeats: int = REPEATS
) -> dict[str, float] | str:
    """Milliseconds of forward and of vjp; or why not."""
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
    except Exception as error:  # a way that can't is told, and the others go on
        return f"{type(error).__name__}: {error}"[:200]


def calls_of(settings: Settings, batch: int) -> list[Call]:
    """Those of a training step of each variant that the paper compares first."""
    calls: dict[tuple[str, str], Call] = {}
    for variant in ("batchnorm", "noisy-batchnorm", "standard"):
        model = network(settings, variant, seed=0)
        with record_calls(calls):
            images = np.zeros((batch, 32, 32, 3), np.uint8)
            one_step(model, sgd(settings, model, 0.1), images, np.arange(batch) % 10)
    return list(calls.values())


def compare_kernels(device: Device, settings: Settings, batch: int) -> Iterator[dict[str, Any]]:
    """The record, as it grows. Prints a table at the end."""
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
