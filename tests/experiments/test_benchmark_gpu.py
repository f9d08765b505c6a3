"""The benchmark on a GPU, rehearsed without one."""

import contextlib
import io
import json
import types
from collections.abc import Iterator
from typing import Any

import pytest
from gpu_benches import SMALL, bench, emulator, main

from experiments import benchmark
from experiments.benchmarking import clock as clocks
from experiments.benchmarking import gpu_parts, machine
from experiments.benchmarking.cases import Case
from experiments.benchmarking.comparison import ours_in
from experiments.benchmarking.device import NotHere
from experiments.benchmarking.gpu import OurStep, race
from minibn import use

PARTS = ("machine", "steps", "precision", "kernels", "profile", "compiled", "memory")


@pytest.fixture
def strict() -> Iterator[Any]:
    with use("strict") as backend:
        yield backend


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """(the JSON, what was printed) of all parts on the strict double, without PyTorch."""
    path = tmp_path_factory.mktemp("benchmark") / "found.json"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(benchmark, "pytorch_side", lambda backend: None)
        arguments = ("--quick", "--width", 0.0625, "--batch", 2, "--variants", "noisy-batchnorm")
        code = main("--backend", "strict", *arguments, "--threads", 1, "--json", path)
        assert code == 0, out.getvalue()
    return json.loads(path.read_text()), out.getvalue()


def test_every_part_is_rehearsed_and_kept(run) -> None:
    record, text = run
    assert tuple(gpu_parts.PARTS) == PARTS
    for name, (title, _) in gpu_parts.PARTS.items():
        assert record[name] and f"## {title}" in text
    assert record["header"]["backend"] == "strict"
    assert "PyTorch is not installed, so ours are timed alone." in text


def test_a_rehearsal_without_kernels_says_that_graphs_need_them(run) -> None:
    record, text = run
    assert {m["who"] for m in record["left_out"]} == {"minibn graph"}
    assert "graphs repeat CUDA kernels: --backend emulated rehearses them" in text


def test_steps_are_timed_with_momentum_and_decay_and_rounded_factors(run) -> None:
    (step,) = run[0]["steps"]
    assert list(step["times"]) == ["minibn eager"] and step["ratio"] is None
    assert step["case"]["momentum"] == 0.9 and step["case"]["weight_decay"] == 5e-4
    assert step["case"]["precision"] == "tf32"


def test_every_precision_is_timed(run) -> None:
    record, text = run
    assert [step["case"]["precision"] for step in record["precision"]] == ["fp32", "tf32", "bf16"]
    assert "batch 2, bf16" in text


def test_a_share_is_that_of_the_steps_own_precision(run) -> None:
    record, _ = run
    for step in (*record["steps"], *record["precision"]):
        case = Case(**step["case"])
        floor = machine.cost(case).flop / record["machine"]["product_flops"][case.precision]
        seconds = step["times"]["minibn eager"]["median_ms"] / 1000
        assert step["share_of_product_rate"] == pytest.approx(floor / seconds)


def test_memory_is_that_of_every_case_and_of_a_large_batch(run) -> None:
    record, _ = run
    small, large = record["memory"]
    assert (small["case"]["batch"], large["case"]["batch"]) == (2, 16)
    for way in ("eager", "lean"):
        assert large["bytes"][f"minibn {way}"]["step"] > small["bytes"][f"minibn {way}"]["step"] > 0


def test_a_rehearsal_reaches_no_target(run) -> None:
    assert run[0]["targets"] == []


def test_what_is_known_is_written_after_every_case(strict) -> None:
    saved: list[tuple[str, int]] = []
    here = bench(strict, save=lambda part, found: saved.append((part, len(found))))
    gpu_parts.precision(here)
    assert saved == [("precision", 1), ("precision", 2), ("precision", 3)]


def test_graphs_are_timed_and_stand_for_us() -> None:
    with emulator() as backend:
        here = bench(backend, warm_up=1, patience=2)
        raced = race(here, SMALL, here.contenders(["eager", "graph"], []))
        assert raced is not None and here.left_out == []
        assert list(raced[0]) == ["minibn eager", "minibn graph"]
        assert ours_in(raced[0]) == "minibn graph"


def test_the_memory_of_a_graph_is_measured_from_before_its_capture() -> None:
    with emulator() as backend:
        here = bench(backend)
        eager, graph = (
            gpu_parts._peak(here, SMALL, f"minibn {way}")["step"] for way in ("eager", "graph")
        )
        assert graph > eager > 0  # the emulator's graph keeps all arrays of its step


# -- contenders that can't run


def test_a_contender_without_memory_is_left_out_and_the_others_are_timed(
    strict, monkeypatch
) -> None:
    def become(self: OurStep, way: str) -> None:
        if way == "graph":
            raise MemoryError("Out of memory allocating 9 bytes.\nmore")

    monkeypatch.setattr(OurStep, "become", become)
    here = bench(strict)
    raced = race(here, SMALL, here.contenders(["eager", "graph"], []))
    assert raced is not None and list(raced[0]) == ["minibn eager"]
    assert [(m["who"], m["reason"], m["mistake"]) for m in here.left_out] == [
        ("minibn graph", "out of memory: Out of memory allocating 9 bytes.", False)
    ]


def test_a_case_for_which_memory_runs_out_is_skipped_with_its_reason(
    strict, monkeypatch, capsys
) -> None:
    def update(self: OurStep) -> None:
        raise MemoryError("Out of memory")

    monkeypatch.setattr(OurStep, "update", update)
    saved: dict[str, Any] = {}
    here = bench(strict, save=saved.__setitem__)
    assert gpu_parts.steps(here) == [] and saved == {}
    told = capsys.readouterr().out
    assert "batch 4, width 0.0625, tf32: minibn eager left out. out of memory" in told
    assert "Nothing could be timed." in told


def test_a_mistake_is_told_and_the_command_fails(monkeypatch, capsys, tmp_path) -> None:
    def update(self: OurStep) -> None:
        raise ZeroDivisionError("no such kernel")

    monkeypatch.setattr(OurStep, "update", update)
    monkeypatch.setattr(benchmark, "pytorch_side", lambda backend: None)
    arguments = ("--quick", "--width", 0.0625, "--batch", 4, "--threads", 1)
    path = tmp_path / "found.json"
    assert main("--backend", "strict", *arguments, "--parts", "kernels", "--json", path) == 1
    assert "FAILED, see left_out in --json: Kernels (the whole part)." in capsys.readouterr().out
    (mistake,) = json.loads(path.read_text())["left_out"]
    assert mistake["reason"] == "ZeroDivisionError: no such kernel"
    assert "in kernels" in mistake["traceback"]


def test_what_a_rival_can_not_do_is_no_mistake_of_ours(strict) -> None:
    here = bench(strict)
    here.leave_out(SMALL, "PyTorch compiled", RuntimeError("no compiler"))
    here.leave_out(SMALL, "minibn graph", NotHere("no GPU"))
    assert [m["mistake"] for m in here.left_out] == [False, False]


def test_networks_that_are_not_the_same_are_not_timed(strict) -> None:
    class Other(OurStep):
        def __init__(self, case: Case, device: str) -> None:
            super().__init__(case)

        def quiet_loss(self) -> float:
            return super().quiet_loss() * 1.01

    side = types.SimpleNamespace(
        name="", clock=clocks.HOST, out_of_memory_errors=(MemoryError,), tidy=lambda: None
    )
    here = bench(strict, types.SimpleNamespace(Step=Other, Device=lambda: side))
    assert race(here, SMALL, here.contenders(["eager"], ["eager"])) is None
    (mistake,) = here.left_out
    assert mistake["mistake"] and mistake["reason"].startswith("Disagreement: vgg11 batchnorm")
