"""Batches as a pure function of the step, augmentation, normalisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn.data import Batches, in_order, normalize, pad_crop_flip
from minibn.errors import ShapeError
from minibn.random import generator

N = 23
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 6, 5, 3), np.uint8)
LABELS = np.arange(N)


def _labels(batches, epoch):
    start = epoch * batches.per_epoch
    return np.concatenate([batches.batch(start + i)[1] for i in range(batches.per_epoch)])


@given(size=st.integers(1, N), epoch=st.integers(0, 5), seed=st.integers(0, 9))
def test_an_epoch_is_a_permutation_less_its_partial_batch(size, epoch, seed):
    batches = Batches(IMAGES, LABELS, size, seed)
    seen = _labels(batches, epoch)
    assert batches.per_epoch == N // size
    assert len(seen) == len(set(seen.tolist())) == N - N % size


def test_each_image_comes_with_its_label():
    images, labels = Batches(IMAGES, LABELS, 8, seed=0).batch(4)
    np.testing.assert_array_equal(images, IMAGES[labels])


@pytest.mark.parametrize("augment", [None, pad_crop_flip])
def test_a_batch_depends_on_the_step_alone_so_that_a_run_restarts_anywhere(augment):
    straight = Batches(IMAGES, LABELS, 4, seed=1, augment=augment)
    expected = [straight.batch(step) for step in range(20)]
    for step in np.random.default_rng(0).permutation(20):
        restarted = Batches(IMAGES, LABELS, 4, seed=1, augment=augment)
        for batches in (restarted, straight):  # afresh, and out of order
            images, labels = batches.batch(int(step))
            np.testing.assert_array_equal(images, expected[step][0])
            np.testing.assert_array_equal(labels, expected[step][1])


def test_epochs_and_seeds_have_orders_of_their_own():
    batches, other = (Batches(IMAGES, LABELS, 5, seed) for seed in (0, 1))
    first = _labels(batches, 0)
    assert (first != _labels(batches, 1)).any() and (first != _labels(other, 0)).any()
    order = generator(0, "order", 0).permutation(N)
    np.testing.assert_array_equal(first, order[: len(first)])
    assert [batches.epoch(step) for step in (0, 3, 4, 8)] == [0, 0, 1, 2]


def test_a_batch_is_a_contiguous_copy_of_bytes():
    before = IMAGES.copy()
    for augment in (None, pad_crop_flip, lambda images, rng: images[:, :, ::-1]):
        images, labels = Batches(IMAGES, LABELS, 8, 0, augment).batch(0)
        assert images.dtype == np.uint8 and images.flags.c_contiguous
        images[:], labels[:] = 0, 0
    np.testing.assert_array_equal(IMAGES, before)
    np.testing.assert_array_equal(LABELS, np.arange(N))


def test_augmentation_leaves_the_order_as_it_is():
    plain, augmented = Batches(IMAGES, LABELS, 8, 0), Batches(IMAGES, LABELS, 8, 0, pad_crop_flip)
    np.testing.assert_array_equal(plain.batch(3)[1], augmented.batch(3)[1])
    assert (plain.batch(3)[0] != augmented.batch(3)[0]).any()


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"batch_size is 24, the data has 23 images"):
        Batches(IMAGES, LABELS, 24, 0)
    assert Batches(IMAGES, LABELS, 23, 0).per_epoch == 1


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match="23 images and 22 labels"):
        Batches(IMAGES, LABELS[1:], 4, 0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        Batches(IMAGES, LABELS, 0, 0)
    with pytest.raises(ValueError, match="batch_size is -1"):
        in_order(IMAGES, LABELS, -1)
    with pytest.raises(ValueError, match="step is -1"):
        Batches(IMAGES, LABELS, 4, 0).batch(-1)


@given(size=st.integers(1, N + 5))
def test_evaluation_sees_every_image_once_in_order(size):
    parts = list(in_order(IMAGES, LABELS, size))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in parts]), IMAGES)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), LABELS)
    assert all(len(labels) == size for _, labels in parts[:-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalize_is_the_formula_and_keeps_its_dtype(dtype):
    x = np.arange(256, dtype=np.uint8)
    y = normalize(x, dtype)
    assert y.dtype == dtype
    np.testing.assert_allclose(
        y, (x.astype(np.float64) / 255 - 0.5) / 0.25, rtol=0, atol=8 * np.finfo(dtype).eps
    )


# Augmentation


def test_without_pad_and_flip_augmentation_is_the_identity():
    out = pad_crop_flip(IMAGES, np.random.default_rng(0), pad=0, flip=0)
    np.testing.assert_array_equal(out, IMAGES)
    assert not np.shares_memory(out, IMAGES)


def test_with_a_certain_flip_and_no_pad_it_is_the_mirror_and_twice_the_identity():
    rng = np.random.default_rng(0)
    once = pad_crop_flip(IMAGES, rng, pad=0, flip=1)
    np.testing.assert_array_equal(once, IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(pad_crop_flip(once, rng, pad=0, flip=1), IMAGES)


@given(seed=st.integers(0, 1000), pad=st.integers(0, 4))
def test_every_output_is_a_window_of_the_padded_image_or_its_mirror(seed, pad):
    out = pad_crop_flip(IMAGES[:4], np.random.default_rng(seed), pad=pad)
    assert out.shape == IMAGES[:4].shape and out.dtype == np.uint8
    padded = np.pad(IMAGES[:4], ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for image, source in zip(out, padded, strict=True):
        windows = [
            source[top : top + 6, left : left + 5]
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
        ]
        assert any((image == w).all() or (image == w[:, ::-1]).all() for w in windows)


def test_all_crops_and_both_mirrors_occur():
    # A single lit pixel in the middle tells where each window was taken.
    images = np.zeros((2000, 5, 5, 1), np.uint8)
    images[:, 2, 2] = 1
    images[:, 2, 3] = 2
    out = pad_crop_flip(images, np.random.default_rng(0), pad=1)[..., 0]
    _, row, column = np.nonzero(out == 1)
    places = set(zip(row.tolist(), column.tolist(), strict=True))
    assert places == {(r, c) for r in (1, 2, 3) for c in (1, 2, 3)}
    mirrored = [(image.argmax() % 5) < (np.argmax(image == 1) % 5) for image in out]
    assert 0.45 < np.mean(mirrored) < 0.55


def test_the_draws_do_not_depend_on_the_images():
    a, b = (np.random.default_rng(7) for _ in range(2))
    pad_crop_flip(IMAGES, a)
    pad_crop_flip(np.zeros((N, 9, 9, 1), np.uint8), b)
    assert a.random() == b.random()


def test_a_negative_pad_or_an_impossible_probability_is_refused():
    for arguments in ({"pad": -1}, {"flip": 1.5}):
        with pytest.raises(ValueError, match="expected pad >= 0 and 0 <= flip <= 1"):
            pad_crop_flip(IMAGES, np.random.default_rng(0), **arguments)
