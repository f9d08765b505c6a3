"""Small files that would take for ever, or all memory: a DataError at once, in little memory."""

import gzip
import io
import os
import pickle
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibn.data.archive import read_archive
from minibn.data.cifar10 import load_cifar10
from minibn.data.unpickle import load_dict
from minibn.errors import DataError

MB = 1 << 20


def refusal(read: Callable[[], object], memory: int = 32 * MB) -> str:
    """What `read` says as it refuses a file: within 2 seconds (on a busy machine), in less than
    `memory` bytes."""
    began = time.perf_counter()
    with pytest.raises(DataError) as caught:
        read()
    took, message = time.perf_counter() - began, str(caught.value)
    tracemalloc.start()  # which is slow
    try:
        with pytest.raises(DataError):
            read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < 2, f"{took:.1f} s"
    assert peak < memory, f"{peak / MB:.0f} MB"
    assert len(message) < 1000 and "\n" not in message
    return message


# Pickles. SHORT_BINSTRING is "U", a length, the bytes; "(...u" sets items; "\x86" makes a pair.


def doubled(levels: int) -> bytes:
    """A tuple whose last item is a tuple that has one item twice, a tuple that has one item twice,
    and so on: 2^levels items when it is walked through."""
    program = b"K\x01\x85q\x00"
    for level in range(levels):
        program += b"h%ch%c\x86q%c" % (level, level, level + 1)
    return b"(" + program + b"t"


def dict_of(value: bytes) -> bytes:
    return b"\x80\x02}U\x01a" + value + b"s."


def lists_doubled(levels: int) -> bytes:
    """`doubled`, of lists."""
    program = b"]q\x00"
    for level in range(levels):
        program += b"](h%ch%ceq%c" % (level, level, level + 1)
    return b"(" + program + b"l"


_DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
_TEXT = b"X\x00\x00\x10\x00" + b"x" * MB + b"q\x01"


PICKLES = [
    b"\x80\x02}q\x00U\x01ah\x00s.",
    b"\x80\x02}q\x00U\x01a]q\x01h\x01h\x00as0h\x00.",
    dict_of(b"]q\x00h\x00a"),
    dict_of(b"]" * 100_000 + b"a" * 99_999),
    dict_of(b"(" * 50_000 + b"l" * 50_000),
    dict_of(doubled(60)),
    dict_of(lists_doubled(60)),
    b"\x80\x02}" + doubled(60) + b"K\x01s.",
    b"\x80\x02}(" + doubled(60) + b"K\x01u.",
    b"\x80\x02(" + doubled(60) + b"K\x01d.",
    b"\x80\x04\x8f(" + doubled(60) + b"\x90.",
    b"\x80\x04(" + doubled(60) + b"\x91.",
    dict_of(_ARRAY + b"(K\x01" + doubled(60) + _DTYPE + b"\x89U\x00tb"),
    dict_of(
        _ARRAY + b"(K\x01" + b"(" + b"I9999999999999999999\n" * 20_000 + b"t" + _DTYPE
        + b"\x89U\x00tb"
    ),
    dict_of(b"cnumpy\ndtype\n" + doubled(60) + b"\x85R"),
    dict_of(_DTYPE + b"(K\x03" + doubled(60) + b"tb"),
    dict_of(b"c_codecs\nencode\n(X\x01\x00\x00\x00a" + doubled(60) + b"tR"),
    dict_of(b"(" + _TEXT + b"c_codecs\nencode\nq\x02" + b"h\x02h\x01\x85R" * 2000 + b"l"),
    dict_of(b"(" + b"]" * 2_000_000 + b"l"),
    dict_of(b"L" + b"9" * 4000 + b"L\n"),
    dict_of(b"\x8b\xff\xff\x00\x00" + b"\x01" * 65535),
    b"\x80\x02}U\x01a" * 10,
    b"\x80\x02c" + b"x" * 100_000 + b"\n" + b"y" * 100_000 + b"\n.",
    pickle.dumps({"a": 1, b"a": 2}),
    pickle.dumps({"a": [np.zeros(3, np.uint8)]}, protocol=2),
]  # fmt: skip


@pytest.mark.parametrize("program", PICKLES, ids=range(len(PICKLES)))
def test_a_small_pickle_that_would_take_for_ever_is_refused_at_once(program):
    refusal(lambda: load_dict(program, "a file"))


OPCODES = [
    b"}", b"]", b")", b"(", b"0", b"1", b"2", b"K\x01", b"N", b"\x88", b"\x85", b"\x86", b"\x87",
    b"a", b"e", b"s", b"u", b"t", b"l", b"d", b"R", b"b", b"q\x00", b"q\x01", b"h\x00", b"h\x01",
    b"U\x01a", b"U\x02u1", b"X\x01\x00\x00\x00b", b"\x94", b"\x93", b"\x8f", b"\x90", b"\x91",
    b"\x81", b"\x97", b"\x98", b"\x96" + b"\x02" + bytes(7) + b"xy", b"C\x02xy",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"c__builtin__\nbytes\n",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.numeric\n_frombuffer\n",
    b"cos\nsystem\n", _DTYPE, _ARRAY,
]  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.sampled_from(OPCODES), max_size=30))
def test_any_program_of_opcodes_gives_plain_data_or_a_data_error(program):
    for whole in (b"".join(program) + b".", dict_of(b"".join(program))):
        try:
            content = load_dict(whole, "a file")
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert all(type(key) is str for key in content)
            assert len(repr(content)) < 10_000


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda x: x[:, ::2]])
def test_arrays_load_from_every_protocol_and_numpy(protocol, module, layout):
    x = layout(np.arange(24, dtype=">i2").reshape(4, 6))
    three = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(1, 0, 2)  # order "K"
    data = pickle.dumps({"x": x, "three": three, "zero": x[:0]}, protocol)
    theirs = b"numpy._core" if b"numpy._core" in data else b"numpy.core"
    if protocol < 4:  # names of another length would break the frames of protocol 4
        data = data.replace(theirs, module.encode())
    content = load_dict(data, "a file")
    np.testing.assert_array_equal(content["x"], x)
    np.testing.assert_array_equal(content["three"], three)
    assert content["zero"].shape == x[:0].shape


def test_cifar_batches_that_python_3_14_pickled_again_load(contents, folder_of):
    files = {name: pickle.dumps(content, protocol=5) for name, content in contents.items()}
    assert b"_frombuffer" in files["data_batch_1"]
    images, labels, *_ = load_cifar10(folder_of(files))
    assert labels.tolist() == [label for i in range(1, 6) for label in (i, i + 1)]
    planes = images[0].transpose(2, 0, 1).ravel()
    np.testing.assert_array_equal(planes, contents["data_batch_1"][b"data"][0])


def test_a_frombuffer_whose_arguments_do_not_fit_is_refused():
    call = b"\x80\x05}U\x01acnumpy._core.numeric\n_frombuffer\n(C\x06abcdef%s%stRs."
    good = call % (_DTYPE, b"K\x02K\x03\x86U\x01C")
    assert load_dict(good, "a file")["a"].tolist() == [[97, 98, 99], [100, 101, 102]]
    for rest in (
        b"K\x02K\x04\x86U\x01C",
        b"K\x02K\x03\x86U\x01Q",
        b"K\x02K\x03\x86U\x01K",
        b"K\x02K\x03\x86U\x01KK\x05K\x00\x86",
        b"K\x02K\x03\x86U\x01KK\x00K\x00\x86",
        b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86U\x01C",
        b"]U\x01C",
        doubled(60) + b"U\x01C",
        b"K\x02K\x03\x86" + doubled(60),
    ):
        refusal(lambda rest=rest: load_dict(call % (_DTYPE, rest), "a file"))


@pytest.mark.parametrize(
    "names",
    [lists_doubled(6), b"](C\x01xq\x01" + b"h\x01" * 20_000 + b"e", b"](NNe"],
    ids=["nested", "many", "not strings"],
)
def test_names_of_classes_are_never_printed_at_length(contents, folder_of, names):
    files = {name: pickle.dumps(content, protocol=2) for name, content in contents.items()}
    files["batches.meta"] = b"\x80\x03}U\x0blabel_names" + names + b"s."
    folder = folder_of(files)
    assert "label_names" in refusal(lambda: load_cifar10(folder))


# Archives


def tar_gz(headers: dict | None = None, data: bytes = b"x" * 700, **fields: object) -> bytes:
    """An archive of one member, `unwanted` unless `fields` say otherwise, and of `wanted`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        first = tarfile.TarInfo("unwanted")
        first.size, first.pax_headers = len(data), headers or {}
        for name, value in fields.items():
            setattr(first, name, value)
        tar.addfile(first, io.BytesIO(data))
        second = tarfile.TarInfo("wanted")
        second.size = len(data)
        tar.addfile(second, io.BytesIO(data))
    return buffer.getvalue()


def with_size_field(field: bytes) -> bytes:
    """`tar_gz` with another size of its first member, in the header itself."""
    tar = bytearray(gzip.decompress(tar_gz()))
    tar[124:136] = field
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
    return gzip.compress(bytes(tar))


def changed(change: Callable[[bytes], bytes]) -> bytes:
    """`tar_gz`, its tar changed."""
    return gzip.compress(change(gzip.decompress(tar_gz())), 1)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "size of 1e20": lambda: tar_gz({"size": "100000000000000000000"}),
    "size of 1e22": lambda: tar_gz({"size": "99999999999999999999999"}),
    "size of 5,000 digits": lambda: tar_gz({"size": "9" * 5000}),
    "negative size": lambda: tar_gz({"size": "-1"}),
    "hexadecimal size": lambda: tar_gz({"size": "0x10"}),
    "size of 800 GB": lambda: tar_gz({"size": "800000000000"}),
    "header of 3 MB": lambda: tar_gz({"comment": "1" * 3_000_000}),
    "sparse": lambda: tar_gz({"GNU.sparse.size": "1" * 20}),
    "octal size of 8 GB": lambda: with_size_field(b"77777777777\0"),
    "binary size": lambda: with_size_field(b"\x80" + b"\x7f" * 11),
    "negative binary size": lambda: with_size_field(b"\xff" + b"\xff" * 11),
    "octal size of Python's": lambda: with_size_field(b"0o17       \0"),
    "bomb": lambda: gzip.compress(bytes(100 * MB), 1),
    "bomb behind a header": lambda: changed(lambda tar: tar[:512] + bytes(100 * MB)),
    "old sparse": lambda: tar_gz(type=b"S"),
    "long link": lambda: tar_gz(type=b"K"),
    "volume": lambda: tar_gz(type=b"V"),
    "no end": lambda: changed(lambda tar: tar[:1536]),
    "no checksum": lambda: changed(lambda tar: b"x" * 2048),
    "two archives": lambda: tar_gz() + tar_gz(),
    "wrong length": lambda: tar_gz()[:-8] + bytes(8),
}


@pytest.mark.parametrize("wanted", ["wanted", "unwanted"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_small_archive_that_would_take_for_ever_is_refused_at_once(tmp_path, name, wanted):
    (tmp_path / "a.tar.gz").write_bytes(ARCHIVES[name]())
    refusal(lambda: list(read_archive(tmp_path / "a.tar.gz", {wanted})))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_dates_and_umlauts_of_ordinary_archives_are_read(tmp_path, format):
    names = ["a" * 90 + "/" + "b" * 60, "./wanted", "folder/ü"]
    if format != tarfile.USTAR_FORMAT:
        names.append("c" * 300)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=format) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(name), 1.5
            tar.addfile(member, io.BytesIO(name.encode()[: member.size]))
    wanted = {name.removeprefix("./") for name in names}
    content = dict(read_archive(tmp_path / "a.tar.gz", wanted))
    assert content == {n.removeprefix("./"): n.encode()[: len(n)] for n in names}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "cifar-10-python.tar.gz")
    for path in (tmp_path, tmp_path / "cifar-10-python.tar.gz"):
        assert "--data-dir" in refusal(lambda path=path: load_cifar10(path))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    os.mkfifo(folder / "data_batch_1")
    assert "data_batch_1" in refusal(lambda: load_cifar10(tmp_path))
