"""CUDA kernels for CuPy's arrays. See README.md."""
