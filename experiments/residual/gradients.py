"""How alike the gradients at neighbouring inputs are at step 0 (Balduzzi et al. 2017, "The
Shattered Gradients Problem").

As there, networks are functions of one number: `POINTS` inputs at equal distances in [-2, 2],
`units` units a layer, He's initialisation of weights and (so that not all ReLUs have their kink at
0) biases. The gradient at an input is the slope of the output there. The correlation at a lag is

    Σ_i g_i g_{i+lag} / √(Σ_i g_i² Σ_i g_{i+lag}²)

1 for a linear function, near 0 for slopes like white noise ("shattered"); the mean over draws of
the weights. BatchNorm has the statistics of these inputs, which are then held fixed: else the slope
at one input would contain that of all others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn import Tensor, nn
from minibn.backend import get_backend, to_numpy
from minibn.nn.init import he_normal
from minibn.nn.module import Module
from minibn.random import generator
from reference_models.resnet import ResidualBlock, Scale, Shortcut

POINTS = 256
ENDS = (-2.0, 2.0)
LAGS = (1, 2, 4, 8, 16, 32)

# name -> (with skip paths, with BatchNorm, with SkipInit)
NETWORKS = {
    "feedforward": (False, False, False),
    "feedforward-batchnorm": (False, True, False),
    "residual": (True, False, False),
    "residual-batchnorm": (True, True, False),
    "residual-skipinit": (True, False, True),
}


def network(name: str, depth: int, units: int) -> nn.Sequential:
    """(N, 1) -> (N, 1), with `depth` hidden layers, each norm → ReLU → linear; with skip paths two
    of them make a block. Not initialised yet."""
    residual, norm, skip_init = NETWORKS[name]

    def before(k: int) -> dict[str, Module]:
        normed: dict[str, Module] = {f"norm{k}": nn.BatchNorm(units)} if norm else {}
        return {**normed, f"relu{k}": nn.ReLU()}

    def layer(k: int) -> dict[str, Module]:
        return {**before(k), f"linear{k}": nn.Linear(units, units, init=he_normal)}

    parts: dict[str, Module] = {"linear1": nn.Linear(1, units, init=he_normal)}
    for k in range(2, depth + 2, 2):
        both = {**layer(k), **layer(k + 1)}
        if skip_init:
            both[f"scale{k + 1}"] = Scale()
        if residual:
            block = ResidualBlock(nn.Sequential(**both), Shortcut(units, units))
            parts[f"block{k // 2}"] = block
        else:
            parts |= both
    last = {f"linear{depth + 2}": nn.Linear(units, 1, init=he_normal)}
    return nn.Sequential(**parts, **before(depth + 2), **last)


def gradient_correlations(
    name: str, *, depth: int, units: int, draws: int, seed: int
) -> dict[int, float]:
    """lag (in points) -> correlation, the mean over `draws` networks, in float64."""
    x = np.linspace(*ENDS, POINTS)[:, None]
    found = [
        correlations(slopes(network(name, depth, units), x, draws * seed + draw))
        for draw in range(draws)
    ]
    return {lag: float(np.mean([of[lag] for of in found])) for lag in LAGS}


def slopes(net: nn.Sequential, x: np.ndarray, seed: int) -> np.ndarray:
    """The slope of the network's output at each input x (N, 1), drawn from `seed`: (N,)."""
    net.initialize(seed, np.float64)
    for path, layer in net.named_modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            draw = generator(seed, "biases", path).standard_normal(layer.bias.shape)
            layer.bias.place(draw * (2 / layer.weight.shape[0]) ** 0.5)
    inputs = get_backend().asarray(x)
    nn.reestimate_statistics(net, [inputs])
    at: Any = Tensor(inputs, requires_grad=True)
    with net.mode(training=False):
        net(at).sum().backward()
    return to_numpy(at.grad)[:, 0]


def correlations(g: np.ndarray) -> dict[int, float]:
    """lag -> the correlation of slopes g (N,) at this distance."""
    return {
        lag: float(g[:-lag] @ g[lag:] / np.sqrt((g[:-lag] @ g[:-lag]) * (g[lag:] @ g[lag:])))
        for lag in LAGS
    }
