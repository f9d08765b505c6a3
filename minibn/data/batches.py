"""Mini-batches as a pure function of the step, and the scaling of images for a network.

An epoch is one permutation of the data; its last, partial batch is dropped. No state is kept from
one step to the next, so a run that was killed resumes at any step with the same batches.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minibn.errors import ShapeError
from minibn.random import generator

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Batches:
    """Training batches: `batch(step)` gives images (batch_size, ...) and labels (batch_size,).

    `augment(images, rng)` changes a batch by random numbers of its step (see `augment`).
    Law: batch(step) depends on nothing but the arguments and `step`; the batches of an epoch
    hold no image twice.
    Raises ValueError if a batch is larger than the data, ShapeError if labels don't match images.

    >>> batches = Batches(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10), 4, seed=0)
    >>> batches.per_epoch, batches.epoch(5), batches.batch(5)[0].shape
    (2, 2, (4, 32, 32, 3))
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
    ) -> None:
        _check(images, labels, batch_size)
        if batch_size > len(images):
            raise ValueError(
                f"Batches: batch_size is {batch_size}, the data has {len(images)} images. "
                "Take a smaller batch or more data."
            )
        self.images, self.labels = images, labels
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        self.per_epoch = len(images) // batch_size
        self._order: tuple[int, np.ndarray] | None = None  # (epoch, its permutation)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that `step`, from 0, belongs to."""
        if step < 0:
            raise ValueError(f"Batches: step is {step}, expected 0 or more")
        return step // self.per_epoch

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels of `step`, as contiguous copies."""
        epoch = self.epoch(step)
        start = (step - epoch * self.per_epoch) * self.batch_size
        index = self._permutation(epoch)[start : start + self.batch_size]
        images = self.images[index]
        if self.augment is not None:
            images = self.augment(images, generator(self.seed, "augment", step))
        return np.ascontiguousarray(images), self.labels[index]

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            order = generator(self.seed, "order", epoch).permutation(len(self.images))
            self._order = epoch, order
        return self._order[1]


def in_order(
    images: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches for evaluation: every image once, in order; the last batch may be smaller.

    >>> [len(labels) for _, labels in in_order(np.zeros((5, 2)), np.arange(5), 2)]
    [2, 2, 1]
    """
    _check(images, labels, batch_size)
    return (
        (images[start : start + batch_size].copy(), labels[start : start + batch_size].copy())
        for start in range(0, len(images), batch_size)
    )


def normalize(images: Any, dtype: Any = np.float32) -> Any:
    """Scale bytes to about -2..2 for a network: (x/255 - 0.5) / 0.25, on any backend's array.

    >>> normalize(np.array([0, 255], np.uint8)).tolist()
    [-2.0, 2.0]
    """
    x = images.astype(dtype)
    x *= 4 / 255
    x -= 2
    return x


def _check(images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
    if len(images) != len(labels):
        raise ShapeError(
            f"batches: {len(images)} images and {len(labels)} labels, expected one label an image"
        )
    if batch_size < 1:
        raise ValueError(f"batches: batch_size is {batch_size}, expected at least 1")
