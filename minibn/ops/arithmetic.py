"""Arithmetic: + - · / and powers. z̄ is the cotangent of z; x and y broadcast together.

Smooth ops also compute on complex numbers, for the complex-step derivative.
"""

from __future__ import annotations

from minibn.autograd.tape import Op, apply
from minibn.autograd.tensor import value
from minibn.ops.elementwise import log, real, select, where
from minibn.ops.precision import cast


class Add(Op):
    """z = x + y.    x̄ = z̄,   ȳ = z̄"""

    integers = "int64"
    broadcasts = True
    needs = ()

    def forward(self, x, y):
        return x + y

    def vjp(self, g, out, x, y):
        return g, g


class Subtract(Op):
    """z = x - y.    x̄ = z̄,   ȳ = -z̄"""

    integers = "int64"
    broadcasts = True
    needs = ()

    def forward(self, x, y):
        return x - y

    def vjp(self, g, out, x, y):
        return g, (-g if self.needs_input_grad[1] else None)


class Multiply(Op):
    """z = x · y.    x̄ = z̄ · y,   ȳ = z̄ · x"""

    integers = "int64"
    broadcasts = True

    def forward(self, x, y):
        return x * y

    def vjp(self, g, out, x, y):
        return (g * y if self.needs_input_grad[0] else None), (
            g * x if self.needs_input_grad[1] else None
        )


class Divide(Op):
    """z = x / y.    x̄ = z̄ / y,   ȳ = -(z̄ / y) · (x / y), never as z̄ · x / y²: y² could overflow"""

    broadcasts = True

    def forward(self, x, y):
        return x / y

    def vjp(self, g, out, x, y):
        g_x = g / y
        return g_x, (-g_x * (x / y) if self.needs_input_grad[1] else None)


class Negative(Op):
    """z = -x.    x̄ = -z̄"""

    integers = "int64"
    needs = ()

    def forward(self, x):
        return -x

    def vjp(self, g, out, x):
        return -g


class Power(Op):
    """z = x^p.    x̄ = z̄ · p · x^(p-1), and 0 where p = 0

    p̄ = z̄ · x^p · log x, and 0 where x = 0
    """

    broadcasts = True

    def forward(self, x, p):
        return x**p

    def vjp(self, g, out, x, p):
        g_x = g_p = None
        if self.needs_input_grad[0]:
            constant = real(p) == 0
            slope = p * power(x, p - 1 + constant)
            g_x = (g if constant is False else select(real(p) != 0, g)) * slope
        if self.needs_input_grad[1]:
            at_0 = real(x) == 0
            g_p = select(real(x) != 0, g) * (power(x, p) * log(where(at_0, 1, x)))
        return g_x, g_p


def add(x, y):
    """x + y, broadcast."""
    return apply(Add(), x, y)


def subtract(x, y):
    """x - y, broadcast."""
    return apply(Subtract(), x, y)


def multiply(x, y):
    """x · y, broadcast."""
    return apply(Multiply(), x, y)


def divide(x, y):
    """x / y, broadcast."""
    return apply(Divide(), x, y)


def negative(x):
    """-x"""
    return apply(Negative(), x)


def power(x, exponent):
    """x^exponent, broadcast. x > 0 if the exponent requires a gradient. Integer exponents are cast
    to the dtype of a floating-point x."""
    kinds = [getattr(getattr(value(v), "dtype", None), "kind", "") for v in (x, exponent)]
    if kinds[0] in ("f", "c") and kinds[1] in ("i", "u", "b"):
        exponent = cast(exponent, x.dtype)
    return apply(Power(), x, exponent)
