"""Checkpoints: several state dicts and a manifest in one npz file, written atomically.

The file holds arrays only (no pickle) and the manifest as JSON text. `save` writes a temporary
file, syncs it to disk and renames it: whenever the process is killed, the target is the old file or
the new one.

`load` checks the archive's CRCs, the manifest's among them, and a SHA-256 over the arrays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from minibn.backend import to_numpy
from minibn.errors import DataError

FORMAT = 1
MANIFEST = "manifest.json"
States = Mapping[str, Mapping[str, np.ndarray]]


def save(
    path: str | os.PathLike,
    manifest: Mapping[str, Any],
    states: States,
    *,
    rename: Callable[[Path, Path], None] | None = None,
) -> None:
    """Write `states` (name -> state dict of NumPy arrays) and `manifest` (JSON values) to `path`.

    Atomic: after a kill or on a full disk the old file remains. rename: as of `atomic_write`.
    Raises OSError, and TypeError for an array of objects.
    """
    if slashed := [part for part in states if "/" in part]:
        raise ValueError(f"checkpoint: the state's name {slashed[0]!r} must not have a slash.")
    arrays = {}
    for part, d in states.items():
        if not isinstance(d, Mapping):
            raise TypeError(f"checkpoint: {part} is a {type(d).__name__}; save its .state_dict().")
        for name, a in d.items():
            if not isinstance(name, str):
                raise TypeError(f"checkpoint: {part}: {name!r} is no name: names are strings.")
            arrays[f"{part}/{name}"] = _as_array(a, f"{part}/{name}")
    for name, array in arrays.items():
        if array.dtype.hasobject or array.dtype.names:
            raise TypeError(
                f"checkpoint: {name} holds Python objects or records; only numbers are saved."
            )
    own = {"format": FORMAT, "parts": list(states), "sha256": _digest(arrays)}
    if taken := own.keys() & manifest.keys():
        raise ValueError(f"checkpoint: the manifest's key {taken.pop()!r} is taken.")
    text = json.dumps({**own, **manifest}, sort_keys=True)
    members: dict[str, Any] = {**arrays, MANIFEST: np.frombuffer(text.encode(), np.uint8)}
    with atomic_write(path, rename) as file:
        np.savez(file, **members)


def _as_array(values: Any, name: str) -> np.ndarray:
    """The values as an array. Raises TypeError that names them, such as for a masked array."""
    try:
        return to_numpy(values) if hasattr(values, "dtype") else np.asarray(values)
    except TypeError as error:
        raise TypeError(f"checkpoint: {name}: {error}") from error


def load(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """(manifest, states) of a checkpoint. Raises DataError if it is missing, damaged or not one."""
    try:
        arrays = _read(Path(path))
        manifest = dict(json.loads(arrays.pop(MANIFEST).tobytes()))
        states: dict[str, dict[str, np.ndarray]] = {p: {} for p in manifest.pop("parts", ())}
    except FileNotFoundError:
        raise DataError(f"checkpoint {path}: there is no such file.") from None
    except Exception as error:  # whatever a damaged archive makes zipfile, NumPy or json raise
        reason = " ".join(str(error).split())  # it may quote the file
        raise DataError(
            f"checkpoint {path} is damaged or no checkpoint of minibn ({reason:.300}). "
            "Delete it and train again, or restore a copy."
        ) from error
    if manifest.pop("format", None) != FORMAT:
        raise DataError(f"checkpoint {path} is not in format {FORMAT}, which this minibn reads.")
    if manifest.pop("sha256", None) != _digest(arrays):
        raise DataError(
            f"checkpoint {path} is damaged: its SHA-256 does not match its content. "
            "Delete it and train again, or restore a copy."
        )
    for name, array in arrays.items():
        part, _, key = name.partition("/")
        states.setdefault(part, {})[key] = array
    return manifest, states


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name. Each member is read whole, so that its CRC is checked
    before it is parsed. All of them together are no larger than the file."""
    require_regular(path)
    with zipfile.ZipFile(path) as file:
        members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
        if len(members) < len(file.infolist()):
            raise ValueError("a name is there twice")
        end = 0
        for member in sorted(members.values(), key=lambda member: member.header_offset):
            if member.compress_type != zipfile.ZIP_STORED:  # as we write it; nothing to inflate
                raise ValueError(f"{member.filename} is compressed")
            if member.header_offset < end:
                raise ValueError(f"{member.filename} overlaps another member")
            end = member.header_offset + 30 + len(member.orig_filename) + member.compress_size
        return {name: _array(file.read(member), name) for name, member in members.items()}


def _array(content: bytes, name: str) -> np.ndarray:
    """The array of an npy file, which must be as long as its shape says: nothing is allocated for a
    shape of more."""
    file = io.BytesIO(content)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"{name} is in npy format {version}")
    shape, _, dtype = readers[version](file)
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell() or len(shape) > 64:
        raise ValueError(f"{name} has another length than its shape {shape!s:.100} and {dtype}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def require_regular(path: Path) -> None:
    """Raise OSError for a folder, a pipe or a device: opening a pipe would wait for its writer, and
    a device may never end. Nothing is raised for a file that is not there."""
    if path.exists() and not path.is_file():
        kind = (errno.EISDIR, "a directory") if path.is_dir() else (errno.EINVAL, "no regular file")
        raise OSError(kind[0], f"it is {kind[1]}", str(path))


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def atomic_write(
    path: str | os.PathLike, rename: Callable[[Path, Path], None] | None = None
) -> Iterator[IO[bytes]]:
    """A temporary file to write bytes to. It is synced to disk and renamed to `path` when the block
    ends; after an exception it is removed, and `path` is unchanged.

    rename(source, target): what is called in the place of `os.replace`.
    """
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        (rename or os.replace)(scratch, target)
        sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
