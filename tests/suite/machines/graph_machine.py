"""The graph against a naive twin: random programs.

Hypothesis draws a program step by step: leaves, ops, aliases, views (all in `graph_builder.py`),
no_grad, backward passes, changes in place, exceptions. Each Tensor has a `Twin` (forward mode: it
shares nothing with the tape) and a record of what the tape may have saved for it. After every step:
values are the twin's, `.grad` of a leaf is the sum of the twin's gradients so far,
nothing else has a `.grad`, and what was made under no_grad is not recorded.

A backward pass must raise GraphError exactly if its part of the graph was released, or if memory
that one of its derivatives reads was changed since; else its gradients must be right.
"""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis.stateful import invariant, precondition, rule

from minibn import ops
from minibn.autograd.backward import grad
from minibn.autograd.tape import Op, apply, set_grad_enabled
from minibn.autograd.tensor import Tensor
from minibn.backend import to_numpy
from minibn.errors import GraphError, ShapeError
from minibn.optim import SGD
from suite.machines import twin
from suite.machines.graph_builder import GraphBuilder, seeds, values
from suite.machines.records import Pair, agree, anything, within
from suite.machines.twin import TINY


class Broken(Op):
    """The identity, which raises in its forward or its vjp."""

    def __init__(self, forward_works: bool) -> None:
        self.forward_works = forward_works

    def forward(self, x):
        if not self.forward_works:
            raise ArithmeticError("broken on purpose")
        return x * 1

    def vjp(self, g, out, x):
        raise ArithmeticError("broken on purpose")


class GraphMachine(GraphBuilder):
    """Random programs on Tensors, next to the same programs on Twins. See the module's docstring.

    backend: the name of the backend on which the Tensors live.
    """

    # -- rules: recording

    @precondition(lambda self: self.blocks)
    @rule()
    def leave_no_grad_by_an_exception(self) -> None:
        error = ArithmeticError("on purpose")
        self.blocks.pop().__exit__(ArithmeticError, error, None)

    # -- rules: backward passes

    @rule(data=st.data(), seed=seeds, retain=st.booleans())
    def backward(self, data: st.DataObject, seed: int, retain: bool) -> None:
        """Also twice in a row: the second works on a retained graph, else it raises."""
        self.backward_from(self.pick_result(data), seed, retain)

    def backward_from(self, z: Pair, seed: int, retain: bool) -> None:
        c = np.asarray(np.random.default_rng(seed).standard_normal(z.tensor.shape))
        cotangent = self.array(c)
        worked, _ = self.walk(
            self.visited(z), retain, lambda: z.tensor.backward(cotangent, retain_graph=retain)
        )
        cotangent[...] = 99.0  # the tape must not have kept a reference
        if worked:
            for leaf in self.pairs:
                if leaf.requires_grad and not leaf.parents and self.behind(leaf, z):
                    g = twin.gradient(z.twin, leaf.twin, c)
                    leaf.grad = g if leaf.grad is None else leaf.grad + g

    @rule(data=st.data(), seed=seeds, retain=st.booleans())
    def gradient_of_inner(self, data: st.DataObject, seed: int, retain: bool) -> None:
        """grad() with respect to any node behind z; `.grad` is left alone."""
        z = self.pick_result(data)
        x = data.draw(st.sampled_from([p for p in self.pairs if self.behind(p, z)]), label="x")
        c = np.asarray(np.random.default_rng(seed).standard_normal(z.tensor.shape))
        self.check_gradient(z, x, c, retain)

    @rule(data=st.data(), seed=seeds)
    def second_derivative(self, data: st.DataObject, seed: int) -> None:
        """H v for ⟨c, z⟩ as a function of one leaf x: grad of ⟨∇, v⟩, through create_graph."""
        self.second_derivative_of(self.pick_result(data), data, seed)

    @rule(data=st.data(), seed=seeds)
    def second_derivative_of_a_cube(self, data: st.DataObject, seed: int) -> None:
        """Here the cotangent that reaches the inner product depends on x, too."""
        x = self.pick(data, within(1.5), "x")
        square = self.add_result("multiply", [x, x], (), (0, 1))
        cube = self.add_result("multiply", [square, x], (), (0, 1))
        if cube.requires_grad:
            self.second_derivative_of(cube, data, seed)

    def second_derivative_of(self, z: Pair, data: st.DataObject, seed: int) -> None:
        leaves = [p for p in self.pairs if not p.parents and self.behind(p, z)]
        x = data.draw(st.sampled_from(leaves), label="x")
        rng = np.random.default_rng(seed)
        c, v = (np.asarray(rng.standard_normal(p.tensor.shape)) for p in (z, x))
        worked, first = self.walk(
            self.visited(z, [x]),
            True,
            lambda: grad(z.tensor, x.tensor, self.array(c), create_graph=True),
        )
        if not worked:
            return
        slope = twin.gradient(z.twin, x.twin, c)
        agree(
            to_numpy(first), slope, f"slope of {z} by {x}", 8, float(np.abs(slope).max(initial=0))
        )
        with set_grad_enabled(True):
            total = (first * self.array(v)).sum()
        product = grad(total, x.tensor, unused="zeros", retain_graph=True)
        moved = twin.replay(z.twin, along={x.twin.name: v})
        expected = np.asarray(twin.gradient(moved, x.twin, c).imag / TINY)
        scale = float(np.abs(expected).max(initial=0)) + float(np.abs(slope).max(initial=0))
        agree(to_numpy(product), expected, f"second derivative of {z} by {x}", 7, scale)

    @rule(data=st.data())
    def zero_grad(self, data: st.DataObject) -> None:
        x = self.pick(data, anything, "x")
        x.tensor.grad, x.grad = None, None

    # -- rules: changes in place

    @rule(data=st.data(), seed=seeds)
    def assign(self, data: st.DataObject, seed: int) -> None:
        """Into a leaf, or through detach() into the memory of a result."""
        whole = [p for p in self.pairs if p.whole]
        shared = [p for p in whole if p.memory in self.in_use()]
        x = data.draw(st.sampled_from(shared or whole), label="x")
        new = values(x.tensor.shape, seed)
        if x.parents:
            self.must_raise(TypeError, lambda: x.tensor.assign(self.array(new)))
        else:
            x.tensor.assign(self.array(new))
            self.now_holds(x, new)

    @rule(data=st.data(), seed=seeds)
    def backward_after_a_change(self, data: st.DataObject, seed: int) -> None:
        """After a change of a value that a derivative behind z reads, it must not be used."""
        z = self.pick_result(data)
        read = [memory.owner for p in self.visited(z) for memory, _ in p.saved]
        if read:
            x = data.draw(st.sampled_from(read), label="x")
            new = values(x.tensor.shape, seed)
            x.tensor.detach().assign(self.array(new))
            self.now_holds(x, new)
            self.backward_from(z, seed, retain=True)

    @rule(data=st.data())
    def optimizer_step(self, data: st.DataObject) -> None:
        moves = {p: p.grad for p in self.pairs if p.grad is not None and within(10)(p.grad)}
        if moves:
            x = data.draw(st.sampled_from(list(moves)), label="x")
            SGD([x.tensor], lr=0.125).step()
            self.now_holds(x, x.twin.value - 0.125 * moves[x])

    # -- rules: errors leave the graph unchanged

    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        """Wrong shapes, and gradients where there are none."""
        x = self.pick(data, anything, "x")
        wrong = self.array(np.ones((101, 1)))
        self.must_raise(ShapeError, lambda: ops.matmul(x.tensor, Tensor(wrong)))
        if x.requires_grad:
            self.must_raise(ShapeError, lambda: x.tensor.backward(wrong))
        else:
            self.must_raise(GraphError, lambda: x.tensor.backward(x.tensor.data))
        if not x.parents:
            self.must_raise(ValueError, lambda: x.tensor.assign(wrong))
        strangers = [p for p in self.pairs if p.requires_grad and not self.behind(p, x)]
        if x.requires_grad and strangers:
            y = data.draw(st.sampled_from(strangers), label="y")
            self.must_raise(GraphError, lambda: grad(x.tensor, y.tensor, x.tensor.data))

    @rule(data=st.data())
    def an_op_that_raises(self, data: st.DataObject) -> None:
        """In its forward; or in its vjp, where the graph behind it is not released and gets no
        gradient."""
        x = self.pick(data, anything, "x")
        self.must_raise(ArithmeticError, lambda: apply(Broken(forward_works=False), x.tensor))
        if x.requires_grad:
            with set_grad_enabled(True):
                y = ops.sum(apply(Broken(forward_works=True), x.tensor) + x.tensor)
            self.must_raise(ArithmeticError, lambda: y.backward())

    # -- invariants

    @invariant()
    def recording_is_as_the_blocks_say(self) -> None:
        probe = Tensor(self.array(np.ones(1)), requires_grad=True)
        assert (-probe).requires_grad == (not self.blocks), "recording is not as no_grad left it"

    @invariant()
    def values_and_gradients_are_the_twins(self) -> None:
        for p in self.pairs:
            actual = to_numpy(p.tensor)
            assert np.array_equal(actual, p.twin.value), f"{p} holds {actual}, not {p.twin.value}"
            assert p.tensor.requires_grad == p.requires_grad, (
                f"{p}: requires_grad {not p.requires_grad}"
            )
            assert p.tensor.is_leaf == (not p.parents), f"{p}: is_leaf {bool(p.parents)}"
            if p.grad is None:
                assert p.tensor.grad is None, f"{p} has a gradient from no backward pass"
                continue
            assert p.tensor.grad is not None, f"{p} has lost its gradient"
            assert p.tensor.grad.dtype == p.tensor.dtype
            scale = float(np.abs(p.grad).max(initial=0))
            agree(to_numpy(p.tensor.grad), p.grad, f".grad of {p}", 8, scale)
