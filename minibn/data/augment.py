"""Changes to training images that keep their class. Off unless a run asks for them."""

import numpy as np


def pad_crop_flip(
    images: np.ndarray, rng: np.random.Generator, pad: int = 4, flip: float = 0.5
) -> np.ndarray:
    """Pad each image with `pad` black pixels, crop it at random, mirror it with probability `flip`.

    images (N, H, W, C) -> (N, H, W, C), a copy. All draws are made before any image is touched.
    Law: with pad=0 and flip=0 it is the identity, with pad=0 and flip=1 the mirror.
    Raises ValueError for a negative pad or a flip outside 0..1.
    Source: He et al. 2015, section 4.2 (after Lee et al. 2015).
    """
    if pad < 0 or not 0 <= flip <= 1:
        raise ValueError(
            f"pad_crop_flip: pad is {pad}, flip is {flip}; expected pad >= 0 and 0 <= flip <= 1"
        )
    rows, columns = draw_crops(rng, images.shape, pad, flip)  # (N, H), (N, W)
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))  # (N, H+2p, W+2p, C)
    image = np.arange(len(images))[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]]


def draw_crops(
    rng: np.random.Generator, shape: tuple[int, ...], pad: int, flip: float
) -> tuple[np.ndarray, np.ndarray]:
    """The rows (N, H) and columns (N, W) of its padded image that each crop consists of.

    shape: of the images, (N, H, W, C). Columns run backwards in a mirrored crop."""
    N, H, W, _ = shape
    top = rng.integers(0, 2 * pad + 1, (N, 1))
    left = rng.integers(0, 2 * pad + 1, (N, 1))
    mirrored, across = rng.random((N, 1)) < flip, np.arange(W)
    return top + np.arange(H), left + np.where(mirrored, across[::-1], across)
