"""A checkpoint that means harm is refused before it takes memory or time."""

import os
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minibn import checkpoint
from minibn.errors import DataError

MB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "a.npz", {}, {"model": {"w": np.zeros(MB // 4, np.float32)}})
    return tmp_path / "a.npz"


def refusal(path: Path) -> str:
    tracemalloc.start()
    try:
        began = time.perf_counter()
        with pytest.raises(DataError) as caught:
            checkpoint.load(path)
        took, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < 2 and peak < 16 * MB, f"{took:.1f} s, {peak / MB:.0f} MB"
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    return str(caught.value)


def rewrite_directory(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the entries of the archive's directory; the members stay as they are."""
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", content[end + 16 : end + 20])[0]
    entries = [b"PK\x01\x02" + rest for rest in content[start:end].split(b"PK\x01\x02")[1:]]
    entries = change(entries)
    tail = struct.pack(
        "<4s4H2IH", b"PK\x05\x06", 0, 0, len(entries), len(entries),
        sum(map(len, entries)), start, 0,
    )  # fmt: skip
    path.write_bytes(content[:start] + b"".join(entries) + tail)


def test_a_member_that_the_directory_lists_twenty_times_is_refused(path: Path) -> None:
    rewrite_directory(path, lambda entries: entries)
    assert checkpoint.load(path)[1]["model"]["w"].size == MB // 4  # the tool does no harm
    rewrite_directory(path, lambda entries: [*entries, *[entries[0]] * 20])
    assert "twice" in refusal(path)


def test_a_member_that_lies_within_another_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.npz", "w") as file:
        file.writestr("model/v.npy", b"x" * 100)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("model/w.npy", (tmp_path / "inner.npz").read_bytes() + bytes(1000))
    inner = (tmp_path / "inner.npz").read_bytes()
    entry = bytearray(inner[inner.index(b"PK\x01\x02") : inner.rindex(b"PK\x05\x06")])
    entry[42:46] = struct.pack("<I", (tmp_path / "a.npz").read_bytes().index(b"PK", 2))
    rewrite_directory(tmp_path / "a.npz", lambda entries: [*entries, bytes(entry)])
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert set(file.namelist()) == {"model/w.npy", "model/v.npy"}
    assert "overlaps" in refusal(tmp_path / "a.npz")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for name in ("model/w.npy", "model/w"):
            file.writestr(name, b"\x93NUMPY\x01\x00" + npy_header("(0,)", "<f4"))
    assert "twice" in refusal(tmp_path / "a.npz")


def npy_header(shape: str, dtype: str) -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117 if len(text) < 117 else len(text)) + "\n"
    return struct.pack("<H", len(text)) + text.encode("latin1")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ("(2500000000,)", "<f4"),
        ("(4294967296, 4294967296)", "<f4"),
        ("(9" + "9" * 4000 + ",)", "<f4"),
        ("(-1, -4)", "<f4"),
        ("(1" + ", 1" * 100 + ",)", "<f4"),
        ("(1,)", "S2000000000"),
        ("(1,)", "|O"),
        ("(" * 200 + ")" * 200, "<f4"),
        ("(4.0,)", "<f4"),
    ],
)
def test_an_array_that_claims_more_than_its_file_holds_is_not_allocated(
    shape: str, dtype: str, tmp_path: Path
) -> None:
    content = b"\x93NUMPY\x01\x00" + npy_header(shape, dtype) + bytes(16)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("model/w.npy", content)
    refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("version", [b"\x03\x00", b"\x00\x00", b"\xff\xff"])
def test_other_versions_of_npy_are_refused(version: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("w.npy", b"\x93NUMPY" + version + npy_header("(4,)", "<f4") + bytes(18))
    refusal(tmp_path / "a.npz")


def test_a_long_name_with_lines_is_no_long_message(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a\nb" * 10_000, b"x")
    refusal(tmp_path / "a.npz")


def test_records_are_refused_when_they_are_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="records"):
        checkpoint.save(tmp_path / "a.npz", {}, {"model": {"w": np.zeros(2, [("ü", "f4")])}})
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    assert "no regular file" in refusal(tmp_path / "a.npz")
