"""Kernels that were compiled beforehand: loaded where they fit, else compiled, with a warning."""

from types import SimpleNamespace

import pytest

from minibn.fast.cuda import program
from minibn.fast.cuda.program import PREPARED, Program

MACROS = (("REAL", "float"),)
SGD = Program("sgd")


class RawModule:
    """CuPy's, which loads a file unless it is damaged."""

    def __init__(self, path):
        self.path = path

    @property
    def module(self):
        with open(self.path, "rb") as file:
            if file.read() != b"code":
                raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU")
        return self


@pytest.fixture
def loads(monkeypatch, tmp_path):
    """A folder of prepared kernels, named in the environment."""
    monkeypatch.setenv(PREPARED, str(tmp_path))
    return tmp_path


GPU = SimpleNamespace(name="cupy", compute_capability=90, cupy=SimpleNamespace(RawModule=RawModule))


def test_a_prepared_kernel_is_loaded(loads):
    path = loads / SGD.file_of(MACROS, "sm_90")
    path.write_bytes(b"code")
    assert program._prepared(GPU, SGD, MACROS).path == str(path)


def test_another_source_other_macros_another_gpu_or_no_folder_have_no_prepared_kernel(
    loads, monkeypatch
):
    names = {
        SGD.file_of(MACROS, "sm_90"), SGD.file_of((("REAL", "double"),), "sm_90"),
        SGD.file_of(MACROS, "sm_80"), Program("draws").file_of(MACROS, "sm_90"),
    }  # fmt: skip
    assert len(names) == 4
    for name in names - {SGD.file_of(MACROS, "sm_90")}:
        (loads / name).write_bytes(b"code")
    assert program._prepared(GPU, SGD, MACROS) is None
    monkeypatch.delenv(PREPARED)
    (loads / SGD.file_of(MACROS, "sm_90")).write_bytes(b"code")
    assert program._prepared(GPU, SGD, MACROS) is None


def test_one_that_does_not_load_is_named_and_compiled_anew(loads):
    (loads / SGD.file_of(MACROS, "sm_90")).write_bytes(b"cod")
    with pytest.warns(UserWarning, match=r"sgd-.*NO_BINARY.*compiled anew.*--prepare"):
        assert program._prepared(GPU, SGD, MACROS) is None
