"""What the tests of the norms' kernels share: an op run by its kernel and by its definition."""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st

import minibn
from minibn import Tensor, grad
from minibn.fast.cpu import memory, rows, threads

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


@contextmanager
def cut(block=1 << 18, row=1 << 14, count=1):
    with ExitStack() as stack:
        stack.enter_context(patch.object(rows, "BLOCK", block))
        stack.enter_context(patch.object(rows, "ROW", row))
        stack.enter_context(threads.limit_threads(count))
        yield


cuts = st.fixed_dictionaries(
    {
        "block": st.sampled_from([1, 30, 100, 1 << 18]),
        "row": st.sampled_from([1, 12, 1 << 14]),
        "count": st.integers(1, 3),
    }
)


def run(f, inputs, g, mode="always", kernel=None, wanted=None):
    """[value, *gradients of the inputs that are wanted] of f in this mode of kernels."""
    with minibn.kernels(mode):
        wanted = wanted or (True,) * len(inputs)
        leaves = [Tensor(a, requires_grad=w) for a, w in zip(inputs, wanted, strict=True)]
        y = f(*leaves)
        if kernel is not None:
            assert ran(y.node, kernel), f"{kernel.__name__} did not run"
        of = [leaf for leaf in leaves if leaf.requires_grad]
        first = [d.data for d in grad(y, of, g, retain_graph=True)]
        again = [d.data for d in grad(y, of, g)]
        same(again, first)
        return [y.data, *first]


def ran(node, kernel):
    """Whether the kernel stands behind this node, or one before it (a reshape follows some)."""
    while isinstance(node, minibn.autograd.tape.Node):
        if isinstance(node.kernel, kernel):
            return True
        node = node.parents[0]
    return False


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def agree(f, inputs, g, kernel, dtype=np.float64):
    """The kernel at these inputs in `dtype` against the definition in float64, by the size of the
    change that moving each input by one part in itself makes."""
    given = [a.astype(dtype) for a in (*inputs, g)]
    found = run(f, given[:-1], given[-1], kernel=kernel)
    wide = [a.astype(float) for a in given]
    expected = run(f, wide[:-1], wide[-1], "reference")
    rng = np.random.default_rng(0)
    moved = [a * (1 + 1e-6 * rng.choice([-1.0, 1.0], a.shape)) for a in wide]
    change = run(f, moved[:-1], moved[-1], "reference")
    for i, (a, b, c) in enumerate(zip(found, expected, change, strict=True)):
        assert (a.shape, a.dtype) == (b.shape, dtype), i
        size = max(np.abs(b).max(), np.abs(c - b).max() / 1e-6)
        error = np.abs(a - b).max() / size
        assert error <= TOLERANCE[np.dtype(dtype).name], f"result {i}: {error:.1e} of {size:.1e}"


def poisoned(shape, dtype, waste=0.25):
    """Memory in which a number that nobody wrote is NaN."""
    return np.full(shape, np.nan, dtype)


@contextmanager
def poisoned_memory():
    with patch.object(memory, "empty", poisoned), patch.object(memory, "scratch", poisoned):
        yield


@contextmanager
def read_only(*arrays):
    """Inside, they can't be written to; afterwards they are as they were."""
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    yield
    same(arrays, before)
