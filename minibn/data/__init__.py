"""Data sets in memory, and the batches made of them (host arrays: NumPy only).

`load("cifar10")` reads or downloads CIFAR-10, `load("shapes")` draws a set that needs no files;
`Batches` makes mini-batches, `normalize` scales them for a network, on any backend. Batches that
are made on a GPU, from images in its memory, are in `device_batches`.
"""

from minibn.data.augment import pad_crop_flip
from minibn.data.batches import Batches, in_order, normalize
from minibn.data.classes import CIFAR10_CLASSES
from minibn.data.dataset import Dataset, load
from minibn.data.shapes import SHAPES_CLASSES

__all__ = [
    "CIFAR10_CLASSES",
    "SHAPES_CLASSES",
    "Batches",
    "Dataset",
    "in_order",
    "load",
    "normalize",
    "pad_crop_flip",
]
