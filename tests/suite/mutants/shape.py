"""Wrong derivatives of operations that move values."""

import numpy as np

from minibn.autograd.tape import apply, unbroadcast
from minibn.autograd.tensor import value
from minibn.ops import indexing, joining, shape
from minibn.ops.indexing import gather, scatter
from minibn.ops.shape import reshape, transpose
from suite.mutants.mutant import wrong


@wrong(shape.Reshape, "reshape")
def reshape_in_fortran_order(self, g, out, x):
    """The values come back column by column."""
    return transpose(reshape(transpose(g), x.shape[::-1]))


@wrong(shape.Transpose, "transpose")
def transpose_by_the_same_permutation(self, g, out, x):
    """Not the inverse one. Two axes never show it: an exchange is its own inverse."""
    return transpose(g, self.axes)


@wrong(shape.BroadcastTo, "broadcast_to")
def broadcast_to_averages(self, g, out, x):
    """The mean over the copies, where it should be the sum."""
    return unbroadcast(g, x.shape) * (x.size / max(g.size, 1))


@wrong(shape.BroadcastTo, "broadcast_to")
def broadcast_to_takes_the_first(self, g, out, x):
    """One copy gets its gradient, the others are forgotten."""
    g = g[(0,) * (g.ndim - x.ndim)]
    return g[tuple(slice(0, 1) if n == 1 else slice(None) for n in x.shape)]


@wrong(indexing.GetItem, "getitem")
def getitem_starts_at_zero(self, g, out, x):
    """The gradient lies at the start of x, wherever the slice was."""
    return scatter(reshape(g, (-1,)), np.arange(g.size), x.shape)


@wrong(indexing.Gather, "getitem")
def getitem_overwrites_repeats(self, g, out, x):
    """An index that occurs twice gets one of its two gradients: x̄[index] = g, not += g."""
    return scatter(g, self.index, x.shape, unique=True)


@wrong(indexing.GetItem, "getitem", order=2)
def getitem_leaves_the_graph(self, g, out, x):
    """The gradient is an array, not a Tensor: its own derivative is lost."""
    return apply(indexing.SetItem(self.index, x.shape), value(g))


@wrong(indexing.Gather, "gather")
def gather_overwrites_repeats(self, g, out, x):
    """An index that occurs twice gets one of its two gradients."""
    return scatter(g, self.index, x.shape, unique=True)


@wrong(indexing.Gather, "gather")
def gather_takes_zero_for_padding(self, g, out, x):
    """Position 0 gets nothing, as if it stood for 'no word here'."""
    return scatter(g * (self.index != 0), self.index, x.shape)


@wrong(indexing.Scatter, "scatter")
def scatter_reads_in_order(self, g, out, x):
    """The first values of g are taken, not those at the index."""
    return gather(g, np.arange(x.size).reshape(x.shape) % g.size)


@wrong(shape.Pad, "pad")
def pad_swaps_before_and_after(self, g, out, x):
    """The widths are read the other way round. Equal widths never show it."""
    return g[tuple(slice(a, a + n) for n, (_, a) in zip(x.shape, self.widths, strict=True))]


@wrong(shape.Pad, "pad")
def pad_drops_the_first_row(self, g, out, x):
    """The first row beside the padding is taken for padding."""
    inside = g[tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, self.widths, strict=True))]
    first = np.arange(x.shape[0]).reshape(-1, *[1] * (x.ndim - 1)) == 0
    return inside * ~(first & (self.widths[0][0] > 0))


@wrong(joining.Concatenate, "concatenate")
def concatenate_never_moves_on(self, g, out, *inputs):
    """Every part gets the start of g."""
    lead = (slice(None),) * self.axis
    return tuple(g[(*lead, slice(0, x.shape[self.axis]))] for x in inputs)


@wrong(joining.Concatenate, "concatenate")
def concatenate_counts_from_the_end(self, g, out, *inputs):
    """The parts are cut off in the wrong order."""
    parts, start = [], 0
    for x in reversed(inputs):
        stop = start + x.shape[self.axis]
        parts.append(g[(slice(None),) * self.axis + (slice(start, stop),)])
        start = stop
    return tuple(reversed(parts))


@wrong(joining.Concatenate, "stack")
def stack_gives_all_the_first_part(self, g, out, *inputs):
    """Every array gets the gradient of the first."""
    return tuple(g[(slice(None),) * self.axis + (slice(0, 1),)] for _ in inputs)


@wrong(indexing.GetItem, "split")
def split_starts_at_zero(self, g, out, x):
    """The gradient of each part lies at the start of x."""
    return scatter(reshape(g, (-1,)), np.arange(g.size), x.shape)
