"""The half of `GraphMachine` that draws programs: leaves, ops, aliases, views.

Shapes are small, empty ones among them, and values are quarters: sums and products of a few are
exact, and ties are common.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis.stateful import initialize, precondition, rule

from suite.machines import twin
from suite.machines.records import (
    BINARY,
    ELEMENTWISE,
    LARGEST,
    REDUCTIONS,
    GraphRecords,
    Pair,
    anything,
    positive,
    within,
)

SHAPES = [(), (1,), (2,), (3,), (2, 3), (3, 1), (1, 2), (2, 1, 2), (0,), (2, 0)]


def values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Quarters, so that sums and products are exact and ties are common: from -2 to 2 for an even
    seed, from 1/4 to 2 for an odd one."""
    low = 1 if seed % 2 else -8
    return np.asarray(np.random.default_rng(seed).integers(low, 9, shape) / 4)


seeds = st.integers(0, 2**16)


class GraphBuilder(GraphRecords):
    """Rules that add to the graph, each with its twin."""

    @initialize(seed=seeds)
    def start(self, seed: int) -> None:
        self.add_leaf(values((2, 3), seed), requires_grad=True)
        self.add_leaf(values((3,), seed + 1), requires_grad=True)

    @precondition(lambda self: len(self.pairs) < 24)
    @rule(
        shape=st.sampled_from(SHAPES),
        seed=seeds,
        requires_grad=st.sampled_from([True, True, False]),
    )
    def new_leaf(self, shape: tuple[int, ...], seed: int, requires_grad: bool) -> None:
        if sum(p.view is None and not p.parents for p in self.pairs) < 6:
            self.add_leaf(values(shape, seed), requires_grad)

    @rule(data=st.data(), name=st.sampled_from(sorted(ELEMENTWISE)))
    def elementwise(self, data: st.DataObject, name: str) -> None:
        domain, reads = ELEMENTWISE[name]
        self.add_result(name, [self.pick(data, domain, "x")], (), reads)

    @rule(data=st.data(), name=st.sampled_from(sorted(BINARY)))
    def binary(self, data: st.DataObject, name: str) -> None:
        """Any two that broadcast; often one Tensor twice."""
        first, second, reads = BINARY[name]
        x = self.pick(data, first, "x")

        def fits(y: Pair) -> bool:
            pairs = zip(x.tensor.shape[::-1], y.tensor.shape[::-1], strict=False)
            if not second(y.twin.value) or not all(a == b or 1 in (a, b) for a, b in pairs):
                return False
            return np.broadcast(x.twin.value, y.twin.value).size <= LARGEST

        fitting = [y for y in self.pairs if fits(y)]
        if fitting:
            y = data.draw(st.sampled_from(fitting), label="y")
        else:
            y = self.add_leaf(np.array(0.5), requires_grad=True)
        self.add_result(name, [x, y], (), reads)

    @rule(data=st.data(), name=st.sampled_from(sorted(BINARY)))
    def alias(self, data: st.DataObject, name: str) -> None:
        """f(x, x)"""
        x = self.pick(data, lambda x: within(3)(x) and positive(x), "x")
        self.add_result(name, [x, x], (), BINARY[name][2])

    @rule(data=st.data(), name=st.sampled_from(sorted(REDUCTIONS)), keepdims=st.booleans())
    def reduce(self, data: st.DataObject, name: str, keepdims: bool) -> None:
        domain, reads = REDUCTIONS[name]
        x = self.pick(data, domain, "x")
        axis = data.draw(st.sampled_from([None, *range(-x.tensor.ndim, x.tensor.ndim)]), "axis")
        self.add_result(name, [x], (axis, keepdims), reads)

    @rule(data=st.data(), kind=st.sampled_from(["reshape", "transpose", "getitem", "broadcast_to"]))
    def look(self, data: st.DataObject, kind: str) -> None:
        """A view: it shares memory, so that later changes of that memory change it."""
        x = self.pick(data, anything, "x")
        shape, ndim = x.tensor.shape, x.tensor.ndim
        setting: Any
        if kind == "reshape":
            setting = data.draw(st.sampled_from([(x.tensor.size,), (1, *shape), shape[::-1]]))
        elif kind == "transpose":
            setting = tuple(data.draw(st.permutations(range(ndim))))
        elif kind == "getitem":
            parts = st.sampled_from([slice(None), slice(1, None), slice(None, None, -1), None])
            setting = (data.draw(parts), ...) if ndim else (..., None)
        else:
            setting = (2, *shape) if 2 * x.tensor.size <= LARGEST else shape
        self.add_result(kind, [x], (setting,), view=True)

    @rule(data=st.data(), seed=seeds)
    def take(self, data: st.DataObject, seed: int) -> None:
        """x[index] with an array of integers, some of them repeated."""
        x = self.pick(data, lambda x: x.ndim > 0 and 0 < x.size <= 12 and len(x) > 0, "x")
        index = np.random.default_rng(seed).integers(-len(x.twin.value), len(x.twin.value), 3)
        self.add_result("getitem", [x], (index,))

    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        x = self.pick(data, lambda x: x.ndim > 0, "x")
        axis = data.draw(st.integers(0, x.tensor.ndim - 1), label="axis")

        def beside(p: Pair) -> tuple[int, ...]:
            return p.tensor.shape[:axis] + p.tensor.shape[axis + 1 :]

        alike = [p for p in self.pairs if p.tensor.ndim == x.tensor.ndim and beside(p) == beside(x)]
        y = data.draw(st.sampled_from(alike), label="y")
        if x.tensor.size + y.tensor.size <= LARGEST:
            self.add_result("concatenate", [x, y], (axis,), together=True)

    @rule(data=st.data(), columns=st.sampled_from([(), (1,), (2,)]), seed=seeds)
    def product(self, data: st.DataObject, columns: tuple[int, ...], seed: int) -> None:
        """x @ y; a new leaf y if none fits."""
        x = self.pick(data, lambda x: x.ndim > 0 and within(3)(x), "x")
        K = x.tensor.shape[-1]
        fitting = [
            y
            for y in self.pairs
            if y.tensor.ndim in (1, 2) and y.tensor.shape[0] == K and within(3)(y.twin.value)
        ]
        y = data.draw(st.sampled_from([None, *fitting]), label="y")
        if y is None:
            y = self.add_leaf(values((K, *columns), seed), requires_grad=True)
        if x.tensor.size * y.tensor.size <= LARGEST * max(K, 1):
            self.add_result("matmul", [x, y], (), (0, 1))

    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        x = self.pick(data, anything, "x")
        value = twin.constant(x.twin.value)
        pair = Pair(len(self.pairs), x.tensor.detach(), value, requires_grad=False)
        pair.view, pair.memory = (x, None), x.memory
        self.pairs.append(pair)
