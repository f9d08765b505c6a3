"""A data set in memory, checked once, and the two that come with minibn, by name."""

import hashlib
import importlib
import os
from dataclasses import dataclass, field

import numpy as np

from minibn.data.classes import CIFAR10_CLASSES
from minibn.data.shapes import SHAPES_CLASSES, make_shapes
from minibn.errors import DataError, did_you_mean

NAMES = ("cifar10", "shapes")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64, for training and for testing.

    `classes` names the labels 0..K-1. `fingerprint` is the SHA-256 of the four arrays (and their
    shapes), for a run's config: leave it out to have it computed; a given one must agree.
    Raises DataError if the arrays do not fit each other or the classes.
    """

    name: str
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    classes: tuple[str, ...]
    fingerprint: str = ""

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            self._check(split, getattr(self, f"{split}_images"), getattr(self, f"{split}_labels"))
        computed = self._fingerprint()
        if self.fingerprint not in ("", computed):
            raise DataError(
                f"{self.name}: fingerprint is {self.fingerprint!r}, the arrays' is {computed!r}"
            )
        object.__setattr__(self, "fingerprint", computed)

    def _check(self, split: str, images: np.ndarray, labels: np.ndarray) -> None:
        where = f"{self.name}: {split}_images"
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) == 0:
            raise DataError(
                f"{where} have shape {images.shape} and dtype {images.dtype}, "
                "expected (N, 32, 32, 3) and uint8 with N >= 1"
            )
        where = f"{self.name}: {split}_labels"
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise DataError(
                f"{where} have shape {labels.shape} and dtype {labels.dtype}, "
                f"expected ({len(images)},) and int64: one for each image"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            raise DataError(
                f"{where} run from {low} to {high}, expected 0 to {len(self.classes) - 1}: "
                f"there are {len(self.classes)} classes"
            )

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    train_size: int | None = None,
    test_size: int | None = None,
    download: bool = True,
) -> Dataset:
    """The data set `name`: "cifar10", or "shapes", which is drawn from `seed`.

    CIFAR-10 comes from `data_dir`, else from the cache, else by `download`; the sizes take the
    first images of each split (all of them by default). Of shapes, 10,000 and 2,000 are drawn
    by default. Raises DataError if the data can't be loaded or are fewer than the sizes.

    >>> load("shapes", train_size=20, test_size=10).train_images.shape
    (20, 32, 32, 3)
    >>> load("cifar")
    Traceback (most recent call last):
        ...
    minibn.errors.DataError: data set 'cifar' is unknown. Did you mean 'cifar10'?
    """
    if name not in NAMES:
        raise DataError(f"data set {name!r} is unknown. {did_you_mean(name, NAMES)}")
    for argument, size in (("train_size", train_size), ("test_size", test_size)):
        if size is not None and size < 1:
            raise DataError(f"{name}: {argument} is {size}, expected at least 1")
    if name == "shapes":
        train = make_shapes(10_000 if train_size is None else train_size, seed, "train")
        test = make_shapes(2_000 if test_size is None else test_size, seed, "test")
        return Dataset(name, *train, *test, classes=SHAPES_CLASSES)
    # Loaded here: HTTP, tar and pickle take a tenth of the time in which an experiment starts.
    files = importlib.import_module("minibn.data.cifar10")
    images, labels, test_images, test_labels = files.load_cifar10(data_dir, download=download)
    train = _first(train_size, "train_size", images, labels)
    test = _first(test_size, "test_size", test_images, test_labels)
    return Dataset(name, *train, *test, classes=CIFAR10_CLASSES)


def _first(
    size: int | None, argument: str, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if size is None or size == len(images):
        return images, labels
    if size > len(images):
        raise DataError(
            f"cifar10: {argument} is {size:,}, only {len(images):,} images are there. "
            f"Ask for fewer, or leave {argument} out to take all."
        )
    return images[:size].copy(), labels[:size].copy()
