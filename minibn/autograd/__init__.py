"""Automatic differentiation: Tensors, the tape that ops leave behind them, and the walk back.

Read `tensor.py`, `tape.py`, `backward.py`, in this order. `observers.py` is how `profile` and
`detect_anomaly` watch; `dispatch.py` is where kernels plug in.
"""
