"""Elementwise functions. z̄ is the cotangent of z; x and y broadcast together where there are two.

Conventions at kinks: relu'(0) = 0, |·|'(0) = 0, and a tie in `maximum` is shared equally.
Where such a derivative is 0, the cotangent is replaced by 0, not multiplied: it may be infinite, as
in √relu(x).

Comparisons use the real part, so that the smooth pieces of each op also compute on complex numbers,
for the complex-step derivative.
"""

from __future__ import annotations

from typing import Any

from minibn.autograd.tape import Op, apply, check_operands
from minibn.autograd.tensor import Tensor, value
from minibn.backend import array_module, backend_of
from minibn.errors import ShapeError, check_real, with_own_keywords


def real(x: Any) -> Any:
    """The real part, as a plain array, for comparisons."""
    return getattr(value(x), "real", x)


def select(mask: Any, g: Any) -> Any:
    """g where the boolean mask is set, else 0, also where g is infinite: for cotangents."""
    if isinstance(mask, bool):  # the same everywhere
        mask = array_module(g).full(g.shape, mask)
    if isinstance(g, Tensor):
        return where(mask, g, 0)
    return array_module(g).where(mask, g, 0)


class Exp(Op):
    """z = eˣ.    x̄ = z̄ · z"""

    needs = ()
    needs_output = True

    def forward(self, x):
        return array_module(x).exp(x)

    def vjp(self, g, out, x):
        return g * out


class Log(Op):
    """z = log x (natural).    x̄ = z̄ / x"""

    def forward(self, x):
        return array_module(x).log(x)

    def vjp(self, g, out, x):
        return g / x


class Sqrt(Op):
    """z = √x.    x̄ = z̄ / 2z, which is infinite at 0"""

    needs = ()
    needs_output = True

    def forward(self, x):
        return array_module(x).sqrt(x)

    def vjp(self, g, out, x):
        return g * 0.5 / out


class Abs(Op):
    """z = |x|.    x̄ = z̄ · sign(x), and sign(0) = 0"""

    integers = "int64"

    def forward(self, x):
        return x * sign(x) + 0  # + 0: |-0| is 0, not -0

    def vjp(self, g, out, x):
        return select(real(x) != 0, g) * sign(x)


class Tanh(Op):
    """z = tanh x.    x̄ = z̄ · (1 - z²)"""

    needs = ()
    needs_output = True

    def forward(self, x):
        return array_module(x).tanh(x)

    def vjp(self, g, out, x):
        return g * (1 - out * out)


class Sigmoid(Op):
    """z = 1 / (1 + e⁻ˣ), for negative x as eˣ / (1 + eˣ): no overflow, and small values keep their
    digits.    x̄ = z̄ · z (1 - z)"""

    needs = ()
    needs_output = True

    def forward(self, x):
        xp = array_module(x)
        negative = real(x) < 0
        t = xp.exp(xp.where(negative, x, -x))  # at most 1
        return xp.where(negative, t, xp.ones_like(t)) / (1 + t)

    def vjp(self, g, out, x):
        return g * out * (1 - out)


class Softplus(Op):
    """z = log(1 + eˣ), as max(x, 0) + log(1 + e⁻|x|): no overflow.    x̄ = z̄ / (1 + e⁻ˣ)"""

    def forward(self, x):
        xp = array_module(x)
        positive = real(x) > 0
        t = xp.log1p(xp.exp(xp.where(positive, -x, x)))
        return xp.where(positive, x + t, t)

    def vjp(self, g, out, x):
        return g * sigmoid(x)


class Relu(Op):
    """z = max(x, 0).    x̄ = z̄ where z > 0, else 0: the derivative at 0 is taken as 0"""

    integers = "kept"
    needs = ()
    needs_output = True

    def forward(self, x):
        return array_module(x).maximum(x, 0)

    def vjp(self, g, out, x):
        return select(real(out) > 0, g)


class Maximum(Op):
    """z = max(x, y), and NaN where either is.    The larger gets z̄; where x = y each gets half"""

    integers = "int64"
    broadcasts = True

    def forward(self, x, y):
        xp = array_module(x, y)
        return xp.where((real(x) >= real(y)) | (real(x) != real(x)), x, y)

    def vjp(self, g, out, x, y):
        share = where(real(x) == real(y), 0.5 * g, g)
        return select(~(real(x) < real(y)), share), select(~(real(x) > real(y)), share)


class Where(Op):
    """z = x where the mask is set, else y.    x̄ = z̄ where it is, else 0,   ȳ = z̄ where not"""

    integers = "kept"
    broadcasts = True
    needs = ()

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def forward(self, x, y):
        return array_module(self.mask, x, y).where(self.mask, x, y)

    def vjp(self, g, out, x, y):
        return select(self.mask, g), select(~self.mask, g)


def exp(x):
    """eˣ"""
    return apply(Exp(), x)


def log(x):
    """The natural logarithm; x > 0."""
    return apply(Log(), x)


def sqrt(x):
    """√x; the derivative at 0 is infinite."""
    return apply(Sqrt(), x)


def abs(x):
    """|x|, with derivative 0 at 0."""
    return apply(Abs(), x)


def sign(x):
    """-1, 0 or 1 as a plain array of x's dtype: a constant of differentiation."""
    x = value(x)
    check_operands([x])
    return array_module(x).sign(x.real).astype(x.real.dtype)


def tanh(x):
    """The hyperbolic tangent."""
    return apply(Tanh(), x)


def sigmoid(x):
    """1 / (1 + e⁻ˣ), without overflow."""
    return apply(Sigmoid(), x)


def softplus(x):
    """log(1 + eˣ), a smooth relu, without overflow."""
    return apply(Softplus(), x)


def relu(x):
    """max(x, 0), with derivative 0 at 0."""
    return apply(Relu(), x)


def maximum(x, y):
    """The larger of x and y, broadcast; a tie shares the gradient equally."""
    return apply(Maximum(), x, y)


def where(mask, x, y):
    """x where the boolean `mask` is set, else y; all three broadcast. Raises TypeError for
    a mask of another dtype."""
    mask = value(mask)
    if not hasattr(mask, "dtype"):
        mask = backend_of(value(x), value(y)).asarray(mask)
    array_module(mask)  # raises for the array of another library
    if mask.dtype.kind != "b":
        raise TypeError(f"where: the mask has dtype {mask.dtype}; it is boolean. Compare: x != 0.")
    return apply(Where(mask), x, y)


@with_own_keywords
def clip(x, min=None, max=None):
    """x, but `min` where it is smaller, then `max` where it is larger; None: no bound.

    min, max: numbers, arrays or Tensors, broadcast. Outside of them x gets no gradient, a bound
    does; on a bound x gets it all (as PyTorch's clamp). A NaN as a bound gives NaN.
    Raises ValueError without any bound.
    """
    if min is None and max is None:
        raise ValueError("clip: min and max are both None. Give one of them.")
    check_operands([value(x) for x in (x, min, max)])
    if min is not None:
        x = where((real(x) < real(min)) | (real(min) != real(min)), min, x)
    if max is not None:
        x = where((real(x) > real(max)) | (real(max) != real(max)), max, x)
    return x


def dropout(x, p: float, draws):
    """x / (1-p) where the draw is at least p, else 0 (Srivastava et al. 2014, inverted).

    x any shape, 0 <= p < 1, draws: uniforms in [0, 1) of x's shape. They are an input, so that
    the op is a pure function.
    Raises ValueError for another p, ShapeError for draws of another shape.
    """
    p = check_real(p, "dropout: p")
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p={p} is the share that is dropped: 0 <= p < 1.")
    if draws.shape != x.shape:
        raise ShapeError(f"dropout: draws have shape {draws.shape}, x {x.shape}: one draw a value.")
    return where(value(draws) >= p, x, 0) * float(1 / (1 - p))
