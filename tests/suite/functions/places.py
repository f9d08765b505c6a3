"""Mistakes at some places only: one entry, one row, some sizes, some magnitudes, exact zeros."""

import numpy as np

from minibn.testing.strategies import arrays
from suite.functions.function import function, normal

WITH_A_ZERO = [np.array([0.0, 1.0, -2.0, 0.5]), np.array([0.0, 0.3, 3.0])]


@function(at=[normal(1000)], drawn=arrays((1000,), textures=("normal",)).map(lambda x: (x,)))
def thousand_squares(x):
    return x * x


@thousand_squares.right
def thousand_squares_vjp(g, x):
    return 2 * g * x


@thousand_squares.wrong()
def thousand_squares_with_one_entry_zero(g, x):
    """Entry 617 gets nothing."""
    d = 2 * g * x
    d.flat[617] = 0
    return d


@thousand_squares.wrong()
def thousand_squares_without_the_remainder(g, x):
    """A loop over blocks of 64 leaves out what is left: 1000 = 15 · 64 + 40."""
    d = 2 * g * x
    d[len(d) // 64 * 64 :] = 0
    return d


@thousand_squares.wrong()
def thousand_squares_counts_a_border_twice(g, x):
    """Two blocks share an entry, which both add."""
    d = 2 * g * x
    d[512] *= 2
    return d


@function(at=[normal(1000)], drawn=arrays((1000,), textures=("normal",)).map(lambda x: (x,)))
def sum_of_thousand_squares(x):
    return (x * x).sum()


@sum_of_thousand_squares.right
def sum_of_thousand_squares_vjp(g, x):
    return 2 * g * x


@sum_of_thousand_squares.wrong()
def sum_of_thousand_squares_with_one_entry_off(g, x):
    """Entry 617 is 1e-6 too high."""
    d = 2 * g * x
    d[617] *= 1 + 1e-6
    return d


@function(at=[normal(3, 2)])
def saturating_rows(x):
    return x / (1 + (x * x).sum(-1, keepdims=True))


def saturating_rows_pullback(g, x, at):
    q = 1 + (at * at).sum(-1, keepdims=True)
    return g / q - 2 * at * (g * at).sum(-1, keepdims=True) / q**2


@saturating_rows.right
def saturating_rows_vjp(g, x):
    return saturating_rows_pullback(g, x, x)


@saturating_rows.wrong()
def saturating_rows_with_the_jacobian_of_the_first(g, x):
    """The Jacobian of row 0 serves the whole batch."""
    return saturating_rows_pullback(g, x, np.broadcast_to(x[:1], x.shape))


@saturating_rows.wrong()
def saturating_rows_leave_out_the_last(g, x):
    """The last example of the batch gets no gradient."""
    d = saturating_rows_vjp(g, x)
    d[-1] = 0
    return d


@saturating_rows.wrong()
def saturating_rows_swap_two_examples(g, x):
    """The gradients of two examples are exchanged."""
    d = saturating_rows_vjp(g, x)
    return d[[1, 0, *range(2, len(d))]]


@function(at=[normal(4, 3)])
def scaled_columns(x):
    return x * [1.0, 2.0, 3.0]


@scaled_columns.right
def scaled_columns_vjp(g, x):
    return g * [1.0, 2.0, 3.0]


@scaled_columns.wrong()
def scaled_columns_off_by_one(g, x):
    """Each channel gets the factor of its neighbour."""
    return g * [2.0, 3.0, 1.0]


@scaled_columns.wrong()
def scaled_columns_by_a_power_of_two(g, x):
    """A loss scale of 1024 was never divided out."""
    return 1024 * g * [1.0, 2.0, 3.0]


@scaled_columns.wrong()
def scaled_columns_with_one_channel_negative(g, x):
    """The sign of the last channel."""
    return g * [1.0, 2.0, -3.0]


@function(at=[np.array([1.0, 1e-14, 2.0]), normal(3)], drawn="none")
def squares(x):
    return x * x


@squares.right
def squares_vjp(g, x):
    return 2 * g * x


@squares.wrong(at=[1e-12 * normal(3)])
def squares_give_up_on_tiny_values(g, x):
    """Inputs below 1e-8 get no gradient."""
    return 2 * g * x * (np.abs(x) > 1e-8)


@squares.wrong(at=[np.array([1.0, 1e-14, 2.0])])
def squares_flip_a_tiny_value(g, x):
    """An entry that is 1e-14 of the largest gets the wrong sign."""
    return 2 * g * np.where(np.abs(x) < 1e-12, -x, x)


@squares.wrong(at=[1e8 * normal(3)])
def squares_overflow_a_counter(g, x):
    """Inputs beyond 2²⁴ lose their gradient's factor."""
    return g * x * np.where(np.abs(x) > 2**24, 1, 2)


@squares.wrong(at=[np.array([1.5, -0.5, 2.0])])
def squares_of_negative_numbers(g, x):
    """2|x| for 2x."""
    return 2 * g * np.abs(x)


squares.hard("squares_of_tiny_values", 1e-12 * normal(3), why="Values of 1e-24.")
squares.hard("squares_of_huge_values", 1e12 * normal(3), why="Values of 1e24.")
squares.hard("squares_of_one_tiny_value", np.array([1.0, 1e-14, 2.0]), why="Too small to judge.")
squares.hard(
    "squares_of_channels_at_two_scales", normal(4, 2) * [1e-6, 1e6],
    why="No step fits all entries.",
)  # fmt: skip


@function(at=WITH_A_ZERO, drawn="none")
def root_of_squares(x):
    """√(x² + 1): with an exact zero among its inputs."""
    return np.sqrt(x * x + 1)


@root_of_squares.right
def root_of_squares_vjp(g, x):
    return g * x / np.sqrt(x * x + 1)


@root_of_squares.wrong()
def root_of_squares_nine_digits(g, x):
    """An error in the ninth digit, beside an exact zero."""
    return root_of_squares_vjp(g, x) * (1 + 1e-9)


@root_of_squares.wrong()
def root_of_squares_with_an_epsilon(g, x):
    """1e-7 under the root in the backward pass only."""
    return g * x / np.sqrt(x * x + 1 + 1e-7)


@function(at=WITH_A_ZERO, drawn="none")
def relu_squared(x):
    """max(x, 0)²: smooth at its zero, and flat on one side."""
    return np.maximum(x, 0) ** 2


@relu_squared.right
def relu_squared_vjp(g, x):
    return 2 * g * np.maximum(x, 0)


@relu_squared.wrong()
def relu_squared_eight_digits(g, x):
    """An error in the eighth digit, beside an exact zero."""
    return relu_squared_vjp(g, x) * (1 + 1e-8)


@function(at=[np.array([0.0, 1.0, -2.0, 0.5])], drawn="none")
def relu_plus_cube(x):
    """A kink at an exact zero, smooth entries beside it."""
    return np.maximum(x, 0) + x**3


@relu_plus_cube.right
def relu_plus_cube_vjp(g, x):
    return g * ((x > 0) + 3 * x * x)


@relu_plus_cube.wrong()
def relu_plus_cube_seven_digits_beside_a_kink(g, x):
    """An error in the seventh digit of the smooth entries, which a kink elsewhere hides."""
    return g * ((x > 0) + 3 * x * x * (1 + 1e-7))


@relu_plus_cube.wrong()
def relu_plus_cube_ten_digits_beside_a_kink(g, x):
    """The same in the tenth digit."""
    return g * ((x > 0) + 3 * x * x * (1 + 1e-10))


@function(at=[normal(3)])
def three_outputs(x):
    return np.stack([x, x * x, np.sin(x)])


@three_outputs.right
def three_outputs_vjp(g, x):
    return g[0] + 2 * x * g[1] + np.cos(x) * g[2]


@three_outputs.wrong()
def three_outputs_with_one_sign(g, x):
    """The sign of the third output's part."""
    return g[0] + 2 * x * g[1] - np.cos(x) * g[2]


@three_outputs.wrong()
def three_outputs_without_the_second(g, x):
    """One of three paths is not added."""
    return g[0] + np.cos(x) * g[2]


@function(at=[np.array([2.0, 3.0]), np.array([0.5, 1.0, 4.0])], drawn="none")
def log_and_exp(x):
    return np.log(np.exp(x) + 1e-3)


@log_and_exp.right
def log_and_exp_vjp(g, x):
    return g * np.exp(x) / (np.exp(x) + 1e-3)


@log_and_exp.wrong()
def log_and_exp_forgets_its_constant(g, x):
    """The constant of 1e-3 is left out: one part in ten thousand."""
    return g.copy()


@function(at=[normal(2, 3, 2, 2)])
def channel_product(x):
    return x[:, 0] * x[:, 1] + x[:, 2]


@channel_product.right
def channel_product_vjp(g, x):
    return np.stack([g * x[:, 1], g * x[:, 0], g], 1)


@channel_product.wrong()
def channel_product_with_channels_last(g, x):
    """The gradient is assembled along another axis, and reshaped."""
    return np.stack([g * x[:, 1], g * x[:, 0], g], -1).reshape(x.shape)
