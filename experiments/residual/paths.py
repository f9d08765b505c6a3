"""How much a residual branch adds to its skip path at step 0 (De & Smith 2020).

With BatchNorm every branch adds about the same, 1 in units of the first block's input; after l - 1
of them the skip path holds l. So the branch of block l is 1/l of its skip path, and a deep network
is near the identity. Without a norm, He's initialisation gives the branch what the skip path has:
the ratio is 1, and the signal doubles at each block.

That holds for blocks of one width without down-sampling, and so it is measured there: a trunk of
pre-activation blocks of equal width, counted from 1, each from x_l to x_l + f_l(x_l). The input x_1
is the first convolution's output on a batch of images, each channel standardised over the batch
and the image. "Variance" is the mean square over images, pixels and channels, averaged over draws
of the weights: weights are drawn around 0, so that over their draws each unit's mean is 0. (Over
images alone it is not: behind a ReLU a unit has another mean in each draw.) Convolutions pad
with zeros, which takes 4 % of a branch's mean square at 32×32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn import no_grad
from minibn.autograd.tensor import value
from minibn.backend import to_numpy
from reference_models.norms import Norm
from reference_models.resnet import blocks_of, resnet


def path_variances(
    x: Any,
    *,
    norm: Norm,
    skip_init: bool,
    blocks: int,
    channels: int,
    draws: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(residual, skip), (blocks,) each: the mean squares of f_l(x_l) and of x_l, means over
    `draws` networks. x (N, H, W, C): images as a network gets them."""
    found = np.zeros((draws, 2, blocks))
    for draw in range(draws):
        net = resnet(
            stages=((blocks, channels),), norm=norm, skip_init=skip_init, preactivation=True,
            channels=x.shape[-1],
        ).initialize(draws * seed + draw)  # fmt: skip
        with no_grad():
            h = standardise(value(net.conv1(x)))
            for l, block in enumerate(blocks_of(net)):  # noqa: E741  # the paper's letter
                residual = value(block.branch(h))
                found[draw, :, l] = mean_square(residual), mean_square(h)
                h = h + residual
    residual, skip = found.mean(0)
    return residual, skip


def standardise(h: Any) -> Any:
    """Each channel with mean 0 and variance 1 over the other axes."""
    axes = tuple(range(h.ndim - 1))
    centred = h - h.mean(axis=axes)
    return centred / (centred * centred).mean(axis=axes) ** 0.5


def mean_square(h: Any) -> float:
    """In float64."""
    wide = h.astype("float64")
    return float(to_numpy((wide * wide).mean()))
