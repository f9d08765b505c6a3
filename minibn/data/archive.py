"""Reading a few files from a .tar.gz that may be hostile.

Nothing is written to a path from the archive. Members are asked for by exact name and must be
regular files; an archive with an absolute path, a `..`, a link or a device in it is refused whole,
and so is one that unpacks to more than the limits, however small it is on disk.

A tar is a row of blocks of 512 bytes: a header with a name, a type and a size, then the content. It
is read here, and not by `tarfile`, which follows sizes and headers of any length, and seeks to the
end of a member of 1e20 bytes. Source: POSIX.1-2008, pax, "ustar Interchange Format" and "pax
Interchange Format"; GNU tar's manual, "Basic Tar Format".
"""

import os
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, NoReturn

from minibn.checkpoint import require_regular
from minibn.errors import DataError

MAX_MEMBER = 64 << 20  # bytes; CIFAR-10's largest file has 31 MB
MAX_TOTAL = 512 << 20  # bytes unpacked; CIFAR-10 has 186 MB
MAX_RATIO = 20  # bytes unpacked for each byte on disk, beyond MAX_MEMBER; CIFAR-10 has 1.1
MAX_MEMBERS = 100  # CIFAR-10 has 9
MAX_HEADER = 64 << 10  # bytes of an extended header, which may hold a long name

BLOCK = 512
REGULAR, FOLDER, PAX, PAX_GLOBAL, LONG_NAME = (b"0", b"\0", b"7"), b"5", b"x", b"g", b"L"


def read_archive(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each wanted member of the .tar.gz at `path`, in its own order.

    A wanted member that is not there is not yielded. Raises DataError if the archive is hostile,
    truncated, damaged (which its checksum may show only after the last member), no .tar.gz at all,
    unreadable, or larger than the limits above.
    """
    names_read: set[str] = set()
    try:
        require_regular(path)
        with path.open("rb") as file:
            stream = _Gunzip(file, path)
            for name, kind, size in _headers(stream, path):
                _check(name, kind, path)
                if name not in wanted:
                    stream.skip(_padded(size))
                    continue
                if name in names_read:
                    raise DataError(f"{path}: hostile archive: {name!r} is there twice")
                if kind not in REGULAR:
                    raise DataError(f"{path}: hostile archive: {name!r} is no regular file")
                if size > MAX_MEMBER:
                    raise DataError(
                        f"{path}: hostile archive: {name!r} unpacks to {size:,} bytes, "
                        f"at most {MAX_MEMBER:,} are admitted"
                    )
                names_read.add(name)
                yield name, stream.read(_padded(size))[:size]
            stream.skip_rest()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    except (zlib.error, EOFError) as error:
        raise DataError(f"{path}: truncated or damaged archive ({error})") from error


def _headers(stream: "_Gunzip", path: Path) -> Iterator[tuple[str, bytes, int]]:
    """(name, type, size) of each member, up to a block of zeros. The caller reads its content."""
    long_name: str | None = None
    records: dict[str, str] = {}  # of the pax header before a member
    members = 0
    for _ in range(3 * MAX_MEMBERS):  # a member has at most two headers before its own
        block = stream.read(BLOCK)
        if not any(block):
            return
        kind, size = block[156:157], _octal(block[124:136])
        if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _octal(block[148:156]):
            raise EOFError("a header with a wrong checksum")
        if kind in (PAX, PAX_GLOBAL, LONG_NAME):
            if size > MAX_HEADER:
                raise DataError(f"{path}: hostile archive: a header of {size:,} bytes")
            content = stream.read(_padded(size))[:size]
            if kind == LONG_NAME:
                long_name = _text(content)
            elif kind == PAX:
                records = _pax_records(content)
            elif not _pax_records(content).keys().isdisjoint(("path", "size")):
                raise DataError(f"{path}: hostile archive: a name or a size for all members")
            continue
        members += 1
        if members > MAX_MEMBERS:
            break
        name = _text(block[:100])
        if block[257:263] == b"ustar\0" and block[345]:
            name = f"{_text(block[345:500])}/{name}"
        name = records.get("path") or long_name or name
        if "size" in records:
            size = _decimal(records["size"])
        if any(key.startswith("GNU.sparse") for key in records):
            kind = b"S"
        if kind == b"\0" and name.endswith("/"):  # before POSIX
            kind = FOLDER
        yield name.removeprefix("./").rstrip("/"), kind, 0 if kind == FOLDER else size
        long_name, records = None, {}
    raise DataError(f"{path}: hostile archive: over {MAX_MEMBERS} members")


def _check(name: str, kind: bytes, path: Path) -> None:
    """Refuse absolute paths, `..`, links and devices, by Windows' rules, which are the stricter."""
    windows = PureWindowsPath(name)
    if windows.anchor:
        raise DataError(f"{path}: hostile archive: {name!r:.200} is an absolute path")
    if ".." in windows.parts:
        raise DataError(f"{path}: hostile archive: {name!r:.200} leads out of its folder")
    if kind not in (*REGULAR, FOLDER):
        raise DataError(f"{path}: hostile archive: {name!r:.200} is a link or a device, or sparse")


def _octal(field: bytes) -> int:
    """A number of a header. Raises EOFError if it is none: then the archive is damaged."""
    if field[0] == 0x80:  # GNU's, for large ones
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise EOFError("a header with a malformed number")
    return int(digits or b"0", 8)


def _decimal(digits: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", digits):
        raise EOFError("a header with a malformed size")
    return int(digits)


def _pax_records(content: bytes) -> dict[str, str]:
    """The records of an extended header: each "LENGTH KEY=VALUE\\n", its length in bytes first."""
    records, start = {}, 0
    while start < len(content):
        length = _decimal(content[start : start + 20].partition(b" ")[0].decode("latin1"))
        _, _, record = content[start : start + length].partition(b" ")
        key, equals, value = record.partition(b"=")
        if length > len(content) - start or not equals or not value.endswith(b"\n"):
            raise EOFError("a malformed extended header")
        records[_text(key)] = _text(value[:-1])
        start += length
    return records


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class _Gunzip:
    """The unpacked bytes of a gzip file, whose checksum is compared at its end. Raises DataError
    when they are more than the limits, and EOFError when they are fewer than asked for."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.limit = min(MAX_TOTAL, MAX_MEMBER + MAX_RATIO * os.fstat(file.fileno()).st_size)
        self.left = self.limit

    def read(self, size: int) -> bytes:
        return b"".join(self._pieces(size))

    def skip(self, size: int) -> None:
        for _ in self._pieces(size):
            pass

    def skip_rest(self) -> None:
        """Read to the end, where the checksum is."""
        while self._some(1 << 20):
            pass
        if self.unpacker.unused_data.strip(b"\0"):
            raise EOFError("bytes after its end")

    def _pieces(self, size: int) -> Iterator[bytes]:
        if size > self.left:
            self._refuse()
        while size:
            piece = self._some(min(size, 1 << 20))
            if not piece:
                raise EOFError("it ends early")
            size -= len(piece)
            yield piece

    def _some(self, most: int) -> bytes:
        """1 to `most` bytes; none at the end."""
        while not self.unpacker.eof:
            packed = self.unpacker.unconsumed_tail or self.file.read(1 << 16)
            data = self.unpacker.decompress(packed, most)
            self.left -= len(data)
            if self.left < 0:
                self._refuse()
            if data:
                return data
            if not packed:
                raise EOFError("it ends early")
        return b""

    def _refuse(self) -> NoReturn:
        raise DataError(
            f"{self.path}: hostile archive: it unpacks to more than {self.limit:,} bytes"
        )
