"""Which CUDA kernels stand in for which ops. The first that fits wins."""

from minibn.backend.kernels import Kernel

KERNELS: dict[type, tuple[type[Kernel], ...]] = {}
