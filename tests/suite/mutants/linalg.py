"""Wrong derivatives of matrix products."""

from minibn.autograd.tensor import value
from minibn.ops import linalg
from minibn.ops.linalg import swap
from minibn.ops.shape import reshape, transpose
from suite.mutants.mutant import wrong


@wrong(linalg.MatMul, "matmul")
def matmul_reshapes_for_a_transpose(self, g, out, x, y):
    """The shape is right, the order of the values is not."""
    return g @ reshape(y, swap(y).shape), swap(x) @ g


@wrong(linalg.MatMul, "matmul")
def matmul_forgets_to_transpose(self, g, out, x, y):
    """Ȳ = X Z̄ for Xᵀ Z̄: an error unless X is square."""
    return g @ swap(y), x @ g


@wrong(linalg.MatMul, "matmul")
def matmul_transposes_every_axis(self, g, out, x, y):
    """All axes are reversed, not the last two exchanged. A single matrix never shows it."""
    return g @ transpose(y), transpose(x) @ g


@wrong(linalg.MatMul, "matmul")
def matmul_averages_over_rows(self, g, out, x, y):
    """The gradient of the weights is a mean over the batch: the loss has divided already."""
    return g @ swap(y), swap(x) @ g * (1 / x.shape[-2])


@wrong(linalg.MatMul, "matmul")
def matmul_keeps_the_last_of_a_stack(self, g, out, x, y):
    """A matrix that serves a stack of others gets the gradient of the last product only."""
    g_x, g_y = g @ swap(y), swap(x) @ g
    return tuple(d[(-1,) * (d.ndim - 2)] if of.ndim == 2 else d for d, of in ((g_x, x), (g_y, y)))


@wrong(linalg.MatMul, "matmul", order=2)
def matmul_detaches_x(self, g, out, x, y):
    """X is a constant of the second derivative."""
    return g @ swap(y), swap(value(x)) @ g
