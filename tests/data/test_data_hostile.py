"""Archives and pickles that mean harm: refused, with nothing run and nothing written."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from minibn.data import archive as archive_module
from minibn.data.cifar10 import load_cifar10
from minibn.data.unpickle import load_dict
from minibn.errors import DataError


def _member(name, kind=tarfile.REGTYPE, target="", data=b""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data)
    return info, data


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (_member("../outside", data=b"x"), "leads out of its folder"),
        (_member("cifar-10-batches-py/../../outside"), "leads out of its folder"),
        (_member("..\\outside"), "leads out of its folder"),
        (_member("/tmp/outside"), "absolute path"),
        (_member("C:\\outside"), "absolute path"),
        (_member("a_link", tarfile.SYMTYPE, "/etc/passwd"), "a link or a device"),
        (_member("a_link", tarfile.LNKTYPE, "other"), "a link or a device"),
        (_member("cifar-10-batches-py", tarfile.SYMTYPE, "/tmp"), "a link or a device"),
        (_member("a_device", tarfile.CHRTYPE), "a link or a device"),
        (_member("a_pipe", tarfile.FIFOTYPE), "a link or a device"),
        (_member("cifar-10-batches-py/test_batch", tarfile.DIRTYPE), "no regular file"),
    ],
)
def test_an_archive_with_a_dangerous_member_is_refused_whole(
    contents, pickled, tar_of, tmp_path, extra, message
):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "cifar-10.tar.gz").write_bytes(tar_of(pickled(contents), extra=(extra,)))
    with pytest.raises(DataError, match=rf"hostile archive: .*{message}"):
        load_cifar10(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "cifar-10.tar.gz"]


def test_a_member_that_is_there_twice_is_refused(tar_of, tmp_path):
    name = "cifar-10-batches-py/test_batch"
    packed = tar_of({"test_batch": b"one"}, extra=(_member(name, data=b"two"),))
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(DataError, match="there twice"):
        list(archive_module.read_archive(tmp_path / "a.tar.gz", {name}))


def test_a_bomb_in_a_member_that_nobody_asked_for_is_stopped(
    contents, pickled, tar_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(archive_module, "MAX_TOTAL", 1 << 20)
    bomb = _member("readme.html", data=bytes(2 << 20))
    (tmp_path / "cifar-10.tar.gz").write_bytes(tar_of(pickled(contents), extra=(bomb,)))
    with pytest.raises(DataError, match=r"unpacks to more than 1,048,576 bytes"):
        load_cifar10(tmp_path)


def test_a_member_that_claims_too_much_is_not_read(tar_of, tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_MEMBER", 1 << 16)
    (tmp_path / "cifar-10.tar.gz").write_bytes(tar_of({"test_batch": bytes(1 << 17)}))
    with pytest.raises(DataError, match=r"test_batch' unpacks to 131,072 bytes"):
        load_cifar10(tmp_path)


def test_an_archive_of_very_many_members_is_refused(tar_of, tmp_path):
    extra = tuple(_member(f"{i}") for i in range(200))
    (tmp_path / "cifar-10.tar.gz").write_bytes(tar_of({}, extra=extra))
    with pytest.raises(DataError, match="over 100 members"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_archive_is_refused(archive, tmp_path, kept):
    (tmp_path / "cifar-10.tar.gz").write_bytes(archive[: int(len(archive) * kept)])
    with pytest.raises(DataError, match="truncated or damaged archive"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(5000)])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "cifar-10.tar.gz").write_bytes(content)
    with pytest.raises(DataError):
        load_cifar10(tmp_path)


class _Runs:
    """Pickles into a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_does_not_run(contents, pickled, folder_of, tmp_path, protocol):
    flag = tmp_path / "it_ran"
    files = pickled(contents)
    harm = pickle.dumps({b"data": _Runs(os.mkdir, str(flag))}, protocol)
    pickle.loads(harm)
    assert flag.exists()  # the harm is real: an ordinary reader runs it
    flag.rmdir()
    files["data_batch_1"] = harm
    with pytest.raises(DataError, match=r"data_batch_1: hostile pickle: it asks for \w+\.mkdir"):
        load_cifar10(folder_of(files))
    assert not flag.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([print, 1], dtype=object),
        np.array([None, 1], dtype=object),
        np.zeros(2, dtype=[("a", "u1")]),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.zeros(1, "M8[s]"),
        np.float64(1),
        np.dtype("O"),
    ],
    ids=repr,
)
def test_only_arrays_of_plain_numbers_are_admitted(value):
    with pytest.raises(DataError, match="hostile pickle"):
        load_dict(pickle.dumps({"data": value}, protocol=2), "a file")


# A pickle by hand, as Python 2 wrote it: SHORT_BINSTRING is "U", a length, the bytes.
_HEAD = b"\x80\x02}q\x01(U\x04dataq\x02"
_RECONSTRUCT = (
    b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
)
_DTYPE = (
    b"cnumpy\ndtype\nq\x06U\x02%sK\x00K\x01\x87R"
    b"(K\x03U\x01%sNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


def _python2(shape=b"K\x02K\x03\x86", code=b"u1", order=b"|", fortran=b"\x89", data=b"abcdef"):
    state = b"(K\x01" + shape + _DTYPE % (code, order) + fortran
    return (
        _HEAD
        + _RECONSTRUCT
        + state
        + b"U%c" % len(data)
        + data
        + b"tbU\x06labels]q\x08(K\x03K\x07eu."
    )


def test_a_pickle_written_by_python_2_is_read():
    content = load_dict(_python2(), "a file")
    assert content["labels"] == [3, 7]
    np.testing.assert_array_equal(content["data"], [[97, 98, 99], [100, 101, 102]])
    ordinary = pickle.loads(_python2(fortran=b"\x88"), encoding="bytes")[b"data"]
    np.testing.assert_array_equal(load_dict(_python2(fortran=b"\x88"), "a file")["data"], ordinary)
    big = load_dict(_python2(code=b"i2", order=b">", shape=b"K\x03\x85"), "a file")["data"]
    assert big.tolist() == [0x6162, 0x6364, 0x6566]


@pytest.mark.parametrize(
    "damage",
    [
        {"data": b"abcde"},
        {"shape": b"K\x02K\x04\x86"},
        {"shape": b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86"},
        {"shape": b"]"},
        {"code": b"O8"},
        {"code": b"V1"},
        {"order": b"x"},
    ],
)
def test_an_array_whose_state_does_not_add_up_is_refused(damage):
    with pytest.raises(DataError, match="hostile pickle"):
        load_dict(_python2(**damage), "a file")


@pytest.mark.parametrize(
    "program",
    [
        _HEAD + b"cnumpy\nndarray\n}U\x01xK\x01sbu.",  # a state for the class itself
        _HEAD + b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85Ru.",  # bytes(2**31)
        _HEAD + b"c_codecs\nencode\n}U\x01xK\x01sbu.",
        _HEAD + b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x03zip\x86Ru.",
        _HEAD + b"cnumpy\ndtype\nU\x02u1\x85RU\x04oops\x86b.",
        _HEAD + b"r\xff\xff\xff\x7f.",  # a memo of two thousand million entries
        _HEAD + b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of eight exabytes
        b"\x82\x01.",  # the extension registry
        b"Pname\n.",  # a persistent name
        b"ios\nsystem\n.",
        b"\x80\x02](]e",
        b"",
        b"\x00\xff not a pickle",
    ],
)
def test_a_pickle_that_plays_with_the_machine_gives_a_data_error(program):
    with pytest.raises(DataError, match=r"^a file: (hostile|damaged) pickle"):
        load_dict(program, "a file")
    assert load_dict(_python2(), "a file")["labels"] == [3, 7]  # and nothing is left changed


def test_empty_bytes_of_python_3_are_bytes():
    assert load_dict(pickle.dumps({"label": b""}, protocol=2), "a file") == {"label": b""}


def test_every_truncation_of_a_pickle_gives_a_data_error():
    whole = _python2()
    for length in range(len(whole)):
        with pytest.raises(DataError):
            load_dict(whole[:length], "a file")


def test_a_pickle_that_holds_no_dict_is_refused():
    with pytest.raises(DataError, match="expected a pickled dict, found a list"):
        load_dict(pickle.dumps([1]), "a file")


def test_random_damage_never_raises_anything_but_a_data_error():
    rng, whole = np.random.default_rng(0), bytearray(_python2())
    for _ in range(500):
        damaged = whole.copy()
        damaged[rng.integers(len(whole))] = rng.integers(256)
        try:
            load_dict(bytes(damaged), "a file")
        except DataError as error:
            assert "\n" not in str(error)


def test_random_damage_to_an_archive_never_raises_anything_but_a_data_error(archive, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(archive)
        damaged[rng.integers(len(archive) - 8)] ^= 1 << rng.integers(8)
        (tmp_path / "cifar-10.tar.gz").write_bytes(damaged)
        try:
            load_cifar10(tmp_path)
        except DataError as error:
            assert "\n" not in str(error)


def test_reading_a_pickle_hands_numpy_nothing_of_the_pickles_making():
    taken = pickle.dumps({"data": np.zeros((2, 2), np.uint8)}, protocol=4)
    array = load_dict(taken, "a file")["data"]
    assert type(array) is np.ndarray and array.dtype == np.uint8
    assert pickle.load(io.BytesIO(taken))["data"].shape == array.shape


@pytest.mark.parametrize(
    "value",
    [
        {"labels": [10**5000]},
        {"label_names": [10**5000]},
        {10**5000: 1},
        {((),): 1},
        {"a": (2**65,)},
    ],
)
def test_a_pickle_of_huge_integers_or_strange_keys_is_refused(value):
    with pytest.raises(DataError, match="hostile pickle"):
        load_dict(pickle.dumps(value), "a file")


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b"},
        {"GNU.sparse.size": "x"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    ],
)
def test_an_archive_with_headers_that_are_no_numbers_is_refused(tmp_path, headers):
    name = "cifar-10-batches-py/test_batch"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info, data = _member(name, data=b"x" * 600)
        info.pax_headers = headers
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError):
        list(archive_module.read_archive(tmp_path / "a.tar.gz", {name}))
