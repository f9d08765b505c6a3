"""Kernels for NumPy arrays: the ops of a training step, on all cores. See README.md.

KERNELS maps an op's class to what may stand in for it; the first that fits wins.
"""

from minibn.backend.cpu.conv import WinogradConv2d, WinogradInputGrad, WinogradWeightGrad
from minibn.backend.kernels import Kernel
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad

KERNELS: dict[type, tuple[type[Kernel], ...]] = {
    Conv2d: (WinogradConv2d,),
    Conv2dInputGrad: (WinogradInputGrad,),
    Conv2dWeightGrad: (WinogradWeightGrad,),
}
