"""The CUDA kernels of each definition. The first that fits and pays runs."""

from minibn import random
from minibn.fast.cuda.conv import TiledConv2d, TiledInputGrad, TiledWeightGrad
from minibn.fast.cuda.draws import LaunchedIntegers
from minibn.fast.cuda.fused_block import FusedBlockKernel
from minibn.fast.cuda.matmul import TiledMatMul
from minibn.fast.cuda.reduce import ColumnSum
from minibn.fast.cuda.running_statistics import FusedRunningStatistics
from minibn.fast.cuda.sgd import FusedSGD
from minibn.fast.fused_layers import FusedSequential
from minibn.fast.fused_ops import FusedBlock
from minibn.fast.kernel import KernelTable
from minibn.fast.rounding import RoundedProduct
from minibn.nn import norm as layers
from minibn.nn.sequential import Sequential
from minibn.ops.batch_normalization import BatchNorm
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.linalg import MatMul
from minibn.ops.reduce import Sum
from minibn.optim import SGD

# `RoundedProduct` is last: it rounds in software where no kernel before it fits.
KERNELS: KernelTable = {
    BatchNorm: (FusedBlockKernel,),
    Conv2d: (TiledConv2d, RoundedProduct),
    Conv2dInputGrad: (TiledInputGrad, RoundedProduct),
    Conv2dWeightGrad: (TiledWeightGrad, RoundedProduct),
    FusedBlock: (FusedBlockKernel,),
    MatMul: (TiledMatMul, RoundedProduct),
    Sum: (ColumnSum,),
    # not ops:
    SGD: (FusedSGD,),
    Sequential: (FusedSequential,),
    layers.BatchNorm: (FusedRunningStatistics,),
    layers.LpBatchNorm: (FusedRunningStatistics,),
    random.integers: (LaunchedIntegers,),
}
