"""Automatic differentiation: Tensors, the tape of recorded ops, and the backward pass.

Read `tensor.py`, `tape.py`, `backward.py`, in this order. `observers.py` has the hooks of
`profile` and `detect_anomaly`; `dispatch.py` is where kernels are registered.
"""
