"""Kernels for NumPy arrays: the ops of a training step, on all cores. See README.md.

KERNELS maps an op's class to what may stand in for it; the first that fits wins.
"""

from minibn.backend.kernels import Kernel

KERNELS: dict[type, tuple[type[Kernel], ...]] = {}
