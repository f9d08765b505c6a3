"""Training batches made on the device, from uint8 images in its memory.

A batch made on the host is copied to the device as float32: 1.6 MB per step of 128 images. Here the
images are copied once (CIFAR-10, padded for crops: 240 MB), which pixels an epoch takes once per
epoch, and a batch is a gather. Law: bitwise the batches of `Batches` and `normalize`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import get_backend
from minibn.data.augment import draw_crops, pad_crop_flip
from minibn.data.batches import Batches, normalize
from minibn.random import generator

PAD, FLIP = 4, 0.5  # as in `pad_crop_flip`


class DeviceBatches:
    """`batches` on the current backend: `fill(step)` puts the batch of a step into x and labels.

    x (B, H, W, C) of `dtype` and labels (B,) int64 are the same two arrays for every step, so that
    a captured step can read them. `classes` is one more than the largest label: they are checked
    here, once.
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
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(
                f"DeviceBatches: dtype is {np.dtype(dtype)}; batches are float32 or float64. "
                "Take one"
            )
        if labels.min() < 0:
            raise ValueError(f"DeviceBatches: a label is {labels.min()}; labels are 0, 1, ...")
        self.batches, self.classes = batches, int(labels.max()) + 1
        self._backend = backend = get_backend()
        B, (H, W, C) = batches.batch_size, images.shape[1:]
        self.x = backend.xp.empty((B, H, W, C), dtype)
        self.labels = backend.xp.empty(B, np.int64)
        # Without augmentation the crop is the image: no padding, never mirrored.
        self._crop = pad, _ = (0, 0.0) if batches.augment is None else (PAD, FLIP)
        self._size = H + 2 * pad, W + 2 * pad  # of a padded image
        padded = backend.xp.pad(backend.asarray(images), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        self._pixels = padded.reshape(-1, C)
        self._epoch = -1

    def fill(self, step: int) -> None:
        """Let x and labels be the batch of `step`."""
        epoch, B = self.batches.epoch(step), self.batches.batch_size
        if epoch != self._epoch:
            self._draw(epoch)
        start = (step - epoch * self.batches.per_epoch) * B
        n = slice(start, start + B)
        places = self._rows[n, :, None] + self._columns[n, None, :]  # (B, H, W)
        self.x[...] = normalize(self._pixels[places], self.x.dtype)
        self.labels[...] = self._labels[n]

    def _draw(self, epoch: int) -> None:
        """Draw the epoch's permutation and crops as `Batches` does; copy them to the device."""
        batches, asarray, (height, width) = self.batches, self._backend.asarray, self._size
        first = epoch * batches.per_epoch
        crops = [
            draw_crops(generator(batches.seed, "augment", step), self.x.shape, *self._crop)
            for step in range(first, first + batches.per_epoch)
        ]
        rows, columns = (np.concatenate(part) for part in zip(*crops, strict=True))
        order = batches._permutation(epoch)[: len(rows)]
        # Pixel (i, j) of image n is row (n · height + i) · width + j of `_pixels`.
        self._rows = asarray((order[:, None] * height + rows) * width)
        self._columns, self._labels = asarray(columns), asarray(batches.labels[order])
        self._epoch = epoch
