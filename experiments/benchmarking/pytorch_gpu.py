"""PyTorch's side on a GPU, set up for speed as its documentation recommends.

    eager     images in channels_last, cuDNN chooses its algorithms by measuring
              (cudnn.benchmark), fused SGD (fused=True)
    graph     the eager step, captured whole in a CUDA graph and replayed (torch.cuda.graph)
    compiled  forward and loss by torch.compile, whose mode "reduce-overhead" fuses the
              operations between products and replays forward and backward as CUDA graphs; SGD as
              above

Precision: "fp32" without TF32, "tf32" with it in products and convolutions, "bf16" under
torch.autocast, which stores activations in 16 bits, where ours stay in 32. Noise is drawn by
`uniform_` and `normal_`, from the device's own generator.

Sources: PyTorch's Performance Tuning Guide, its notes on TF32 and on CUDA graphs ("Whole-network
capture"), and the page of torch.compile. On a machine without a GPU the same steps run on the CPU,
for a rehearsal: only eager, and compiled without a compiler ("aot_eager").
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

import minibn
from experiments.benchmarking import pytorch
from experiments.benchmarking.cases import Case
from experiments.benchmarking.clock import Clock, host_clock
from experiments.benchmarking.device import NotHere

MODE = "reduce-overhead"  # of torch.compile; "max-autotune" searches longer, minutes a network
WAYS = {
    "eager": "channels_last, cudnn.benchmark, SGD(fused=True)",
    "graph": "its eager step (channels_last, cudnn.benchmark, SGD(fused=True)) by torch.cuda.graph",
    "compiled": f"forward and loss of the same by torch.compile(mode={MODE!r})",
}
WARM_UP = 3  # steps before a capture, as in the notes on CUDA graphs

set_threads = pytorch.set_threads


def version() -> str:
    return f"{pytorch.version()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def set_precision(name: str) -> None:
    """What products and convolutions of float32 may round to."""
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    torch.backends.cudnn.benchmark = True


class Step(pytorch.Step):
    """PyTorch's training step on the device: eager until `become`."""

    def __init__(self, case: Case, device: str) -> None:
        with minibn.use("numpy"):  # or our network would lie on the device too
            network = case.network()
        set_precision(case.precision)
        super().__init__(case, "channels_last", network, device, fused=True)
        self.bf16, self.device = case.precision == "bf16", device
        self.training_loss: Callable[[], Any] = self._loss

    def become(self, way: str) -> None:
        """Make `update` run in this one of WAYS from now on; a capture first runs some steps.
        Raises NotHere, and whatever a compiler or a capture raises."""
        if way == "compiled":
            torch.compiler.reset()  # one code object is compiled at most eight times
            how: dict[str, Any] = (
                {"mode": MODE} if self.device == "cuda" else {"backend": "aot_eager"}
            )
            self.training_loss = torch.compile(self._loss, fullgraph=True, **how)
        elif way == "graph":
            self.update = self._captured()  # type: ignore[method-assign]  # its replay

    def update(self) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.training_loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _loss(self) -> Any:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            return super()._loss()

    def _captured(self) -> Callable[[], Any]:
        if self.device != "cuda":
            raise NotHere("CUDA graphs need a GPU")
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self.update()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.update()

        def replay() -> Any:
            graph.replay()
            return loss

        return replay


class Device:
    """PyTorch's view of the device: the counterpart of `benchmarking.device.Device`."""

    def __init__(self) -> None:
        self.name = "cuda" if torch.cuda.is_available() else "cpu"
        self.out_of_memory_errors = (torch.OutOfMemoryError,)
        self.clock: Clock = host_clock()
        if self.name == "cuda":
            self.clock = Clock(
                lambda: torch.cuda.Event(enable_timing=True),
                lambda start, end: start.elapsed_time(end),
            )

    def tidy(self) -> None:
        torch.compiler.reset()
        gc.collect()
        if self.name == "cuda":
            torch.cuda.empty_cache()

    def peak(self, prepare: Callable[[], Callable[[], Any]], times: int) -> dict[str, int]:
        """As ours. Raises NotHere on a CPU, where PyTorch does not count its memory."""
        if self.name != "cuda":
            raise NotHere("PyTorch counts its memory on GPUs only")
        self.tidy()
        work = prepare()
        torch.cuda.reset_peak_memory_stats()
        loaded = torch.cuda.memory_allocated()
        for _ in range(times):
            work()
        torch.cuda.synchronize()
        most = torch.cuda.max_memory_allocated()
        return {"loaded": loaded, "peak": most, "step": most - loaded}

    def copying(self, size: int) -> Callable[[], Any]:
        source, target = (torch.ones(size, device=self.name) for _ in range(2))
        return lambda: target.copy_(source)

    def multiplying(self, n: int, precision: str) -> Callable[[], Any]:
        set_precision(precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(n, n, device=self.name).to(dtype) for _ in range(2))
        return lambda: torch.mm(a, b)
