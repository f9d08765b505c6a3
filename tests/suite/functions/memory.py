"""Memory: layouts of inputs and cotangent, arguments that change, results that are shared."""

import numpy as np

from minibn.testing.strategies import layouts
from suite.functions.function import function, normal

STRIDED = "The same numbers in another memory layout."


@function(
    at=[normal(3, 4), np.asfortranarray(normal(3, 4))],
    drawn=layouts(normal(3, 4)).map(lambda x: (x,)),
)
def square(x):
    return x * x


@square.right
def square_vjp(g, x):
    return 2 * g * x


FORTRAN, REVERSED = [np.asfortranarray(normal(3, 4))], [normal(4)[::-1], normal(4, 3)[:, ::-1]]


@square.wrong(at=FORTRAN)
def square_reads_memory_order(g, x):
    """x.ravel("K") gives the entries as they lie in memory."""
    return 2 * g * x.ravel(order="K").reshape(x.shape)


@square.wrong(at=[normal(3, 4)])
def square_reads_the_memory_of_its_cotangent(g, x):
    """A kernel that takes the cotangent for contiguous: autograd hands over transposed ones."""
    return 2 * x * g.ravel(order="K").reshape(x.shape)


@square.wrong(at=REVERSED)
def square_ignores_negative_strides(g, x):
    """The kernel gets the address and the absolute strides."""
    reversed_axes = tuple(slice(None, None, -1 if s < 0 else 1) for s in x.strides)
    return 2 * g * x[reversed_axes]


@square.wrong(at=[normal(4)])
def square_ignores_negative_strides_of_its_cotangent(g, x):
    """As above, in the cotangent: what np.flip hands over."""
    reversed_axes = tuple(slice(None, None, -1 if s < 0 else 1) for s in g.strides)
    return 2 * g[reversed_axes] * x


def from_the_start_of_memory(x):
    """What a kernel reads that knows x.size and the address only."""
    return np.lib.stride_tricks.as_strided(x, x.shape, np.empty(x.shape).strides)


@square.wrong(at=[np.repeat(normal(4), 2)[::2], normal(3, 8)[:, ::2]])
def square_reads_between_gaps(g, x):
    """A slice with a step is read as if its entries were neighbours."""
    return 2 * g * from_the_start_of_memory(x) if all(s > 0 for s in x.strides) else 2 * g * x


@square.wrong(at=[normal(3, 4)])
def square_reads_gaps_of_its_cotangent(g, x):
    """A cotangent that is a slice with a step is read as if its entries were neighbours."""
    steps = g.strides[-1] if g.ndim else 0
    return 2 * x * (from_the_start_of_memory(g) if steps == 2 * g.itemsize else g)


@square.wrong(at=[np.broadcast_to(normal(4), (3, 4))])
def square_writes_to_a_broadcast_input(g, x):
    """Works in place on a copy that keeps a stride of 0: every row holds the last one's product."""
    y = np.lib.stride_tricks.as_strided(x.copy(), x.shape, x.strides) if 0 in x.strides else x
    return 2 * (g[-1:] if 0 in x.strides else g) * y


@square.wrong(at=[normal(4)])
def square_modifies_its_input(g, x):
    """The input is used as a buffer."""
    d = 2 * g * x
    x *= 0
    return d


@square.wrong(at=[normal(4)])
def square_modifies_its_cotangent(g, x):
    """g *= 2 changes the array of the caller."""
    g *= 2
    return g * x


square.hard("square_of_a_fortran_array", *FORTRAN, why=STRIDED)
square.hard("square_of_reversed_arrays", *REVERSED, why=STRIDED)
square.hard("square_of_a_slice", normal(3, 8)[:, ::2], why=STRIDED)
square.hard("square_of_a_broadcast_array", np.broadcast_to(normal(4), (3, 4)), why="Read-only.")
square.hard("square_of_an_empty_array", np.zeros((0, 3)), why="No entries.", allow_empty=True)
square.hard("square_of_a_scalar", np.array(1.5), why="0-d: results may be NumPy scalars.")
square.hard("square_of_a_single_zero", np.zeros(1), why="Slope 0.", ends=("vacuous",))


@function(at=[(normal(4), normal(4, seed=1))])
def addition(x, y):
    return x + y


@addition.right
def addition_vjp(g, x, y):
    return g.copy(), g.copy()


@addition.wrong()
def addition_returns_one_array_twice(g, x, y):
    """Both inputs get the same array: what adds to one gradient in place changes the other."""
    d = g.copy()
    return d, d


@addition.wrong()
def addition_returns_two_views_of_one_array(g, x, y):
    """Two slices of one buffer that overlap."""
    buffer = np.concatenate([g, g])
    return buffer[: len(g)], buffer[::1][: len(g)]


@addition.wrong()
def addition_returns_its_cotangent(g, x, y):
    """The cotangent itself is handed out as a gradient."""
    return g, g.copy()


@function(at=[normal(4, 3)])
def column_sums(x):
    return x.sum(0)


@column_sums.right
def column_sums_vjp(g, x):
    return np.repeat(g[None], len(x), 0)


@column_sums.wrong()
def column_sums_returns_a_broadcast_view(g, x):
    """np.broadcast_to: read-only, and a view of the cotangent."""
    return np.broadcast_to(g, x.shape)


@column_sums.wrong()
def column_sums_returns_a_read_only_array(g, x):
    """The optimizer cannot add to it."""
    d = np.repeat(g[None], len(x), 0)
    d.flags.writeable = False
    return d


@function(at=[normal(2, 6)])
def flattening(x):
    return x.reshape(-1)


@flattening.right
def flattening_vjp(g, x):
    return g.reshape(x.shape).copy()


@flattening.wrong()
def flattening_returns_a_view(g, x):
    """A reshaped cotangent shares its memory."""
    return g.reshape(x.shape)


@flattening.wrong()
def flattening_in_fortran_order(g, x):
    """Another order of the entries on the way back."""
    return g.reshape(x.shape, order="F").copy()


@function(at=[(normal(3), normal(3, seed=1))])
def square_times(a, b):
    return a * a * b


@square_times.right
def square_times_vjp(g, a, b):
    return 2 * g * a * b, g * a * a


@square_times.wrong()
def square_times_with_swapped_gradients(g, a, b):
    """The gradients come in the wrong order; their shapes are equal."""
    return g * a * a, 2 * g * a * b


@square_times.wrong()
def square_times_has_none_for_a_used_input(g, a, b):
    """None: the input is taken for one without gradient."""
    return 2 * g * a * b, None


@square_times.wrong()
def square_times_takes_its_cotangent_last(a, b, g):
    """The arguments come in another order than they are given."""
    return 2 * g * a * b, g * a * a
