"""What may stand in an attribute of a Module, and what has the place of PyTorch's methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set, ValuesView
from typing import Any

import numpy as np

from minibn.autograd.tensor import Tensor
from minibn.nn.state import State

# What to do instead of an attribute that hides a method of Module.
INSTEAD = {
    "train": "The mode is the attribute `training`; to change it, call .train() or .eval().",
    "eval": "The mode is the attribute `training`; to change it, call .train() or .eval().",
    "forward": "Define a method forward(self, x), or use another name.",
}

# What to use in the place of methods of PyTorch's.
METHODS = {
    "add_module": "setattr(model, name, layer)", "apply": "model.named_modules()",
    "bfloat16": "minibn.precision('bf16')", "buffers": "model.named_buffers()",
    "cpu": "model.state_dict()", "cuda": "minibn.use('cupy') before model.initialize",
    "double": "model.initialize(seed, dtype=numpy.float64)",
    "float": "model.initialize(seed, dtype=numpy.float32)",
    "half": "model.initialize(seed, dtype=numpy.float16)",
    "init": "model.initialize(seed=0)", "load": "model.load_state_dict, and minibn.checkpoint.load",
    "modules": "model.named_modules()", "named_children": "model.children()",
    "register_buffer": "self.name = nn.Buffer(shape)", "register_forward_hook": "model.watch(f)",
    "register_forward_pre_hook": "model.watch(f)",
    "register_module": "self.name = layer", "register_parameter": "self.name = nn.Parameter(shape)",
    "requires_grad_": "p.requires_grad = False for each of model.parameters()",
    "reset_parameters": "model.initialize(seed=0)",
    "save": "model.state_dict, and minibn.checkpoint.save",
    "to": "minibn.use('cupy') before model.initialize(seed, dtype)",
}  # fmt: skip


def parts_in_containers(
    attributes: Mapping[str, Any], module: type, containers_only: bool = True
) -> Iterator[tuple[str, Any]]:
    """(key, part) for every `module` or State inside of a list, tuple, set, deque or dict among the
    attributes, at any depth; without `containers_only` also for those that are attributes."""
    for key, held in attributes.items():
        stack, seen = [held], set()
        while stack:
            x = stack.pop()
            if isinstance(x, (module, State)) or is_trained(x):
                if x is not held or not containers_only:
                    yield key, x
            elif id(x) not in seen and _holds_objects(x):
                seen.add(id(x))
                stack.extend(x.values() if isinstance(x, Mapping) else x)


def is_trained(x: Any) -> bool:
    """Whether x is a leaf that requires a gradient."""
    return isinstance(x, Tensor) and x.requires_grad and x.is_leaf


def _holds_objects(x: Any) -> bool:
    """Whether x is a container: a list, a dict, a view of one, an array of objects, ..."""
    if isinstance(x, np.ndarray):
        return x.dtype.hasobject and x.ndim > 0
    kinds = (Sequence, Set, Mapping, ValuesView)
    return isinstance(x, kinds) and not isinstance(x, (str, bytes, bytearray, memoryview, range))
