"""PyTorch's side: the same network with the same weights, in both memory layouts.

Written as its users would for speed on a CPU: ReLU in place, no bias before BatchNorm, noise drawn
without a graph. Eager mode: `torch.compile` needs a C++ compiler. SGD's `foreach` and `fused` forms
take as long as the default (1.9 ms for 14 M parameters).

Noise is drawn into a flat tensor, which is then viewed in the layout of x: `normal_` on a
channels_last tensor takes eight times as long (114 against 14 ms for 4 M numbers, measured with
PyTorch 2.13). On a GPU it is drawn in the layout of x.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from experiments.benchmarking.cases import LEARNING_RATE, Case, cotangent
from minibn import nn as ours
from minibn.nn.pytorch import to_pytorch

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


class Noise(torch.nn.Module):
    """Algorithm 1, as `minibn.nn.Noise` states it: s · x + m, drawn anew for each activation."""

    def __init__(self, noise: ours.Noise) -> None:
        super().__init__()
        self.n_mu, self.n_sigma = noise.n_mu, noise.n_sigma
        self.r_mu, self.r_sigma = noise.r_mu, noise.r_sigma

    def forward(self, x: Any) -> Any:
        if not self.training:
            return x
        C = x.shape[1]
        like_x = {"dtype": x.dtype, "device": x.device}
        with torch.no_grad():
            mu = self.n_mu * (2 * torch.rand(C, 1, 1, **like_x) - 1)
            sigma = 1 + (self.n_sigma - 1) * torch.rand(C, 1, 1, **like_x)
            flat = x.device.type == "cpu"
            m, s = (
                torch.empty(x.numel(), **like_x) if flat else torch.empty_like(x) for _ in range(2)
            )
            m.uniform_(-self.r_mu, self.r_mu)
            s.normal_(0, self.r_sigma)
            if flat:
                m, s = (draws.as_strided(x.shape, x.stride()) for draws in (m, s))
            m += mu
            s += sigma
        return torch.addcmul(m, x, s)


def _mirror_module(module: ours.Module) -> torch.nn.Module:
    """PyTorch's module for one of ours, without our weights."""
    if isinstance(module, ours.Conv2d):
        Kh, Kw, C, F = module.weight.shape
        return torch.nn.Conv2d(
            C, F, (Kh, Kw), module.stride, module.padding, bias=module.bias is not None
        )
    if isinstance(module, ours.BatchNorm):
        return torch.nn.BatchNorm2d(module.gamma.size, module.eps, module.momentum)
    if isinstance(module, ours.Linear):
        inputs, outputs = module.weight.shape
        return torch.nn.Linear(inputs, outputs, bias=module.bias is not None)
    if isinstance(module, ours.MaxPool2d):
        return torch.nn.MaxPool2d(module.size)
    if isinstance(module, ours.Noise):
        return Noise(module)
    if isinstance(module, ours.ReLU):
        return torch.nn.ReLU(inplace=True)
    if isinstance(module, ours.Flatten):
        return torch.nn.Flatten()
    raise TypeError(f"no layer of PyTorch is known for {module}")


def mirror(network: ours.Sequential, layout: str) -> torch.nn.Sequential:
    """The same network in PyTorch: same names, same weights. VGG flattens a single pixel, so the
    weights of the linear layer need no reordering."""
    theirs = torch.nn.Sequential()
    for name, module in network.children():
        theirs.add_module(name, _mirror_module(module))
    state = to_pytorch(network.state_dict())
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    to: Any = theirs.to  # its stubs do not know memory_format by itself
    return to(memory_format=LAYOUTS[layout])


def images(x: np.ndarray, layout: str) -> Any:
    """(N, H, W, C) as a tensor (N, C, H, W) in the layout."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=LAYOUTS[layout])


class Step:
    """PyTorch's training step. settings: further keywords of SGD."""

    def __init__(
        self,
        case: Case,
        layout: str,
        network: ours.Sequential,
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        self.network = mirror(network, layout).to(device)
        x, labels = case.data()
        self.images = images(x, layout).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": case.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, LEARNING_RATE, case.momentum, **settings)

    def __call__(self) -> float:
        return self.update().item()

    def update(self) -> Any:
        """One step. Returns the loss before the update, a scalar on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _loss(self) -> Any:
        return torch.nn.functional.cross_entropy(self.network(self.images), self.labels)

    def quiet_loss(self) -> float:
        noises = [m for m in self.network.modules() if isinstance(m, Noise)]
        with torch.no_grad():
            for noise in noises:
                noise.eval()
            loss = self._loss().item()
            for noise in noises:
                noise.train()
        return loss


class Stage:
    """PyTorch's convolution with its norm, ReLU and pooling, alone: forward, then backward."""

    def __init__(
        self, network: ours.Sequential, x: np.ndarray, layout: str, input_gradient: bool
    ) -> None:
        self.network = mirror(network, layout)
        self.x = images(x, layout).requires_grad_(input_gradient)
        self.layout, self.g = layout, None

    def output(self) -> np.ndarray:
        """(N, H, W, F)"""
        with torch.no_grad():
            return self.network(self.x).permute(0, 2, 3, 1).numpy()

    def __call__(self) -> dict[str, float]:
        self.x.grad = None
        self.network.zero_grad(set_to_none=True)
        began = time.perf_counter()
        y = self.network(self.x)
        middle = time.perf_counter()
        if self.g is None:
            N, F, H, W = y.shape
            self.g = images(cotangent((N, H, W, F)), self.layout)
        start = time.perf_counter()
        y.backward(self.g)
        return {"forward": middle - began, "backward": time.perf_counter() - start}


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)


def version() -> str:
    return torch.__version__


def product_rate(n: int, repeats: int) -> float:
    """FLOP/s of a large float32 product."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    out = torch.empty(n, n)
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best
