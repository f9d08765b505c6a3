"""The download, against a server on the loopback that misbehaves in the ways that servers do."""

import hashlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minibn.data
from minibn.data import cifar10 as cifar10_module
from minibn.data.archive import read_archive
from minibn.data.cifar10 import ARCHIVE, FOLDER, install, load_cifar10
from minibn.data.download import fetch, file_lock, progress_line
from minibn.errors import DataError


def _quiet(done, total):
    """No progress line."""


QUICK = {"wait": 0.01, "progress": _quiet}


def _left(cache: Path) -> set[str]:
    """What lies in the cache, but for the empty file of the lock."""
    return {path.name for path in cache.iterdir()} - {f"{ARCHIVE}.lock"}


def test_a_download_fills_the_cache_and_the_next_load_needs_no_network(server, cache):
    first = load_cifar10(**server.pinned(), **QUICK)
    assert len(first[0]) == 10 and _left(cache) == {FOLDER}
    second = load_cifar10(url="http://127.0.0.1:9/", **QUICK)
    np.testing.assert_array_equal(first[0], second[0])
    assert server.asked == [None]


def test_without_download_an_empty_cache_is_an_error(server, cache):
    with pytest.raises(DataError, match=r"not in the cache .*--data-dir"):
        load_cifar10(download=False, **server.pinned(), **QUICK)
    assert server.asked == []


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [1000, 500]
    target = fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert target.read_bytes() == server.content


def test_a_part_of_an_earlier_process_is_resumed(server, cache):
    cache.mkdir()
    (cache / f"{ARCHIVE}.part").write_bytes(server.content[:2000])
    install(cache, **server.pinned(), **QUICK)
    assert server.asked == ["bytes=2000-"] and _left(cache) == {FOLDER}


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "a.part").write_bytes(server.content)
    fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert server.asked == [] and not (tmp_path / "a.part").exists()


def test_a_server_that_ignores_range_sends_the_whole_file_over_the_part(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.part").write_bytes(b"?" * 2000)
    fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert server.asked == ["bytes=2000-"]
    assert (tmp_path / "a").read_bytes() == server.content


def test_a_server_that_sends_another_range_is_asked_for_the_whole(server, tmp_path):
    server.shift = 7
    (tmp_path / "a.part").write_bytes(server.content[:2000])
    fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert server.asked == ["bytes=2000-", None]


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "a.part").write_bytes(server.content + b"more")
    fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert server.asked == [None]


def test_status_416_drops_the_part_and_starts_again(server, tmp_path):
    (tmp_path / "a.part").write_bytes(server.content[:2000])
    server.statuses = [416]
    fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert server.asked == ["bytes=2000-", None]


def test_a_file_that_changed_between_two_tries_is_fetched_from_its_start(server, tmp_path):
    good, server.content = server.content, bytes(len(server.content))
    pinned = server.pinned() | {"sha256": hashlib.sha256(good).hexdigest()}
    server.cuts = [1000]

    def change(done, total):
        server.content, server.etag = good, '"two"'

    fetch(target=tmp_path / "a", **pinned, wait=0.01, progress=change)
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "a").read_bytes() == good


def test_a_stale_part_with_a_bad_checksum_is_replaced_by_a_fresh_download(server, tmp_path):
    (tmp_path / "a.part").write_bytes(b"?" * 2000)
    fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert server.asked == ["bytes=2000-", None]


def test_a_bad_checksum_deletes_the_download_and_the_next_try_starts_clean(server, cache):
    good, pinned = server.content, server.pinned()
    server.content = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(DataError, match=r"bad checksum: .*--data shapes"):
        load_cifar10(**pinned, **QUICK)
    assert _left(cache) == set() and server.asked == [None]
    server.content = good
    assert len(load_cifar10(**pinned, **QUICK)[0]) == 10


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    pinned = server.pinned()
    server.content = b"<html>Please log in</html>"
    with pytest.raises(DataError, match=r"offers 26 bytes where .* are expected"):
        fetch(target=tmp_path / "a", **pinned, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.statuses = [503, 429]
    fetch(target=tmp_path / "a", **server.pinned(), **QUICK)
    assert len(server.asked) == 3
    server.statuses = [404]
    with pytest.raises(DataError, match="HTTP 404"):
        fetch(target=tmp_path / "b", **server.pinned(), **QUICK)
    assert len(server.asked) == 4


def test_a_download_that_never_finishes_keeps_its_part_and_says_so(server, cache):
    server.cuts = [100, 100, 100]
    with pytest.raises(DataError, match=r"after 3 tries \(connection closed at 300 .*300 bytes"):
        load_cifar10(**server.pinned(), **QUICK, tries=3)
    assert _left(cache) == {f"{ARCHIVE}.part"}
    assert len(load_cifar10(**server.pinned(), **QUICK)[0]) == 10


def test_no_network_is_one_line_with_the_remedies(cache, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # nobody listens there once it is closed
    with pytest.raises(DataError) as caught:
        load_cifar10(url=f"http://127.0.0.1:{port}/", size=1, sha256="", tries=2, **QUICK)
    message = str(caught.value)
    assert "no connection" in message and "refused" in message and "\n" not in message
    assert all(remedy in message for remedy in ("--data-dir DIR", "--data shapes", "--quick"))
    assert _left(cache) == set()


def test_a_silent_server_times_out(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(DataError, match="timed out"):
            fetch(url, tmp_path / "a", size=1, sha256="", tries=1, timeout=0.05, progress=_quiet)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_with_the_room_to_find(server, tmp_path):
    (tmp_path / "a.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"No space left.*MINIBN_CACHE"):
        fetch(target=tmp_path / "a", **server.pinned(), **QUICK)


def test_a_disk_that_fills_while_unpacking_leaves_no_half_folder(server, cache, monkeypatch):
    written = Path.write_bytes

    def fill(self, data):
        if self.name == "data_batch_3":
            raise OSError(28, "No space left on device", str(self))
        return written(self, data)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(DataError, match=r"No space left on device.*--data-dir"):
        load_cifar10(**server.pinned(), **QUICK)
    assert _left(cache) == {ARCHIVE}  # verified already: the next try unpacks it
    monkeypatch.undo()
    install(cache, url="http://127.0.0.1:9/", **QUICK)
    assert _left(cache) == {FOLDER}


def test_an_archive_that_lacks_a_batch_is_not_installed(contents, pickled, tar_of, server, cache):
    del contents["data_batch_2"]
    server.content = tar_of(pickled(contents))
    with pytest.raises(DataError, match="data_batch_2 missing"):
        load_cifar10(**server.pinned(), **QUICK)
    assert FOLDER not in _left(cache)


def test_a_cache_that_cannot_be_made_is_an_error_of_the_data(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MINIBN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="--data-dir"):
        load_cifar10(**server.pinned(), **QUICK)


def test_two_processes_at_once_download_once_and_both_find_the_folder(server, cache):
    server.slow = 1.0
    program = (
        "import sys; from pathlib import Path; from minibn.data.cifar10 import install;"
        "install(Path(sys.argv[1]), url=sys.argv[2], size=int(sys.argv[3]), sha256=sys.argv[4])"
    )
    pinned = [str(value) for value in server.pinned().values()]
    root = str(Path(minibn.data.__file__).parents[2])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(cache), *pinned], cwd=root, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=30)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert server.asked == [None] and _left(cache) == {FOLDER}


def test_the_lock_is_held_by_one_at_a_time_and_given_back(tmp_path):
    order = []

    def second():
        with file_lock(tmp_path / "lock", poll=0.01):
            order.append("second")

    thread = threading.Thread(target=second)
    with file_lock(tmp_path / "lock"):
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_what_a_killed_process_had_unpacked_is_swept_away(server, cache):
    (cache / f".{FOLDER}.unpacking").mkdir(parents=True)
    (cache / f".{FOLDER}.unpacking" / "test_batch").write_bytes(b"half of it")
    install(cache, **server.pinned(), **QUICK)
    assert _left(cache) == {FOLDER}


def test_progress_ends_with_one_line_when_nobody_watches(capsys):
    show = progress_line("file")
    for done in range(11):
        show(done * 1_000_000, 10_000_000)
    said = capsys.readouterr().err
    assert said.startswith("file: 10.0 of 10.0 MB") and said.count("\n") == 1


def test_the_original_archive_is_pinned():
    assert cifar10_module.URL == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert cifar10_module.SIZE == 170_498_071
    assert cifar10_module.SHA256.startswith("6d958be0") and len(cifar10_module.SHA256) == 64


def test_members_are_read_by_exact_name(archive, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(archive)
    wanted = {f"{FOLDER}/test_batch", "test_batch"}
    assert [name for name, _ in read_archive(tmp_path / "a.tar.gz", wanted)] == [
        f"{FOLDER}/test_batch"
    ]
