"""The benchmark on a GPU, rehearsed without one."""

import contextlib
import dataclasses
import io
import json
import types
from collections.abc import Iterator
from typing import Any

import pytest

from experiments import benchmark
from experiments.benchmarking import clock as clocks
from experiments.benchmarking import gpu_parts, machine
from experiments.benchmarking.cases import Case
from experiments.benchmarking.comparison import compared, ours_in
from experiments.benchmarking.device import Device, NotHere
from experiments.benchmarking.gpu import GpuBench, OurStep, race
from experiments.vgg.settings import VARIANTS
from minibn import nn, use
from minibn.backend.cuda.emulator import compiler, emulated
from minibn.backend.cuda.graph import CaptureError
from minibn.backend.cuda.program import around_launches
from minibn.errors import BackendUnavailable

SMALL = Case("vgg11", "batchnorm", 4, 0.0625, "tf32", 0.9, 5e-4)
PARTS = ("machine", "steps", "precision", "kernels", "profile", "compiled", "memory")


def main(*arguments: Any) -> int:
    return benchmark.main([str(a) for a in arguments])


@pytest.fixture
def strict() -> Iterator[Any]:
    with use("strict") as backend:
        yield backend


def small_network(case: Case) -> nn.Sequential:
    """One convolution in the place of VGG's: emulated kernels take their time."""
    norm, noise = VARIANTS[case.variant]
    layers = {
        "conv1": nn.Conv2d(3, 4, 3, padding=1, bias=norm == "none"),
        "norm1": nn.BatchNorm(4) if norm == "batch" else None,
        "noise1": nn.Noise() if noise else None,
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(32),
        "flatten": nn.Flatten(),
        "linear2": nn.Linear(4, 10),
    }
    return nn.Sequential(**{k: v for k, v in layers.items() if v is not None}).initialize(0)


@contextlib.contextmanager
def emulator() -> Iterator[Any]:
    """Inside, CUDA kernels train the small network."""
    try:
        compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch, use("strict") as backend, emulated():
        patch.setattr(Case, "network", small_network)
        yield backend


def bench(backend: Any, pytorch: Any = None, **more: Any) -> GpuBench:
    return GpuBench(
        pytorch, 1, 1, ("vgg11",), ("batchnorm",), (4,), 0.0625, device=Device(backend),
        theirs=pytorch and pytorch.Device(), precision="tf32", **more,
    )  # fmt: skip


# -- a rehearsal


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


# -- with PyTorch


def pytorch_side() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    torch.set_num_threads(1)
    return benchmark.pytorch_side("strict")


def test_pytorch_is_timed_beside_ours_in_every_way_that_is_here(strict) -> None:
    here = bench(strict, pytorch_side())
    names = here.contenders(["eager"], ["eager", "graph", "compiled"])
    raced = race(here, SMALL, names)
    assert raced is not None
    assert list(raced[0]) == ["minibn eager", "PyTorch eager", "PyTorch compiled"]
    (left_out,) = here.left_out
    assert left_out["who"] == "PyTorch graph" and not left_out["mistake"]
    assert left_out["reason"] == "NotHere: CUDA graphs need a GPU"
    cells, ratio = compared(raced[0], names=names)
    assert ratio is not None and cells[2] == "-"


def test_pytorchs_steps_with_momentum_and_decay_stay_near_ours(strict) -> None:
    case = dataclasses.replace(SMALL, precision="fp32")
    ours, theirs = OurStep(case), pytorch_side().Step(case, "cpu")
    ours.optimizer.lr = 0.1  # large enough to be seen
    for group in theirs.optimizer.param_groups:
        group["lr"] = 0.1
    for _ in range(3):
        loss = float(theirs.update().item())
        assert float(ours.update().item()) == pytest.approx(loss, rel=1e-4)


def test_pytorchs_16_bits_are_rounded_as_ours(strict) -> None:
    pytorch = pytorch_side()
    losses = {}
    for precision in ("fp32", "bf16"):
        case = dataclasses.replace(SMALL, precision=precision)
        losses[precision] = [s.quiet_loss() for s in (OurStep(case), pytorch.Step(case, "cpu"))]
    assert losses["fp32"][0] == pytest.approx(losses["fp32"][1], rel=1e-5)
    for exact, rounded in zip(losses["fp32"], losses["bf16"], strict=True):
        assert 1e-4 < abs(rounded / exact - 1) < 2e-2


def test_decay_is_of_weights_only_on_both_sides(strict) -> None:
    theirs = pytorch_side().Step(SMALL, "cpu").optimizer.param_groups
    for ours, other in zip(OurStep(SMALL).optimizer.groups, theirs, strict=True):
        assert ours["weight_decay"] == other["weight_decay"]
        assert len(ours["params"]) == len(other["params"])


# -- a step


def test_a_captured_step_goes_on_as_the_eager_one() -> None:
    case = dataclasses.replace(SMALL, variant="noisy-batchnorm")
    with emulator():
        eager, graph = OurStep(case), OurStep(case)
        graph.become("graph")
        while eager.optimizer.steps < graph.optimizer.steps:
            eager.update()
        for _ in range(3):
            assert eager.update().item() == graph.update().item()


def test_a_step_that_can_not_be_captured_says_why(monkeypatch) -> None:
    with emulator(), pytest.raises(CaptureError, match="item waits"):
        step = OurStep(SMALL)
        loss = step._loss
        monkeypatch.setattr(step, "_loss", lambda: loss() * loss().data.item())
        step.become("graph")


def test_without_cuda_kernels_there_is_no_graph(strict) -> None:
    with pytest.raises(NotHere, match="--backend emulated rehearses them"):
        OurStep(SMALL).become("graph")


def test_a_lean_step_keeps_nothing(strict, monkeypatch) -> None:
    step, modes = OurStep(SMALL), []
    step.become("lean")
    monkeypatch.setattr(step, "_step", lambda: modes.append(gpu_mode()))
    step.update()
    assert modes == ["lean"]


def gpu_mode() -> str:
    from minibn.backend.kernels import mode

    return mode()


# -- who can't be here


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
        name="", clock=clocks.HOST, exhausted=(MemoryError,), tidy=lambda: None
    )
    here = bench(strict, types.SimpleNamespace(Step=Other, Device=lambda: side))
    assert race(here, SMALL, here.contenders(["eager"], ["eager"])) is None
    (mistake,) = here.left_out
    assert mistake["mistake"] and mistake["reason"].startswith("Disagreement: vgg11 batchnorm")


# -- launches


def test_every_launch_of_a_step_passes_the_hook_by_its_name() -> None:
    names: list[str] = []

    @contextlib.contextmanager
    def noted(name: str) -> Iterator[None]:
        names.append(name)
        yield

    with emulator():
        step = OurStep(SMALL)
        with around_launches(noted):
            step.update()
        step.update()
    assert names.count("sgd.sgd") == 1
