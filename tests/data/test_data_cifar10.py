"""CIFAR-10 from a folder or an archive of the user's own: the layout, and what is refused."""

import os
import pickle

import numpy as np
import pytest

from minibn.data import CIFAR10_CLASSES, load
from minibn.data.cifar10 import ARCHIVE, FOLDER, cache_dir, load_cifar10
from minibn.errors import DataError


def test_a_folder_that_holds_or_is_the_batches_gives_the_same_images(contents, pickled, folder_of):
    holds = folder_of(pickled(contents))
    for a, b in zip(load_cifar10(holds), load_cifar10(holds / FOLDER), strict=True):
        np.testing.assert_array_equal(a, b)


def test_planar_rows_come_out_as_images_with_channels_last(contents, pickled, folder_of):
    images, labels, test_images, test_labels = load_cifar10(folder_of(pickled(contents)))
    assert images.shape == (10, 32, 32, 3) and test_images.shape == (3, 32, 32, 3)
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    assert labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6] and test_labels.tolist() == [6, 7, 8]
    row = contents["data_batch_2"][b"data"][1]
    for y, x, channel in [(0, 0, 0), (0, 1, 1), (3, 31, 2), (31, 7, 1)]:
        assert images[3, y, x, channel] == row[channel * 1024 + y * 32 + x]
    assert images.flags.c_contiguous


def test_an_archive_is_read_without_writing_beside_it(archive, tmp_path):
    (tmp_path / "cifar-10-mini.tar.gz").write_bytes(archive)
    assert len(load_cifar10(tmp_path)[0]) == 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["cifar-10-mini.tar.gz"]


def test_the_official_archive_is_preferred_and_cifar_100_is_not_taken(archive, tmp_path):
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"not this one")
    with pytest.raises(DataError, match="holds no CIFAR-10"):
        load_cifar10(tmp_path)
    (tmp_path / "cifar-10-aaa.tar.gz").write_bytes(b"nor this one")
    (tmp_path / ARCHIVE).write_bytes(archive)
    assert len(load_cifar10(tmp_path)[0]) == 10


def test_the_archive_may_be_named_itself(archive, tmp_path):
    (tmp_path / "my.tar.gz").write_bytes(archive)
    assert len(load_cifar10(tmp_path / "my.tar.gz")[0]) == 10


def test_sizes_take_the_first_images_and_no_more_than_there_are(contents, pickled, folder_of):
    folder = folder_of(pickled(contents))
    whole = load("cifar10", folder)
    part = load("cifar10", folder, train_size=4, test_size=1)
    np.testing.assert_array_equal(part.train_images, whole.train_images[:4])
    assert len(part.test_labels) == 1 and whole.classes == CIFAR10_CLASSES
    with pytest.raises(DataError, match=r"train_size is 11, only 10 images"):
        load("cifar10", folder, train_size=11)


def test_every_error_is_one_line_and_names_the_remedies(tmp_path):
    with pytest.raises(DataError) as caught:
        load_cifar10(tmp_path / "nowhere")
    message = str(caught.value)
    assert "does not exist" in message and "\n" not in message
    for remedy in ("--data-dir DIR", "--data shapes", "--quick"):
        assert remedy in message


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=rf"looked for {FOLDER}/.*{ARCHIVE}"):
        load_cifar10(tmp_path)


def test_a_missing_batch_is_named(contents, pickled, folder_of):
    del contents["data_batch_3"], contents["test_batch"]
    with pytest.raises(DataError, match=r"data_batch_3, test_batch missing"):
        load_cifar10(folder_of(pickled(contents)))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_an_unreadable_folder_is_an_error_of_the_data(contents, pickled, folder_of):
    folder = folder_of(pickled(contents))
    folder.chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            load_cifar10(folder)
    finally:
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_an_error_of_the_data(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(DataError, match=r"Permission denied.*--data-dir"):
        load_cifar10(tmp_path)


def test_a_file_too_large_for_a_batch_is_not_read(contents, pickled, folder_of):
    folder = folder_of(pickled(contents))
    with open(folder / FOLDER / "test_batch", "r+b") as file:
        file.truncate(1 << 30)  # sparse: takes no room
    with pytest.raises(DataError, match="test_batch: larger than"):
        load_cifar10(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (b"labels", [3, 10], "labels run from 3 to 10"),
        (b"labels", [-1, 0], "labels run from -1 to 0"),
        (b"labels", [3], "1 labels for 2 images"),
        (b"labels", [1.0, 2.0], "not a list of integers"),
        (b"labels", [True, False], "not a list of integers"),
        (b"data", np.zeros((2, 3072), np.float32), "dtype float32"),
        (b"data", np.zeros((2, 3071), np.uint8), r"shape \(2, 3071\)"),
        (b"data", np.zeros((0, 3072), np.uint8), "n >= 1"),
        (b"data", [[0] * 3072] * 2, "'data' is a list"),
    ],
)
def test_a_batch_of_another_structure_is_refused(contents, pickled, folder_of, key, value, message):
    contents["data_batch_4"][key] = value
    with pytest.raises(DataError, match=rf"data_batch_4: .*{message}"):
        load_cifar10(folder_of(pickled(contents)))


def test_a_batch_of_cifar_100_is_told_by_its_keys(contents, pickled, folder_of):
    contents["test_batch"][b"fine_labels"] = contents["test_batch"].pop(b"labels")
    with pytest.raises(DataError, match=r"no 'labels' in it.*fine_labels"):
        load_cifar10(folder_of(pickled(contents)))


def test_classes_in_another_order_are_refused(contents, pickled, folder_of):
    contents["batches.meta"][b"label_names"].reverse()
    with pytest.raises(DataError, match=r"batches.meta: label_names are not CIFAR-10's"):
        load_cifar10(folder_of(pickled(contents)))


def test_files_pickled_by_python_3_with_string_keys_are_read_too(contents, folder_of):
    files = {
        name: pickle.dumps({key.decode(): value for key, value in content.items()})
        for name, content in contents.items()
    }
    assert len(load_cifar10(folder_of(files))[0]) == 10


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MINIBN_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("MINIBN_CACHE")
    assert cache_dir() == tmp_path / "minibn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir().is_absolute() and "minibn" in cache_dir().parts
