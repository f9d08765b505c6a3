"""Ten classes of drawn shapes, 32x32 in colour: a data set that needs no download.

A disc, ring, square, frame, triangle, star, plus, bar, crescent or checker of random colour,
place, size and rotation stands on a gradient with noise. The shape is lighter or darker than its
ground with equal odds in each channel, so that no pixel's mean depends on the class and a linear
model stays near chance; a small convolutional network learns it in a few hundred steps.

Each shape is a signed distance in units of its radius, negative inside (the star's after
Quilez, iquilezles.org/articles/distfunctions2d), and a ramp of one pixel smooths its edge. Only
+ - * / and square roots are used, which IEEE 754 rounds alike everywhere: the same seed gives the
same bytes on every machine. Images are drawn in blocks of 500, each from a generator of its own,
so that a larger set begins with the smaller one.
"""

from collections.abc import Callable

import numpy as np

from minibn.errors import DataError
from minibn.random import generator

SHAPES_CLASSES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "star",
    "plus",
    "bar",
    "crescent",
    "checker",
)

BLOCK = 500
SIDE = 32
RADIUS = (9.0, 12.0)  # pixels: moderately varied, and large enough for a person to recognise
REACH = (
    1.11  # radii: the largest extent of a shape from its centre, so that all of it is in the image
)
CONTRAST = (80.0, 125.0)  # grey levels between shape and ground, in each channel
GROUND = 8.0  # how far the gradient takes a channel away from its middle, at most
NOISE = 6.0  # half the width of the uniform noise


def make_shapes(count: int, seed: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` images (count, 32, 32, 3) uint8 and their labels (count,) int64.

    Each ten in a row have all ten labels, in random order. Splits share no draws.
    Law: make_shapes(n, seed)[i][:m] == make_shapes(m, seed)[i] for m <= n.
    Raises DataError unless count >= 1.

    >>> images, labels = make_shapes(20, seed=0)
    >>> images.shape, sorted(labels[:10].tolist())
    ((20, 32, 32, 3), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    if count < 1:
        raise DataError(f"shapes: count is {count}, expected at least 1")
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for block, start in enumerate(range(0, count, BLOCK)):
        stop = min(start + BLOCK, count)
        drawn = _draw_block(generator(seed, "shapes", split, block))
        images[start:stop], labels[start:stop] = (part[: stop - start] for part in drawn)
    return images, labels


def _draw_block(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    classes = np.tile(np.arange(10), (BLOCK // 10, 1))
    labels = rng.permuted(classes, axis=1).ravel()  # (B,)
    radius = _uniform(rng, *RADIUS, BLOCK)
    centre = 15.5 + _uniform(rng, -1, 1, (2, BLOCK)) * (16 - REACH * radius)  # (2, B)
    u, v = _rotated_grid(rng, centre, radius)  # (B, 32, 32) each

    mask = np.empty_like(u)  # (B, 32, 32)
    for label, distance in enumerate(DISTANCES):
        chosen = labels == label
        pixels = distance(u[chosen], v[chosen]) * radius[chosen, None, None]
        mask[chosen] = np.clip(0.5 - pixels, 0, 1)

    ground = _ground(rng)  # (B, 32, 32, 3)
    sign = _sign(rng, 3)
    contrast = sign * _uniform(rng, *CONTRAST, (BLOCK, 1, 1, 3))
    images = ground + contrast * mask[..., None]  # (B, 32, 32, 3)
    images += _uniform(rng, -NOISE, NOISE, images.shape)
    np.clip(images, 0, 255, out=images)
    return np.rint(images).astype(np.uint8), labels


def _uniform(
    rng: np.random.Generator, low: float, high: float, shape: int | tuple[int, ...]
) -> np.ndarray:
    return rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)


def _sign(rng: np.random.Generator, channels: int) -> np.ndarray:
    return rng.choice(np.array([-1, 1], np.float32), (BLOCK, 1, 1, channels))


def _direction(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random cosine and sine for each image, (B, 1, 1), as rational functions of a half-angle."""
    t = _uniform(rng, -1, 1, (BLOCK, 1, 1))
    sign = _sign(rng, 1)[..., 0]
    return sign * (1 - t * t) / (1 + t * t), sign * 2 * t / (1 + t * t)


def _rotated_grid(
    rng: np.random.Generator, centre: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's coordinates from the shape's centre, rotated, in units of its radius."""
    pixel = np.arange(SIDE, dtype=np.float32)
    y = (pixel[:, None] - centre[0][:, None, None]) / radius[:, None, None]  # (B, 32, 1)
    x = (pixel - centre[1][:, None, None]) / radius[:, None, None]  # (B, 1, 32)
    cos, sin = _direction(rng)
    return cos * x + sin * y, cos * y - sin * x  # (B, 32, 32)


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A colour, and a slope in each channel along a random direction."""
    colour = _uniform(rng, 70, 185, (BLOCK, 1, 1, 3))
    slope = _uniform(rng, -GROUND, GROUND, (BLOCK, 1, 1, 3))
    cos, sin = _direction(rng)
    across = np.linspace(-1, 1, SIDE, dtype=np.float32)
    ramp = cos * across + sin * across[:, None]  # (B, 32, 32)
    return colour + slope * ramp[..., None]  # (B, 32, 32, 3)


# The signed distances. u points right and v down before rotation; none is negative beyond REACH.


def _length(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v)


def _box(u: np.ndarray, v: np.ndarray, half_u: float, half_v: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _length(u, v) - 0.85


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(_length(u, v) - 0.75) - 0.18


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 0.75, 0.75)


def _frame(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(_box(u, v, 0.62, 0.62)) - 0.16


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(0.8660254 * np.abs(u) - 0.5 * v, v) - 0.5


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Five points: fold the plane at two mirrors onto half a point, then measure to its edge."""
    cos36, sin36 = 0.80901699, 0.58778525
    u, v = np.abs(u), -v
    for mirror in (cos36, -cos36):
        behind = 2 * np.maximum(mirror * u - sin36 * v, 0)
        u, v = u - behind * mirror, v + behind * sin36
    u, v = np.abs(u), v - 1
    edge_u, edge_v = 0.45 * sin36, 0.45 * cos36 - 1
    along = np.clip((u * edge_u + v * edge_v) / (edge_u**2 + edge_v**2), 0, 1)
    distance = _length(u - edge_u * along, v - edge_v * along)
    return np.where(v * edge_u > u * edge_v, distance, -distance)


def _plus(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u, v, 0.95, 0.26), _box(u, v, 0.26, 0.95))


def _bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 0.95, 0.28)


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(_length(u, v) - 0.92, 0.75 - _length(u - 0.45, v))


def _checker(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The corners and the middle of 3x3 cells: where a pixel is outer in both axes or in none."""
    outer_u = np.abs(np.abs(u) - 0.52) - 0.26
    outer_v = np.abs(np.abs(v) - 0.52) - 0.26
    either = np.maximum(np.minimum(outer_u, outer_v), -np.maximum(outer_u, outer_v))
    return np.maximum(_box(u, v, 0.78, 0.78), -either)


DISTANCES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    _disc,
    _ring,
    _square,
    _frame,
    _triangle,
    _star,
    _plus,
    _bar,
    _crescent,
    _checker,
)
