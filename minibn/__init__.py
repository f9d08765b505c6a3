"""minibn: autograd, convolution and BatchNorm in plain array code, on NumPy or CuPy.

    >>> import numpy as np, minibn
    >>> x = minibn.Tensor(np.array([[1.0, 2.0], [3.0, 6.0]]), requires_grad=True)
    >>> y = minibn.ops.batch_norm(x, np.ones(2), np.zeros(2))
    >>> y.numpy().round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]

`minibn.ops` has the mathematics, `minibn.nn` the layers, `minibn.optim` the optimizers.
"""

from importlib.util import find_spec

from minibn import errors, ops
from minibn.autograd.anomaly import detect_anomaly
from minibn.autograd.backward import grad, hvp, jacobian
from minibn.autograd.dispatch import kernels
from minibn.autograd.profiling import profile
from minibn.autograd.tape import Op, apply, no_grad
from minibn.autograd.tensor import Tensor
from minibn.backend import array_module, get_backend, to_numpy, use

__version__ = "0.1.0"
__all__ = [
    "Op", "Tensor", "apply", "array_module", "detect_anomaly", "errors", "get_backend", "grad",
    "hvp", "jacobian", "kernels", "no_grad", "ops", "profile", "to_numpy", "use",
]  # fmt: skip

if find_spec("minibn.fast"):  # the core is complete without it
    from minibn.fast.precision import precision  # `minibn.fast` plugs the kernels in

    __all__ += ["precision"]

# What to use in the place of names of NumPy's and PyTorch's.
__getattr__ = errors.missing_attribute(
    __name__,
    __all__,
    {
        "Module": "minibn.nn.Module", "load": "minibn.checkpoint.load",
        "manual_seed": "model.initialize(seed=0)", "save": "minibn.checkpoint.save",
        "set_grad_enabled": "minibn.autograd.tape.set_grad_enabled",
        "inference_mode": "minibn.no_grad", "tensor": "minibn.Tensor(values)",
        "array": "minibn.Tensor(values)", "from_numpy": "minibn.Tensor(array)",
        "nn": "import minibn.nn", "optim": "import minibn.optim",
        "ones": "minibn.Tensor(numpy.ones(shape))", "zeros": "minibn.Tensor(numpy.zeros(shape))",
        "randn": "minibn.Tensor(numpy.random.default_rng(seed).normal(size=shape))",
        "cuda": "minibn.use('cupy')",
    },
)  # fmt: skip
