"""Calls of the vjp under test: are its results gradients by form, the same in two calls, linear in
the cotangent? How far do rounding errors move them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minibn.testing.checking.layouts import COTANGENT_LAYOUTS, aliases, copy_in, expanded
from minibn.testing.checking.oracles import (
    Function,
    norm,
    one_ulp_away,
    salt_from,
    smooth,
    value_near,
)

SAFETY = 10.0  # the tolerance is so many times the measured error
CEILING = {8: 12.0, 4: 5.0, 2: 2.0}  # digits demanded at most, by the bytes of a number
LEAST = {8: 6.0, 4: 2.0, 2: 0.5}  # digits demanded at least: with fewer, rounding hides everything
REPEATS = 8  # calls at one point, which must give one gradient

Gradients = list[np.ndarray]
Layout = Callable[[np.ndarray], np.ndarray]


@dataclass
class VjpResult:
    """The gradients of one input, for each cotangent.

    spread   how far the gradient's entries move when every number moves to its neighbour
    eps      the rounding of the least exact of the inputs, or the accuracy that was promised
    bytes    the size of the least exact input's numbers
    at       (inputs of wrt) -> the result for the same cotangents at another point; None if the
             vjp raises there
    pull     cotangent -> the gradient at this point; None if the vjp raises
    rotated  cotangent -> what the vjp returns with its cotangent last; None if it raises
    """

    gradients: Gradients
    spread: np.ndarray
    eps: float
    bytes: int
    at: Callable[[Sequence[np.ndarray]], VjpResult | None]
    pull: Callable[[np.ndarray], np.ndarray | None] = lambda g: None
    rotated: Callable[[np.ndarray], np.ndarray | None] = lambda g: None

    @property
    def precision(self) -> float:
        """The rounding of the vjp's own numbers."""
        return float(np.finfo(f"f{self.bytes}").eps)

    def spread_along(self, u: np.ndarray) -> float:
        """The spread of ⟨gradient, u⟩, as the entries' roundings are independent."""
        return norm(self.spread * u)


@dataclass
class VjpCalls:
    """A vjp with the inputs at which it is called; its mistakes are added to `faults`, and what is
    worth knowing to `notes`.

    accuracy: the relative error that each call may have; 0 demands equal bits of equal calls
    allow_views: gradients may share memory with the cotangent and with each other
    """

    vjp: Callable[..., Any]
    given: list[Any]
    wrt: Sequence[int]
    faults: list[str]
    notes: list[str] = field(default_factory=list)
    accuracy: float = 0.0
    allow_views: bool = False
    rounding: Sequence[float] = ()  # of each gradient, as much as that of f explains
    last: list[np.ndarray] = field(default_factory=list)  # the gradients of the last call
    cotangent_dtype: Any = float

    def fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def with_inputs(self, moving: Sequence[np.ndarray]) -> list[Any]:
        """The inputs, with `moving` in place of those that are differentiated, in their layouts."""
        whole = list(self.given)
        for i, x in zip(self.wrt, moving, strict=True):
            whole[i] = copy_in(np.asarray(x), whole[i])
        return whole

    def pull(
        self, g: np.ndarray, given: Sequence[Any] | None = None, layout: Layout = copy_in
    ) -> Gradients | None:
        """The gradients of `wrt`, or None if they don't have the form of gradients."""
        given = self.given if given is None else given
        arrays = [copy_in(x) if isinstance(x, np.ndarray) else x for x in given]
        passed = layout(np.asarray(g))
        with np.errstate(all="ignore"):  # the comparison reports what is not finite
            try:
                result = self.vjp(passed, *arrays)
            except Exception as error:
                if given is self.given:
                    self._note_order(error, g, given)
                raise
        if passed.tobytes() != g.tobytes():
            self.fault("the vjp modifies its cotangent in place")
        for i, (x, array) in enumerate(zip(given, arrays, strict=True)):
            if isinstance(x, np.ndarray) and x.tobytes() != array.tobytes():
                self.fault(f"the vjp modifies input {i} in place")
        grads = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(grads) == len(given):
            grads = [grads[i] for i in self.wrt]
        if len(grads) != len(self.wrt):
            self.fault(
                f"the vjp returns {len(grads)} gradients for {len(given)} inputs: it must return "
                "one array for each, by position (None for one without)"
            )
            return None
        if layout is copy_in and not self.allow_views:
            for text in aliases(grads, self.wrt, passed, arrays, self.last):
                self.fault(text)
            self.last = [d for d in grads if isinstance(d, np.ndarray)]
        checked = [self._as_gradient(i, d, given[i]) for i, d in zip(self.wrt, grads, strict=True)]
        valid = [d for d in checked if d is not None]
        return valid if len(valid) == len(checked) else None

    def _note_order(self, error: Exception, g: np.ndarray, given: Sequence[Any]) -> None:
        """Add a note to the vjp's error, if it takes its cotangent last, and so does not raise."""
        try:
            result = self.vjp(*given, g.copy())
        except Exception:  # then the order is not the reason
            return
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if np.shape(first) == np.shape(given[0]):
            error.add_note(
                "The vjp raises when it is called as vjp(cotangent, *inputs), and does not as "
                "vjp(*inputs, cotangent): the cotangent comes first here. Pass "
                "lambda g, *inputs: vjp(*inputs, g)."
            )

    def pull_near(self, g: np.ndarray, given: Sequence[Any]) -> Gradients | None:
        """`pull` at a point nearby, where the vjp need not be defined: None if it raises."""
        try:
            return self.pull(g, given)
        except Exception:  # any error of the vjp's own: it may check its domain
            return None

    def _for_text(self, k: int, vjp: Callable[..., Any], g: np.ndarray) -> np.ndarray | None:
        """The gradient of one input from this form of the vjp, whose faults are not reported."""
        grads = VjpCalls(vjp, self.given, self.wrt, []).pull_near(
            g.astype(self.cotangent_dtype), self.given
        )
        return None if grads is None else grads[k]

    def _as_gradient(self, i: int, grad: Any, x: np.ndarray) -> np.ndarray | None:
        if grad is None:  # "no gradient" is a claim that it is zero
            return np.zeros_like(x)
        kind = type(grad).__name__
        grad = np.array(grad)  # a copy: the next call may overwrite it
        if grad.dtype.kind not in "fiu":
            self.fault(
                f"input {i}: the vjp returns a {kind} of {grad.dtype}, not an array of floats"
            )
            return None
        if grad.shape != x.shape:
            hint = " (not summed over the axes of broadcasting?)" if grad.size > x.size else ""
            others = [k for k in self.wrt if k != i and np.shape(self.given[k]) == grad.shape]
            if others:
                hint = f" (the shape of input {others[0]}: are the gradients in another order?)"
            self.fault(f"input {i}: a gradient of shape {grad.shape} for {x.shape}{hint}")
            return None
        if grad.dtype != x.dtype:
            self.fault(f"input {i}: the gradient of {x.dtype} is {grad.dtype}")
        return grad

    def measure(
        self, cotangents: Sequence[np.ndarray], rng: np.random.Generator, f: Function | None = None
    ) -> list[VjpResult] | None:
        """Pull every cotangent back, and check what holds for every vjp.
        f: the function; it is called at another point in between."""
        self.cotangent_dtype = cotangents[0].dtype
        first = self.pull(cotangents[0])
        if first is None:
            return None
        if f is not None:  # a vjp that reads what f's last call left now reads other values
            value_near(f, [np.asarray(1.001 * self.given[i]) for i in self.wrt])
        self._repeat(cotangents[0], first)
        results = self._results(self.given, cotangents, rng)
        if results is None:
            return None
        for k, result in enumerate(results):
            result.pull = partial(self._for_text, k, self.vjp)
            result.rotated = partial(self._for_text, k, lambda g, *given: self.vjp(*given, g))
        spreads = [result.spread for result in results]
        if (broken := self._not_linear(self.given, cotangents, spreads)) is not None:
            self._check_linear(broken, cotangents, spreads, rng)
        self.zero_at_zero(cotangents[0])
        self._try_layouts(cotangents[0], results)
        return results

    def _results(
        self, given: list[Any], cotangents: Sequence[np.ndarray], rng: np.random.Generator
    ) -> list[VjpResult] | None:
        """The gradients at a point, and how far rounding moves them; None if the vjp raises there,
        unless it is the point of the check."""
        pull = self.pull if given is self.given else self.pull_near
        pulled = [grads for c in cotangents if (grads := pull(c, given)) is not None]
        if len(pulled) < len(cotangents):
            return None
        spreads = self._between_neighbours(given, cotangents[0], rng)
        spreads = spreads or [np.zeros(x.shape) for x in pulled[0]]
        coarsest = max((self.given[i].dtype for i in self.wrt), key=lambda d: np.finfo(d).eps)
        eps = max(float(np.finfo(coarsest).eps), self.accuracy)

        def at(k: int) -> Callable[[Sequence[np.ndarray]], VjpResult | None]:
            def elsewhere(moving: Sequence[np.ndarray]) -> VjpResult | None:
                dtypes = (self.given[i].dtype for i in self.wrt)
                there = [np.asarray(x).astype(d) for x, d in zip(moving, dtypes, strict=True)]
                results = self._results(self.with_inputs(there), cotangents, rng)
                return results[k] if results is not None else None

            return elsewhere

        return [
            VjpResult([g[k] for g in pulled], smooth(spread), eps, coarsest.itemsize, at(k))
            for k, spread in enumerate(spreads)
        ]

    def _repeat(self, g: np.ndarray, first: Gradients) -> None:
        """Call the vjp again and again with the same numbers."""
        gap = 0.0
        for _ in range(REPEATS):
            again = self.pull(g) or first
            for a, b in zip(first, again, strict=True):
                if a.tobytes() != b.tobytes():
                    scale = float(np.abs(a).max(initial=0)) or 1.0
                    gap = max(gap, float(np.abs(a.astype(float) - b).max(initial=0)) / scale)
                    gap = gap if np.isfinite(gap) else np.inf
        if gap <= SAFETY * self.accuracy:
            return
        if gap < 1e-10:
            self.fault(
                f"two runs of the vjp differ by {gap:.0e}, relatively. If that is expected (atomic "
                f"additions, an iteration that is stopped), say so: accuracy={10 * gap:.0e}"
            )
        else:
            self.fault(
                "two runs of the vjp give two gradients: it is random, or uses what the last "
                "forward pass left. Run it inside: lambda g, x: (layer.forward(x), layer.vjp(g))[1]"
            )

    def _try_layouts(self, g: np.ndarray, results: Sequence[VjpResult]) -> None:
        """The same cotangent in other memory layouts must give the same gradients."""
        if g.size < 2:
            return
        expected = [result.gradients[0] for result in results]
        for name, layout in COTANGENT_LAYOUTS.items():
            if g.ndim > 1 or name != "in Fortran order":
                self._compare_layouts(name, g, layout, expected, results)
        ones = expanded(g)
        dense = self.pull_near(np.array(ones), self.given)
        if dense is not None:
            name = "with strides of 0 (expanded, as a sum passes it back)"
            self._compare_layouts(name, ones, lambda c: expanded(c), dense, results)

    def _compare_layouts(
        self,
        name: str,
        g: np.ndarray,
        layout: Layout,
        expected: Gradients,
        results: Sequence[VjpResult],
    ) -> None:
        try:
            there = self.pull(g, layout=layout)
        except Exception as error:  # a refusal is loud, and no wrong gradient
            text = " ".join(str(error).split())[:100]
            self.notes.append(f"refuses a cotangent {name}: {type(error).__name__}: {text}")
            return
        for i, a, b, result in zip(self.wrt, expected, there or expected, results, strict=True):
            scale = float(np.abs(a.astype(float)).max(initial=0))
            with np.errstate(all="ignore"):
                gap = np.abs(a.astype(float) - b)
            if not (gap <= 4 * SAFETY * (result.spread + result.eps * scale)).all():
                self.fault(
                    f"input {i}: the vjp gives another gradient for the same cotangent {name}: "
                    "does it read memory as if it were contiguous? np.ascontiguousarray(g) first"
                )

    def _between_neighbours(
        self, given: list[Any], g: np.ndarray, rng: np.random.Generator
    ) -> Gradients | None:
        """The range of the gradients at three neighbouring points. The point itself is left out: a
        gradient that is wrong at a single point is not rounding."""
        samples = []
        for _ in range(3):
            salt = salt_from(rng)
            at = self.with_inputs([one_ulp_away(given[i], salt) for i in self.wrt])
            samples.append(self.pull_near(one_ulp_away(g, salt), at))
        whole = [grads for grads in samples if grads is not None]
        if len(whole) < len(samples):
            return None
        stacks = [np.stack(grads).astype(float) for grads in zip(*whole, strict=True)]
        with np.errstate(invalid="ignore"):
            return [s.max(axis=0) - s.min(axis=0) for s in stacks]

    def _not_linear(
        self, given: Sequence[Any], c: Sequence[np.ndarray], spreads: Gradients
    ) -> Gradients | None:
        """vjp(c₁ - 2 c₂) - (vjp(c₁) - 2 vjp(c₂)), if that is more than rounding; else None."""
        a, b, both = (self.pull_near(g, given) for g in (c[0], c[1], c[0] - 2 * c[1]))
        if a is None or b is None or both is None:
            return None
        gaps, far = [], False
        for k, i in enumerate(self.wrt):
            one, two, joint = (g[k].astype(float) for g in (a, b, both))
            with np.errstate(invalid="ignore"):
                gap = joint - (one - 2 * two)
            scale = float(max(np.abs(one).max(initial=0), np.abs(two).max(initial=0)))
            eps = max(float(np.finfo(self.given[i].dtype).eps), self.accuracy)
            limit = spreads[k] + eps * scale + (self.rounding[k] if self.rounding else 0.0)
            far = far or bool((np.abs(gap) > 4 * SAFETY * limit).any())
            gaps.append(gap)
        return gaps if far else None

    def _check_linear(
        self,
        broken: Gradients,
        c: Sequence[np.ndarray],
        spreads: Gradients,
        rng: np.random.Generator,
    ) -> None:
        """Add a fault, unless `broken` is rounding, which differs at points nearby."""

        def beside(x: np.ndarray) -> np.ndarray:
            shake = np.finfo(x.dtype).eps ** (1 / 3) * rng.uniform(-1, 1, x.shape)
            return np.asarray(x * (1 + shake)).astype(x.dtype)

        samples = [broken]
        for _ in range(8):
            at = self.with_inputs([beside(self.given[i]) for i in self.wrt])
            gaps = self._not_linear(at, [beside(g) for g in c], spreads)
            if gaps is None:
                return
            samples.append(gaps)
        for k, i in enumerate(self.wrt):
            errors = np.stack([gaps[k] for gaps in samples])
            if errors.size and systematic(errors).any():
                self.fault(f"input {i}: the vjp is not linear in the cotangent")

    def zero_at_zero(self, c: np.ndarray) -> None:
        none = self.pull(0 * c)
        for i, g in zip(self.wrt, none or [], strict=False):
            if np.any(g):
                self.fault(f"input {i}: the vjp of a cotangent of zeros is not zero")


def systematic(errors: np.ndarray) -> np.ndarray:
    """Which errors, measured at several points nearby (axis 0), are no rounding: those that keep
    their sign and their size."""
    one_sign = np.abs(np.sign(errors).sum(axis=0)) == len(errors)
    sizes = np.abs(errors)
    return np.asarray(one_sign & (sizes.min(axis=0) > 0.5 * sizes.max(axis=0)))
