"""Batches made on the device: the host's, bit for bit."""

import re
from unittest.mock import patch

import numpy as np
import pytest
from support.backends import on_backends, on_devices
from support.waiting import nothing_waits

from minibn.backend import to_numpy
from minibn.data import Batches, normalize, pad_crop_flip
from minibn.data.device_batches import DeviceBatches


def batches_of(augment=None, size=7, shape=(6, 5, 3), images=23):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, *shape), np.uint8)
    return Batches(pixels, rng.integers(0, 10, images), size, seed=3, augment=augment)


def assert_same(data, batches, step, dtype=np.float32):
    data.fill(step)
    images, labels = batches.batch(step)
    x = normalize(images, dtype)
    assert to_numpy(data.x).dtype == dtype and to_numpy(data.x).tobytes() == x.tobytes()
    np.testing.assert_array_equal(to_numpy(data.labels), labels)


STEPS = (0, 1, 2, 3, 4, 2, 30)  # through epochs of three, back, and far ahead


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("augment", [None, pad_crop_flip])
@on_backends
def test_the_batches_of_any_step_are_the_hosts_bit_for_bit(backend, augment, dtype):
    batches = batches_of(augment)
    data = DeviceBatches(batches, dtype)
    for step in STEPS:
        assert_same(data, batches, step, dtype)


@on_backends
def test_every_byte_is_scaled_as_on_the_host(backend):
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 8, 8, 4)
    batches = Batches(pixels, np.zeros(1, np.int64), 1, seed=0)
    assert_same(DeviceBatches(batches), batches, 0)


@on_devices
def test_an_epoch_brings_its_order_once_and_a_step_nothing_into_the_same_arrays(backend):
    data = DeviceBatches(batches_of(pad_crop_flip))
    for step in (0, 3):  # compiles
        data.fill(step)
    x, labels = data.x, data.labels
    with (
        patch.object(backend, "_from_host", wraps=backend._from_host) as moved,
        nothing_waits(backend) as waited,
    ):
        for step in (0, 1, 2):
            data.fill(step)
    assert moved.call_count == 3, "rows, columns and labels of an epoch"
    assert waited == []
    assert data.x is x and data.labels is labels


@on_backends
def test_labels_are_checked_when_they_are_put_there(backend):
    batches = batches_of()
    assert DeviceBatches(batches).classes == batches.labels.max() + 1
    batches.labels[5] = -1
    with pytest.raises(ValueError, match="a label is -1"):
        DeviceBatches(batches)


@pytest.mark.parametrize(
    "other, told",
    [
        (
            {"images": np.zeros((6, 4, 4, 3), np.float32)},
            "images are float32 of shape (6, 4, 4, 3)",
        ),
        ({"images": np.zeros((6, 4, 4, 3), np.int64)}, "images are int64"),
        ({"images": np.zeros((6, 4, 4), np.uint8)}, "of shape (6, 4, 4); on the device"),
        ({"labels": np.arange(6) + 0.5}, "labels are float64"),
        ({"labels": np.eye(6, dtype=np.int64)}, "of shape (6, 6); they are integers (N,)"),
        ({"dtype": np.float16}, "dtype is float16"),
    ],
)
@on_backends
def test_what_the_device_would_misread_is_refused(backend, other, told):
    given = {"images": np.zeros((6, 4, 4, 3), np.uint8), "labels": np.arange(6)} | other
    batches = Batches(given["images"], given["labels"], 2, seed=0)
    with pytest.raises(ValueError, match=re.escape(told)):
        DeviceBatches(batches, given.get("dtype", np.float32))


@on_backends
def test_an_augmentation_that_the_device_does_not_know_is_refused(backend):
    with pytest.raises(ValueError, match="only pad_crop_flip is known"):
        DeviceBatches(batches_of(lambda images, rng: images))
