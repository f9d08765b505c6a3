"""Strategies of problems: convolution, pooling, normalisation, indices cover what they claim."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.coverage import demand, examples, shares, smallest, ties

from minibn.testing.strategies import (
    axes_of,
    basic_indices,
    conv2d_problems,
    full_shapes,
    gather_problems,
    geometries,
    index_problems,
    norm_problems,
    pool_problems,
)

# -- images


SQUARE = {
    "Kh≠Kw": lambda g: g.w[0] != g.w[1],
    "H≠W": lambda g: g.x[1] != g.x[2],
    "a remainder": lambda g: any(g.rest),
    "no remainder": lambda g: not any(g.rest),
    "stride below kernel": lambda g: g.stride[0] < g.w[0],
    "stride above kernel": lambda g: g.stride[0] > g.w[0],
    "unequal strides": lambda g: g.stride[0] != g.stride[1],
    "padding": lambda g: any(g.padding),
    "no padding": lambda g: not any(g.padding),
    "unequal padding": lambda g: g.padding[0] != g.padding[1],
    "several images": lambda g: g.x[0] > 1,
    "one channel": lambda g: g.x[3] == 1,
    "one filter": lambda g: g.w[3] == 1,
    "1×1 kernel": lambda g: g.w[:2] == (1, 1),
}


@pytest.mark.parametrize("most_padding", ["inside", "beyond"])
def test_geometries_cover_every_way_in_which_a_convolution_can_be_asymmetric(most_padding):
    demand(examples(geometries(most_padding)), SQUARE, at_least=0.02)


@pytest.mark.parametrize("most_padding", ["none", "half", "inside", "beyond"])
@given(data=st.data())
def test_every_geometry_fits_and_its_channels_differ(most_padding, data):
    g = data.draw(geometries(most_padding))
    largest = {"none": 0, "half": 0.5, "inside": 1 - 1e-9, "beyond": 1}[most_padding]
    for side, k, s, p, out, rest in zip(
        g.x[1:3], g.w, g.stride, g.padding, g.out, g.rest, strict=False
    ):
        assert side >= 1
        assert out >= 1
        assert p <= largest * k
        assert side + 2 * p == (out - 1) * s + k + rest
    assert g.x[3] == g.w[2] != g.w[3]
    if most_padding != "beyond":
        assert g.reaches_pixels, "with padding below the kernel the first window holds a pixel"


def test_conv2d_problems_have_a_bias_or_not_and_pads_below_the_kernel():
    drawn = examples(conv2d_problems())
    claims = {
        "bias": lambda p: len(p.inputs) == 3,
        "no bias": lambda p: len(p.inputs) == 2,
        "padding": lambda p: any(p.settings["padding"]),
        "negative": lambda p: (p.inputs[0] < 0).any(),
    }
    demand(drawn, claims, at_least=0.2)
    for point in drawn:
        x, w, *b = point.inputs
        assert x.all()
        assert w.all()
        assert not point.flat
        assert all(p < k for p, k in zip(point.settings["padding"], w.shape, strict=False))
        assert all(v.shape == w.shape[3:] for v in b)


def test_some_windows_beyond_the_kernel_hold_padding_alone_and_the_point_says_so():
    drawn = examples(conv2d_problems("beyond"), 400)
    flat = [p for p in drawn if p.flat]
    assert flat
    for point in flat:
        (x, w, *_), padding = point.inputs, point.settings["padding"]
        padded = np.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
        (Kh, Kw), (sh, sw) = w.shape[:2], point.settings["stride"]
        windows = np.lib.stride_tricks.sliding_window_view(padded, (Kh, Kw), (1, 2))
        assert not windows[:, ::sh, ::sw].any()


def windows_of(point):
    """Each window's pixels, padded with -inf: (N, Ho, Wo, C, Kh, Kw)."""
    (x,), (size, stride) = point.inputs, (point.settings["size"], point.settings["stride"])
    around = [(0, 0), *((p, p) for p in point.settings.get("padding", (0, 0))), (0, 0)]
    padded = np.pad(x, around, constant_values=-np.inf)
    found = np.lib.stride_tricks.sliding_window_view(padded, size, (1, 2))
    return found[:, :: stride[0], :: stride[1]]


def tied_windows(point):
    windows = windows_of(point)
    largest = windows.max(axis=(-2, -1), keepdims=True)
    assert np.isfinite(largest).all(), "a window of padding alone"
    return ((windows == largest).sum(axis=(-2, -1)) > 1).any()


def test_pool_problems_have_ties_on_purpose_or_not_at_all():
    tied, apart = examples(pool_problems(ties=True)), examples(pool_problems(ties=False))
    assert shares(tied, tied=tied_windows)["tied"] > 0.4
    assert shares(apart, tied=tied_windows)["tied"] == 0
    assert 0.05 < shares(examples(pool_problems(ties=None)), tied=tied_windows)["tied"] < 0.8
    claims = {
        "all negative and padded": lambda p: any(p.settings["padding"]) and (p.inputs[0] < 0).all(),
        "overlapping": lambda p: p.settings["stride"][0] < p.settings["size"][0],
        "apart": lambda p: p.settings["stride"][0] > p.settings["size"][0],
    }
    demand(tied, claims, at_least=0.02)
    assert all("padding" not in p.settings for p in examples(pool_problems(padding=False), 20))


# -- normalisation


def ratio(point):
    """v / eps of each channel."""
    x = point.inputs[0]
    return x.var(axis=tuple(range(x.ndim - 1))) / point.settings["eps"]


def test_norm_problems_have_a_variance_near_eps_on_purpose_and_no_trivial_gamma():
    claims = {
        "near": lambda p: (np.abs(np.log10(ratio(p))) < 1).any(),
        "far": lambda p: (ratio(p) > 100).any(),
        "images": lambda p: p.inputs[0].ndim == 4,
        "vectors": lambda p: p.inputs[0].ndim == 2,
        "negative gamma": lambda p: (p.inputs[1] < 0).any(),
        "smallest eps": lambda p: p.settings["eps"] == 1e-5,
    }
    drawn = examples(norm_problems())
    demand(drawn, claims, at_least=0.1)
    for point in drawn:
        x, gamma, beta = point.inputs
        assert gamma.shape == beta.shape == x.shape[-1:]
        assert gamma.all()
        assert x.size // x.shape[-1] >= 3
    trivial = shares(drawn, gamma=lambda p: (p.inputs[1] == 1).all())
    assert trivial["gamma"] < 0.2


def test_the_variance_is_what_was_asked_for():
    near = np.concatenate([ratio(p) for p in examples(norm_problems("near eps"))])
    far = np.concatenate([ratio(p) for p in examples(norm_problems("ordinary"))])
    assert 0.1 < np.median(near) < 3
    assert (near < 20).mean() > 0.95
    assert np.median(far) > 10
    with pytest.raises(ValueError, match="variance='tiny'"):
        smallest(norm_problems("tiny"), lambda p: True)


def test_an_offset_is_large_beside_the_spread():
    for point in examples(norm_problems(offset=1e6, eps=1e-3), 20):
        x = point.inputs[0]
        assert point.settings["eps"] == 1e-3
        assert (np.abs(x.mean(axis=0)) > 1e5 * x.std(axis=0)).all()


# -- indices


def test_index_problems_have_repeats_masks_views_and_empty_results():
    def index(point):
        parts = point.settings["index"]
        return parts if isinstance(parts, tuple) else (parts,)

    def has(kind):
        return lambda p: any(getattr(part, "dtype", None) == kind for part in index(p))

    def repeats(p):
        places = np.arange(p.inputs[0].size).reshape(p.inputs[0].shape)[p.settings["index"]]
        return ties(places)

    claims = {
        "repeated": repeats,
        "mask": has(bool),
        "integers": has(np.int64),
        "slice": lambda p: any(isinstance(i, slice) for i in index(p)),
        "None": lambda p: any(i is None for i in index(p)),
        "Ellipsis": lambda p: any(i is ... for i in index(p)),
        "whole": lambda p: index(p) == (),
        "negative integers": lambda p: any(
            isinstance(i, np.ndarray) and i.dtype.kind == "i" and (i < 0).any() for i in index(p)
        ),
    }
    drawn = examples(index_problems())
    demand(drawn, claims, at_least=0.01)
    assert any(p.flat for p in drawn), "no empty result"
    assert all(bool(p.flat) == (p.inputs[0][p.settings["index"]].size == 0) for p in drawn)


@given(full_shapes, st.data())
def test_basic_indices_always_fit_and_give_a_view(shape, data):
    x = np.ones(shape)
    view = np.asarray(x[data.draw(basic_indices(shape))])
    assert view.size == 0 or view.base is not None or view.ndim == 0


def test_gather_problems_repeat_positions_unless_they_are_unique():
    drawn = examples(gather_problems())
    repeats = {"repeats": lambda p: ties(p.settings["index"])}
    demand(drawn, repeats, at_least=0.2)
    demand(drawn, {"two axes": lambda p: p.settings["index"].ndim > 1}, at_least=0.2)
    assert not any(map(repeats["repeats"], examples(gather_problems(unique=True))))
    assert not any(p.settings["unique"] and ties(p.settings["index"]) for p in drawn)


def test_axes_are_none_integers_and_tuples_counted_from_either_end():
    claims = {
        "all": lambda a: a is None,
        "one": lambda a: isinstance(a, int),
        "from the end": lambda a: isinstance(a, int) and a < 0,
        "none": lambda a: a == (),
        "several": lambda a: isinstance(a, tuple) and len(a) > 1,
        "mixed ends": lambda a: isinstance(a, tuple) and any(i < 0 for i in a),
    }
    drawn = examples(axes_of(3))
    demand(drawn, claims, at_least=1 / len(drawn))  # a small set, each drawn once
    for axis in drawn:
        np.ones((2, 2, 2)).sum(axis=axis)  # raises where an axis is named twice
