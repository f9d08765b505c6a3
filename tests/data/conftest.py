"""A CIFAR-10 of two images a batch, archives of it, and a web server on the loopback."""

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from minibn.data import CIFAR10_CLASSES

FOLDER = "cifar-10-batches-py"


def batch_content(index: int, n: int = 2) -> dict:
    """The dict in one batch file: n images whose values are drawn from `index`."""
    data = np.random.default_rng(index).integers(0, 256, (n, 3072), np.uint8)
    labels = [(index + i) % 10 for i in range(n)]
    return {b"data": data, b"labels": labels, b"batch_label": b"a batch", b"filenames": [b"x"] * n}


@pytest.fixture
def contents() -> dict[str, dict]:
    """The dicts in the seven files, by file name; a test changes them before it packs them."""
    result = {f"data_batch_{i}": batch_content(i) for i in range(1, 6)}
    result["test_batch"] = batch_content(6, n=3)
    names = [name.encode() for name in CIFAR10_CLASSES]
    result["batches.meta"] = {b"label_names": names, b"num_cases_per_batch": 2}
    return result


@pytest.fixture
def pickled() -> Callable[[dict[str, dict]], dict[str, bytes]]:
    return lambda contents: {n: pickle.dumps(c, protocol=2) for n, c in contents.items()}


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Write files into a `cifar-10-batches-py/` and return the folder that holds it."""

    def write(files: dict[str, bytes]) -> Path:
        (tmp_path / "own" / FOLDER).mkdir(parents=True)
        for name, data in files.items():
            (tmp_path / "own" / FOLDER / name).write_bytes(data)
        return tmp_path / "own"

    return write


@pytest.fixture
def tar_of() -> Callable[..., bytes]:
    """Pack files into a .tar.gz, after `extra` members, given as TarInfo or (TarInfo, bytes)."""

    def pack(files: dict[str, bytes], extra: tuple = ()) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
            for member in extra:
                info, data = member if isinstance(member, tuple) else (member, b"")
                tar.addfile(info, io.BytesIO(data))
            for name, data in files.items():
                info = tarfile.TarInfo(f"{FOLDER}/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    return pack


@pytest.fixture
def archive(contents, pickled, tar_of) -> bytes:
    """An archive with nothing wrong in it."""
    return tar_of(pickled(contents))


class Server:
    """Serves `content` at `url`; `cuts` holds how many bytes each next answer sends before it
    hangs up, `statuses` the code that each next request is refused with."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges = True  # obey Range
        self.etag = '"one"'
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.asked: list[str | None] = []  # the Range header of each request
        self.shift = 0  # added to the start of the range that is asked for
        self.pause = threading.Event()
        self.slow = 0.0
        self.url = ""

    def pinned(self) -> dict:
        """The arguments that name this file to `cifar10`, `install` and `fetch`."""
        sha256 = hashlib.sha256(self.content).hexdigest()
        return {"url": self.url, "size": len(self.content), "sha256": sha256}


class _Handler(http.server.BaseHTTPRequestHandler):
    served: Server

    def do_GET(self) -> None:
        served, wanted = self.served, self.headers.get("Range")
        served.asked.append(wanted)
        served.pause.wait(served.slow)
        if served.statuses:
            self.send_error(served.statuses.pop(0))
            return
        body, first = served.content, 0
        same = self.headers.get("If-Range", served.etag) == served.etag
        if wanted and served.ranges and same:
            first = int(wanted.removeprefix("bytes=").removesuffix("-")) + served.shift
            if first >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[first:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", served.etag)
        self.end_headers()
        self.wfile.write(body[: served.cuts.pop(0)] if served.cuts else body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(archive, monkeypatch) -> Iterator[Server]:
    """A server on the loopback that has the good archive."""
    monkeypatch.setenv("no_proxy", "*")
    served = Server(archive)
    handler = type("Handler", (_Handler,), {"served": served})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        served.url = f"http://127.0.0.1:{httpd.server_port}/cifar-10-python.tar.gz"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield served
        httpd.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("MINIBN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
