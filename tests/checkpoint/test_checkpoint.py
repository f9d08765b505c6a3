"""Checkpoints are whole or not there; what was saved comes back; damage is noticed, always."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn import checkpoint
from minibn.errors import DataError

names = st.text("abc.XYZ_019 é/", min_size=1, max_size=8)
dtypes = ["?", "i1", "u1", "<i8", ">i4", "f2", "f4", "f8", ">f8", "c8", "c16", "S3", "U2", "M8[s]"]
arrays = hnp.arrays(
    st.sampled_from(dtypes), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
layouts = st.sampled_from(
    [np.ascontiguousarray, np.asfortranarray, np.transpose, lambda x: x[..., ::-1] if x.ndim else x]
)
laid_out = st.builds(lambda x, layout: layout(x), arrays, layouts)
parts = st.dictionaries(
    names.filter(lambda name: "/" not in name),
    st.dictionaries(names, laid_out, max_size=4),
    max_size=3,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
manifests = st.dictionaries(
    st.text().filter(lambda key: key not in ("format", "parts", "sha256")), values, max_size=3
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint") / "latest.npz"


def assert_same(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for part, state in expected.items():
        assert set(found[part]) == set(state)
        for name, array in state.items():
            ours = found[part][name]
            assert ours.dtype == array.dtype
            assert ours.shape == array.shape
            assert ours.tobytes() == array.tobytes()


@given(manifests, parts)
def test_what_was_saved_comes_back(path: Path, manifest: dict, states: dict) -> None:
    checkpoint.save(path, manifest, states)
    found, arrays = checkpoint.load(path)
    assert found == manifest
    assert_same(arrays, states)


@given(parts)
def test_the_same_states_make_the_same_file(path: Path, states: dict) -> None:
    checkpoint.save(path, {"step": 1}, states)
    before = path.read_bytes()
    checkpoint.save(path, {"step": 1}, states)
    assert path.read_bytes() == before


def test_loaded_arrays_can_be_written(path: Path) -> None:
    checkpoint.save(path, {}, {"model": {"w": np.arange(3.0)}})
    w = checkpoint.load(path)[1]["model"]["w"]
    w += 1
    assert w.tolist() == [1, 2, 3]


STATES = {
    "model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)},
    "optimizer": {"0.velocity": np.linspace(0, 1, 6).reshape(2, 3), "steps": np.array(3)},
}


def small(folder: Path) -> Path:
    path = folder / "small.npz"
    checkpoint.save(path, {"step": 3, "run": "batchnorm"}, STATES)
    return path


def loads_right_or_not_at_all(path: Path, content: bytes) -> bool:
    """Whether `content` is accepted as a checkpoint. Only the right one may be."""
    path.write_bytes(content)
    try:
        manifest, states = checkpoint.load(path)
    except DataError as error:
        assert str(path) in str(error)
        return False
    assert manifest == {"step": 3, "run": "batchnorm"}
    assert_same(states, STATES)
    return True


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_never_taken_for_the_truth(bit: int, tmp_path: Path) -> None:
    path = small(tmp_path)
    whole = path.read_bytes()
    accepted = 0
    for at in range(bit, len(whole), 8):  # every byte is visited by one of the eight tests
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at // 8 + bit) % 8
        accepted += loads_right_or_not_at_all(path, bytes(damaged))
    assert accepted < len(whole) / 8 / 3, "only times, versions and attributes in the zip are idle"


def test_bytes_of_garbage_are_never_taken_for_the_truth(tmp_path: Path) -> None:
    path = small(tmp_path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at : at + 4] = rng.bytes(len(damaged[at : at + 4]))
        loads_right_or_not_at_all(path, bytes(damaged))


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = small(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        assert not loads_right_or_not_at_all(path, whole[:length])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or no checkpoint"):
        checkpoint.load(path)


def rewritten(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with valid CRCs and changed members: what an ill-meaning writer makes."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def flip_a_weight(members: dict[str, bytes]) -> None:
    members["model/w.npy"] = members["model/w.npy"][:-1] + b"\x42"


def declare_huge(members: dict[str, bytes]) -> None:
    members["model/w.npy"] = members["model/w.npy"].replace(b"(2, 3)", b"(9999999999999, 3)")


def add_objects(members: dict[str, bytes]) -> None:
    members["model/w.npy"] = members["model/w.npy"].replace(b"'<f4'", b"'|O' ")


def other_format(members: dict[str, bytes]) -> None:
    members["manifest.json.npy"] = members["manifest.json.npy"].replace(b'mat": 1', b'mat": 2')


def a_list_for_manifest(members: dict[str, bytes]) -> None:
    head, brace, text = members["manifest.json.npy"].partition(b'{"format')
    members["manifest.json.npy"] = head + b"[" + b" " * (len(brace + text) - 2) + b"]"


@pytest.mark.parametrize(
    "change",
    [
        flip_a_weight,
        declare_huge,
        add_objects,
        other_format,
        a_list_for_manifest,
        lambda members: members.pop("model/w.npy"),
        lambda members: members.pop("manifest.json.npy"),
        lambda members: members.update({"model/extra.npy": members["model/w.npy"]}),
        lambda members: members.update({"model/text.txt": b"hello"}),
        lambda members: members.clear(),
    ],
)
def test_a_forged_archive_is_refused(change: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        checkpoint.load(rewritten(small(tmp_path), change))


def test_a_compressed_archive_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = rewritten(small(tmp_path), lambda members: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="compressed"):
        checkpoint.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        checkpoint.load(tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match="directory"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(2, [("x", "O")])])
def test_objects_are_refused_and_nothing_is_written(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model/w holds Python objects"):
        checkpoint.save(tmp_path / "x.npz", {}, {"model": {"w": array}})
    assert os.listdir(tmp_path) == []


def test_names_that_could_not_come_back_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slash"):
        checkpoint.save(tmp_path / "x.npz", {}, {"a/b": {"w": np.zeros(1)}})
    with pytest.raises(ValueError, match="'format' is taken"):
        checkpoint.save(tmp_path / "x.npz", {"format": 3}, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_the_file_that_was_there(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(tmp_path)
    before = path.read_bytes()

    def savez(file: Any, **arrays: Any) -> None:
        file.write(b"PK half of it")
        raise OSError(28, "No space left on device")

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    owner, name = {"write": (np, "savez"), "fsync": (os, "fsync"), "replace": (os, "replace")}[
        place
    ]
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(owner, name, savez if place == "write" else fail)
        checkpoint.save(path, {"step": 4}, STATES)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["small.npz"]


def test_the_target_is_touched_only_when_the_new_file_is_complete_and_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(tmp_path)
    before, events = path.read_bytes(), []
    fsync, replace = os.fsync, os.replace

    def see_fsync(handle: int) -> None:
        events.append("sync")
        fsync(handle)

    def see_replace(source: Any, target: Any) -> None:
        events.append("replace")
        assert Path(target).read_bytes() == before
        assert checkpoint.load(source)[0]["step"] == 4
        replace(source, target)

    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(os, "replace", see_replace)
    checkpoint.save(path, {"step": 4}, STATES)
    assert events == ["sync", "replace", "sync"], "the file, the rename, the folder"


def test_what_a_killed_writer_left_does_not_disturb(tmp_path: Path) -> None:
    path = small(tmp_path)
    left = path.with_name(f".{path.name}.{os.getpid()}.part")
    left.write_bytes(path.read_bytes()[:50])
    assert checkpoint.load(path)[0]["step"] == 3
    checkpoint.save(path, {"step": 4}, STATES)
    assert checkpoint.load(path)[0]["step"] == 4
    assert os.listdir(tmp_path) == ["small.npz"]


def test_text_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    checkpoint.write_text(path, "σ\n")
    assert path.read_bytes() == "σ\n".encode()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):

        def fail(handle: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", fail)
        checkpoint.write_text(path, "half")
    assert path.read_bytes() == "σ\n".encode()
    assert os.listdir(tmp_path) == ["config.json"]


@pytest.mark.parametrize(
    "states, error",
    [
        ({"a": {"b": np.ma.array([1, 2], mask=[0, 1])}}, "a/b: .*MaskedArray"),
        ({"a": {1: np.ones(2)}}, "names are strings"),
        ({"a": np.ones(2)}, r"save its \.state_dict\(\)"),
    ],
)
def test_what_would_be_saved_as_something_else_is_refused(tmp_path, states, error):
    with pytest.raises(TypeError, match=error):
        checkpoint.save(tmp_path / "c.npz", {}, states)
    assert not list(tmp_path.iterdir())
