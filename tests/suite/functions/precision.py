"""Lost digits: float32 inside float64, half precision inside float32, single bad entries.

f itself is exact to rounding at all of these points, so a gradient that is not has lost something.
"""

import numpy as np

from suite.functions.function import function, normal

SINGLE = np.float32


def to_bfloat16(x):
    """The nearest numbers of eight significant bits, as float32."""
    bits = np.asarray(x, SINGLE).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(SINGLE)


@function(at=[normal(2, 3), np.array([0.7])])
def tanh_twice(x):
    return np.tanh(2 * x)


@tanh_twice.right
def tanh_twice_vjp(g, x):
    return 2 * g * (1 - np.tanh(2 * x) ** 2)


@tanh_twice.wrong()
def tanh_twice_in_float32(g, x):
    """The derivative is computed in float32 and returned as float64."""
    return 2 * g * (1 - np.tanh(2 * x.astype(SINGLE)) ** 2).astype(float)


@tanh_twice.wrong()
def tanh_twice_returns_float32(g, x):
    """The dtype of the gradient is not that of the input."""
    return tanh_twice_vjp(g, x).astype(SINGLE)


@function(at=[(normal(4, 3), normal(3, 2, seed=1))])
def matrix_product(x, w):
    return x @ w


@matrix_product.right
def matrix_product_vjp(g, x, w):
    return g @ w.T, x.T @ g


@matrix_product.wrong()
def matrix_product_multiplies_in_float32(g, x, w):
    """A tensor core's precision: factors are rounded to float32."""
    return g @ w.T, (x.T.astype(SINGLE) @ g.astype(SINGLE)).astype(w.dtype)


@matrix_product.wrong()
def matrix_product_accumulates_in_float16(g, x, w):
    """The gradient of the weights is summed in half precision."""
    return g @ w.T, (x.T.astype(np.float16) @ g.astype(np.float16)).astype(w.dtype)


IN_FLOAT32 = [(normal(4, 3).astype(SINGLE), normal(3, 2, seed=1).astype(SINGLE))]


@matrix_product.wrong(at=IN_FLOAT32)
def matrix_product_in_float16_inside_float32(g, x, w):
    """Half precision inside a float32 gradient: three digits."""
    return g @ w.T, (x.T.astype(np.float16) @ g.astype(np.float16)).astype(w.dtype)


@matrix_product.wrong(at=IN_FLOAT32)
def matrix_product_in_bfloat16_inside_float32(g, x, w):
    """bfloat16 inside a float32 gradient: two to three digits."""
    return g @ w.T, (to_bfloat16(x.T) @ to_bfloat16(g)).astype(w.dtype)


matrix_product.hard("matrix_product_in_float32", *IN_FLOAT32, why="Seven digits are all there are.")
matrix_product.hard(
    "matrix_product_in_float16", tuple(a.astype(np.float16) for a in IN_FLOAT32[0]),
    why="Three digits are all there are.",
)  # fmt: skip


@function(at=[normal(6)])
def exponential(x):
    return np.exp(x)


@exponential.right
def exponential_vjp(g, x):
    return g * np.exp(x)


@exponential.wrong()
def exponential_in_float32(g, x):
    """The saved output was compressed to float32."""
    return g * np.exp(x).astype(SINGLE).astype(float)


@exponential.wrong(at=[normal(6).astype(SINGLE)])
def exponential_in_float16_inside_float32(g, x):
    """The saved output was compressed to half precision."""
    return g * np.exp(x).astype(np.float16).astype(x.dtype)


@exponential.wrong(at=[normal(6).astype(SINGLE)])
def exponential_in_bfloat16_inside_float32(g, x):
    """The saved output was compressed to bfloat16."""
    return g * to_bfloat16(np.exp(x))


@exponential.wrong(at=[normal(6)])
def exponential_with_one_entry_in_float32(g, x):
    """The last entry, the remainder of a vectorised loop, is computed in float32."""
    d = g * np.exp(x)
    d[-1] = SINGLE(d[-1])
    return d


@exponential.wrong(at=[normal(6)])
def exponential_by_a_table(g, x):
    """Interpolated in a table, good to ten digits: its error changes from entry to entry."""
    return g * np.exp(x) * (1 + 1e-10 * np.sin(1e6 * x))


@exponential.wrong()
def exponential_with_a_wrong_tenth_digit(g, x):
    """A coefficient was typed with nine digits."""
    return g * np.exp(x) * (1 + 1e-10 * x)


@exponential.wrong(at=[normal(6).astype(SINGLE)])
def exponential_returns_float64_for_float32(g, x):
    """Python's e is a float64 array: the gradient is wider than its input."""
    return g * np.exp(x.astype(float))


exponential.hard("exponential_of_float32", normal(6).astype(SINGLE), why="Seven digits.")
exponential.hard("exponential_of_float16", normal(6).astype(np.float16), why="Three digits.")
exponential.hard(
    "exponential_of_large_values", np.array([50.0, 300.0, -3.0]), why="1e130 beside 0.05."
)
exponential.hard("exponential_of_very_negative_values", np.array([-700.0, -600.0]), why="1e-304.")


@function(at=[normal(5).astype(SINGLE)], drawn="none")
def sine_in_float32(x):
    """A function that computes in float32 whatever it is given."""
    return np.sin(x.astype(SINGLE))


@sine_in_float32.right
def sine_in_float32_vjp(g, x):
    return (g * np.cos(x.astype(SINGLE))).astype(x.dtype)


@sine_in_float32.wrong()
def sine_in_float32_with_a_wrong_sign(g, x):
    """-cos."""
    return -sine_in_float32_vjp(g, x)


@sine_in_float32.wrong()
def sine_in_float32_five_percent_low(g, x):
    """A polynomial with a wrong coefficient."""
    return sine_in_float32_vjp(g, x) * SINGLE(0.95)


@function(at=[normal(5)], drawn="none")
def large_constant(x):
    """Of sixteen digits five belong to the constant; not analytic as written."""
    return np.abs(x) ** 2 + 1e5


@large_constant.right
def large_constant_vjp(g, x):
    return 2 * g * x


@large_constant.wrong()
def large_constant_halves_its_gradient(g, x):
    """The factor 2 is missing."""
    return g * x


@function(at=[1e-3 * normal(5)], drawn="none", ends=("vacuous", "inconclusive"))
def hiding_constant(x):
    """The constant takes all of the digits that differences could see."""
    return np.abs(x) ** 2 + 1e10


@hiding_constant.right
def hiding_constant_vjp(g, x):
    return 2 * g * x
