"""Training steps on a GPU: batches that are made there, and a graph of the whole step.

`graphs(...)` chooses, for what is trained inside:

    "auto"  steps are captured where possible; where not, the reason is printed once
    "on"    a step that can't be captured is an error
    "off"   no step is captured

All three give the same numbers, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from experiments.training.command_line import UsageError
from experiments.training.step import CLASSIFY, Task, update
from minibn import nn, ops
from minibn.autograd.dispatch import mode
from minibn.autograd.tape import apply
from minibn.backend import get_backend
from minibn.data import Batches, pad_crop_flip
from minibn.data.device_batches import DeviceBatches
from minibn.fast.cuda.captured_step import CapturedStep
from minibn.fast.selection import runs_cuda_kernels
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.optim import Optimizer
from minibn.setting import Setting

_graphs = Setting("graphs", "auto")
graphs = _graphs.override


class DeviceStep:
    """`one_step` with batches made on the device, captured where that is possible and wanted.

    Called with the number of the step, it returns what `one_step` returns, bit for bit. graph: as
    of `graphs`; with "on", a step that can't be captured raises UsageError.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, batches: Batches, graph: str = "auto"
    ) -> None:
        self.graph, self.data = graph, DeviceBatches(batches)
        # No reference back to self, so that the graph's memory is freed after the training.
        task = replace(CLASSIFY, loss=partial(_loss, self.data.classes))
        step = partial(update, model, optimizer, self.data.x, self.data.labels, task)
        on_refusal = partial(_on_refusal, graph)
        self.step = step if graph == "off" else CapturedStep(step, model, optimizer, on_refusal)

    def __call__(self, number: int) -> tuple[Any, Any]:
        self.data.fill(number)
        loss, score = self.step()
        return loss, score


def _loss(classes: int, logits: Any, labels: Any) -> Any:
    """Cross-entropy without a check of the labels, which would synchronise: all are < `classes`."""
    if classes > logits.shape[1]:
        return ops.softmax_cross_entropy(logits, labels)  # which raises the error
    return apply(SoftmaxCrossEntropy(labels), logits)


def _on_refusal(graph: str, why: str) -> None:
    if graph == "on":
        raise UsageError(f"--graph on: the step can't be captured: {why}. Take --graph auto.")
    print(f"Steps are made one launch after another, without a CUDA graph: {why}", flush=True)


def device_step(model: nn.Module, optimizer: Optimizer, feed: Any, task: Task) -> DeviceStep | None:
    """A `DeviceStep` where the backend, the feed and the task allow it, else None.

    Raises UsageError if `graphs` says "on" and they do not.
    """
    by_kernels = runs_cuda_kernels(get_backend()) and mode() != "reference"
    images = (
        isinstance(feed, Batches)
        and feed.augment in (None, pad_crop_flip)
        and (feed.images.ndim, feed.images.dtype) == (4, np.uint8)
    )
    if by_kernels and task is CLASSIFY and images:
        return DeviceStep(model, optimizer, feed, _graphs.get())
    if _graphs.get() == "on":
        raise UsageError(
            "--graph on: only training on batches of images with CUDA kernels can be captured. "
            "Take --graph auto."
        )
    return None
