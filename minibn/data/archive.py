"""Reading a few files from a .tar.gz that may be hostile.

Nothing is written to a path from the archive. Members are asked for by exact name and
must be regular files; an archive with an absolute path, a `..`, a link or a device in it is
refused whole, and so is one that unpacks to more than the limits, however small it is on disk.
"""

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from minibn.errors import DataError

MAX_MEMBER = 64 << 20  # bytes; CIFAR-10's largest file has 31 MB
MAX_TOTAL = 512 << 20  # bytes unpacked; CIFAR-10 has 186 MB
MAX_MEMBERS = 100  # CIFAR-10 has 9


def read_archive(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each wanted member of the .tar.gz at `path`, in its own order.

    A wanted member that is not there is not yielded. Raises DataError if the archive is hostile,
    truncated, no .tar.gz at all, unreadable, or larger than the limits above.
    """
    names_read: set[str] = set()
    try:
        with (
            gzip.open(path) as plain,
            tarfile.open(fileobj=_Bounded(plain, path), mode="r|") as tar,  # type: ignore[call-overload]  # reads suffice
        ):
            for count, member in enumerate(tar):
                if count >= MAX_MEMBERS:
                    raise DataError(f"{path}: hostile archive: over {MAX_MEMBERS} members")
                _check(member, path)
                name = member.name.removeprefix("./")
                if name not in wanted:
                    continue
                if name in names_read:
                    raise DataError(f"{path}: hostile archive: {name!r} is there twice")
                if not member.isreg() or member.issparse():
                    raise DataError(f"{path}: hostile archive: {name!r} is no regular file")
                if not 0 <= member.size <= MAX_MEMBER:
                    raise DataError(
                        f"{path}: hostile archive: {name!r} unpacks to {member.size:,} bytes, "
                        f"at most {MAX_MEMBER:,} are admitted"
                    )
                names_read.add(name)
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                data = content.read()
                if len(data) != member.size:
                    raise tarfile.ReadError(f"{name} ends early")
                yield name, data
    except DataError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: truncated or damaged archive ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    except (ValueError, OverflowError, RecursionError) as error:  # headers that are no numbers
        raise DataError(f"{path}: hostile archive: a malformed header ({error})") from error


def _check(member: tarfile.TarInfo, path: Path) -> None:
    """Refuse absolute paths, `..`, links and devices, by Windows' rules, which are the stricter."""
    name = PureWindowsPath(member.name)
    if name.anchor:
        raise DataError(f"{path}: hostile archive: {member.name!r} is an absolute path")
    if ".." in name.parts:
        raise DataError(f"{path}: hostile archive: {member.name!r} leads out of its folder")
    if not (member.isreg() or member.isdir()):
        raise DataError(f"{path}: hostile archive: {member.name!r} is a link or a device")


class _Bounded:
    """A stream that raises after MAX_TOTAL bytes, so that a zip bomb is stopped early."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, path: Path) -> None:
        self.stream, self.path, self.left = stream, path, MAX_TOTAL

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise DataError(
                f"{self.path}: hostile archive: it unpacks to more than {MAX_TOTAL:,} bytes"
            )
        return data
