"""The deep linear network of Santurkar et al. 2018 (appendix A.1): no ReLU, and nothing random.

    min over W_1 ... W_k of  Σ_n ‖x_n W_1 W_2 ... W_k - x_n A‖²,    k = 25,  every W_i 10 × 10

"to isolate the effect of non-linearities as well as gradient stochasticity". With rows as samples
the product stands in the order of the layers. A layer is

    linear → norm

without a bias, and "the activation of layer k" is the input of layer k + 1. What the network
can express is a linear map (an affine one with a norm over the batch; neither with a norm over each
sample, such as layer norm). Without a norm its loss is a polynomial of degree 2k in the W_i, which
makes it hard.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minibn import nn
from minibn.nn.init import glorot_uniform
from minibn.nn.module import Module
from minibn.nn.state import Buffer, Initializer, Parameter, ones, zeros
from reference_models.norms import NORMS as ALL_NORMS
from reference_models.norms import Norm, maker_of, norm_name, standardises

# Instance norm needs pixels. VGG's groups of 16 channels would be pairs here, and a normalised pair
# is ±1: so two groups, or one.
NORMS = {name: make for name, make in ALL_NORMS.items() if name != "instance"}
NORMS |= dict.fromkeys(
    ("group", "group+weight"), lambda width: nn.GroupNorm(2 if width % 2 == 0 else 1, width)
)


def deep_linear(
    depth: int = 25,
    width: int = 10,
    *,
    norm: Norm = "none",
    norm_output: bool = False,
    affine: bool = True,
    init: Initializer = glorot_uniform,
) -> nn.Sequential:
    """A deep linear network (N, width) -> (N, width), of layers linear1, norm1, linear2, ... Not
    initialised yet.

    norm: a name of NORMS ("l1", or another reading of the paper such as "l1-centred"), or one's own
    function width -> Module. It follows every layer but the last, with norm_output the last as
    well (the output is then centred and scaled, and only its gamma and beta can reach the
    targets). "weight" and "group+weight" standardise the matrices of these layers. affine=False
    keeps each norm's gamma, or each matrix's gain, at 1 and beta at 0.
    Raises ValueError for an unknown norm, fewer than one layer or a width below 1.

    >>> net = deep_linear(3, norm="batch")
    >>> [name for name, _ in net.children()]
    ['linear1', 'norm1', 'linear2', 'norm2', 'linear3']
    """
    norm = norm_name(norm)
    make = maker_of("deep_linear", norm, NORMS)
    if depth < 1:
        raise ValueError(f"deep_linear: depth={depth} must be 1 layer or more.")
    if width < 1:
        raise ValueError(f"deep_linear: width={width} must be 1 unit or more.")
    parts: dict[str, Module] = {}
    for layer in range(1, depth + 1):
        stands = layer < depth or norm_output
        behind = make(width) if make is not None and stands else None
        kind: Callable[..., Module] = nn.Linear
        if stands and standardises(norm):  # no ReLU follows: a factor of 1 keeps the variance
            kind = partial(nn.WSLinear, scaled=behind is None, factor=1.0)
        parts[f"linear{layer}"] = kind(width, width, bias=False, init=init)
        if behind is not None:
            parts[f"norm{layer}"] = behind
    if not affine:
        for part in parts.values():
            _fix_affine(part)
    return nn.Sequential(**parts)


def _fix_affine(part: Module) -> None:
    """Gamma, beta and gain as buffers: kept at 1, 0 and 1, not trained."""
    for name, start in (("gamma", ones), ("beta", zeros), ("gain", ones)):
        free = getattr(part, name, None)
        if isinstance(free, Parameter):
            setattr(part, name, Buffer(free.shape, start))
