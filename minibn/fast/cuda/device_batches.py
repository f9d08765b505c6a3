"""Training batches made on the device, from uint8 images in its memory.

A batch made on the host is copied to the device as float32: 1.6 MB per step of 128 images. Here the
images (CIFAR-10: 154 MB) are copied once, the permutation and the crops once per epoch, and a batch
is one launch. Law: bitwise the batches of `Batches` and `normalize`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import get_backend
from minibn.data.augment import draw_crops, pad_crop_flip
from minibn.data.batches import Batches, normalize
from minibn.fast.cuda.program import REALS, Program
from minibn.fast.selection import runs_cuda_kernels
from minibn.random import generator

PROGRAM = Program("device_batches")
PAD, FLIP = 4, 0.5  # as in `pad_crop_flip`


class DeviceBatches:
    """`batches` on the current backend: `fill(step)` puts the batch of a step into x and labels.

    x (B, H, W, C) of `dtype` and labels (B,) int64 are the same two arrays for every step, so that
    a captured step can read them. `classes` is one more than the largest label: they are checked
    here, once. On a backend without CUDA kernels the batches come from the host.
    Raises ValueError for a negative label, an augmentation other than `pad_crop_flip`, images that
    are not uint8 (N, H, W, C), labels that are not integers (N,), and a dtype other than float32
    and float64.

    >>> from minibn.data import normalize
    >>> batches = Batches(np.zeros((10, 4, 4, 3), np.uint8), np.arange(10), 4, seed=0)
    >>> data = DeviceBatches(batches)
    >>> data.fill(step=1)
    >>> (data.x == normalize(batches.batch(1)[0])).all(), (data.labels == batches.batch(1)[1]).all()
    (np.True_, np.True_)
    """

    def __init__(self, batches: Batches, dtype: Any = np.float32) -> None:
        if batches.augment not in (None, pad_crop_flip):
            raise ValueError(
                f"DeviceBatches: augment is {batches.augment!r}; only pad_crop_flip is known on "
                "the device. Take batches from the host instead"
            )
        images, labels = batches.images, batches.labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"DeviceBatches: images are {images.dtype} of shape {images.shape}; on the device "
                "they are uint8 (N, H, W, C). Take batches from the host instead"
            )
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise ValueError(
                f"DeviceBatches: labels are {labels.dtype} of shape {labels.shape}; they are "
                "integers (N,). One-hot labels: use labels.argmax(1)"
            )
        if np.dtype(dtype) not in REALS:
            raise ValueError(
                f"DeviceBatches: dtype is {np.dtype(dtype)}; batches are float32 or float64. "
                "Take one"
            )
        if labels.min() < 0:
            raise ValueError(f"DeviceBatches: a label is {labels.min()}; labels are 0, 1, ...")
        self.batches, self.classes = batches, int(labels.max()) + 1
        self._backend = backend = get_backend()
        B, shape = batches.batch_size, images.shape[1:]
        self.x = backend.xp.empty((B, *shape), dtype)
        self.labels = backend.xp.empty(B, np.int64)
        self._epoch = -1
        self._by_kernel = runs_cuda_kernels(backend)
        if self._by_kernel:
            M = batches.per_epoch * B  # images that an epoch shows
            self._images = backend.asarray(images)
            self._classes = backend.asarray(labels.astype(np.int64))
            self._order = backend.xp.zeros(M, np.int32)
            self._crops = backend.xp.full((M, 3), PAD, np.uint8)
            self._crops[:, 2] = 0  # centre crop, not mirrored: the image itself

    def fill(self, step: int) -> None:
        """Let x and labels be the batch of `step`."""
        if not self._by_kernel:
            images, labels = self.batches.batch(step)
            self.x[...] = normalize(self._backend.asarray(images), self.x.dtype)
            self.labels[...] = self._backend.asarray(labels)
            return
        epoch = self.batches.epoch(step)
        if epoch != self._epoch:
            self._draw(epoch)
        B, H, W, C = self.x.shape
        start = (step - epoch * self.batches.per_epoch) * B
        PROGRAM.launch(
            "batch", B, 256, self._images, self._classes, self._order, self._crops, start,
            self.x, self.labels, REAL=REALS[self.x.dtype], H=H, W=W, C=C, PAD=PAD,
        )  # fmt: skip

    def _draw(self, epoch: int) -> None:
        """Draw the epoch's permutation and crops as `Batches` does; copy them to the device."""
        batches, backend, M = self.batches, self._backend, len(self._order)
        order = batches._permutation(epoch)[:M].astype(np.int32)
        self._order[...] = backend.asarray(order)
        if batches.augment is not None:
            crops = []
            for step in range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch):
                rng = generator(batches.seed, "augment", step)
                crops.append(np.concatenate(draw_crops(rng, batches.batch_size, PAD, FLIP), axis=1))
            self._crops[...] = backend.asarray(np.concatenate(crops).astype(np.uint8))
        self._epoch = epoch
