"""Recorders: what an experiment measures while a network trains. One training serves many figures.

A recorder writes records by step to a stream of its run. They do not depend on the clock, so that a
resumed run repeats them bit for bit. Steps count updates: a line of step t was
measured on the batch of step t with the weights before its update, test accuracy of "step" t with
the weights after t + 1 updates ("updates").
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np

from experiments.training.step import Step
from experiments.training.study import Run
from minibn import nn, no_grad, to_numpy
from minibn.autograd.tensor import value
from minibn.backend import get_backend
from minibn.data import Dataset, in_order, normalize
from minibn.random import generator

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 24


class Recorder:
    """Measures at some steps. `during` wraps a step (forward, backward, update), `after` follows
    it, `at_end` the last.

    runs_the_model: whether it makes forward passes of its own. Such recorders are entered before,
    and left after, those that watch the step's.
    """

    runs_the_model = False

    def during(self, step: Step) -> AbstractContextManager:
        return contextlib.nullcontext()

    def after(self, step: Step) -> None:
        pass

    def at_end(self, run: Run, model: nn.Module, steps: int) -> None:
        """Called after the last of `steps` steps and its checkpoint: what is written here is gone
        in a run that goes on to more steps."""


@contextmanager
def on_the_clock(run: Run) -> Iterator[None]:
    """Context manager: what is computed inside counts as time of the run's recorders. It waits for
    the device before and after, or queued training steps would be counted with it."""
    device = get_backend()
    device.synchronize()
    began = time.perf_counter()
    try:
        yield
    finally:
        device.synchronize()
        run.seconds_of_recorders += time.perf_counter() - began


def predictions(model: nn.Module, images: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """The class of each image (N,), in eval mode, in batches."""
    backend = get_backend()
    labels = np.zeros(len(images), np.int64)
    classes = []
    with model.mode(training=False), no_grad():
        for x, _ in in_order(images, labels, batch_size):
            logits = model(normalize(backend.asarray(x)))
            classes.append(to_numpy(logits).argmax(1))
    return np.concatenate(classes)


class TestAccuracy(Recorder):
    """test.jsonl: the share of test images that are classified right, in eval mode."""

    __test__ = False  # no test class of pytest's

    def __init__(self, data: Dataset, every: int) -> None:
        self.data, self.every = data, every

    def after(self, step: Step) -> None:
        if (step.number + 1) % self.every == 0:
            self._record(step.run, step.model, step.number + 1)

    def at_end(self, run: Run, model: nn.Module, steps: int) -> None:
        if steps % self.every:
            self._record(run, model, steps)

    def _record(self, run: Run, model: nn.Module, updates: int) -> None:
        with on_the_clock(run):
            right = predictions(model, self.data.test_images) == self.data.test_labels
        run.stream("test").append(
            {"step": updates - 1, "updates": updates, "accuracy": float(right.mean())}
        )


class Distributions(Recorder):
    """distributions.jsonl: sampled units of named layers over training (Figs. 1c, 2, 6 and 8).

    Every `every` steps, for `units` channels of each layer drawn once: quantiles, a histogram, mean
    and variance over the batch (and height and width), at two places: "activation", which
    enters the layer's ReLU, and "norm_input", which enters its norm (without a norm there is
    only the first). The step after also gets mean and variance, for the change from step to step.
    """

    def __init__(self, layers: dict[int, int], every: int, units: int, seed: int) -> None:
        self.layers, self.every, self.units, self.seed = layers, every, units, seed

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        if step.number % self.every > 1:
            yield
            return
        with ExitStack() as stack:
            parts = dict(step.model.children())

            def watch(part: nn.Module, see: Any, place: str) -> None:
                stack.enter_context(part.watch(lambda module, x, y: see(place, x[0])))

            for layer in self.layers:
                see = self._writer(step, layer)
                watch(parts[f"relu{layer}"], see, "activation")
                if f"norm{layer}" in parts:
                    watch(parts[f"norm{layer}"], see, "norm_input")
            yield

    def _writer(self, step: Step, layer: int) -> Any:
        def see(place: str, x: Any) -> None:
            array = value(x)
            rng = generator(self.seed, "units", layer)
            channels = np.sort(rng.choice(array.shape[-1], min(self.units, array.shape[-1]), False))
            for unit in channels.tolist():
                values = to_numpy(array[..., unit]).astype(np.float64).reshape(-1)
                record = {
                    "step": step.number,
                    "layer": layer,
                    "unit": unit,
                    "place": place,
                    "mean": float(values.mean()),
                    "var": float(values.var()),
                }
                if step.number % self.every == 0 and np.isfinite(values).all():
                    counts, edges = np.histogram(values, BINS)
                    record["quantiles"] = [
                        float(f"{q:.5g}") for q in np.quantile(values, QUANTILES)
                    ]
                    record["histogram"] = counts.tolist()
                    record["range"] = [float(f"{edges[0]:.5g}"), float(f"{edges[-1]:.5g}")]
                step.run.stream("distributions").append(record)

        return see
