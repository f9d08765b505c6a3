"""The records of `GraphMachine` for each Tensor: its twin, and the values saved for its derivative.

The tape's documented behaviour is implemented here a second time: which values the derivative of an
op reads, which results share memory, what a backward pass visits and releases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np

from minibn import ops
from minibn.autograd.backward import grad
from minibn.autograd.tensor import Tensor
from minibn.backend import to_numpy
from minibn.errors import GraphError
from suite.machines import twin
from suite.machines.machine import Machine
from suite.machines.twin import Twin

LARGEST = 36  # entries of a result
OUTPUT = -1  # beside the positions of arguments: the result itself

Domain = Callable[[np.ndarray], Any]


def within(limit: float) -> Domain:
    return lambda x: np.abs(x).max(initial=0) <= limit


def positive(x: np.ndarray) -> Any:
    return x.min(initial=1) >= 0.25


def anything(x: np.ndarray) -> Any:
    return True


def not_empty(x: np.ndarray) -> Any:
    return x.size > 0 and within(6)(x)


# op -> (its domain here, whose values its derivative reads). The domains keep slopes below 1e7, so
# that rounding stays far below the tolerance of a comparison.
ELEMENTWISE: dict[str, tuple[Domain, tuple[int, ...]]] = {
    "negative": (anything, ()),
    "exp": (within(3), (OUTPUT,)),
    "log": (positive, (0,)),
    "sqrt": (positive, (OUTPUT,)),
    "tanh": (within(6), (OUTPUT,)),
    "sigmoid": (within(6), (OUTPUT,)),
    "relu": (anything, (OUTPUT,)),
    "abs": (anything, (0,)),
}
# op -> (the domain of the first, that of the second, whose values its derivative reads).
BINARY: dict[str, tuple[Domain, Domain, tuple[int, ...]]] = {
    "add": (within(100), within(100), ()),
    "subtract": (within(100), within(100), ()),
    "multiply": (within(3), within(3), (0, 1)),
    "divide": (within(3), positive, (0, 1)),
    "maximum": (anything, anything, (0, 1)),
}
REDUCTIONS: dict[str, tuple[Domain, tuple[int, ...]]] = {
    "sum": (within(100), ()),
    "mean": (not_empty, ()),
    "max": (not_empty, (0, OUTPUT)),
    "logsumexp": (not_empty, (0,)),
}


class Memory:
    """The memory that a Tensor shares with its views: its first owner, and how often it changed."""

    def __init__(self, owner: Pair) -> None:
        self.owner, self.changes = owner, 0


class Pair:
    """A Tensor with its twin, and what the tape should have recorded about it.

    parents: the arguments that require a gradient, if the op was recorded.
    saved: (memory, its number of changes then) of every value that the derivative reads.
    view: (the Pair of which it is a view, the function from its values to the view's).
    """

    def __init__(self, number: int, tensor: Tensor, twin: Twin, requires_grad: bool) -> None:
        self.number, self.tensor, self.twin, self.requires_grad = (
            number,
            tensor,
            twin,
            requires_grad,
        )
        self.grad: np.ndarray | None = None
        self.parents: tuple[Pair, ...] = ()
        self.saved: list[tuple[Memory, int]] = []
        self.view: tuple[Pair, Callable[[np.ndarray], np.ndarray] | None] | None = None
        self.memory = Memory(self)
        self.released = False
        self.doubtful = False  # a backward pass that failed may have released it

    @property
    def changed(self) -> bool:
        return any(memory.changes != count for memory, count in self.saved)

    @property
    def whole(self) -> bool:
        """Whether it is the whole of its memory, not a part or a permutation of it."""
        if self.view is None:
            return True
        parent, function = self.view
        return function is None and parent.whole

    def __repr__(self) -> str:
        return f"t{self.number}{self.twin.value.shape}"


def agree(
    actual: np.ndarray, expected: np.ndarray, what: str, digits: int, scale: float = 0
) -> None:
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, twin {expected.shape}"
    tolerance = 10.0**-digits * (1 + scale)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=what)


class GraphRecords(Machine):
    """The pairs so far, and the methods that add, pick, walk back over and change them.

    backend: the name of the backend on which the Tensors live.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[Pair] = []

    # -- pairs: adding and picking

    def array(self, x: np.ndarray) -> Any:
        return self.device.asarray(x.copy())

    def add_leaf(self, x: np.ndarray, requires_grad: bool) -> Pair:
        made = twin.leaf(x) if requires_grad else twin.constant(x)
        pair = Pair(
            len(self.pairs), Tensor(self.array(x), requires_grad=requires_grad), made, requires_grad
        )
        self.pairs.append(pair)
        return pair

    def pick(self, data: st.DataObject, domain: Domain, label: str) -> Pair:
        """A leaf or a recent result whose values the domain admits; else a new leaf."""
        fitting = [p for p in self.pairs if domain(p.twin.value)]
        if not fitting:
            return self.add_leaf(np.array([0.5, 2.0]), requires_grad=True)
        kinds = [p for p in fitting if p.parents][-6:], [p for p in fitting if not p.parents][-6:]
        return data.draw(st.one_of([st.sampled_from(k) for k in kinds if k]), label=label)

    def pick_result(self, data: st.DataObject, label: str = "z") -> Pair:
        """A recorded result; the first leaf, which may be differentiated too, if there is none."""
        results = [p for p in self.pairs if p.parents] or self.pairs[:1]
        return data.draw(st.sampled_from(results[-8:]), label=label)

    def add_result(
        self,
        name: str,
        arguments: list[Pair],
        settings: tuple,
        reads: tuple[int, ...] = (),
        view: bool = False,
        together: bool = False,
    ) -> Pair:
        """Apply one op on both sides, compare the values, and record what was saved.

        together: the op takes its arguments as one sequence.
        """
        tensors, twins = [p.tensor for p in arguments], [p.twin for p in arguments]
        if together:
            out = getattr(ops, name)(tensors, *settings)
            made = getattr(twin, name)(tuple(twins), *settings)
        else:
            on_device = (
                self.array(s) if isinstance(s, np.ndarray) else s for s in settings
            )  # an index may be an array
            out = getattr(ops, name)(*tensors, *on_device)
            made = getattr(twin, name)(*twins, *settings)
        agree(to_numpy(out), made.value, name, digits=10)
        made.value = to_numpy(out).copy()  # the same rounding on both sides: the same ties
        recorded = not self.blocks and any(p.requires_grad for p in arguments)
        pair = Pair(len(self.pairs), out, made if recorded else twin.constant(made.value), recorded)
        if view:
            function = getattr(twin, name)
            pair.view = (arguments[0], lambda x: function(twin.constant(x), *settings).value)
            pair.memory = arguments[0].memory
        if recorded:
            pair.parents = tuple(p for p in arguments if p.requires_grad)
            sources = [pair if i == OUTPUT else arguments[i] for i in reads]
            pair.saved = [(p.memory, p.memory.changes) for p in sources]
        self.pairs.append(pair)
        c = np.asarray(np.random.default_rng(pair.number).standard_normal(out.shape))
        for x in dict.fromkeys(pair.parents):  # at once, before anything is changed or released
            self.check_gradient(pair, x, c, retain=True)
        return pair

    # -- backward passes: what they visit and release

    def visited(self, z: Pair, targets: list[Pair] | None = None) -> list[Pair]:
        """The results behind z, z included, that a backward pass to the targets (to all leaves)
        visits."""
        behind, waiting = {z}, [z]
        while waiting:
            fresh = set(waiting.pop().parents) - behind
            behind |= fresh
            waiting += fresh
        active = {p for p in behind if not p.parents} if targets is None else set(targets)
        results = []
        for p in sorted(behind, key=lambda p: p.number):
            if any(parent in active for parent in p.parents):
                active.add(p)
                results.append(p)
        return results

    def walk(self, visited: list[Pair], retain: bool, go: Callable[[], Any]) -> tuple[bool, Any]:
        """Run a backward pass. Returns whether it worked, after a check that it should have."""
        gone = [p for p in visited if p.released]
        changed = [p for p in visited if p.changed]
        try:
            result = go()
        except GraphError as error:
            doubtful = any(p.doubtful for p in visited)
            assert gone or changed or doubtful, f"a graph that is complete raises: {error}"
            if not retain:
                for p in visited:
                    p.doubtful = True
            return False, None
        assert not gone, f"the walk went through {gone}, which was released"
        assert not changed, f"the walk needs values behind {changed} that were changed in place"
        if not retain:
            for p in visited:
                p.released = True
        return True, result

    def check_gradient(self, z: Pair, x: Pair, c: np.ndarray, retain: bool) -> None:
        """grad() of ⟨c, z⟩ by a node behind it, against the twin's."""
        worked, gradient = self.walk(
            self.visited(z, [x]),
            retain,
            lambda: grad(z.tensor, x.tensor, self.array(c), retain_graph=retain),
        )
        if worked:
            again = twin.replay(z.twin, fresh=x.twin)
            expected = twin.gradient(again, x.twin, c)
            scale = float(np.abs(expected).max(initial=0))
            agree(to_numpy(gradient), expected, f"grad of {z} by {x}", 8, scale)
            gradient.data[...] = 99.0  # it is the caller's

    def behind(self, x: Pair, z: Pair) -> bool:
        """Whether z was made of x by recorded ops."""
        return x is z or any(x in p.parents for p in self.visited(z, [x]))

    def in_use(self) -> set[Memory]:
        """Memory that a derivative reads or a view shows."""
        saved = {memory for p in self.pairs if not p.released for memory, _ in p.saved}
        return saved | {p.memory for p in self.pairs if p.view is not None}

    # -- changes in place, and calls that must raise

    def now_holds(self, x: Pair, new: np.ndarray) -> None:
        """Bring the twins up to date with a change of x's memory, of which x is the whole."""
        x.memory.changes += 1
        agree(to_numpy(x.tensor), new, "the changed Tensor", 10)
        new = to_numpy(x.tensor).copy()
        for p in self.pairs:
            if p.memory is not x.memory:
                continue
            if p.whole:
                p.twin = p.twin.holding(new)
                continue
            assert p.view is not None
            parent, function = p.view
            value = parent.twin.value if function is None else function(parent.twin.value)
            # A reshape may have had to copy; a copy keeps what it had.
            if np.array_equal(to_numpy(p.tensor), value):
                p.twin = p.twin.holding(value)

    def must_raise(self, error: type[Exception], act: Callable[[], Any]) -> None:
        try:
            act()
        except error:
            return
        raise AssertionError(f"this should raise {error.__name__}")
