"""Mistakes outside of the formulas: broadcasting, memory, dtypes, saved arrays."""

import numpy as np

from minibn.autograd.backward import _fit
from minibn.autograd.tape import unbroadcast
from minibn.autograd.tensor import Tensor, value
from minibn.ops import arithmetic, sum
from minibn.ops import elementwise as ew
from suite.mutants.mutant import wrong

# -- broadcasting


@wrong("minibn.autograd.backward", "add", "unbroadcast")
def unbroadcast_is_missing(g, shape):
    """The gradient of what was broadcast keeps the large shape."""
    return g


@wrong("minibn.autograd.backward", "multiply", "unbroadcast")
def unbroadcast_forgets_axes_of_one(g, shape):
    """The leading axes are summed, the axes of length 1 are not."""
    return sum(g, tuple(range(g.ndim - len(shape)))) if g.ndim > len(shape) else g


@wrong("minibn.autograd.backward", "subtract", "unbroadcast")
def unbroadcast_averages(g, shape):
    """The mean over what was broadcast, where it should be the sum."""
    summed = unbroadcast(g, shape)
    return summed * (summed.size / g.size) if g.size else summed


@wrong("minibn.autograd.backward", "divide", "unbroadcast")
def unbroadcast_takes_the_first(g, shape):
    """One of the broadcast copies gets its gradient, the others are forgotten."""
    g = g[(0,) * (g.ndim - len(shape))]
    return g[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]


# -- memory


@wrong(arithmetic.Multiply, "multiply")
def the_cotangent_is_overwritten(self, g, out, x, y):
    """The gradient is right, but it is computed in the caller's array."""
    g_y = g * x
    g *= y
    return g, g_y


@wrong("minibn.autograd.backward", "add", "_own")
def two_gradients_share_their_memory(g, owned):
    """Both gradients of a sum are the cotangent itself: scale one, and the other changes."""
    return g if isinstance(g, Tensor) else Tensor.from_op(None, g)


@wrong(ew.Log, "log")
def an_input_is_overwritten(self, g, out, x):
    """The gradient is right, but 1/x is computed in place."""
    if isinstance(g, Tensor):
        return g / x
    np.divide(1, x, out=x)
    return g * x


# -- dtypes


@wrong("minibn.autograd.backward", "sqrt", "_fit")
def the_gradient_drifts_to_float64(g, x, op, position):
    """A float32 input gets a float64 gradient: some constant was no Python number."""
    g = _fit(g, x, op, position)
    return g.astype(np.float64) if g.dtype.kind == "f" else g


@wrong(ew.Sigmoid, "sigmoid", "forward")
def the_value_drifts_to_float64(self, x):
    """The value of float32 is float64, as NumPy's scalars have a dtype of their own."""
    half = np.float64(0.5)
    return half + half * np.tanh(half * x)


# -- what was saved, and when


@wrong(arithmetic.Multiply, "batch_norm_composed")
class the_layer_keeps_its_last_inputs:
    """Inputs are saved on the class: an op that is used twice differentiates its last call."""

    last_inputs: tuple = ()

    def forward(self, x, y):
        type(self).last_inputs = (x, y)
        return x * y

    def vjp(self, g, out, x, y):
        x, y = type(self).last_inputs
        return g * y, g * x


@wrong(ew.Tanh, "tanh")
def the_last_gradient_is_not_cleared(self, g, out, x):
    """Every backward pass adds to what the last one left."""
    total = g * (1 - out * out)
    last = getattr(type(self), "last", None)
    if last is not None and last.shape == total.shape:
        total = total + last
    type(self).last = value(total)
    return total


@wrong(ew.Exp, "exp")
def the_first_output_is_kept(self, g, out, x):
    """A cache whose key is the shape alone, so that later calls get the first values."""
    cache = type(self).__dict__.get("cache") or {}
    type(self).cache = cache
    return g * cache.setdefault(out.shape, value(out).copy())


@wrong(ew.Tanh, "tanh")
def two_runs_differ(self, g, out, x):
    """Sums in no fixed order: the last digits are noise."""
    noise = np.random.default_rng().standard_normal(out.shape)
    return g * (1 - out * out) * (1 + 1e-13 * noise).astype(out.dtype)
