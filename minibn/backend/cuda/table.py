"""Which CUDA kernels stand in for which ops. The first that fits wins."""

from minibn.backend.cuda.conv import TiledConv2d, TiledInputGrad, TiledWeightGrad
from minibn.backend.cuda.cudnn import CudnnConv2d, CudnnInputGrad, CudnnWeightGrad
from minibn.backend.cuda.epilogue import FusedBatchNorm, FusedEpilogue
from minibn.backend.cuda.loss import WarpCrossEntropy
from minibn.backend.cuda.matmul import TiledMatMul
from minibn.backend.cuda.pool import WindowMaxPool2d
from minibn.backend.cuda.reduce import ColumnSum
from minibn.backend.cuda.running import FusedTakeIn
from minibn.backend.cuda.sgd import FusedSGD
from minibn.backend.kernels import Kernel
from minibn.backend.rounding import Rounded
from minibn.nn import norm as layers
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.epilogue import Epilogue
from minibn.ops.linalg import MatMul
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.ops.norm import BatchNorm
from minibn.ops.pool import MaxPool2d
from minibn.ops.reduce import Sum
from minibn.optim import SGD

# `Rounded` stands last: products that no kernel before it computes are rounded by hand.
KERNELS: dict[type, tuple[type[Kernel], ...]] = {
    BatchNorm: (FusedBatchNorm,),
    Conv2d: (CudnnConv2d, TiledConv2d, Rounded),
    Conv2dInputGrad: (CudnnInputGrad, TiledInputGrad, Rounded),
    Conv2dWeightGrad: (CudnnWeightGrad, TiledWeightGrad, Rounded),
    Epilogue: (FusedEpilogue,),
    MatMul: (TiledMatMul, Rounded),
    MaxPool2d: (WindowMaxPool2d,),
    SoftmaxCrossEntropy: (WarpCrossEntropy,),
    SGD: (FusedSGD,),
    Sum: (ColumnSum,),
    layers.BatchNorm: (FusedTakeIn,),
    layers.LpBatchNorm: (FusedTakeIn,),
}
