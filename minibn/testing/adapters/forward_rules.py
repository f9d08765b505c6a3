"""`check_jvp`: forward rules, which map tangents of the inputs to tangents of the outputs.

A column of the Jacobian is the rule at one unit tangent. From columns the gradient ⟨g, J⟩ of every
cotangent g is assembled, and checked as any other: the oracles and the verdicts are those of
`check_vjp`. A large input is moved along a few random directions only; the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibn.testing.arguments import Front, name_of, relabel
from minibn.testing.check import check_vjp
from minibn.testing.checking.oracles import scale_of
from minibn.testing.containers import MISSING, Mismatch, align, paths
from minibn.testing.leaves import Inputs, Outputs, select
from minibn.testing.report import GradReport, without_listeners

ENTRIES = 32  # of an input with as many every column is compared
DIRECTIONS = 4  # along which a larger one moves
ROUNDING = 1e3  # times eps: how far sums of columns may be from the rule at a sum of tangents


def check_jvp(
    f: Callable[..., Any],
    jvp: Callable[..., Any],
    *arguments: Any,
    name: str = "",
    seed: int = 0,
    wrt: Any = None,
    zero_gradient: Any = (),
    raises: bool = True,
    **keywords: Any,
) -> GradReport:
    """Compare a hand-written Jacobian-vector product with derivatives computed from values.

    f(*arguments) -> y; jvp(primals, tangents) -> the tangent of y, or (y, its tangent), as JAX's
    rules give it. primals is the tuple of the arguments; tangents is of the same structure, with
    None for what is no array of floats. Arguments and outputs are those that `check_vjp` takes, and
    so are the keywords.

    The rule must also be linear in all tangents together. An input of more than 32 entries is moved
    along four random directions. Raises as `check_vjp` does.

    >>> report = check_jvp(np.sin, lambda x, t: np.cos(x[0]) * t[0], np.array([0.3, -1.0]))
    >>> report.passed, report.digits > 12
    (True, True)
    """
    if not (callable(f) and callable(jvp)):
        raise TypeError("check_jvp(f, jvp, *arguments): the first two arguments are functions.")
    inputs = Inputs(arguments, wrt, [])
    first, _ = inputs.arguments([np.array(x) for x in inputs.arrays()])
    rule = Rule(Front(f, jvp, inputs, Outputs(f(*first))), seed)
    leaves = [(inputs.positions[k], inputs.leaves[k].label) for k in inputs.core]
    flat = select(zero_gradient, leaves, [], "zero_gradient", inputs.count) if zero_gradient else ()
    name = (name or name_of(f)) + ", forward rule"
    settings: dict[str, Any] = {"diagnose": rule.whole, "reproduce": lambda *point: ""}
    try:
        with without_listeners():
            report = check_vjp(
                rule.value, rule.vjp, *rule.coordinates, name=name, seed=seed, raises=False,
                wrt=inputs.moving, zero_gradient=flat, **(settings | keywords),
            )  # fmt: skip
        rule.check_linear()
    except Mismatch as error:
        fault = (
            str(error).replace("its gradient", "its tangent").replace("the gradient", "the tangent")
        )
        return GradReport(name, faults=[fault], seed=seed).settle(raises)
    report.faults += rule.faults
    relabel(report, inputs)
    for entry, n in zip(report.inputs, inputs.moving, strict=False):
        if not rule.every[n]:
            entry.shape = inputs.arrays()[n].shape
            entry.how = entry.how.replace("every entry", f"{DIRECTIONS} random directions")
            entry.worst = None
    return report.settle(raises)


@dataclass
class Rule:
    """A jvp with the coordinates in which it is differentiated: an input itself, or how far a large
    one is moved along each of its directions."""

    front: Front
    seed: int
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng((self.seed, 4))
        self.arrays = self.front.inputs.arrays()
        self.every = [
            x.size <= ENTRIES or n not in self.front.inputs.moving
            for n, x in enumerate(self.arrays)
        ]
        self.bases = [
            np.eye(x.size).reshape(x.size, *x.shape)
            if every
            else scale_of(x) * self.rng.standard_normal((DIRECTIONS, *x.shape))
            for x, every in zip(self.arrays, self.every, strict=True)
        ]
        self.coordinates = [
            x if every else self.rng.standard_normal(DIRECTIONS).astype(x.dtype)
            for x, every in zip(self.arrays, self.every, strict=True)
        ]
        self.columns: tuple[bytes, list[np.ndarray]] = (b"", [])

    @property
    def whole(self) -> bool:
        return all(self.every)

    def fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def point(self, at: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inputs at these coordinates; exactly those that were given at the first ones."""
        moved = zip(at, self.coordinates, self.arrays, self.bases, self.every, strict=True)
        return [
            s if every else np.asarray(
                x + np.tensordot(s - s0, base.astype(s.real.dtype), 1), np.result_type(s, x)
            )
            for s, s0, x, base, every in moved
        ]  # fmt: skip

    def value(self, *at: np.ndarray) -> np.ndarray:
        return self.front.value(self.front.f, *self.point(at))

    def push(self, tangents: Sequence[np.ndarray], at: Sequence[np.ndarray]) -> np.ndarray:
        """The rule on NumPy arrays. Raises Mismatch for a tangent of another structure."""
        front = self.front
        primals, objects = front.inputs.arguments(at)
        given = front.inputs.tangents(tangents)
        before = [t.tobytes() for t in tangents]
        result = front.vjp(tuple(primals), tuple(given))
        front.inputs.read_back(at, objects)
        if before != [t.tobytes() for t in tangents]:
            self.fault("the jvp modifies its tangents in place")
        tree = front.outputs.tree
        is_pair = isinstance(result, tuple) and len(result) == 2
        if is_pair and len(paths(result)) == 2 * len(paths(tree)):
            self._compare_values(result[0], at)
            result = result[1]
        return self._tangent(result)

    def _tangent(self, result: Any) -> np.ndarray:
        outputs, parts = self.front.outputs, []
        for leaf, t in zip(outputs.leaves, align(outputs.tree, result, "output"), strict=True):
            if not leaf.moves:
                continue
            shape = np.shape(leaf.x)
            if t is MISSING:
                raise Mismatch(f"{leaf.label}: the jvp returns no tangent for it")
            values = leaf.values_of(np.zeros(shape) if t is None else t)
            if np.shape(values) != leaf.values.shape:  # type: ignore[union-attr]
                raise Mismatch(f"{leaf.label}: a tangent of shape {np.shape(t)} for {shape}")
            parts.append(values.reshape(-1))
        return np.concatenate(parts)

    def _compare_values(self, value: Any, at: Sequence[np.ndarray]) -> None:
        y = self.front.value(self.front.f, *at).reshape(-1)
        theirs = self._tangent(value)
        scale = float(np.abs(y).max(initial=0))
        eps = float(np.finfo(y.dtype).eps)
        if not np.all(np.abs(theirs - y) <= ROUNDING * eps * scale):
            self.fault("the first result of the jvp is not f's value at this point")

    def jacobian(self, at: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each input that moves the columns, (n, outputs)."""
        key = b"".join(s.tobytes() + str(s.dtype).encode() for s in at)
        if self.columns[0] != key:
            point, columns = self.point(at), []
            for n in self.front.inputs.moving:
                pushed = []
                for direction in self.bases[n]:
                    tangents = [np.zeros_like(x) for x in point]
                    tangents[n][...] = direction
                    pushed.append(self.push(tangents, point))
                columns.append(np.array(pushed))
            self.columns = (key, columns)
        return self.columns[1]

    def vjp(self, g: np.ndarray, *at: np.ndarray) -> tuple[np.ndarray | None, ...]:
        gradients: list[np.ndarray | None] = [None] * len(at)
        for n, columns in zip(self.front.inputs.moving, self.jacobian(at), strict=True):
            shape = at[n].shape
            gradients[n] = (columns @ g.reshape(-1)).reshape(shape).astype(at[n].dtype)
        return tuple(gradients)

    def check_linear(self) -> None:
        """Is the rule at a sum of tangents the sum of columns? A tangent of zeros gives zeros."""
        columns = self.jacobian(self.coordinates)
        for size in (1.0, 0.0):
            weights = [size * self.rng.standard_normal(len(c)) for c in columns]
            tangents = [np.zeros_like(x) for x in self.arrays]
            for n, w in zip(self.front.inputs.moving, weights, strict=True):
                tangents[n][...] = np.tensordot(w, self.bases[n], 1)
            got = self.push(tangents, [np.array(x) for x in self.arrays])
            pairs = list(zip(weights, columns, strict=True))
            expected = sum(w @ c for w, c in pairs)
            room = sum(np.abs(w) @ np.abs(c) for w, c in pairs)
            eps = float(np.finfo(got.dtype).eps) if got.dtype.kind == "f" else 0.0
            if not np.all(np.abs(got - expected) <= ROUNDING * eps * np.max(room, initial=0)):
                self.fault(
                    "the jvp is not linear in the tangents: at a sum of tangents it is not the "
                    "sum of what it is at each"
                )
