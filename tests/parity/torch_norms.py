"""The norms beside PyTorch's, or beside their formula in PyTorch where it has none."""

import numpy as np
from parity.torch_adapter import Pair, channels_first, tensor, torch
from suite.registry import norms

from minibn import ops
from minibn.testing.strategies import Point

F, vector_norm = torch.nn.functional, torch.linalg.vector_norm


def layer_norm(x, gamma, beta, axes, eps):
    if axes in (None, -1) or gamma.ndim == x.ndim - 1:
        return F.layer_norm(x, gamma.shape, gamma, beta, eps)
    return channels_first(lambda x: F.group_norm(x, 1, gamma, beta, eps))(x)


def rms_norm(x, gamma, axes, eps):
    if axes in (None, -1) or gamma.ndim == x.ndim - 1:
        return F.rms_norm(x, gamma.shape, gamma, eps)
    return F.rms_norm(x, x.shape[1:], None, eps) * gamma


def group_norm(x, gamma, beta, groups, eps):
    return channels_first(lambda x: F.group_norm(x, groups, gamma, beta, eps))(x)


def instance_norm(x, gamma, beta, eps):
    f = channels_first(lambda x: F.instance_norm(x, None, None, gamma, beta, True, 0.0, eps))
    return f(x)


def weight_standardisation(w, gamma, eps):
    axes = tuple(range(w.ndim - 1))
    return (w - w.mean(axes)) / torch.sqrt(w.var(axes, correction=0) + eps) * gamma


def lp_batch_norm(x, gamma, beta, p, eps, center_first, reduce):
    axes, M = tuple(range(x.ndim - 1)), x[..., 0].numel()
    centred = x - x.mean(axes)
    n = vector_norm(centred if center_first else x, p, axes)
    n = n / (M if reduce == "mean_of_norm" else M ** (1 / p))
    return gamma * centred / (torch.sqrt(n * n + eps) if p == 2 else n + eps) + beta


def lp_inference(x, gamma, beta, p, eps, center_first, reduce):
    """The registry's mean and norm: those of a generator seeded with the number of channels."""
    rng = np.random.default_rng(x.shape[-1])
    mean, n = norms.real(rng, x.shape[-1:]), norms.positive(rng, x.shape[-1:])
    s = np.sqrt(n * n + eps) if p == 2 else n + eps
    return gamma * (x - tensor(mean)) / tensor(s) + beta


def pairs(points, ours, theirs):
    def pair(point: Point) -> Pair:
        return Pair(point.bind(ours), point.bind(theirs), point.inputs, point.seed)

    return points.map(pair)


NORM_PAIRS = {
    "group_norm": pairs(norms.group_norm_points(), ops.group_norm, group_norm),
    "instance_norm": pairs(norms.instance_norm_points(), ops.instance_norm, instance_norm),
    "layer_norm": pairs(norms.layer_norm_points(), ops.layer_norm, layer_norm),
    "lp_batch_norm, p=1": pairs(norms.lp_points(1), ops.lp_batch_norm, lp_batch_norm),
    "lp_batch_norm, p=2": pairs(norms.lp_points(2), ops.lp_batch_norm, lp_batch_norm),
    "lp_batch_norm, p=inf": pairs(norms.lp_points(np.inf), ops.lp_batch_norm, lp_batch_norm),
    "lp_batch_norm_inference": pairs(norms.lp_points(2), norms.lp_inference, lp_inference),
    "rms_norm": pairs(norms.layer_norm_points().map(norms.without_beta), ops.rms_norm, rms_norm),
    "weight_standardisation": pairs(
        norms.filter_points(), ops.weight_standardisation, weight_standardisation
    ),
}
