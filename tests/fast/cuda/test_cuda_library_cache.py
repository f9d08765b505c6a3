"""What the emulator compiled is on disk for later processes, and a damaged cache harms nobody."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.copies import ROOT
from support.cuda import on

from minibn.backend import to_numpy
from minibn.fast.cuda import emulator, library_cache

SOURCE = """
#define EXPORT extern "C" __global__ void
EXPORT three(double* out) { out[0] = 3; }
"""
IN_A_PROCESS = """
import sys
import numpy as np
from minibn.backend import use
from minibn.fast.cuda import emulator
with use("strict") as backend, emulator.emulate():
    out = backend.xp.zeros(1)
    emulator.RawModule(sys.argv[1]).get_function("three")((1, 1, 1), (1, 1, 1), (out,))
    print(float(backend.to_numpy(out)[0]))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, in use by a process that has compiled nothing."""
    monkeypatch.setenv("MINIBN_CACHE", str(tmp_path / "cache"))
    emulator._load.cache_clear()
    with on("emulated") as backend:
        yield tmp_path / "cache" / "emulated", backend
    emulator._load.cache_clear()


@pytest.fixture
def compiled(monkeypatch):
    """The flags of each compilation."""
    flags, build = [], emulator._build
    monkeypatch.setattr(
        emulator, "_build", lambda text, given: (flags.append(given), build(text, given))[1]
    )
    return flags


def three(backend, *options):
    """Run the kernel as a process does that has loaded nothing so far."""
    emulator._load.cache_clear()
    out = backend.xp.zeros(1)
    emulator.RawModule(SOURCE, options).get_function("three")((1, 1, 1), (1, 1, 1), (out,))
    return to_numpy(out)[0]


def test_the_same_source_is_compiled_once_and_other_options_anew(cache, compiled):
    folder, backend = cache
    assert three(backend) == three(backend) == 3
    assert len(compiled) == 1
    assert three(backend, "-DOTHER") == 3
    assert len(compiled) == len(list(folder.glob("*.so"))) == 2


def test_another_compiler_or_header_compiles_anew(cache, compiled, monkeypatch, tmp_path):
    _, backend = cache
    three(backend)
    monkeypatch.setattr(emulator, "compiler_version", lambda: "another")
    three(backend)
    header = tmp_path / "emulator.h"
    header.write_text(emulator.HEADER.read_text() + "// edited")
    monkeypatch.setattr(emulator, "HEADER", header)
    assert three(backend) == 3
    assert len(compiled) == 3


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_library_is_compiled_again(cache, compiled, damage):
    folder, backend = cache
    three(backend)
    (library,) = folder.iterdir()
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert three(backend) == 3
    assert len(compiled) == 2
    assert three(backend) == 3
    assert len(compiled) == 2, "it was replaced"


def test_where_nothing_can_be_written_everything_is_compiled(cache, compiled):
    folder, backend = cache
    folder.parent.write_text("a file where the folder should be")
    assert three(backend) == three(backend) == 3
    assert len(compiled) == 2


def test_a_full_disk_leaves_nothing_behind(cache, compiled, monkeypatch):
    folder, backend = cache

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library_cache.os, "replace", full)
    assert three(backend) == 3
    assert list(folder.iterdir()) == []


def test_a_library_that_the_system_refuses_to_load_is_compiled_again(cache, compiled, monkeypatch):
    folder, backend = cache
    three(backend)
    load = emulator.ctypes.CDLL

    def refuse(path):
        if str(folder) in path:
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(emulator.ctypes, "CDLL", refuse)
    assert three(backend) == 3
    assert len(compiled) == 2


def test_what_was_not_used_for_a_month_is_deleted(cache):
    folder, backend = cache
    three(backend)
    (old,) = folder.iterdir()
    killed = folder / ".a_process_was_killed.part"
    killed.touch()
    for path in (old, killed):
        os.utime(path, (0, time.time() - library_cache.UNUSED - 60))
    three(backend, "-DOTHER")
    assert len(list(folder.iterdir())) == 1
    assert not old.exists() and not killed.exists()


def test_what_is_used_stays(cache):
    folder, backend = cache
    three(backend)
    (old,) = folder.iterdir()
    os.utime(old, (0, time.time() - library_cache.UNUSED - 60))
    three(backend)
    three(backend, "-DOTHER")
    assert old.exists()


def test_processes_that_compile_the_same_at_once_all_get_it(cache):
    folder, _ = cache

    def run(_):
        done = subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS, SOURCE],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout or done.stderr

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run, range(3))) == ["3.0\n"] * 3
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    np.testing.assert_equal(run(0), "3.0\n")
