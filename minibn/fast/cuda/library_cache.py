"""Compiled libraries on disk, so that the next process does not compile them again.

They lie in `emulated/` of the cache (`$MINIBN_CACHE` or the system's folder for caches). A file's
name holds a hash of what it was compiled from, and one of its own bytes: a file that was cut off or
changed is not used. It gets its name when it is complete, so processes do not disturb each other.
What was not used for 30 days is deleted. Where nothing can be read or written, there is no cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from minibn.data.cifar10 import cache_dir

UNUSED = 30 * 24 * 3600  # seconds until a file is deleted


def key_of(parts: Iterable[str]) -> str:
    """The hash of everything that a library is made from."""
    return _hash("\0".join(parts).encode())


def find(key: str) -> Path | None:
    """The library of this key, whole and unchanged; None if there is none."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        for path in _folder().glob(f"{key}-*.so"):
            if path.stem == f"{key}-{_hash(path.read_bytes())}":
                os.utime(path)
                return path
    return None


def store(key: str, library: Path) -> None:
    """Copy the library to the cache, if that can be written."""
    with contextlib.suppress(OSError, RuntimeError):
        content, folder = library.read_bytes(), _folder()
        folder.mkdir(parents=True, exist_ok=True)
        _delete_unused(folder)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
        try:
            with open(handle, "wb") as file:
                file.write(content)
            os.replace(name, folder / f"{key}-{_hash(content)}.so")
        except OSError:  # a full disk
            os.unlink(name)


def _folder() -> Path:
    return cache_dir() / "emulated"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _delete_unused(folder: Path) -> None:
    """Also what a process left that was killed while it wrote."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process was faster
            if path.is_file() and path.stat().st_mtime < time.time() - UNUSED:
                path.unlink()
