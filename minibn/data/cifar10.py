"""CIFAR-10, read from its original files: from a folder, from an archive, or downloaded once.

50,000 training and 10,000 test images of 32x32 pixels in ten classes. The files hold planar
rows (1024 red, 1024 green, 1024 blue values); images come out channels-last. A folder or archive
of the user's own is checked for its structure only, so that smaller archives of the same layout are
accepted; a download must be the original, byte for byte.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import os
import reprlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minibn.data.archive import MAX_MEMBER, read_archive
from minibn.data.classes import CIFAR10_CLASSES
from minibn.data.download import Progress, fetch, file_lock
from minibn.data.unpickle import load_dict
from minibn.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SIZE = 170_498_071
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
FILES = (*TRAIN_BATCHES, "test_batch", "batches.meta")
REMEDY = (
    f"Name a folder that holds {FOLDER}/ or {ARCHIVE} with --data-dir DIR, "
    "or use --data shapes or --quick, which need no files."
)

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def load_cifar10(
    data_dir: str | os.PathLike | None = None,
    *,
    download: bool = True,
    url: str = URL,
    size: int = SIZE,
    sha256: str = SHA256,
    tries: int = 4,
    wait: float = 1.0,
    progress: Progress | None = None,
) -> Arrays:
    """Training images and labels, test images and labels: (N, 32, 32, 3) uint8 and (N,) int64.

    `data_dir` is or holds `cifar-10-batches-py/`, or holds `cifar-10-python.tar.gz` (or another
    `cifar-10*.tar.gz`, which is read without being unpacked). Without it the cache is used (see
    `cache_dir`), and filled by a download if it is empty and `download` is true.
    Raises DataError, with the remedy, for files that are missing, damaged or hostile.
    """
    try:
        if data_dir is not None:
            return decode(*_find(Path(data_dir).expanduser()))
        cache = cache_dir()
        folder = cache / FOLDER
        if not folder.exists():
            if not download:
                raise DataError(f"CIFAR-10 is not in the cache ({folder}), download is off")
            install(
                cache, url=url, size=size, sha256=sha256, tries=tries, wait=wait, progress=progress
            )
        return decode(_read_folder(folder), folder)
    except OSError as error:
        where = error.filename or data_dir or "the cache"
        raise DataError(f"{where}: {error.strerror or error}. {REMEDY}") from error
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}. {REMEDY}") from error


def cache_dir() -> Path:
    """`$MINIBN_CACHE`, else `$XDG_CACHE_HOME/minibn`, else the system's folder for caches."""
    if own := os.environ.get("MINIBN_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "minibn"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "minibn/cache"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/minibn"
    return Path.home() / ".cache/minibn"


def install(
    cache: Path,
    *,
    url: str = URL,
    size: int = SIZE,
    sha256: str = SHA256,
    tries: int = 4,
    wait: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Download the archive into `cache`, unpack it to `cifar-10-batches-py/` there, delete it.

    The folder appears complete, by one rename. A second process waits for the first.
    """
    folder, archive = cache / FOLDER, cache / ARCHIVE
    cache.mkdir(parents=True, exist_ok=True)
    with file_lock(cache / f"{ARCHIVE}.lock"):
        if folder.exists():
            return folder
        if not archive.exists():  # it gets this name after its checksum was right
            print(f"downloading CIFAR-10 ({size / 1e6:.0f} MB) from {url}", file=sys.stderr)
            fetch(url, archive, size=size, sha256=sha256, tries=tries, wait=wait, progress=progress)
        _unpack(archive, folder)
        archive.unlink()
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Write the archive's seven files into a temporary folder beside `folder`, then rename it.

    The caller holds the lock, so a folder of the temporary name was left by a dead process.
    """
    temporary = folder.with_name(f".{FOLDER}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        names = set()
        for name, data in _read_archive(archive):
            (temporary / name).write_bytes(data)
            names.add(name)
        _require_all(names, archive)
        os.replace(temporary, folder)
    except OSError as error:
        raise DataError(f"{folder}: can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _find(data_dir: Path) -> tuple[Iterator[tuple[str, bytes]], Path]:
    """The files in `data_dir`, and the folder or archive that they come from."""
    if not data_dir.exists():
        raise DataError(f"data_dir {str(data_dir)!r} does not exist")
    if data_dir.is_file():
        return _read_archive(data_dir), data_dir
    present = {entry.name for entry in data_dir.iterdir()}
    if data_dir.name == FOLDER or present & set(FILES):
        return _read_folder(data_dir), data_dir
    if FOLDER in present:
        return _read_folder(data_dir / FOLDER), data_dir / FOLDER
    archives = sorted(
        name
        for name in present
        if name.startswith("cifar-10") and name.endswith(".tar.gz") and "cifar-100" not in name
    )
    if archives:
        path = data_dir / (ARCHIVE if ARCHIVE in archives else archives[0])
        return _read_archive(path), path
    raise DataError(
        f"data_dir {str(data_dir)!r} holds no CIFAR-10: looked for {FOLDER}/, for its files "
        f"({FILES[0]}, ...), and for {ARCHIVE} or another cifar-10*.tar.gz"
    )


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_MEMBER:
            raise DataError(f"{path}: larger than {MAX_MEMBER:,} bytes, no file of CIFAR-10 is")
        yield name, path.read_bytes()


def _read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    for name, data in read_archive(path, {f"{FOLDER}/{name}" for name in FILES}):
        yield name.rpartition("/")[2], data


def decode(files: Iterable[tuple[str, bytes]], source: Path) -> Arrays:
    """The four arrays in CIFAR-10's seven files, given as (name, content) in any order."""
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    names = set()
    for name, data in files:
        content = load_dict(data, f"{source}, {name}")
        names.add(name)
        if name == "batches.meta":
            _check_classes(content, f"{source}, {name}")
        else:
            batches[name] = _batch(content, f"{source}, {name}")
    _require_all(names, source)
    train = [batches[name] for name in TRAIN_BATCHES]
    images = np.concatenate([rows for rows, _ in train])
    labels = np.concatenate([labels for _, labels in train])
    test_images, test_labels = batches["test_batch"]
    return images, labels, test_images, test_labels


def _require_all(names: set[str], source: Path) -> None:
    missing = [name for name in FILES if name not in names]
    if missing:
        raise DataError(f"{source}: incomplete CIFAR-10: {', '.join(missing)} missing")


def _check_classes(content: dict[str, Any], source: str) -> None:
    names = content.get("label_names")
    if not isinstance(names, list):
        raise DataError(f"{source}: no list 'label_names' in it")
    if [n.decode("latin1") if type(n) is bytes else n for n in names] != list(CIFAR10_CLASSES):
        raise DataError(f"{source}: label_names are not CIFAR-10's: {reprlib.repr(names)}")


def _batch(content: dict[str, Any], source: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,) of one batch file, checked."""
    for key in ("data", "labels"):
        if key not in content:
            raise DataError(f"{source}: no {key!r} in it, only {reprlib.repr(sorted(content))}")
    rows, labels = content["data"], content["labels"]
    if not isinstance(rows, np.ndarray):
        raise DataError(f"{source}: 'data' is a {type(rows).__name__}, expected an array")
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3072 or len(rows) == 0:
        raise DataError(
            f"{source}: 'data' has shape {rows.shape} and dtype {rows.dtype}, "
            "expected (n, 3072) and uint8 with n >= 1"
        )
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        labels = labels.ravel().tolist()
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{source}: 'labels' is not a list of integers")
    if len(labels) != len(rows):
        raise DataError(f"{source}: {len(labels)} labels for {len(rows)} images")
    if not 0 <= min(labels) <= max(labels) <= 9:
        raise DataError(
            f"{source}: labels run from {min(labels)} to {max(labels)}, expected 0 to 9"
        )
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    return np.ascontiguousarray(images), np.array(labels, dtype=np.int64)
