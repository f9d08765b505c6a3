"""Kernels for NumPy arrays: the ops of a training step, on all cores. See README.md."""
