"""Every layer against PyTorch's, in float64: outputs, gradients of inputs and parameters, and
BatchNorm's running statistics. The weights go over by `minibn.nn.to_pytorch`."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity.torch_adapter import channels_first, close, tensor, terms_of, torch
from parity.torch_pairs import seeds, windows

from minibn import Tensor, nn
from minibn.nn import from_pytorch, to_pytorch

EXCLUDED = {
    "Dropout": "draws its own mask; ops.dropout, the function of mask and input, is compared",
    "FrozenBatchNorm": "PyTorch has none that trains gamma; it is batch_norm_inference",
    "LpBatchNorm": "PyTorch has no such layer; the op is compared with its formula",
    "Module": "the base class: computes nothing",
    "ModuleList": "a container: computes nothing",
    "ModuleDict": "a container: computes nothing",
    "Noise": "PyTorch has no such layer, and the draws would differ",
    "NoisyBatchNorm": "BatchNorm, which is compared, followed by Noise",
    "Sequential": "computes nothing itself; test_pytorch_training.py compares a network of it",
    "WSConv2d": "PyTorch has no such layer; the op is compared with its formula",
    "WSLinear": "PyTorch has no such layer; the op is compared with its formula",
}


@st.composite
def linears(draw):
    N, inputs, outputs = (draw(st.integers(1, 4)) for _ in range(3))
    biased = draw(st.booleans())
    theirs = torch.nn.Linear(inputs, outputs, bias=biased)
    return nn.Linear(inputs, outputs, bias=biased), theirs, (N, inputs)


@st.composite
def convolutions(draw):
    shape, size, stride, padding = draw(windows(most_padding=2))
    channels, biased = (shape[3], draw(st.integers(1, 3))), draw(st.booleans())
    ours = nn.Conv2d(*channels, size, stride, padding, bias=biased)
    return ours, torch.nn.Conv2d(*channels, size, stride, padding, bias=biased), shape


@st.composite
def batch_norms(draw):
    """Vectors and images; more than one value a channel, as both demand in training."""
    C, eps = draw(st.integers(1, 3)), draw(st.sampled_from([1e-5, 1e-2]))
    momentum = draw(st.sampled_from([0.1, 0.7, None]))
    lead = draw(st.sampled_from([(2,), (5,), (2, 1, 1), (3, 2, 4)]))
    kind = torch.nn.BatchNorm1d if len(lead) == 1 else torch.nn.BatchNorm2d
    ours = nn.BatchNorm(C, eps=eps, momentum=momentum)
    return ours, kind(C, eps=eps, momentum=momentum), (*lead, C)


@st.composite
def max_pools(draw):
    shape, size, stride, padding = draw(windows())
    return nn.MaxPool2d(size, stride, padding), torch.nn.MaxPool2d(size, stride, padding), shape


@st.composite
def avg_pools(draw):
    shape, size, stride, _ = draw(windows(most_padding=0))
    return nn.AvgPool2d(size, stride), torch.nn.AvgPool2d(size, stride), shape


@st.composite
def layer_norms(draw):
    """Over the channels of vectors and images, and over images as a whole."""
    shape = draw(st.sampled_from([(2, 3), (1, 5), (3, 2, 2, 4), (2, 1, 3, 2)]))
    whole, eps = len(shape) == 4 and draw(st.booleans()), draw(st.sampled_from([1e-5, 1e-2]))
    C = shape[-1]
    theirs = torch.nn.LayerNorm((C, *shape[1:3]) if whole else C, eps=eps)
    return nn.LayerNorm(shape[1:] if whole else C, eps=eps), theirs, shape


@st.composite
def rms_norms(draw):
    shape = draw(st.sampled_from([(2, 3), (1, 5), (3, 2, 2, 4), (2, 1, 3, 2)]))
    eps = draw(st.sampled_from([1e-5, 1e-2]))
    return nn.RMSNorm(shape[-1], eps=eps), torch.nn.RMSNorm(shape[-1], eps=eps), shape


@st.composite
def group_norms(draw):
    shape = draw(st.sampled_from([(2, 6), (3, 2, 2, 4), (2, 1, 3, 2)]))
    groups, eps = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1e-5, 1e-2]))
    theirs = torch.nn.GroupNorm(groups, shape[-1], eps=eps)
    return nn.GroupNorm(groups, shape[-1], eps=eps), theirs, shape


@st.composite
def instance_norms(draw):
    shape = draw(st.sampled_from([(3, 2, 2, 4), (2, 1, 3, 2)]))
    C, eps = shape[-1], draw(st.sampled_from([1e-5, 1e-2]))
    return nn.InstanceNorm(C, eps=eps), torch.nn.InstanceNorm2d(C, eps=eps, affine=True), shape


images = st.tuples(*(st.integers(1, 4) for _ in range(4)))
LAYERS = {
    "AvgPool2d": avg_pools(),
    "BatchNorm": batch_norms(),
    "Conv2d": convolutions(),
    "Flatten": images.map(lambda shape: (nn.Flatten(), torch.nn.Flatten(), shape)),
    "GlobalAvgPool2d": images.map(
        lambda shape: (
            nn.GlobalAvgPool2d(),
            torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
            shape,
        )
    ),
    "GroupNorm": group_norms(),
    "InstanceNorm": instance_norms(),
    "LayerNorm": layer_norms(),
    "Linear": linears(),
    "MaxPool2d": max_pools(),
    "RMSNorm": rms_norms(),
    "ReLU": images.map(lambda shape: (nn.ReLU(), torch.nn.ReLU(), shape)),
}


def test_every_layer_is_compared_or_said_not_to_be():
    layers = {name for name in nn.__all__ if is_layer(getattr(nn, name))}
    assert set(LAYERS).isdisjoint(EXCLUDED)
    assert set(LAYERS) | set(EXCLUDED) == layers


def is_layer(thing) -> bool:
    return inspect.isclass(thing) and issubclass(thing, nn.Module)


def in_our_layout(name, other):
    """PyTorch's layer as a function of channels-last inputs."""
    if name == "Flatten":  # what comes out has no channel axis: the order of values is compared
        return other
    if name == "GlobalAvgPool2d":
        return lambda x: other(x.movedim(-1, 1))
    if name in ("LayerNorm", "RMSNorm") and len(other.normalized_shape) == 1:
        return other  # over the last axis, as PyTorch's always are
    return channels_first(other)


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_gradients_and_statistics_agree_with_pytorch(name):
    seen = [0.0]

    @given(LAYERS[name], seeds)
    def examine(drawn, seed):
        layer, other, shape = drawn
        rng = np.random.default_rng(seed)
        layer.initialize(0, dtype=np.float64)
        for p in layer.parameters():
            p.place(rng.standard_normal(p.shape))
        other.double()
        state = to_pytorch(layer.state_dict())
        other.load_state_dict({key: tensor(array) for key, array in state.items()})
        for training in (True, True, False):
            layer.train(training), other.train(training)
            layer.zero_grad(), other.zero_grad()
            seen.append(one_pass(layer, in_our_layout(name, other), other, shape, rng))
        theirs = from_pytorch({key: t.numpy() for key, t in other.state_dict().items()})
        assert theirs.keys() == layer.state_dict().keys()
        for key, array in layer.state_dict().items():
            close(array, theirs[key], what=key)

    examine()
    assert max(seen) > 0, "all gradients were zeros"


def smallest_spread(x, eps) -> float:
    """The smallest standard deviation along an axis of x, with eps."""
    variances = [x.var(axis).min() for axis, n in enumerate(x.shape) if n > 1]
    return min(1.0, float(np.sqrt(min(variances, default=0.0) + eps)))


def one_pass(layer, theirs, other, shape, rng) -> float:
    """Forward and backward through both; returns the largest gradient of the input."""
    x = rng.standard_normal(shape) * 2 + 0.5
    a, b = Tensor(x, requires_grad=True), tensor(x).requires_grad_()
    y, other_y = layer(a), theirs(b)
    cotangent = rng.standard_normal(y.shape)
    terms = terms_of(x, cotangent, *(p.numpy() for p in layer.parameters()))
    close(y.numpy(), other_y.detach().numpy(), what="the output", terms=terms)
    y.backward(cotangent)
    other_y.backward(tensor(cotangent))
    if hasattr(layer, "eps"):  # a norm of two values divides what cancels by their spread
        terms /= smallest_spread(x, layer.eps)
    close(a.grad.numpy(), b.grad.numpy(), what="the input's gradient", terms=terms)
    expected = from_pytorch({key: p.grad.numpy() for key, p in other.named_parameters()})
    for key, p in layer.named_parameters():
        close(p.grad.numpy(), expected[key], what=f"the gradient of {key}", terms=terms)
    return float(np.abs(b.grad.numpy()).max())
