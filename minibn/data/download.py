"""Fetching one file of known SHA-256 over HTTP: resumed, retried, checked, renamed when complete.

Bytes are written to `TARGET.part`, which remains after a lost connection or a killed process; the
next try requests the rest (RFC 9110, Range). The target appears, by one rename, only when its
size and SHA-256 are the expected ones. `file_lock` keeps a second process from writing the same
file.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from minibn.data.connection import open_url
from minibn.errors import DataError

Progress = Callable[[int, int], None]  # (bytes there, bytes in all)

_CHUNK = 1 << 18


def fetch(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    tries: int = 4,
    wait: float = 1.0,
    timeout: float = 30.0,
    progress: Progress | None = None,
) -> Path:
    """Download `url` to `target`, which must come out with `size` bytes and digest `sha256`.

    Tries `tries` times, `wait` seconds apart and twice as long each time. A try ends when nothing
    came for `timeout` seconds, or less than LEAST_RATE. Raises DataError if the file can't be
    fetched, isn't the expected one, or can't be written. The bytes received stay in `TARGET.part`,
    unless its checksum is wrong: then it is deleted.
    """
    part = target.with_name(target.name + ".part")
    transfer = _Transfer(url, part, size, timeout, progress or progress_line(target.name))
    reason = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            resumed = transfer.run()
        except _Interrupted as error:
            reason = str(error)
            continue
        digest = _sha256(part)
        if digest == sha256:
            _rename(part, target)
            return target
        part.unlink()
        if not resumed:  # a resumed file may be parts of two versions; a fresh one is wrong
            raise DataError(
                f"{url}: bad checksum: SHA-256 is {digest}, expected {sha256}; "
                "the download was deleted"
            )
        reason = "the resumed file had a bad checksum"
    rest = f"; {_size(part):,} bytes are kept in {part} and will be resumed" if _size(part) else ""
    raise DataError(f"{url}: download failed after {tries} tries ({reason}){rest}")


class _Interrupted(Exception):
    """A failure of the network after which another try may succeed."""


class _Transfer:
    """The transfer of one file. `validator`: the ETag or date of the version it began with."""

    def __init__(self, url: str, part: Path, size: int, timeout: float, progress: Progress) -> None:
        self.url, self.part, self.size = url, part, size
        self.timeout, self.progress = timeout, progress
        self.validator = ""

    def run(self) -> bool:
        """Complete `part` to its full size; True if bytes of an earlier try were used."""
        have = _size(self.part)
        if have > self.size:
            self.part.unlink()
            have = 0
        if have == self.size:
            return True
        response = self._open(have)
        with response:
            have = self._start(response, have)
            try:
                self._copy(response, have)
            except OSError as error:  # the network's own errors arrive as _Interrupted
                raise _cannot_write(self.part, error) from error
        return have > 0

    def _open(self, have: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": "minibn", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.validator:
                headers["If-Range"] = self.validator
        request = urllib.request.Request(self.url, headers=headers)
        try:
            return open_url(request, self.timeout, self.size)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:  # the server's file is no longer than our part: another file
                    self.part.unlink(missing_ok=True)
                    raise _Interrupted(
                        "the server refused to resume, the part was dropped"
                    ) from error
                if error.code in (408, 425, 429) or error.code >= 500:
                    raise _Interrupted(f"HTTP {error.code} {_line(error.reason)}") from error
                raise DataError(f"{self.url}: HTTP {error.code} {_line(error.reason)}") from error
        except Exception as error:  # whatever an answer makes urllib and http.client raise
            reason = _line(getattr(error, "reason", error))
            raise _Interrupted(f"no connection: {reason}") from error

    def _start(self, response: http.client.HTTPResponse, have: int) -> int:
        """The number of bytes that the response continues: `have`, or 0 if it is the whole file."""
        self.validator = _validator(response)
        if response.status == 206:
            match = re.fullmatch(
                r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)",
                response.headers.get("Content-Range", ""),
            )
            if match is None or int(match[1]) != have:
                self.part.unlink(missing_ok=True)
                raise _Interrupted("the server sent another range, the part was dropped")
            total = self.size if match[2] == "*" else int(match[2])
        else:
            have = 0
            length = response.headers.get("Content-Length") or str(self.size)
            total = int(length) if re.fullmatch(r"[0-9]{1,19}", length) else -1
        if total != self.size:
            offered = f"{total:,} bytes" if total >= 0 else f"a Content-Length of {length:.40}"
            raise DataError(
                f"{self.url}: the server offers {offered} where {self.size:,} are expected: "
                "another file, or a login page in between"
            )
        return have

    def _copy(self, response: http.client.HTTPResponse, have: int) -> None:
        with open(self.part, "ab" if have else "wb") as out:
            while have < self.size:
                try:
                    chunk = response.read1(min(_CHUNK, self.size - have))
                except (OSError, ValueError, http.client.HTTPException) as error:
                    raise _Interrupted(f"connection lost: {_line(error)}") from error
                if not chunk:
                    raise _Interrupted(f"connection closed at {have:,} of {self.size:,} bytes")
                out.write(chunk)
                have += len(chunk)
                self.progress(have, self.size)


def progress_line(label: str) -> Progress:
    """A line on standard error that rewrites itself; off a terminal, one line at the end."""
    start, last_print = time.monotonic(), 0.0
    first: int | None = None

    def show(done: int, total: int) -> None:
        nonlocal last_print, first
        first = done if first is None else first
        now = time.monotonic()
        terminal = sys.stderr is not None and sys.stderr.isatty()
        if done < total and (not terminal or now - last_print < 0.2):
            return
        last_print = now
        rate = (done - first) / max(now - start, 1e-9)
        text = f"{label}: {done / 1e6:.1f} of {total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
        end = "" if terminal and done < total else "\n"
        print(("\r" if terminal else "") + text, end=end, file=sys.stderr, flush=True)

    return show


@contextlib.contextmanager
def file_lock(path: Path, poll: float = 0.2) -> Iterator[None]:
    """Hold the lock on `path` among processes; the system releases it if the process dies.

    The empty file remains: deleting it would let two processes hold two locks.
    """
    with open(path, "ab") as file:
        printed = False
        while not _try_lock(file.fileno()):
            if not printed:
                print(f"waiting for another process that holds {path}", file=sys.stderr)
                printed = True
            time.sleep(poll)
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _line(reason: object) -> str:
    """What a server said, as a part of one line."""
    return " ".join(str(reason).split())[:200]


def _validator(response: http.client.HTTPResponse) -> str:
    """The value of If-Range: a strong ETag, else the date of the last change, else empty."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _cannot_write(path: Path, error: OSError) -> DataError:
    hint = " Free some room or set MINIBN_CACHE to a folder on another disk."
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        hint = " Set MINIBN_CACHE to a folder that can be written."
    return DataError(f"{path}: can't be written ({error.strerror or error}).{hint}")


def _rename(part: Path, target: Path) -> None:
    try:
        os.replace(part, target)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
