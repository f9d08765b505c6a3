"""Batches made on the device: the host's, bit for bit."""

import re
from unittest.mock import patch

import numpy as np
import pytest
from support.backends import on_backends
from support.cuda import on, on_cuda, orders
from support.waiting import nothing_waits

from minibn.backend import to_numpy, use
from minibn.data import Batches, normalize, pad_crop_flip
from minibn.fast.cuda import device_batches
from minibn.fast.cuda.device_batches import DeviceBatches
from minibn.fast.cuda.emulator import emulate


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
@on_cuda
def test_the_batches_of_any_step_are_the_hosts_bit_for_bit(backend, augment, dtype):
    batches = batches_of(augment)
    data = DeviceBatches(batches, dtype)
    for step in STEPS:
        assert_same(data, batches, step, dtype)


@pytest.mark.parametrize("augment", [None, pad_crop_flip])
@on_backends
def test_without_kernels_they_come_from_the_host(backend, augment):
    batches = batches_of(augment)
    data = DeviceBatches(batches)
    for step in STEPS:
        assert_same(data, batches, step)


@on_cuda
def test_every_byte_is_scaled_as_on_the_host(backend):
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 8, 8, 4)
    batches = Batches(pixels, np.zeros(1, np.int64), 1, seed=0)
    assert_same(DeviceBatches(batches), batches, 0)


@on_cuda
def test_larger_images_than_a_block_has_threads_are_whole(backend):
    batches = batches_of(pad_crop_flip, size=2, shape=(32, 32, 3), images=4)
    data = DeviceBatches(batches)

    def filled():
        assert_same(data, batches, 1)
        return to_numpy(data.x)

    for found in orders(backend, filled):
        np.testing.assert_array_equal(found, normalize(batches.batch(1)[0]))


@on_cuda
def test_a_step_is_one_launch_into_the_same_arrays_and_an_epoch_brings_its_order_once(backend):
    data = DeviceBatches(batches_of(pad_crop_flip))
    data.fill(0)
    x, labels = data.x, data.labels
    program = device_batches.PROGRAM
    with (
        patch.object(program, "launch", wraps=program.launch) as launch,
        patch.object(data, "_draw", wraps=data._draw) as draw,
        nothing_waits(backend) as waited,
    ):
        for step in (1, 2, 3, 4, 5):
            data.fill(step)
    assert (launch.call_count, draw.call_count) == (5, 1)
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


def test_batches_of_the_host_stay_so_when_kernels_run_later():
    with on("emulated"):
        pass  # skipped without a compiler
    with use("strict"):
        data = DeviceBatches(batches_of())
        with emulate():
            assert_same(data, data.batches, 1)


@on_backends
def test_an_augmentation_that_the_device_does_not_know_is_refused(backend):
    with pytest.raises(ValueError, match="only pad_crop_flip is known"):
        DeviceBatches(batches_of(lambda images, rng: images))
