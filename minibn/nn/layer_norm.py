"""Norms over each example, and over filters: no running statistics, the same in training and
evaluation. The axes of their statistics are a table in `minibn.ops.layer_normalization`.
"""

from __future__ import annotations

import math
from typing import Any

from minibn import ops
from minibn.errors import check_flag, check_integer, check_real, with_own_keywords
from minibn.nn.layers import Conv2d, Linear
from minibn.nn.module import Module
from minibn.nn.state import Parameter, ones, zeros
from minibn.ops.batch_normalization import check_eps

Shape = int | tuple[int, ...]


def shape_of(shape: Shape) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def check_axes(axes: Any, who: str) -> Any:
    """The setting `axes`. Raises ValueError for a word other than "example"."""
    if isinstance(axes, str) and axes != "example":
        raise ValueError(f"{who}: axes={axes!r}; they are None, 'example', or numbers of axes.")
    return axes


class LayerNorm(Module):
    """Normalise each example over its features (Ba, Kiros & Hinton 2016).

    shape: of the last axes of x, and of gamma and beta. axes: of the statistics, by default those
    of `shape`, as in PyTorch: `LayerNorm(C)` normalises each pixel over its channels,
    `LayerNorm((H, W, C))` an image, with as many gammas. `LayerNorm(C, axes="example")` normalises
    the image as a whole, with a gamma for each channel: the layer norm of convolutional networks
    (Wu & He 2018). Raises ShapeError for another shape, or a single value to normalise.

    >>> import numpy as np
    >>> norm = LayerNorm(2).initialize(0)
    >>> norm(np.array([[1, 3], [10, 30]], np.float32)).numpy().round(3).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """

    @with_own_keywords
    def __init__(self, shape: Shape, *, axes: Any = None, eps: float = 1e-5) -> None:
        eps = check_eps("LayerNorm", eps)
        self.axes, self.eps = check_axes(axes, "LayerNorm"), eps
        self.gamma = Parameter(shape_of(shape), ones)
        self.beta = Parameter(shape_of(shape), zeros)

    def forward(self, x: Any) -> Any:
        return ops.layer_norm(x, self.gamma, self.beta, axes=self.axes, eps=self.eps)


class RMSNorm(Module):
    """Divide each example by its root mean square (Zhang & Sennrich 2019): no mean, no beta.

    shape, axes: as in LayerNorm. eps is 1e-5 as in other norms; PyTorch's default is the dtype's.
    """

    @with_own_keywords
    def __init__(self, shape: Shape, *, axes: Any = None, eps: float = 1e-5) -> None:
        eps = check_eps("RMSNorm", eps)
        self.axes, self.eps = check_axes(axes, "RMSNorm"), eps
        self.gamma = Parameter(shape_of(shape), ones)

    def forward(self, x: Any) -> Any:
        return ops.rms_norm(x, self.gamma, axes=self.axes, eps=self.eps)


class GroupNorm(Module):
    """Normalise groups of neighbouring channels of each example over the pixels (Wu & He 2018).

    x (N, ..., C), images or vectors. Raises ValueError unless channels is a multiple of groups,
    ShapeError where a group has a single value.
    """

    @with_own_keywords
    def __init__(self, groups: int, channels: int, *, eps: float = 1e-5) -> None:
        groups = check_integer(groups, "GroupNorm: groups")
        channels = check_integer(channels, "GroupNorm: channels")
        if groups < 1 or channels % groups:
            raise ValueError(
                f"GroupNorm: {channels} channels can't be cut into groups={groups} equal ones."
            )
        eps = check_eps("GroupNorm", eps)
        self.groups, self.eps = groups, eps
        self.gamma = Parameter((channels,), ones)
        self.beta = Parameter((channels,), zeros)

    def forward(self, x: Any) -> Any:
        return ops.group_norm(x, self.gamma, self.beta, groups=self.groups, eps=self.eps)


class InstanceNorm(Module):
    """Normalise each channel of each example over its pixels (Ulyanov et al. 2016).

    x (N, ..., C). The same in training and evaluation. Raises ShapeError for images of one pixel,
    and for vectors.
    """

    @with_own_keywords
    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        eps = check_eps("InstanceNorm", eps)
        self.eps = eps
        self.gamma = Parameter((channels,), ones)
        self.beta = Parameter((channels,), zeros)

    def forward(self, x: Any) -> Any:
        return ops.instance_norm(x, self.gamma, self.beta, eps=self.eps)


# Var relu(z) = (1 - 1/π) / 2 for z ~ N(0, 1): with this gain it is 1.
RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))


def standardise_filters(weight: Any, gain: Any, factor: float, eps: float) -> Any:
    """Each of the filters (..., F) with mean 0 and variance 1; with a gain (F,), times
    gain · factor / √fan-in."""
    if gain is not None:
        fan_in = weight.size // weight.shape[-1]
        gain = gain * (factor / math.sqrt(fan_in))
    return ops.weight_standardisation(weight, 1.0 if gain is None else gain, eps=eps)


class WSConv2d(Conv2d):
    """A convolution whose filters are standardised: mean 0 and variance 1 each (Qiao et al. 2019).

    Such filters are large, so a norm must follow. Not with `scaled` (Brock et al. 2021): each is
    divided by √fan-in and multiplied by `factor`, which depends on the nonlinearity that follows
    (by default √(2/(1 - 1/π)) for the ReLU; 1 for none), and by a trained gain.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        size: int | tuple[int, int],
        *settings: Any,
        scaled: bool = False,
        factor: float = RELU_GAIN,
        eps: float = 1e-5,
        **more: Any,
    ) -> None:
        super().__init__(channels, filters, size, *settings, **more)
        self.eps = check_eps("WSConv2d", eps)
        self.factor = check_real(factor, "WSConv2d: factor")
        if not math.isfinite(self.factor):
            raise ValueError(f"WSConv2d: factor={factor} must be finite.")
        self.gain = Parameter((filters,), ones) if check_flag(scaled, "WSConv2d: scaled") else None

    def filters(self) -> Any:
        """The standardised filters (Kh, Kw, C, F)."""
        return standardise_filters(self.weight, self.gain, self.factor, self.eps)

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.filters(), self.bias, stride=self.stride, padding=self.padding)


class WSLinear(Linear):
    """y = x Ŵ + b with standardised columns of weights: WSConv2d for vectors, with its options.

    x (N, inputs) -> (N, outputs). Law: y is invariant to the mean of an example's inputs. Raises
    ShapeError for a single input, whose weight has no variance.

    >>> import numpy as np
    >>> y = WSLinear(3, 2).initialize(seed=0)(np.ones((4, 3), np.float32))
    >>> bool(abs(y.numpy()).max() < 1e-6)
    True
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *settings: Any,
        scaled: bool = False,
        factor: float = RELU_GAIN,
        eps: float = 1e-5,
        **more: Any,
    ) -> None:
        super().__init__(inputs, outputs, *settings, **more)
        self.eps = check_eps("WSLinear", eps)
        self.factor = check_real(factor, "WSLinear: factor")
        if not math.isfinite(self.factor):
            raise ValueError(f"WSLinear: factor={factor} must be finite.")
        self.gain = Parameter((outputs,), ones) if check_flag(scaled, "WSLinear: scaled") else None

    def filters(self) -> Any:
        """The standardised weights (inputs, outputs)."""
        return standardise_filters(self.weight, self.gain, self.factor, self.eps)

    def forward(self, x: Any) -> Any:
        return self.affine(x, self.filters())
