"""`gpu_check`: a rehearsal of its parts on the strict double, and how a sitting of parts ends."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cuda import on

from experiments import gpu_check
from experiments.benchmarking.device import device_of
from experiments.gpu import kernels as kernels_module
from experiments.gpu import losses as losses_module
from experiments.gpu import measure, prepare, sitting
from experiments.gpu.kernels import Call, Rates, compare_kernels, compare_plans
from experiments.gpu.losses import CASES, Case, allowed, compare, describe, numpys, tiny
from experiments.gpu.parts import NAMES, all_parts, first_way
from experiments.gpu.sitting import WrongResult
from experiments.training.json_files import read_json
from minibn import precision, use
from minibn.backend import available
from minibn.fast import selection
from minibn.fast.cuda import products, program
from minibn.fast.cuda.emulator import emulate
from minibn.fast.precision import MANTISSA
from minibn.ops.conv import Conv2d
from minibn.ops.linalg import MatMul

REHEARSAL = ["--rehearse"]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    code = gpu_check.main([*REHEARSAL, "--out", str(folder)])
    return code, folder, json.loads((folder / "gpu_check.json").read_text())["parts"]


def test_a_rehearsal_runs_all_parts_on_the_cpu(rehearsed):
    code, _, found = rehearsed
    assert tuple(found) == NAMES
    wrong = {n: (o["status"], o["line"]) for n, o in found.items() if o["status"] != "done"}
    assert (code, wrong) == (0, {})


def test_a_rehearsal_finds_what_can_be_found_on_the_strict_double(rehearsed):
    _, folder, found = rehearsed
    assert "3 of 3 agree with NumPy's" in found["losses"]["line"]
    assert found["losses"]["way"] == "launches", "it has no graphs to capture"
    assert "vgg11 8 fp32: minibn eager" in found["steps"]["line"]
    assert (
        "8 steps in" in found["paper"]["line"] and "% of it in recorders" in found["paper"]["line"]
    )
    assert "0 passed, 0 failed" in found["laws"]["line"], "they need a GPU"
    calls = json.loads((folder / "kernels.json").read_text())["calls"]
    assert {"Conv2d", "MatMul"} <= {call["op"] for call in calls}


def test_a_rehearsal_packs_what_is_small(rehearsed):
    _, folder, _ = rehearsed
    with tarfile.open(folder / "gpu_check.tar.gz") as tar:
        names = tar.getnames()
    assert {"gpu_check.json", "summary.md", "losses.json", "steps.json", "laws.log"} <= {*names}
    assert any(name.endswith("landscape.jsonl") for name in names), "streams come back"
    assert not any(name.endswith("npz") for name in names)
    assert "- **losses** (done, launches" in (folder / "summary.md").read_text()


def test_what_was_done_is_not_done_again_unless_it_is_named(rehearsed, capsys):
    _, folder, before = rehearsed
    assert gpu_check.main([*REHEARSAL, "--out", str(folder), "--only", "kernels"]) == 0
    after = json.loads((folder / "gpu_check.json").read_text())["parts"]
    assert [after[n] == before[n] for n in ("losses", "steps")] == [True, True]
    said = capsys.readouterr().out
    assert "kernels: each call" in said and "losses: 50 steps" not in said


# -- losses


def test_cuda_kernels_and_a_captured_graph_train_as_numpy_does():
    with on("emulated"):
        case = replace(tiny(CASES[3]), steps=4)
        right = numpys(case)
        for way in ("graph", "launches"):
            assert compare(right, case.losses("strict", way))["agree"], way


def test_the_losses_that_are_carried_are_those_of_this_code():
    carried = {str(Case(**each["case"])): each for each in read_json(losses_module.FILE)["cases"]}
    assert list(carried) == [str(case) for case in CASES]
    for case in CASES:
        assert Case(**carried[str(case)]["case"]) == case, "compute it again: see the module"
        assert np.isfinite(carried[str(case)]["reference"]).all()
        assert carried[str(case)]["sees"] > (0.5 if case.precision == "fp32" else 0.2)
    case = CASES[0]
    ours = replace(case, steps=2).losses("numpy", "fast")
    assert ours == pytest.approx(carried[str(case)]["reference"][:2], rel=1e-5)


def test_a_loss_agrees_as_long_as_rounding_explains_the_difference():
    right = {"reference": [2.0, 2.0, 2.0], "fast": [2.0, 2.0002, 2.0]}
    np.testing.assert_allclose(allowed(right), [1e-5, 1e-3, 1e-3])
    assert compare(right, [2.0, 2.0018, 2.0019])["agree"]
    for wrong, step in (([2.0001, 2, 2], 0), ([2, 2, 2.0021], 2), ([2, float("nan"), 2], 1)):
        found = compare(right, wrong)
        assert (found["agree"], found["step"]) == (False, step)
    assert found["apart"] is None and "inf at step 1" in describe(found)


def test_only_losses_in_fp32_make_the_sitting_take_another_way(tmp_path, monkeypatch):
    wrong = {"bf16"}

    def losses(case, backend, way):
        return [1.0 if case.precision in wrong else 2.0]

    monkeypatch.setattr(Case, "losses", losses)
    monkeypatch.setattr(measure, "carried", lambda cases: [
        (case, {"reference": [2.0], "fast": [2.0]}) for case in cases
    ])  # fmt: skip
    found = tmp_path / "found.json"
    assert measure.losses(measure.Sizes("strict"), found) == sitting.PARTLY
    assert not json.loads(found.read_text())["batchnorm bf16"]["agree"]
    wrong.clear()
    assert measure.losses(measure.Sizes("strict"), found) == 0
    wrong.update(("fp32", "bf16"))
    assert measure.losses(measure.Sizes("strict"), found) == 1


# -- kernels


def test_every_plan_of_every_product_is_timed_and_the_best_is_told(monkeypatch, capsys):
    monkeypatch.setattr(program, "_kernel", lambda *_: lambda *_, **__: None)  # launches do nothing
    rng = np.random.default_rng(0)

    def timed(device_of, call, way, rates=None, repeats=10):
        out = way.forward(*call.inputs)
        way.needs_input_grad = (True, True)
        way.vjp(out, out, *call.inputs)
        return {"forward": rng.uniform(1, 9), "vjp": 1.0}

    with use("strict") as backend, emulate():
        x, w = (backend.xp.ones(s, np.float32) for s in ((8, 16, 16, 64), (3, 3, 64, 64)))
        call = Call(Conv2d((1, 1), (1, 1), x.shape, w.shape), (x, w))
        monkeypatch.setattr(kernels_module, "time_call", timed)
        records = list(compare_plans(device_of(backend), [call], tuple(MANTISSA)))
    found = {tuple(each["sizes"]) for each in records}
    sides = {(2048, 64, 576), (576, 64, 2048)}  # its gradient by x is as large as itself
    assert found == {(*side, p) for side in sides for p in MANTISSA}
    for each in records:
        took = {json.dumps(plan["plan"]): plan["ms"] for plan in each["plans"]}
        assert min(took, key=lambda plan: took[plan]) == json.dumps(each["best"])
        assert json.dumps(each["chosen"]) in took


def test_a_call_has_its_share_of_what_the_machine_can_do():
    """1 s by the rates: the product of 2·4·3·5 operations at 120 a second; a copy of all bytes."""
    with use("strict") as backend:
        x, y = backend.xp.ones((4, 3), np.float32), backend.xp.ones((3, 5), np.float32)
        call, out = Call(MatMul(), (x, y)), backend.xp.ones((4, 5), np.float32)
        fast = dict.fromkeys(MANTISSA, 1e9)
        assert call.least_seconds(out, Rates(1e9, {"fp32": 120.0}), "fp32") == (1.0, 2.0)
        read = 4 * (4 * 3 + 3 * 5)
        assert call.least_seconds(out, Rates(1.0, fast), "fp32") == (read + 80, 2 * read + 80)
        rates = Rates(1e9, fast)
        with precision("fp32"):
            (record,) = compare_kernels(device_of(backend), [call], rates, ("fp32",))
    assert all(share > 0 for share in record["ways"][record["chosen"]]["share"])


# -- kernels compiled beforehand, and kernels that are turned off


def test_what_a_sitting_launches_is_noted_without_a_gpu_or_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    launches = prepare.launches_of_a_sitting("tf32")
    assert {name for name, _ in launches} >= {"products", "fused_block", "sgd", "draws"}
    of_products = [dict(macros) for name, macros in launches if name == "products"]
    assert {macros["PRECISION"] for macros in of_products} == {0, 1, 2}
    tiles = {(m["BM"], m["BN"]) for m in of_products if m["PRECISION"] == 1}
    assert tiles == {(tile.rows, tile.columns) for tile in products.TILES["tf32"]}


@pytest.mark.filterwarnings("ignore")  # CuPy's, about the driver that is not there
def test_prepared_kernels_lie_in_a_folder_and_are_not_compiled_again(tmp_path, monkeypatch):
    nvrtc = pytest.importorskip("cupy", exc_type=ImportError).cuda.nvrtc
    with contextlib.suppress(Exception):
        nvrtc.getVersion()
        one = {("sgd", (("ITEMS", 1), ("MOST", 2), ("REAL", "float"), ("THREADS", 32))): {"sgd"}}
        monkeypatch.setattr(prepare, "launches_of_a_sitting", lambda digits: one)
        assert len(list(prepare.prepare(tmp_path, "tf32"))) == 1
        (file,) = tmp_path.iterdir()
        assert file.name.startswith("sgd-") and file.name.endswith(".sm_90.cubin")
        assert file.read_bytes().startswith(b"\x7fELF")
        assert list(prepare.prepare(tmp_path, "tf32")) == []


def test_a_kernel_that_is_turned_off_leaves_its_op_to_the_definition(monkeypatch):
    monkeypatch.setenv(selection.WITHOUT, "TiledConv2d, RoundedProduct")
    table = selection._load.__wrapped__("cuda")
    assert table[Conv2d] == () or all(k.__name__ != "TiledConv2d" for k in table[Conv2d])
    monkeypatch.setenv(selection.WITHOUT, "TiledConv")
    with pytest.raises(ValueError, match="'TiledConv', which is no kernel"):
        selection._load.__wrapped__("cpu")


def test_parts_run_with_what_is_turned_off_and_with_the_prepared_kernels(tmp_path):
    options = gpu_check.Options(without=("graph", "TiledConv2d"), backend="cupy")
    found = gpu_check._environment(options, tmp_path)
    assert found.pop("CUPY_ACCELERATORS") == "", "CuPy's own reductions"
    assert found == {selection.WITHOUT: "TiledConv2d"}
    (tmp_path / prepare.FOLDER).mkdir()
    found = gpu_check._environment(replace(options, without=()), tmp_path)
    assert found[program.PREPARED] == str(tmp_path / prepare.FOLDER)
    found = gpu_check._environment(replace(options, without=("prepared",)), tmp_path)
    assert program.PREPARED not in found


@pytest.mark.parametrize(
    "without, way", [((), "graph"), (("graph",), "launches"), (("cuda", "graph"), "reference")]
)
def test_the_first_way_is_the_first_that_is_not_turned_off(without, way):
    assert first_way(gpu_check.Options(without=without, backend="cupy")) == way


def test_every_command_of_a_way_is_one_that_its_program_takes(tmp_path):
    """On a GPU: what a rehearsal does not try."""
    options = gpu_check.Options(backend="cupy", data_dir="d", without=("recorders", "pytorch"))
    parts = {part.name: part.command for part in all_parts(options, tmp_path)}
    for way, told in (("graph", "on"), ("launches", "off"), ("reference", "reference")):
        steps, paper = parts["steps"](way), parts["paper"](way)
        assert "--alone" in steps and told in paper
        for command in (steps, paper):
            check = [sys.executable, "-c", PARSES, *command[2:]]
            assert subprocess.run(check, check=False, capture_output=True).returncode == 0, command
    assert ("fp32" in parts["paper"]("reference")) and ("tf32" in parts["paper"]("graph"))


PARSES = """
import importlib, sys
from experiments.training.command_line import parse
module = importlib.import_module(sys.argv[1])
kind = getattr(module, "Options", None) or module.Settings
parse(kind, sys.argv[2:], program="", description="")
"""


# -- what can't work


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--only", "law"], "Did you mean 'laws'"),
        (["--without", "graphs"], "Did you mean 'graph'"),
        (["--without", "TiledConv"], "Did you mean 'TiledConv2d'"),
        (["--rehearse", "--backend", "numpy"], "Did you mean 'cupy'"),
        (["--backend", "strict"], "Add --rehearse"),
        (["--sitting", "0"], "--sitting 0 is no time"),
        (["--sitting", "soon"], "Say 9m, 540s or 1h"),
        (["--sitting", "1.2.3m"], "is no time"),
        (["--precision", "fp64"], "--precision"),
        (["--only", "steps", "--without", "steps"], "leaves no part"),
    ],
)
def test_what_cant_work_is_one_line_and_writes_nothing(arguments, told, tmp_path, capsys):
    folder = tmp_path / "out"
    assert gpu_check.main([*arguments, "--out", str(folder)]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
    assert not folder.exists()


@pytest.mark.skipif("cupy" in available(), reason="CuPy and a GPU are here")
def test_without_a_gpu_it_says_what_is_missing(tmp_path, capsys):
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 2
    assert "backend 'cupy'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is here")
def test_without_cupy_nothing_can_be_prepared_and_it_says_what_to_install(tmp_path, capsys):
    assert gpu_check.main(["--prepare", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'minibn[nvrtc]'" in capsys.readouterr().err


@pytest.mark.parametrize("given, seconds", [("9m", 540), ("540s", 540), ("9", 540), ("0.5h", 1800)])
def test_a_sitting_takes_a_time_with_its_unit(given, seconds):
    assert gpu_check.Options(sitting=given).seconds == seconds


def test_tests_are_counted_with_workers_and_without_and_all_skipped_prove_nothing(tmp_path):
    (laws,) = (
        p for p in all_parts(gpu_check.Options(backend="cupy"), tmp_path) if p.name == "laws"
    )
    log = tmp_path / "laws.log"
    log.write_text(
        "tests/a.py::test_passed[x] PASSED      [ 50%]\n[gw0] [ 1%] PASSED tests/a.py::test_b\n"
        "tests/a.py::test_failed FAILED [ 60%]\n[gw1] [ 3%] SKIPPED tests/a.py::test_c\n"
    )
    with pytest.raises(WrongResult, match="2 passed, 1 failed, 1 skipped"):
        laws.line()
    log.write_text("[gw0] [ 1%] PASSED tests/a.py::test_b\nE  the word FAILED in a text\n")
    assert laws.line() == "1 passed, 0 failed, 0 skipped"
    log.write_text("tests/a.py::test_passed SKIPPED (no GPU) [100%]\n")
    with pytest.raises(ValueError, match="no test passed"):
        laws.line()


def test_what_is_turned_off_is_not_run():
    options = gpu_check.Options(backend="cupy", without=("steps", "laws"))
    assert [part.name for part in all_parts(options, Path("out"))] == ["losses", "paper", "kernels"]
