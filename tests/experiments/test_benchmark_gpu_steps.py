"""Steps that the benchmark times on a GPU: ours in every way, and PyTorch's beside them."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from gpu_benches import SMALL, bench, emulator

from experiments import benchmark
from experiments.benchmarking.comparison import compare
from experiments.benchmarking.device import NotHere
from experiments.benchmarking.gpu import OurStep, race
from minibn import use
from minibn.errors import CaptureError
from minibn.fast.cuda.program import wrap_launches


@pytest.fixture
def strict() -> Iterator[Any]:
    with use("strict") as backend:
        yield backend


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
    cells, ratio = compare(raced[0], names=names)
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
    from minibn.autograd.dispatch import mode

    return mode()


# -- launches


def test_every_launch_of_a_step_passes_the_hook_by_its_name() -> None:
    names: list[str] = []

    @contextlib.contextmanager
    def noted(name: str) -> Iterator[None]:
        names.append(name)
        yield

    with emulator():
        step = OurStep(SMALL)
        with wrap_launches(noted):
            step.update()
        step.update()
    assert names.count("sgd.sgd") == 1
