"""Checkpoints: several state dicts and a manifest in one npz file, written atomically.

The file holds arrays only (no pickle) and the manifest as JSON text. `save` writes a temporary
file, syncs it to disk and renames it: whenever the process is killed, the target is the old file or
the new one.

`load` checks the archive's CRCs, the manifest's among them, and a SHA-256 over the arrays.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

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
    arrays = {
        f"{part}/{name}": np.asarray(a) for part, d in states.items() for name, a in d.items()
    }
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"checkpoint: {name} holds Python objects; only numbers are saved.")
    own = {"format": FORMAT, "parts": list(states), "sha256": _digest(arrays)}
    if taken := own.keys() & manifest.keys():
        raise ValueError(f"checkpoint: the manifest's key {taken.pop()!r} is taken.")
    text = json.dumps({**own, **manifest}, sort_keys=True)
    members: dict[str, Any] = {**arrays, MANIFEST: np.frombuffer(text.encode(), np.uint8)}
    with atomic_write(path, rename) as file:
        np.savez(file, **members)


def load(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """(manifest, states) of a checkpoint. Raises DataError if it is missing, damaged or not one."""
    try:
        arrays = _read(Path(path))
        manifest = dict(json.loads(arrays.pop(MANIFEST).tobytes()))
        states: dict[str, dict[str, np.ndarray]] = {p: {} for p in manifest.pop("parts", ())}
    except FileNotFoundError:
        raise DataError(f"checkpoint {path}: there is no such file.") from None
    except Exception as error:  # whatever a damaged archive makes zipfile, NumPy or json raise
        raise DataError(
            f"checkpoint {path} is damaged or no checkpoint of minibn ({error}). "
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
    before it is parsed."""
    arrays = {}
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            if member.compress_type != zipfile.ZIP_STORED:  # as we write it; nothing to inflate
                raise ValueError(f"{member.filename} is compressed")
            content = io.BytesIO(file.read(member))
            name = member.filename.removesuffix(".npy")
            arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
    return arrays


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
