"""A batch of no images: the shapes of any other batch and gradients of zero, as in PyTorch; or a
clear error from statistics that have nothing to average."""

import numpy as np
import pytest

from minibn import Tensor, kernels, nn, ops
from minibn.errors import ShapeError
from reference_models.norms import NORMS
from reference_models.vgg import vgg

IMAGE, VECTOR = (4, 4, 6), (6,)
LAYERS = {
    "AvgPool2d": (lambda: nn.AvgPool2d(2), IMAGE),
    "BatchNorm": (lambda: nn.BatchNorm(6), IMAGE),
    "Conv2d": (lambda: nn.Conv2d(6, 5, 3, padding=1), IMAGE),
    "Dropout": (lambda: nn.Dropout(0.5), VECTOR),
    "Flatten": (lambda: nn.Flatten(), IMAGE),
    "FrozenBatchNorm": (lambda: nn.FrozenBatchNorm(6), IMAGE),
    "GlobalAvgPool2d": (lambda: nn.GlobalAvgPool2d(), IMAGE),
    "GroupNorm": (lambda: nn.GroupNorm(3, 6), IMAGE),
    "InstanceNorm": (lambda: nn.InstanceNorm(6), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm(6), VECTOR),
    "Linear": (lambda: nn.Linear(6, 5), VECTOR),
    "LpBatchNorm": (lambda: nn.LpBatchNorm(6, p=1), IMAGE),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "Noise": (lambda: nn.Noise(), VECTOR),
    "NoisyBatchNorm": (lambda: nn.NoisyBatchNorm(6), IMAGE),
    "RMSNorm": (lambda: nn.RMSNorm(6), VECTOR),
    "ReLU": (lambda: nn.ReLU(), IMAGE),
    "Sequential": (
        lambda: nn.Sequential(nn.Conv2d(6, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)),
        IMAGE,
    ),
    "WSConv2d": (lambda: nn.WSConv2d(6, 5, 3), IMAGE),
    "WSLinear": (lambda: nn.WSLinear(6, 5), VECTOR),
}
ABSTRACT = {"Module", "ModuleList", "ModuleDict", "Parameter", "Buffer", "Counter"}
NEED_A_BATCH = {"BatchNorm", "FrozenBatchNorm", "LpBatchNorm", "NoisyBatchNorm"}  # in training


def test_every_layer_is_tried() -> None:
    layers = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    assert layers - ABSTRACT == set(LAYERS)


@pytest.mark.parametrize("choice", ["reference", "fast"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_has_the_shapes_of_any_other_and_gradients_of_zero(
    name: str, training: bool, choice: str
) -> None:
    make, shape = LAYERS[name]
    layer = make().initialize(0)
    layer.train(training)
    before = {key: np.copy(value) for key, value in layer.state_dict().items()}
    x = Tensor(np.zeros((0, *shape), np.float32), requires_grad=True)
    with kernels(choice):
        if training and name in NEED_A_BATCH:
            with pytest.raises(ShapeError, match="Use a larger batch, or eval mode"):
                layer(x)
        else:
            y = layer(x)
            ops.sum(y * y).backward()
            assert x.grad is not None and x.grad.shape == x.shape
            for p in layer.parameters():
                assert p.grad is not None and p.grad.shape == p.shape
                assert not np.any(p.grad.numpy())
            layer.eval()
            full = layer(np.zeros((2, *shape), np.float32))
            assert y.shape == (0, *full.shape[1:]) and y.dtype == full.dtype
    after = layer.state_dict()
    if not any("step" in key for key in before):  # a layer of noise counts its steps
        assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("choice", ["reference", "fast"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_evaluates_an_empty_batch(norm: str, choice: str) -> None:
    model = vgg("vgg11", norm=norm, width=0.0625).initialize(0).eval()
    with kernels(choice):
        assert model(np.zeros((0, 32, 32, 3), np.float32)).shape == (0, 10)
