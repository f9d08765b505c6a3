"""Servers that drip, never end, or send headers that are no numbers: soon an error of the data."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minibn.data.download import fetch
from minibn.errors import DataError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"


def _quiet(done: int, total: int) -> None:
    """No progress line."""


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that answers each request with `answer(connection)`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                client.recv(1 << 16)
                answer(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/file"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def error_of(answer: Callable[[socket.socket], None], target: Path, tries: int = 1) -> str:
    """The error of fetching 5,000 bytes with a time-out of half a second."""
    with serving(answer) as url:
        began = time.perf_counter()
        with pytest.raises(DataError) as caught:
            fetch(
                url, target, size=5000, sha256="", tries=tries, wait=0.01, timeout=0.5,
                progress=_quiet,
            )  # fmt: skip
        assert time.perf_counter() - began < 4 * tries
    message = str(caught.value)
    assert len(message) < 1000 and "\n" not in message
    return message


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def drip(start: bytes, piece: bytes = b"x") -> Callable[[socket.socket], None]:
    """Send `start`, then a piece each twentieth of a second: 20 bytes a second for each byte."""

    def answer(client: socket.socket) -> None:
        client.sendall(start)
        for _ in range(200):
            time.sleep(0.05)
            client.sendall(piece)

    return answer


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (OK, b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: /file\r\nContent-Length: 9999\r\n\r\n", b"x"),
        (OK + bytes(800), b"x"),
    ],
)
def test_a_server_that_drips_is_given_up(start: bytes, piece: bytes, tmp_path: Path) -> None:
    assert "slower than 1,000 bytes a second" in error_of(drip(start, piece), tmp_path / "a")


def test_what_a_dripping_server_sent_is_resumed_at_the_next_try(tmp_path: Path) -> None:
    message = error_of(drip(OK, b"xx"), tmp_path / "a", tries=2)
    assert "after 2 tries" in message and "will be resumed" in message


def test_a_slow_server_above_the_least_rate_is_waited_for(tmp_path: Path) -> None:
    pieces = drip(OK, bytes(250))  # 5,000 bytes a second, over twice the time-out
    with serving(pieces) as url, pytest.raises(DataError, match="bad checksum"):
        fetch(url, tmp_path / "a", size=5000, sha256="", tries=1, timeout=0.5, progress=_quiet)


def endless(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def answer(client: socket.socket) -> None:
        client.sendall(start)
        while True:
            client.sendall(piece * 1000)

    return answer


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: /file\r\n\r\n", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100),
    ],
)
def test_an_endless_answer_is_given_up(start: bytes, piece: bytes, tmp_path: Path) -> None:
    error_of(endless(start, piece), tmp_path / "a")


def reply(*lines: str, status: str = "200 OK") -> Callable[[socket.socket], None]:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, ""))
    return lambda client: client.sendall(head.encode("latin1") + bytes(100))


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "answer",
    [
        reply(f"Content-Length: {DIGITS}"),
        reply("Content-Length: -5"),
        reply("Content-Length: five"),
        reply("Content-Length: \xb2"),
        reply(f"Content-Range: bytes 0-{DIGITS}/{DIGITS}", status="206 Partial"),
        reply(f"Content-Range: bytes {DIGITS}-1/5000", status="206 Partial"),
        reply("Content-Range: bytes 0-4999/\xb2", status="206 Partial"),
        reply("Content-Length: 5000", "Transfer-Encoding: chunked"),
        reply(f"Location: http://127.0.0.1:{DIGITS}/", status="302 Found"),
        reply("Location: http://127.0.0.1:99999/", status="302 Found"),
        reply("Location: http://[::bad/", status="302 Found"),
        reply("Location: file:///etc/passwd", status="302 Found"),
        reply("Location: http://\xfc\xfc/\xfc", status="302 Found"),
        reply(status=f"{DIGITS} OK"),
        reply(status="404 " + "x" * 5000),
        reply(status="503 " + "x" * 5000),
        lambda client: client.sendall(b"\x00" * 5000),
        lambda client: client.sendall(b"SSH-2.0\r\n"),
        lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n"),
        lambda client: client.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    ],
)
def test_headers_that_are_no_numbers_are_an_error_of_the_data(
    answer: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    error_of(answer, tmp_path / "a")


def test_a_validator_that_is_no_header_is_an_error_of_the_data(tmp_path: Path) -> None:
    error_of(reply("Content-Length: 5000", 'ETag: "a', '\tb"'), tmp_path / "a", tries=2)


def test_without_ssl_a_local_archive_and_http_still_work() -> None:
    """A browser's Python has no ssl; its http.client has no HTTPSConnection."""
    program = (
        "import sys; sys.modules['ssl'] = None\n"
        "from minibn.data import cifar10, connection\n"
        "assert connection._HANDLERS == [connection._HttpHandler]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
