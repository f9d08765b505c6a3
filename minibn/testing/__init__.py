"""Property-based gradient testing, for minibn's ops and for any other function.

    check_vjp(f, vjp, *arrays)       any function of arrays with a hand-written vjp
    check_jvp(f, jvp, *arrays)       a forward rule: jvp(primals, tangents)
    check_torch(fn, *tensors)        a module, an autograd.Function or a function of PyTorch
    check_jax(fn, *args)             a function of JAX, with its custom rules
    check_autograd(fn, *args)        a function of HIPS autograd
    check_gradients(f, *inputs)      a function of minibn's Tensors, of first and second order
    check_model(model, loss, batch)  a whole network, parameter by parameter
    check_problem(problem)           a problem drawn by a strategy

Frameworks are imported by their checks alone; the others need NumPy. `strategies`, `laws` and
`decorator` need hypothesis (`pip install 'minibn[test]'`), and are imported by their names. What
only minibn's own tests use (the registry of its ops, laws about them, machines, mutants) is in
`tests/suite/` of a checkout.
"""

from minibn.testing.adapters.autograd_functions import check_autograd
from minibn.testing.adapters.forward_rules import check_jvp
from minibn.testing.adapters.jax_functions import check_jax
from minibn.testing.adapters.torch_functions import check_torch
from minibn.testing.check import check_vjp
from minibn.testing.model import check_model
from minibn.testing.problem import Problem
from minibn.testing.report import GradientError, GradReport, InputReport, Vacuous
from minibn.testing.tensors import check_gradients, check_problem, forward_and_vjp

__all__ = [
    "GradReport", "GradientError", "InputReport", "Problem", "Vacuous", "check_autograd",
    "check_gradients", "check_jax", "check_jvp", "check_model", "check_problem", "check_torch",
    "check_vjp", "forward_and_vjp",
]  # fmt: skip
