"""Strategies of convolution and pooling problems. Images are (N, H, W, C), filters (Kh, Kw, C, F).

Output size, kernel, stride, padding and remainder are drawn independently, and the image's side
follows from them,

    side = (out - 1) · stride + kernel - 2 · padding + rest,    0 <= rest < stride,

so every example fits and none is rejected. For channels-first code, transpose:
`x.transpose(0, 3, 1, 2)`, `w.transpose(3, 2, 0, 1)`.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from minibn.testing.strategies.operands import seeds, textures
from minibn.testing.strategies.point import Point
from minibn.testing.strategies.values import gap_separated, nonzero, real, with_ties

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Shapes and settings that fit together."""

    x: tuple[int, int, int, int]  # (N, H, W, C)
    w: tuple[int, int, int, int]  # (Kh, Kw, C, F)
    stride: Pair
    padding: Pair

    @property
    def out(self) -> Pair:
        """(Ho, Wo)"""
        Ho, Wo = (
            (side + 2 * p - k) // s + 1
            for side, k, s, p in zip(self.x[1:3], self.w, self.stride, self.padding, strict=False)
        )
        return Ho, Wo

    @property
    def rest(self) -> Pair:
        """The rows and columns at the far border that no window reaches: the remainders."""
        h, w = (
            (side + 2 * p - k) % s
            for side, k, s, p in zip(self.x[1:3], self.w, self.stride, self.padding, strict=False)
        )
        return h, w

    @property
    def reaches_pixels(self) -> bool:
        """Whether any window holds a pixel, not padding alone."""
        return all(
            any(-k < i * s - p < side for i in range(out))
            for side, k, s, p, out in zip(
                self.x[1:3], self.w, self.stride, self.padding, self.out, strict=False
            )
        )


@st.composite
def geometries(
    draw: Any,
    most_padding: str = "beyond",
    most: int = 3,
    kernel: int | None = None,
    stride: int | None = None,
) -> Geometry:
    """Geometries whose output size, kernel and stride are at most `most`, each direction its own
    (or of the given kernel and stride, the same in both).

    most_padding: "inside" keeps it below the kernel, so that each border window holds a pixel;
    "half" up to half of it (pooling); "none"; "beyond" up to the kernel's size, which convolution
    allows. C and F always differ, Kh and Kw, H and W often, so that swapped ones are found.
    Shrinks to one pixel, one channel, two filters.
    """
    sides, kernels, strides, padding = [], [], [], []
    for _ in range(2):
        free = (st.integers(1, most) if n is None else st.just(n) for n in (None, kernel, stride))
        out, k, s = map(draw, free)
        largest = {"none": 0, "half": k // 2, "inside": k - 1, "beyond": k}[most_padding]
        p, rest = draw(st.integers(0, largest)), draw(st.integers(0, s - 1))
        side = (out - 1) * s + k - 2 * p + rest
        while side < 1:  # all padding: one window more
            side += s
        sides.append(side)
        kernels.append(k)
        strides.append(s)
        padding.append(p)
    N, C, more = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(0, 1))
    F = (2, 3, 1, 3, 1, 2)[(C - 1) * 2 + more]  # one of the other two
    x, w = (N, *sides, C), (*kernels, C, F)
    return Geometry(x, w, (*strides,), (*padding,))  # type: ignore[arg-type]  # lists of two


@st.composite
def conv2d_problems(
    draw: Any,
    most_padding: str = "inside",
    most: int = 3,
    kernel: int | None = None,
    stride: int | None = None,
) -> Point:
    """Points of a convolution f(x, w, b, stride=..., padding=...); the bias b is there or not.

    x (N, H, W, C), w (Kh, Kw, C, F), b (F,); stride and padding are pairs. Filters have no zeros,
    so no gradient vanishes by chance. most_padding, most, kernel, stride: as for `geometries`.

    >>> from hypothesis import find
    >>> point = find(conv2d_problems(), lambda point: True)  # the simplest
    >>> [x.shape for x in point.inputs], point.settings
    ([(1, 1, 1, 1), (1, 1, 1, 2)], {'stride': (1, 1), 'padding': (0, 0)})
    """
    geometry = draw(geometries(most_padding, most, kernel, stride))
    rng = np.random.default_rng(seed := draw(seeds))
    texture = draw(textures)
    x, w = nonzero(rng, geometry.x, texture), nonzero(rng, geometry.w, texture)
    inputs = (x, w, real(rng, geometry.w[3:], texture)) if draw(st.booleans()) else (x, w)
    settings = {"stride": geometry.stride, "padding": geometry.padding}
    return Point(
        inputs, settings, seed, frozenset() if geometry.reaches_pixels else frozenset({0, 1})
    )


@st.composite
def pool_problems(
    draw: Any,
    ties: bool | None = False,
    padding: bool = True,
    most: int = 3,
    size: int | None = None,
    stride: int | None = None,
) -> Point:
    """Points of a pooling f(x, size=..., stride=..., padding=...).

    ties: False for values that differ by a gap, True for windows in which several are the largest,
    None for both kinds. padding: False for functions without it; the setting is then left out.
    most: of the output's size, the window and the stride. size, stride: of the windows, if given.
    Windows overlap, touch or leave gaps, and there are remainders. Shrinks to one pixel.

    >>> tied = pool_problems(ties=True)
    >>> unpadded = pool_problems(padding=False)  # f(x, size=..., stride=...)
    """
    geometry = draw(geometries("half" if padding else "none", most, size, stride))
    rng = np.random.default_rng(seed := draw(seeds))
    tied = draw(st.booleans()) if ties is None else ties
    domain = with_ties if tied else gap_separated()
    x = domain(rng, geometry.x, draw(textures))
    if tied and draw(st.booleans()):
        x = x - 3  # all negative: a padding of zeros would win
    settings: dict[str, Any] = {"size": geometry.w[:2], "stride": geometry.stride}
    if padding:
        settings["padding"] = geometry.padding
    return Point((x,), settings, seed)
