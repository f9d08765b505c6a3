"""The fast ways on a GPU: CUDA kernels behind the ops, for CuPy's arrays. See README.md."""
