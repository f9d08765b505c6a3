"""A data set is checked when it is made, and is told apart by its fingerprint."""

import dataclasses

import numpy as np
import pytest

from minibn.data import Dataset, load
from minibn.errors import DataError


def _parts(**changes):
    parts = {
        "train_images": np.zeros((4, 32, 32, 3), np.uint8),
        "train_labels": np.array([0, 1, 1, 0]),
        "test_images": np.zeros((2, 32, 32, 3), np.uint8),
        "test_labels": np.array([1, 0]),
        "classes": ("cat", "dog"),
    }
    return {"name": "pets"} | parts | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((4, 32, 32, 3))}, "pets: train_images .* dtype float64"),
        ({"train_images": np.zeros((4, 3, 32, 32), np.uint8)}, r"shape \(4, 3, 32, 32\)"),
        ({"test_images": np.zeros((0, 32, 32, 3), np.uint8)}, "N >= 1"),
        ({"train_labels": np.array([0, 1, 1])}, r"shape \(3,\) .* expected \(4,\)"),
        ({"train_labels": np.zeros(4, np.int32)}, "dtype int32"),
        ({"test_labels": np.array([2, 0])}, "test_labels run from 0 to 2, expected 0 to 1"),
        ({"test_labels": np.array([1, -1])}, "test_labels run from -1 to 1"),
        ({"fingerprint": "abc"}, "fingerprint is 'abc'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    Dataset(**_parts())
    with pytest.raises(DataError, match=message):
        Dataset(**_parts(**changes))


def test_the_fingerprint_changes_with_any_array_and_with_nothing_else():
    plain = Dataset(**_parts())
    assert len(plain.fingerprint) == 64
    assert Dataset(**_parts(name="other")).fingerprint == plain.fingerprint
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        changed = _parts()[name].copy()
        changed.flat[0] = 1 - changed.flat[0]
        assert Dataset(**_parts(**{name: changed})).fingerprint != plain.fingerprint


def test_a_data_set_is_frozen_and_prints_no_pixels():
    data = load("shapes", train_size=10, test_size=10)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]  # on purpose
    assert "array" not in repr(data) and data.fingerprint in repr(data)


def test_a_seed_draws_a_data_set_of_its_own():
    prints = {
        load("shapes", seed=seed, train_size=5, test_size=5).fingerprint for seed in (0, 0, 1)
    }
    assert len(prints) == 2


def test_an_unknown_name_shows_the_near_miss():
    with pytest.raises(DataError, match=r"'shape' is unknown\. Did you mean 'shapes'\?"):
        load("shape")
    with pytest.raises(DataError, match=r"'imagenet' is unknown\. There are cifar10, shapes"):
        load("imagenet")


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(DataError, match=f"test_size is {size}"):
        load("shapes", test_size=size)
