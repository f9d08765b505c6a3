"""VGG for 32×32 images (Simonyan & Zisserman 2015), with BatchNorm, another norm or none, noise.

The paper (Santurkar et al. 2018) says "VGG-like" and no more: depth, width and head are options.
Each stage is convolutions 3×3 and a max-pooling 2×2; every layer is

    convolution → norm → noise → ReLU

and "the activation of layer k" is the input of ReLU k. Convolutions and linear layers are numbered
together, and a layer has the same name in every variant ("conv3.weight").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minibn import nn
from minibn.nn.init import glorot_uniform
from minibn.nn.module import Module
from minibn.nn.state import Initializer
from reference_models.norms import NORMS, Norm, choose, maker_of, norm_name, standardises

__all__ = ["NORMS", "VGG", "hidden_widths", "layer_count", "vgg"]

VGG: dict[str, tuple[int | str, ...]] = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg13": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M",
              512, 512, 512, "M", 512, 512, 512, "M"),
    "vgg19": (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M",
              512, 512, 512, 512, "M", 512, 512, 512, 512, "M"),
}  # fmt: skip


def hidden_widths(head: str) -> tuple[int, ...]:
    """The hidden widths of the classifier: "linear" has none, "512,512" two."""
    if head == "linear":
        return ()
    widths = head.split(",")
    if not all(w.strip().isdecimal() and int(w) > 0 for w in widths):
        raise ValueError(f"vgg: head {head!r} is neither 'linear' nor widths such as '512,512'.")
    return tuple(int(w) for w in widths)


def vgg(
    model: str = "vgg16",
    *,
    width: float = 1.0,
    head: str = "linear",
    norm: Norm = "none",
    noise: bool = False,
    norm_head: bool = False,
    norm_layers: str = "all",
    classes: int = 10,
    channels: int = 3,
    init: Initializer = glorot_uniform,
) -> nn.Sequential:
    """A VGG for images (N, 32, 32, channels) -> logits (N, classes). Not initialised yet.

    width scales the convolutions' channels; head gives the hidden linear widths ("linear": none);
    norm and noise follow every convolution, with `norm_head` hidden linear layers too;
    norm_layers="last" leaves out all norms but the last (Bjorck et al. 2018). norm: a name of NORMS
    ("l1", or another reading of the paper such as "l1-centred"), or a function channels -> Module.
    A layer whose norm has a beta has no bias: where each channel is centred its gradient would be
    zero, and so all these networks have the same parameters. (A bias would still count in layer and
    group norm, which centre several channels as one, and in the norm of l1, l2 and linf, which is
    that of values not yet centred.) Images of another size don't fit the head: five poolings leave
    one pixel.
    Raises ValueError for an unknown name, a width that leaves no channels, or instance norm after
    linear layers, which have no pixels.

    >>> net = vgg("vgg11", width=0.25, norm="batch")
    >>> sum(p.size for p in net.parameters())
    579098
    >>> own = vgg(norm=lambda channels: nn.LpBatchNorm(channels, p=1, momentum=0.01))
    """
    norm = norm_name(norm)
    choose("vgg", "model", model, VGG)
    make = maker_of("vgg", norm, NORMS)
    if not 0 < width < float("inf"):
        raise ValueError(f"vgg: width={width} must be a positive number.")
    choose("vgg", "norm_layers", norm_layers, dict.fromkeys(("all", "last")))
    hidden = hidden_widths(head)
    if norm == "instance" and norm_head and hidden:
        raise ValueError(
            "vgg: norm='instance' needs pixels; norm_head=True puts it after linear layers."
        )
    parts: dict[str, Module] = {}
    layer, stage, depth = 0, 0, channels
    last = sum(entry != "M" for entry in VGG[model]) + norm_head * len(hidden)  # that has a norm

    def norm_of(features: int) -> Module | None:
        """The norm behind the present layer."""
        stands = layer == last or (layer < last and norm_layers == "all")
        return make(features) if make is not None and stands else None

    def finish(behind: Module | None) -> None:
        if behind is not None:
            parts[f"norm{layer}"] = behind
        if noise and layer <= last:
            parts[f"noise{layer}"] = nn.Noise()
        parts[f"relu{layer}"] = nn.ReLU()

    for entry in VGG[model]:
        if entry == "M":
            stage += 1
            parts[f"pool{stage}"] = nn.MaxPool2d(2)
            continue
        layer += 1
        filters = int(int(entry) * width)
        if filters < 1:
            raise ValueError(
                f"vgg: width={width} leaves {entry}·{width} < 1 channels in layer {layer}. "
                f"Use at least {1 / int(entry):g}."
            )
        behind = norm_of(filters)
        kind: Callable[..., Module] = nn.Conv2d
        if standardises(norm):
            kind = partial(nn.WSConv2d, scaled=behind is None)
        bias = not hasattr(behind, "beta")
        parts[f"conv{layer}"] = kind(depth, filters, 3, padding=1, bias=bias, init=init)
        finish(behind)
        depth = filters
    parts["flatten"] = nn.Flatten()
    for features in hidden:
        layer += 1
        behind = norm_of(features)
        kind = nn.Linear
        if norm_head and standardises(norm):
            kind = partial(nn.WSLinear, scaled=behind is None)
        bias = not hasattr(behind, "beta")
        parts[f"linear{layer}"] = kind(depth, features, bias=bias, init=init)
        finish(behind)
        depth = features
    parts[f"linear{layer + 1}"] = nn.Linear(depth, classes, init=init)
    return nn.Sequential(**parts)


def layer_count(model: nn.Sequential) -> int:
    """How many convolutions and linear layers the network has."""
    return sum(name.startswith(("conv", "linear")) for name, _ in model.children())
