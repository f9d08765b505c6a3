"""The kernels of each definition. The first that fits and pays runs.

`round_before(kernel)` comes first, and fits if factors are to be rounded: see `minibn.precision`.
"""

from minibn import random
from minibn.fast.cpu.conv import WinogradConv2d, WinogradInputGrad, WinogradWeightGrad
from minibn.fast.cpu.draws import BlockedUniforms, BlockedUniformsAndNormals
from minibn.fast.cpu.elementwise import PiecewiseUpdate
from minibn.fast.cpu.fused_block import FusedBlockKernel
from minibn.fast.cpu.fused_conv_block import FusedConvBlockKernel
from minibn.fast.cpu.im2col import Im2colConv2d, Im2colInputGrad, Im2colWeightGrad
from minibn.fast.cpu.layer_norm import FusedExampleNorm
from minibn.fast.cpu.loss import RowwiseCrossEntropy
from minibn.fast.cpu.lp_norm import FusedLpBatchNorm
from minibn.fast.cpu.matmul import ThreadedMatMul
from minibn.fast.cpu.pool import TiledMaxPool2d
from minibn.fast.fused_layers import FusedSequential
from minibn.fast.fused_ops import FusedBlock, FusedConvBlock
from minibn.fast.kernel import KernelTable
from minibn.fast.rounding import round_before
from minibn.nn.sequential import Sequential
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.layer_normalization import LayerNorm, RmsNorm
from minibn.ops.linalg import MatMul
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.ops.lp_normalization import LpBatchNorm
from minibn.ops.pool import MaxPool2d
from minibn.optim import SGD, Adam

KERNELS: KernelTable = {
    Conv2d: (round_before(Im2colConv2d), WinogradConv2d, Im2colConv2d),
    Conv2dInputGrad: (round_before(Im2colInputGrad), WinogradInputGrad, Im2colInputGrad),
    Conv2dWeightGrad: (round_before(Im2colWeightGrad), WinogradWeightGrad, Im2colWeightGrad),
    FusedConvBlock: (FusedConvBlockKernel,),
    FusedBlock: (FusedBlockKernel,),
    LayerNorm: (FusedExampleNorm,),
    LpBatchNorm: (FusedLpBatchNorm,),
    MatMul: (round_before(ThreadedMatMul), ThreadedMatMul),
    MaxPool2d: (TiledMaxPool2d,),
    RmsNorm: (FusedExampleNorm,),
    SoftmaxCrossEntropy: (RowwiseCrossEntropy,),
    # not ops:
    Adam: (PiecewiseUpdate,),
    SGD: (PiecewiseUpdate,),
    Sequential: (FusedSequential,),
    random.uniforms: (BlockedUniforms,),
    random.uniforms_and_normals: (BlockedUniformsAndNormals,),
}
