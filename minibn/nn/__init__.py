"""Layers: parameters, and one call into `minibn.ops` each.

model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).initialize(seed=0)
"""

from minibn.errors import missing_attribute
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

# What to use in the place of classes of PyTorch's.
__getattr__ = missing_attribute(
    __name__,
    __all__,
    {
        **{f"BatchNorm{n}d": "nn.BatchNorm(channels), for images and vectors" for n in "123"},
        **{f"InstanceNorm{n}d": "nn.InstanceNorm(channels)" for n in "123"},
        "AdaptiveAvgPool2d": "nn.GlobalAvgPool2d()", "Conv1d": "nn.Conv2d, with a size of (1, k)",
        "CrossEntropyLoss": "ops.softmax_cross_entropy(logits, labels)",
        "Dropout2d": "nn.Dropout(p)", "functional": "minibn.ops",
        "Identity": "a Module whose forward returns x, or an empty nn.Sequential()",
        "LogSoftmax": "ops.log_softmax(x)", "MSELoss": "ops.mse(x, target)",
        "NLLLoss": "ops.softmax_cross_entropy(logits, labels)",
        "ParameterDict": "attributes of their own",
        "ParameterList": "attributes of their own", "Sigmoid": "ops.sigmoid(x)",
        "Softmax": "ops.softmax(x)", "Softplus": "ops.softplus(x)", "Tanh": "ops.tanh(x)",
        "utils": "optim.clip_grad_norm",
    },
)  # fmt: skip
