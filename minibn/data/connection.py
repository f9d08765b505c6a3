"""HTTP from a server that may mean harm: slower than any network, or without end.

The time-out of a socket holds for each packet, and http.client reads header lines, interim answers
and what a redirection says for as long as they come. Here a connection has to deliver LEAST_RATE,
and ends after twice the bytes that are expected.
"""

import http.client
import io
import math
import socket
import time
import urllib.request
from typing import Any

LEAST_RATE = 1000  # bytes a second, over each time-out; a modem has 7,000
HEADERS = 1 << 20  # bytes before the content: status, headers, what a redirection says


def open_url(request: urllib.request.Request, timeout: float, size: int) -> Any:
    """The response to `request`, of `size` bytes.

    Reading it raises TimeoutError when nothing comes for `timeout` seconds, or less than LEAST_RATE
    in such a time, and OSError after 2 · `size` bytes (and HEADERS). Raises what
    `urllib.request.urlopen` raises, which for a malformed answer may be any error.
    """
    response = urllib.request.build_opener(*_HANDLERS).open(request, timeout=timeout)
    if isinstance(response, _Response):
        response.connection.left = HEADERS + 2 * size  # now the content follows
    return response


class _Connection(io.RawIOBase):
    """The bytes of a connection. Raises TimeoutError if fewer than LEAST_RATE arrive in a time of
    `window` seconds, and OSError after more than `left`."""

    def __init__(self, raw: io.RawIOBase, window: float | None) -> None:
        self.raw, self.window, self.left = raw, window or math.inf, HEADERS
        self.began, self.arrived = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.raw.readinto(buffer) or 0
        self.arrived += count
        self.left -= count
        if self.left < 0:
            raise OSError("the server sends without end")
        now = time.monotonic()
        if now - self.began >= self.window:
            if self.arrived < LEAST_RATE * self.window:
                raise TimeoutError(f"slower than {LEAST_RATE:,} bytes a second")
            self.began, self.arrived = now, 0
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response, the headers included, that is read through a `_Connection`."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.connection = _Connection(self.fp.detach(), sock.gettimeout())
        self.fp = io.BufferedReader(self.connection)


class _Http(http.client.HTTPConnection):
    response_class = _Response


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Http, req)


_HANDLERS: list[type[urllib.request.BaseHandler]] = [_HttpHandler]

if hasattr(http.client, "HTTPSConnection"):  # a Python without ssl has none

    class _Https(http.client.HTTPSConnection):
        response_class = _Response

    class _HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(_Https, req)

    _HANDLERS.append(_HttpsHandler)
