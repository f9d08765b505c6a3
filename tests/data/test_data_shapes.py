"""The drawn data set: the same bytes always, balanced, and no task for a linear model."""

import numpy as np
import pytest

from minibn.data import SHAPES_CLASSES, load
from minibn.data.shapes import BLOCK, DISTANCES, RADIUS, REACH, make_shapes
from minibn.errors import DataError


@pytest.fixture(scope="module")
def drawn():
    return make_shapes(3000, seed=0), make_shapes(1000, seed=0, split="test")


def test_the_same_seed_draws_the_same_bytes():
    for a, b in zip(make_shapes(30, seed=5), make_shapes(30, seed=5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_and_splits_share_no_images():
    one, other, test = make_shapes(30, 1), make_shapes(30, 2), make_shapes(30, 1, "test")
    for a, b in [(one, other), (one, test)]:
        assert not (a[0] == b[0]).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("count", [1, 7, BLOCK - 1, BLOCK, BLOCK + 3])
def test_a_longer_draw_begins_with_the_shorter_one(drawn, count):
    images, labels = make_shapes(count, seed=0)
    assert images.shape == (count, 32, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (count,) and labels.dtype == np.int64
    np.testing.assert_array_equal(images, drawn[0][0][:count])
    np.testing.assert_array_equal(labels, drawn[0][1][:count])


def test_each_ten_in_a_row_have_all_ten_labels_in_changing_order(drawn):
    tens = drawn[0][1].reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(tens, axis=1), np.tile(np.arange(10), (len(tens), 1)))
    assert len(np.unique(tens, axis=0)) > 0.95 * len(tens)


def test_a_linear_model_stays_near_chance(drawn):
    (images, labels), (test_images, test_labels) = drawn
    mean = images.mean(axis=0)
    x = ((images - mean) / 128).reshape(len(images), -1).astype(np.float32)
    test_x = ((test_images - mean) / 128).reshape(len(test_images), -1).astype(np.float32)
    onehot = np.eye(10, dtype=np.float32)[labels]
    kernel, test_kernel = x @ x.T, test_x @ x.T  # ridge regression in its dual form
    for penalty in (1e2, 1e4):
        weight = np.linalg.solve(kernel + penalty * np.eye(len(x), dtype=np.float32), onehot)
        assert ((test_kernel @ weight).argmax(axis=1) == test_labels).mean() < 0.2


def test_shapes_are_lighter_and_darker_than_their_ground_alike(drawn):
    images, labels = drawn[0]
    discs = images[labels == SHAPES_CLASSES.index("disc")].astype(float)
    middle, edge = discs[:, 12:20, 12:20].mean(axis=(1, 2)), discs[:, ::31].mean(axis=(1, 2))
    assert 0.4 < (middle > edge).mean() < 0.6


# One point inside and one outside of each shape, in units of its radius (u right, v down).
PLACES = {
    "disc": ((0.6, 0.5), (0.7, 0.7)),
    "ring": ((0.75, 0), (0, 0)),
    "square": ((0.7, 0.7), (0.9, 0)),
    "frame": ((0.62, 0.62), (0, 0)),
    "triangle": ((0.7, 0.45), (0.7, -0.4)),
    "star": ((0, -0.8), (0, 0.8)),
    "plus": ((0.9, 0), (0.6, 0.6)),
    "bar": ((0.9, 0), (0, 0.9)),
    "crescent": ((-0.7, 0), (0.3, 0)),
    "checker": ((0.5, 0.5), (0.5, 0)),
}


@pytest.mark.parametrize("name", SHAPES_CLASSES)
def test_each_distance_is_negative_inside_and_stays_within_reach(name):
    distance = DISTANCES[SHAPES_CLASSES.index(name)]
    (inside, outside) = PLACES[name]
    u, v = np.array([inside, outside, (0.8, 0.8), (-0.8, -0.8)], np.float32).T
    signs = distance(u, v)
    assert signs[0] < 0 < signs[1] and (signs[2:] > 0).all()
    assert REACH * RADIUS[1] < 16  # half of an image's side
    angle = np.linspace(0, 2 * np.pi, 721)
    assert (distance(REACH * np.cos(angle), REACH * np.sin(angle)) > 0).all()


@pytest.mark.parametrize("name", SHAPES_CLASSES)
def test_no_distance_grows_faster_than_the_distance(name):
    """So that the ramp at an edge is one pixel wide, nowhere a jump."""
    distance = DISTANCES[SHAPES_CLASSES.index(name)]
    line = np.linspace(-1.5, 1.5, 301)
    u, v = np.meshgrid(line, line)
    field = distance(u, v)
    step = line[1] - line[0]
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 1.01 * step


def test_the_data_set_has_the_default_sizes_when_none_are_given(monkeypatch):
    asked = []

    def record(count, seed, split):
        asked.append((count, seed, split))
        return make_shapes(10, seed, split)

    monkeypatch.setattr("minibn.data.dataset.make_shapes", record)
    assert load("shapes", seed=3).classes == SHAPES_CLASSES
    assert asked == [(10_000, 3, "train"), (2_000, 3, "test")]


def test_a_count_below_one_is_refused():
    with pytest.raises(DataError, match="count is 0"):
        make_shapes(0, seed=0)
