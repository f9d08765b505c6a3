"""The values of `norm=`: a name of NORMS (or of ALIASES: the experiments' names), or a function of
the width that makes a module.

    vgg("vgg16", norm="l1")
    vgg("vgg16", norm=lambda width: nn.LpBatchNorm(width, p=1, momentum=0.01))

The paper (Santurkar et al. 2018, section 3.3) gives its l_p norms in words. "l1", "l2" and "linf"
take them literally; the other readings of `minibn.ops.lp_normalization` have names, too:

    l1-centred, linf-centred            the norm of x - mu instead of x (l2-centred: BatchNorm)
    l2-mean-of-norm, linf-mean-of-norm  ‖x‖_p / M instead of (Σ |x|^p / M)^(1/p): outputs are
                                        M^(1 - 1/p) times as large (for l1 the same)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from minibn import nn
from minibn.errors import did_you_mean
from minibn.nn.module import Module

MakeNorm = Callable[[int], Module]
Norm = str | MakeNorm


def _groups_of_16(channels: int) -> Module:
    """GroupNorm with gcd(channels, 16) channels a group: Wu & He's 32 groups of 512."""
    return nn.GroupNorm(channels // math.gcd(channels, 16), channels)


# The norm after a layer. With "weight" the layer's own filters are standardised, and scaled too if
# no norm follows.
NORMS: dict[str, MakeNorm | None] = {
    "none": None,
    "batch": nn.BatchNorm,
    "l1": partial(nn.LpBatchNorm, p=1),
    "l2": partial(nn.LpBatchNorm, p=2),
    "linf": partial(nn.LpBatchNorm, p=math.inf),
    "layer": partial(nn.LayerNorm, axes="example"),
    "group": _groups_of_16,
    "instance": nn.InstanceNorm,
    "rms": partial(nn.RMSNorm, axes="example"),
    "weight": None,
    "group+weight": _groups_of_16,
    "frozen": nn.FrozenBatchNorm,
    "l1-centred": partial(nn.LpBatchNorm, p=1, center_first=True),
    "l2-centred": partial(nn.LpBatchNorm, p=2, center_first=True),
    "linf-centred": partial(nn.LpBatchNorm, p=math.inf, center_first=True),
    "l2-mean-of-norm": partial(nn.LpBatchNorm, p=2, reduce="mean_of_norm"),
    "linf-mean-of-norm": partial(nn.LpBatchNorm, p=math.inf, reduce="mean_of_norm"),
}


def choose(who: str, what: str, name: str, known: Mapping[str, object]) -> None:
    """Raise ValueError, with the nearest name, unless the name is known."""
    if name not in known:
        raise ValueError(f"{who}: {what} {name!r} is unknown. {did_you_mean(name, known)}")


def maker_of(who: str, norm: Norm, known: Mapping[str, MakeNorm | None]) -> MakeNorm | None:
    """The function width -> norm; None for no norm. Raises ValueError for an unknown name."""
    if callable(norm):
        return norm
    choose(who, "norm", norm, known)
    return known[norm]


def standardises(norm: Norm) -> bool:
    """Whether the layers before the norm have standardised filters."""
    return norm in ("weight", "group+weight")


# Names of the variants of experiments, which mean the same.
ALIASES = {
    "standard": "none",
    "batchnorm": "batch",
    "layernorm": "layer",
    "groupnorm": "group",
    "instancenorm": "instance",
    "rmsnorm": "rms",
    "weightstandardisation": "weight",
    "groupnorm-weightstandardisation": "group+weight",
    "frozen-batchnorm": "frozen",
}


def norm_name(norm: Norm) -> Norm:
    """The name in NORMS of a norm that may be called by the name of its variant ("layernorm")."""
    return ALIASES.get(norm, norm) if isinstance(norm, str) else norm
