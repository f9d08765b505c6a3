"""Layers: parameters, and one call into `minibn.ops` each.

model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).initialize(seed=0)
"""

from minibn.nn import init
from minibn.nn.layer_norm import (
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    WSConv2d,
    WSLinear,
)
from minibn.nn.layers import AvgPool2d, Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, ReLU
from minibn.nn.model_summary import summary
from minibn.nn.module import Module
from minibn.nn.noise import Dropout, Noise
from minibn.nn.norm import (
    BatchNorm,
    FrozenBatchNorm,
    LpBatchNorm,
    NoisyBatchNorm,
    reestimate_statistics,
)
from minibn.nn.pytorch import from_pytorch, to_pytorch
from minibn.nn.sequential import ModuleDict, ModuleList, Sequential
from minibn.nn.state import Buffer, Counter, Parameter

__all__ = [
    "AvgPool2d", "BatchNorm", "Buffer", "Conv2d", "Counter", "Dropout", "Flatten",
    "FrozenBatchNorm", "GlobalAvgPool2d", "GroupNorm", "InstanceNorm", "LayerNorm", "Linear",
    "LpBatchNorm", "MaxPool2d", "Module", "ModuleDict", "ModuleList", "Noise", "NoisyBatchNorm",
    "Parameter", "RMSNorm", "ReLU", "Sequential", "WSConv2d", "WSLinear",
    "from_pytorch", "init", "reestimate_statistics", "summary", "to_pytorch",
]  # fmt: skip
