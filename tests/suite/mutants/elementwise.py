"""Wrong derivatives of elementwise operations."""

import numpy as np

from minibn.autograd.tensor import value
from minibn.ops import arithmetic, precision
from minibn.ops import elementwise as ew
from minibn.ops.arithmetic import power
from minibn.ops.elementwise import abs, log, real, sigmoid, sign, where
from suite.mutants.mutant import wrong

# -- the formula is wrong


@wrong(ew.Exp, "exp")
def exp_gives_zeros(self, g, out, x):
    """The backward pass is not implemented yet."""
    return g * 0


@wrong(arithmetic.Negative, "negative")
def negative_keeps_the_sign(self, g, out, x):
    """The derivative of -x is taken as 1."""
    return g


@wrong(arithmetic.Subtract, "subtract")
def subtract_adds_both(self, g, out, x, y):
    """Copied from `add`: the second gradient is not negated."""
    return g, g


@wrong(arithmetic.Divide, "divide")
def divide_loses_the_minus(self, g, out, x, y):
    """The quotient rule without its minus."""
    return g / y, g * x / (y * y)


@wrong(arithmetic.Divide, "divide")
def divide_loses_the_square(self, g, out, x, y):
    """The quotient rule with y for y²."""
    return g / y, -g * x / y


@wrong(arithmetic.Multiply, "multiply")
def multiply_swaps_its_gradients(self, g, out, x, y):
    """Each factor gets itself instead of the other one."""
    return g * x, g * y


@wrong(ew.Sqrt, "sqrt")
def sqrt_loses_the_half(self, g, out, x):
    """1/z for 1/2z."""
    return g / out


@wrong(ew.Tanh, "tanh")
def tanh_loses_the_square(self, g, out, x):
    """1 - z for 1 - z²."""
    return g * (1 - out)


@wrong(ew.Sigmoid, "sigmoid")
def sigmoid_applied_twice(self, g, out, x):
    """The derivative is evaluated at the output instead of x."""
    s = sigmoid(out)
    return g * s * (1 - s)


@wrong(ew.Log, "log")
def log_of_base_ten(self, g, out, x):
    """The derivative of another logarithm."""
    return g / (x * np.log(10.0).item())


@wrong(arithmetic.Power, "power")
def power_keeps_its_exponent(self, g, out, x, p):
    """p xᵖ for p xᵖ⁻¹."""
    return g * p * power(x, p), None


@wrong(arithmetic.Power, "power, of two variables")
def power_loses_the_logarithm(self, g, out, x, p):
    """Right in the base; the gradient of the exponent lacks log x."""
    return g * p * power(x, p - 1), g * out


@wrong(ew.Maximum, "maximum")
def maximum_pays_the_loser(self, g, out, x, y):
    """The gradient goes to the smaller one."""
    to_y = (real(x) > real(y)).astype(real(g).dtype)
    return g * (1 - to_y), g * to_y


@wrong(ew.Where, "where")
def where_forgets_to_invert(self, g, out, x, y):
    """The other branch gets the mask, too, instead of its complement."""
    return g * self.mask, g * self.mask


@wrong(arithmetic.Multiply, "dropout")
def dropout_loses_its_scale(self, g, out, x, y):
    """Values that are not dropped get g instead of g / (1-p)."""
    return g * (real(y) != 0), None


# -- nearly right


@wrong(ew.Tanh, "tanh")
def tanh_is_one_percent_high(self, g, out, x):
    """The gradient times 1.01."""
    return g * (1 - out * out) * 1.01


@wrong(ew.Sigmoid, "sigmoid")
def sigmoid_is_one_percent_low(self, g, out, x):
    """The gradient times 0.99."""
    return g * out * (1 - out) * 0.99


@wrong(ew.Exp, "exp")
def exp_is_a_millionth_high(self, g, out, x):
    """The gradient times 1.000001: a constant that was typed with six digits."""
    return g * out * 1.000001


@wrong(ew.Log, "log")
def log_guards_against_zero(self, g, out, x):
    """1 / (x + 1e-6): a guard that the forward pass does not have."""
    return g / (x + 1e-6)


@wrong(precision.Cast, "cast")
def cast_through_single_precision(self, g, out, x):
    """A float64 gradient makes a detour through float32."""
    return g.astype(np.float32).astype(x.dtype)


# -- wrong in part of the domain


@wrong(ew.Abs, "abs")
def abs_of_positive_numbers(self, g, out, x):
    """Wrong only for negative values: the derivative is 1."""
    return g


@wrong(arithmetic.Power, "power")
def power_of_positive_numbers(self, g, out, x, p):
    """Wrong only for negative values: p |x|ᵖ⁻¹."""
    return g * p * power(abs(x), p - 1), None


@wrong(ew.Relu, "relu")
def relu_leaks(self, g, out, x):
    """Wrong only for negative values: 0.01 instead of 0."""
    return where(real(out) > 0, g, 0.01 * g)


@wrong(ew.Sigmoid, "sigmoid")
def sigmoid_saturates_too_soon(self, g, out, x):
    """Wrong only where |x| > 3: there the gradient is taken as 0."""
    return where(abs(real(x)) < 3, g * out * (1 - out), 0 * g)


@wrong(ew.Exp, "exp")
def exp_has_a_short_cut_for_one_value(self, g, out, x):
    """Wrong only at size 1: the short cut forgets the cotangent."""
    return out * 1 if out.size == 1 else g * out


@wrong(ew.Relu, "relu", kink=True)
def relu_counts_zero(self, g, out, x):
    """Wrong only at 0: the derivative there is 1."""
    return where(real(x) >= 0, g, 0 * g)


@wrong(ew.Abs, "abs", kink=True)
def abs_rises_at_zero(self, g, out, x):
    """Wrong only at 0: the derivative there is 1."""
    return where(real(x) >= 0, g, -g)


@wrong(ew.Maximum, "maximum", kink=True)
def maximum_counts_a_tie_twice(self, g, out, x, y):
    """Wrong only at ties: both get the whole gradient."""
    return g * (real(x) >= real(y)), g * (real(y) >= real(x))


# -- wrong in the cotangent


@wrong(arithmetic.Multiply, "multiply")
def multiply_ignores_the_cotangent(self, g, out, x, y):
    """The local derivative is returned, and g forgotten. Right wherever g is 1."""
    return y + 0 * g, x + 0 * g


@wrong(ew.Relu, "relu")
def relu_passes_what_is_positive(self, g, out, x):
    """The gate looks at the cotangent, too ('guided backpropagation'). Right wherever g is 1."""
    return where((real(out) > 0) & (real(g) > 0), g, 0 * g)


@wrong(ew.Exp, "exp")
def exp_clips_its_cotangent(self, g, out, x):
    """Gradient clipping that stayed in an op: not linear in g. Right wherever g is 1."""
    return where(abs(real(g)) <= 1, g, sign(g) + 0 * g) * out


# -- right at first order, wrong when it is differentiated


@wrong(ew.Tanh, "tanh", order=2)
def tanh_detaches_its_output(self, g, out, x):
    """The saved output is a constant of the second derivative."""
    return g * (1 - value(out) ** 2)


@wrong(arithmetic.Multiply, "multiply", order=2)
def multiply_detaches_a_factor(self, g, out, x, y):
    """The saved y is a constant of the second derivative."""
    return g * value(y), g * x


@wrong(arithmetic.Power, "power, of two variables", order=2)
def power_detaches_its_logarithm(self, g, out, x, p):
    """log x is a constant of the second derivative."""
    return g * p * power(x, p - 1), g * power(x, p) * log(value(x))


# -- clip and softplus


@wrong(ew.Softplus, "softplus")
def softplus_is_taken_for_relu(self, g, out, x):
    """The slope of the function that it smooths."""
    return g * (value(x) > 0)


@wrong(ew.Where, "clip")
def clip_is_straight_through(self, g, out, x, y):
    """The gradient passes as if nothing was clipped ('straight-through estimator')."""
    return g * self.mask, g


@wrong(ew.Where, "clip, to variables")
def clip_forgets_its_bound(self, g, out, x, y):
    """The bound gets no gradient."""
    return 0 * g, g * ~self.mask
