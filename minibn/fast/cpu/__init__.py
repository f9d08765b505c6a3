"""Kernels for NumPy arrays, on all cores. See README.md."""
