"""What only CuPy's branches do, on a stand-in for CuPy: launches, captures, events, memory."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.cupy_double import cupy_double, cupy_module

from experiments import benchmark, vgg_cifar
from experiments.gpu import measure
from minibn import use
from minibn.backend import to_numpy
from minibn.fast.cuda.emulator import RawModule, emulate
from minibn.fast.cuda.sgd import MOST, PROGRAM, TABLE
from minibn.fast.selection import runs_cuda_kernels

TINY = [
    *("--quick", "--width", "0.0625", "--steps", "6", "--batch-size", "4", "--test-size", "10"),
    *("--variants", "noisy-batchnorm", "--precision", "tf32", "--record-every", "5"),
]


def test_the_stand_in_has_no_name_that_cupy_lacks():
    real: Any = pytest.importorskip("cupy", reason="CuPy is not installed")
    pretended = cupy_module()
    for name in vars(pretended):
        assert name.startswith("__") or hasattr(real, name), name
    for name, what in vars(pretended.cuda).items():
        ours = vars(what) if isinstance(what, (type, SimpleNamespace)) else {}
        for part in ours:
            assert part.startswith("_") or hasattr(getattr(real.cuda, name), part), (name, part)


@pytest.fixture
def cupy(monkeypatch):
    with cupy_double(monkeypatch) as backend:
        yield backend


def metrics(study: Path) -> str:
    (file,) = study.glob("runs/*/metrics.jsonl")
    return file.read_text()


def test_a_run_on_cupy_is_captured_and_repeats_what_single_launches_do(cupy, tmp_path, capsys):
    assert (
        vgg_cifar.main([*TINY, "--backend", "cupy", "--graph", "on", "--out", f"{tmp_path}/a"]) == 0
    )
    (config,) = (tmp_path / "a").glob("runs/*/config.json")
    assert json.loads(config.read_text())["environment"]["device"] == "stand-in"
    for graph in ("off", "auto"):
        where = ["--backend", "cupy", "--graph", graph, "--out", f"{tmp_path}/{graph}"]
        assert vgg_cifar.main([*TINY, *where]) == 0
        assert metrics(tmp_path / graph) == metrics(tmp_path / "a")


def test_the_benchmark_runs_on_cupys_events_and_pools(cupy, tmp_path, capsys):
    parts = ["--parts", "steps", "kernels", "--models", "vgg11"]
    small = ["--quick", "--variants", "batchnorm", "--rounds", "1"]
    file = tmp_path / "found.json"
    assert benchmark.main(["--backend", "cupy", *small, *parts, "--json", str(file)]) == 0
    assert "stand-in" in file.read_text()
    assert "left out" not in capsys.readouterr().out


def test_the_losses_that_a_sitting_compares_are_those_of_a_captured_graph(cupy, tmp_path):
    file = tmp_path / "found.json"
    sizes = {"backend": "cupy", "way": "graph", "rehearsal": True}
    assert measure.main(["losses", str(file), json.dumps(sizes)]) == 0
    found = json.loads(file.read_text())
    assert found["noisy-batchnorm fp32"]["agree"] and "stand-in" in str(found["environment"])


def test_a_struct_by_value_is_an_array_of_one_for_cupy(cupy):
    """CuPy takes no scalar of a structured dtype."""
    macros = ("REAL=float", f"MOST={MOST}", "THREADS=32", "ITEMS=1")
    module = RawModule(PROGRAM.text, ("-std=c++17", *(f"-D{macro}" for macro in macros)))
    kernel = module.get_function("sgd")
    with pytest.raises(TypeError, match="Unsupported"):
        kernel((1, 1, 1), (1, 1, 1), (np.zeros((), TABLE)[()],))


def test_the_stand_in_takes_what_the_strict_double_makes(cupy):
    x = cupy.asarray(np.arange(3.0))
    assert to_numpy(x + 1).tolist() == [1, 2, 3]
    with use("cupy"), emulate():
        assert runs_cuda_kernels(cupy)
