"""One row for each layer of `minibn.nn`: a strategy of layers with random weights, and inputs.

A layer becomes a function of its input *and its parameters* (`minibn.testing.layer_problem`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import nn
from minibn.backend import use
from minibn.testing.layer_problem import LayerProblem
from minibn.testing.problem import Problem
from minibn.testing.strategies import (
    Domain,
    Point,
    conv2d_problems,
    full_shapes,
    gap_separated,
    nonzero,
    norm_problems,
    points,
    pool_problems,
    positive,
    real,
)
from suite.registry import norms
from suite.registry.case import Positions, Precise, groups

Layers = st.SearchStrategy[LayerProblem]


@dataclass(frozen=True)
class LayerCase(Precise):
    """One layer, in training and in eval mode.

    problems: layers with inputs, away from every kink.
    linear: groups of the problem's inputs (0 is x), as for an op. stateful: training moves its
    buffers. draws: it is random in training, anew at each call.
    """

    problems: Layers
    linear: tuple[Positions, ...] = ()
    stateful: bool = False
    draws: bool = False

    def linear_in(self, problem: Problem) -> list[Positions]:
        return groups(self.linear, problem)


def randomise(layer: nn.Module, seed: int, training: bool) -> nn.Module:
    """The layer initialised in float64 on NumPy, with every parameter and buffer random, since a
    bias of 0 or a gamma of 1 would hide mistakes."""
    rng = np.random.default_rng((seed, 2))
    with use("numpy"):
        layer.initialize(seed, np.float64)
        for _, p in layer.named_parameters():
            p.place(nonzero(rng, p.shape))
        for name, b in layer.named_buffers():
            if not isinstance(b, nn.Counter):
                b.place((positive if name.endswith(("var", "norm")) else real)(rng, b.shape))
    return layer.train(training)


@st.composite
def layer_problems(
    draw: Any, at: st.SearchStrategy[Point], make: Callable[[Point], nn.Module]
) -> Any:
    """`make` builds the layer for a point, whose first input is the layer's."""
    point = draw(at)
    layer = randomise(make(point), point.seed, draw(st.booleans()))
    return LayerProblem(layer, point.inputs[0], point.seed)


images = st.tuples(*[st.integers(1, 3)] * 4)
rows = st.tuples(*[st.integers(1, 4)] * 2)


def of_shape(
    shape: Any, make: Callable[..., nn.Module], domain: Domain = real, **settings: Any
) -> Layers:
    """Layers of `make(x's shape, **settings)`."""
    at = points(shape, domain, **settings)
    return layer_problems(at, lambda point: make(point.inputs[0].shape, **point.settings))


def convolution(point: Point) -> nn.Conv2d:
    *size, C, F = point.inputs[1].shape
    return nn.Conv2d(C, F, (size[0], size[1]), bias=len(point.inputs) == 3, **point.settings)


def norm(kind: Callable[..., nn.Module]) -> Callable[[Point], nn.Module]:
    return lambda point: kind(point.inputs[0].shape[-1], **point.settings)


def layer_norm(kind: Callable[..., nn.Module]) -> Callable[[Point], nn.Module]:
    return lambda point: kind(point.inputs[1].shape, **point.settings)


def standardised(point: Point) -> nn.WSConv2d:
    *size, C, F = point.inputs[1].shape
    return nn.WSConv2d(
        C, F, (size[0], size[1]), scaled=point.seed % 2 == 0, eps=0.1, **point.settings
    )


def standardised_linear(
    shape: tuple[int, int], outputs: int, bias: bool, scaled: bool
) -> nn.WSLinear:
    return nn.WSLinear(shape[1], outputs, bias, scaled=scaled and bias, eps=0.1)


def has_large_filters(point: Point) -> bool:
    """Whether filters have three weights or more: two are always standardised to ±1."""
    return point.inputs[1][..., 0].size > 2


def frozen(problem: LayerProblem) -> LayerProblem:
    """The layer with its statistics fixed, as after a first batch."""
    dict(problem.layer.named_buffers())["batches"].place(np.array(1))
    return problem


def network(shape: tuple[int, ...]) -> nn.Sequential:
    """A network without kinks, whose place would be unknown."""
    _, H, W, C = shape
    return nn.Sequential(
        conv=nn.Conv2d(C, 2, (1, 2), padding=(0, 1), bias=False),
        norm=nn.BatchNorm(2, eps=0.1),
        pool=nn.AvgPool2d((1, 2), stride=1),
        flat=nn.Flatten(),
        head=nn.Linear(H * W * 2, 2),
    )


IN_X: tuple[Positions, ...] = ((0,),)
IN_X_AND_WEIGHT: tuple[Positions, ...] = ((0, 2), (1, 2))

LAYERS: dict[str, LayerCase] = {
    "AvgPool2d": LayerCase(
        layer_problems(pool_problems(padding=False), lambda p: nn.AvgPool2d(**p.settings)),
        linear=IN_X,
    ),
    "BatchNorm": LayerCase(
        layer_problems(norm_problems(), norm(nn.BatchNorm)),
        linear=((1, 2),),
        stateful=True,
        digits=3,
        half_digits=None,
    ),
    "Conv2d": LayerCase(layer_problems(conv2d_problems(), convolution), linear=IN_X_AND_WEIGHT),
    "Dropout": LayerCase(
        of_shape(
            full_shapes, lambda _, p: nn.Dropout(p), nonzero, p=st.sampled_from([0.3, 0.0, 0.75])
        ),
        linear=IN_X,
        draws=True,
    ),
    "Flatten": LayerCase(of_shape(images, lambda _: nn.Flatten()), linear=IN_X),
    "FrozenBatchNorm": LayerCase(
        layer_problems(norm_problems(), norm(nn.FrozenBatchNorm)).map(frozen), linear=((0,), (1, 2))
    ),
    "GlobalAvgPool2d": LayerCase(of_shape(images, lambda _: nn.GlobalAvgPool2d()), linear=IN_X),
    "GroupNorm": LayerCase(
        layer_problems(
            norms.group_norm_points(),
            lambda p: nn.GroupNorm(channels=p.inputs[0].shape[-1], **p.settings),
        ),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "InstanceNorm": LayerCase(
        layer_problems(norms.instance_norm_points(), norm(nn.InstanceNorm)),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "LayerNorm": LayerCase(
        layer_problems(norms.layer_norm_points(), layer_norm(nn.LayerNorm)),
        linear=((1, 2),),
        digits=3,
        half_digits=None,
    ),
    "Linear": LayerCase(
        of_shape(
            rows,
            lambda shape, outputs, bias: nn.Linear(shape[1], outputs, bias),
            nonzero,
            outputs=st.integers(1, 3),
            bias=st.booleans(),
        ),
        linear=IN_X_AND_WEIGHT,
    ),
    "LpBatchNorm": LayerCase(
        layer_problems(st.sampled_from([1, 2, np.inf]).flatmap(norms.lp_points), norms.lp_layer),
        linear=((1, 2),),
        stateful=True,
        digits=3,
        half_digits=None,
    ),
    "MaxPool2d": LayerCase(layer_problems(pool_problems(), lambda p: nn.MaxPool2d(**p.settings))),
    "Noise": LayerCase(of_shape(full_shapes, lambda _: nn.Noise()), linear=IN_X, draws=True),
    "NoisyBatchNorm": LayerCase(
        layer_problems(norm_problems(), norm(nn.NoisyBatchNorm)),
        linear=((1, 2),),
        stateful=True,
        draws=True,
        digits=3,
        half_digits=None,
    ),
    "RMSNorm": LayerCase(
        layer_problems(norms.layer_norm_points(), layer_norm(nn.RMSNorm)),
        linear=((1,),),
        digits=3,
        half_digits=None,
    ),
    "ReLU": LayerCase(of_shape(full_shapes, lambda _: nn.ReLU(), gap_separated())),
    "Sequential": LayerCase(
        of_shape(st.tuples(st.integers(2, 3), *[st.integers(1, 3)] * 3), network, gap_separated()),
        linear=((2, 3, 5), (4, 5)),  # gamma, beta and the last bias; the head
        stateful=True,
        digits=3,
        half_digits=None,
    ),
    "WSConv2d": LayerCase(
        layer_problems(conv2d_problems().filter(has_large_filters), standardised),
        linear=((0, 2), (2, 3)),  # x and the bias, the bias and the gain
        digits=3,
        half_digits=None,
    ),
    "WSLinear": LayerCase(
        of_shape(
            st.tuples(st.integers(1, 4), st.integers(3, 5)),
            standardised_linear,
            gap_separated(),  # of equal values every filter, whose mean is 0, gives 0
            outputs=st.integers(1, 3),
            bias=st.booleans(),
            scaled=st.booleans(),
        ),
        linear=((0, 2), (2, 3)),  # as above
        digits=3,
        half_digits=None,
    ),
}

NOT_DRAWN = {
    "Module": "is what layers derive from, and has no forward of its own",
    "ModuleDict": "has no forward of its own",
    "ModuleList": "has no forward of its own",
}
