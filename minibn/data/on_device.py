"""Training batches made on the device, of images that lie there as bytes.

To gather, augment and scale a batch on the host and to bring it over as float32 costs more than
some training steps. Here the images (CIFAR-10: 154 MB) go to the device once, what an epoch draws
(its permutation, and the crops if it augments) once an epoch, and a batch is one launch. Law: the
same batches as `Batches` and `normalize` make, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import get_backend
from minibn.backend.cuda.graph import runs_kernels
from minibn.backend.cuda.program import REALS, Program
from minibn.data.augment import draw_crops, pad_crop_flip
from minibn.data.batches import Batches, normalize
from minibn.random import generator

PROGRAM = Program("batch")
PAD, FLIP = 4, 0.5  # as `pad_crop_flip` has them


class OnDevice:
    """`batches` on the current backend: `fill(step)` puts the batch of a step into x and labels.

    x (B, H, W, C) of `dtype` and labels (B,) int64 are the same two arrays for every step, so that
    a captured step can read them. `classes` is one more than the largest label: they are checked
    here, once. On a backend without CUDA kernels the batches come from the host.
    Raises ValueError for a negative label, and for an augmentation other than `pad_crop_flip`.

    >>> from minibn.data import normalize
    >>> batches = Batches(np.zeros((10, 4, 4, 3), np.uint8), np.arange(10), 4, seed=0)
    >>> data = OnDevice(batches)
    >>> data.fill(step=1)
    >>> (data.x == normalize(batches.batch(1)[0])).all(), (data.labels == batches.batch(1)[1]).all()
    (np.True_, np.True_)
    """

    def __init__(self, batches: Batches, dtype: Any = np.float32) -> None:
        if batches.augment not in (None, pad_crop_flip):
            raise ValueError(
                f"OnDevice: augment is {batches.augment!r}; only pad_crop_flip is known on the "
                "device. Take batches from the host instead"
            )
        if batches.labels.min() < 0:
            raise ValueError(f"OnDevice: a label is {batches.labels.min()}; labels are 0, 1, ...")
        self.batches, self.classes = batches, int(batches.labels.max()) + 1
        self._backend = backend = get_backend()
        B, shape = batches.batch_size, batches.images.shape[1:]
        self.x = backend.xp.empty((B, *shape), dtype)
        self.labels = backend.xp.empty(B, np.int64)
        self._epoch = -1
        if runs_kernels(backend):
            M = batches.per_epoch * B  # images that an epoch shows
            self._images = backend.asarray(batches.images)
            self._classes = backend.asarray(batches.labels.astype(np.int64))
            self._order = backend.xp.zeros(M, np.int32)
            self._crops = backend.xp.full((M, 3), PAD, np.uint8)
            self._crops[:, 2] = 0  # the middle, not mirrored: the image as it is

    def fill(self, step: int) -> None:
        """Let x and labels be the batch of `step`."""
        if not runs_kernels(self._backend):
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
        """What the epoch draws, as `Batches` and `pad_crop_flip` draw it, to the device."""
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
