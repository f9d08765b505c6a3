"""Doctests are collected by importing; PyTorch's side can't be imported without PyTorch."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("torch") else ["pytorch.py", "pytorch_gpu.py"]
