"""Which kernels stand in for which ops. The first that fits wins.

`over(kernel)` stands before all others and fits where factors are to be rounded: see
`minibn.precision`.
"""

from minibn.backend.cpu.conv import WinogradConv2d, WinogradInputGrad, WinogradWeightGrad
from minibn.backend.cpu.epilogue import FusedEpilogue
from minibn.backend.cpu.im2col import Im2colConv2d, Im2colInputGrad, Im2colWeightGrad
from minibn.backend.cpu.layer import FusedLayer
from minibn.backend.cpu.layer_norm import FusedExampleNorm
from minibn.backend.cpu.loss import RowwiseCrossEntropy
from minibn.backend.cpu.lp_norm import FusedLpBatchNorm
from minibn.backend.cpu.matmul import ThreadedMatMul
from minibn.backend.cpu.pool import TiledMaxPool2d
from minibn.backend.kernels import Kernel
from minibn.backend.rounding import over
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.epilogue import ConvEpilogue, Epilogue
from minibn.ops.layer_norm import LayerNorm, RmsNorm
from minibn.ops.linalg import MatMul
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.ops.lp_norm import LpBatchNorm
from minibn.ops.pool import MaxPool2d

KERNELS: dict[type, tuple[type[Kernel], ...]] = {
    Conv2d: (over(Im2colConv2d), WinogradConv2d, Im2colConv2d),
    Conv2dInputGrad: (over(Im2colInputGrad), WinogradInputGrad, Im2colInputGrad),
    Conv2dWeightGrad: (over(Im2colWeightGrad), WinogradWeightGrad, Im2colWeightGrad),
    ConvEpilogue: (FusedLayer,),
    Epilogue: (FusedEpilogue,),
    LayerNorm: (FusedExampleNorm,),
    LpBatchNorm: (FusedLpBatchNorm,),
    MatMul: (over(ThreadedMatMul), ThreadedMatMul),
    MaxPool2d: (TiledMaxPool2d,),
    RmsNorm: (FusedExampleNorm,),
    SoftmaxCrossEntropy: (RowwiseCrossEntropy,),
}
