"""The ensemble: every oracle at one input of a function, evaluated along one direction.

Differences come first, since they need nothing but values: they find kinks and show whether the
complex step is valid. Then the most exact of the valid oracles is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.oracles import Abstention, Function, Sides, Slope


@dataclass
class Point:
    """A function at a point, in float64, with the cotangents that are pulled back there."""

    f: Function
    inputs: list[np.ndarray]
    cotangents: list[np.ndarray]
    rng: np.random.Generator
    reference: Function | None = None  # f, written independently
    starts: Sequence[float] = oracles.STARTS  # of the differences
    composite: bool = False  # a network: its gradient at a kink is a convention
    accuracy: float = 0.0  # the relative error that f is said to have
    room: Callable[[], float] = lambda: np.inf  # calls of f that are left for an input
    measured: np.ndarray | None = None  # the noise, once it is known
    slopes: dict[Any, Any] = field(default_factory=dict, init=False)  # of single entries

    def __post_init__(self) -> None:
        self.y = np.asarray(self.f(*self.inputs), float)
        if self.measured is None:
            self.measured = oracles.noise_of(self.f, self.inputs, self.rng)
            own = self.accuracy * float(np.abs(self.y).max(initial=0))
            self.measured = np.maximum(self.measured, own)

    @property
    def noise(self) -> np.ndarray:
        """How far rounding moves each output."""
        assert self.measured is not None
        return self.measured

    @property
    def coarse(self) -> bool:
        """Whether f computes in no more than float32 inside."""
        return self.relative_noise >= 3e-9

    @property
    def relative_noise(self) -> float:
        """The noise beside the output."""
        size = oracles.norm(self.y)
        return oracles.norm(self.noise) / size if size else 0.0

    def direction(self, i: int) -> np.ndarray:
        """A random direction of input i: normal, in units of each entry's own scale."""
        units = oracles.units(self.inputs[i])
        u = self.rng.standard_normal(units.shape) * units / units.max(initial=1e-300)
        return np.asarray(u)

    def unit_directions(self, i: int) -> list[np.ndarray]:
        """One direction for each entry of input i, of length 1 (less for entries whose own scale is
        far below the others')."""
        units = oracles.units(self.inputs[i])
        lengths = (units / units.max()).reshape(-1)
        return list(np.diag(lengths).reshape(-1, *units.shape)) if units.size else []

    def rounding(self, i: int, c: np.ndarray, slope: float, eps: float = oracles.EPS) -> float:
        """How much rounding may move the derivative of ⟨c, f⟩ along a direction of length 1: as
        much as it moves f over the length on which x varies, or, relatively to `slope`, as much as
        it moves f. `eps` is the rounding of the vjp, where it computes in less precision.

        A gradient that is less exact than f, by orders of magnitude, has lost digits on its way.
        """
        noise = np.maximum(self.noise, eps * np.abs(self.y))
        if not self.coarse:  # what f loses by cancellation, the vjp loses in its own precision
            noise = np.maximum(noise, self.noise * (eps / oracles.EPS))
        length = float(oracles.units(self.inputs[i]).max(initial=0)) or 1.0
        own = float((np.abs(c) * noise).sum()) / length
        size = oracles.norm(self.y)
        return own + abs(slope) * (oracles.norm(noise) / size if size else eps)

    def rounding_beyond(self, i: int, eps: float) -> float:
        """`rounding` where f is not as small as here: a loss near 0 is a difference of logarithms,
        whose roundings are not seen in its value."""
        units = oracles.units(self.inputs[i])
        c, sizes = np.abs(self.cotangents[0]), [0.0]
        for reach in (1, -1, 3, -3, 3, -3):
            step = reach * units * self.rng.uniform(-1, 1, units.shape)
            y = oracles.value_near(self.f, oracles.shift(self.inputs, i, step))
            sizes += [float((c * np.abs(y)).sum())] if y is not None else []
        return eps * max(sizes) / float(units.max(initial=1e-300))

    def at(self, inputs: list[np.ndarray]) -> Point:
        """The same function at another point."""
        return replace(self, inputs=inputs)

    def beside(self, number: str = "f8", distance: float = 1e-3) -> list[np.ndarray]:
        """The inputs of a random point 0.1 % of their scales away, as numbers of this precision."""
        moved = [
            x + distance * oracles.units(x) * self.rng.uniform(-1, 1, x.shape) for x in self.inputs
        ]
        return [np.asarray(x, number).astype(float) for x in moved]

    def neighbour(self) -> Point:
        """The point with all inputs moved to their neighbours; itself, if f raises there."""
        salt = oracles.salt_from(self.rng)
        away = [oracles.one_ulp_away(x, salt) for x in self.inputs]
        return self if oracles.value_near(self.f, away) is None else self.at(away)


@dataclass
class Ensemble:
    """The oracles at one input of a point: which of them are valid, and which is used."""

    point: Point
    i: int

    def __post_init__(self) -> None:
        self.probe = self.point.direction(self.i)
        self.answers: dict[str, Slope | str] = {}
        self.sides: Sides | None = self._ask("differences", self.differences)
        if self.sides is not None:
            self.answers["differences"] = self.sides.central
        exact: Slope | None = self._ask("complex step", self.complex_step)
        step: Slope | None = self._ask("one large step", self.one_large_step)
        if self.sides is not None and not self.kink_count:
            self._guard("complex step", exact)
            self._guard("one large step", step)
        if self.point.reference is not None:
            self._ask("reference", self.by_reference)
        valid = [n for n in ("complex step", "one large step") if not self.abstains(n)]
        if exact is not None and self.sides is not None and self._underflows(exact):
            valid = [name for name in valid if name != "complex step"]
        self.leading = valid[0] if valid else "differences"

    def at(self, point: Point) -> Ensemble:
        """The same ensemble, with the oracle that is used here, at another point."""
        other = object.__new__(Ensemble)
        other.__dict__.update(self.__dict__ | {"point": point})
        return other

    def of_input(self, i: int) -> Ensemble:
        """The same oracle at another input of the point."""
        other = self.at(self.point)
        other.i = i
        return other

    @property
    def kink_count(self) -> int:
        """The outputs that have a kink along the probe."""
        return int(self.sides.kinks().sum()) if self.sides is not None else 0

    def complex_step(self, u: np.ndarray) -> Slope:
        slope = oracles.complex_step(self.point.f, self.point.inputs, self.i, u)
        largest = float(np.abs(slope.value).max(initial=0))  # an iteration stops before its slope
        return Slope(slope.value, slope.error + 10 * self.point.accuracy * largest)

    def one_large_step(self, u: np.ndarray) -> Slope:
        return oracles.one_large_step(self.point.f, self.point.inputs, self.i, u, self.point.noise)

    def by_reference(self, u: np.ndarray) -> Slope:
        f, inputs, noise = self.point.reference, self.point.inputs, self.point.noise
        assert f is not None
        return oracles.differences(f, inputs, self.i, u, noise, self.point.starts).central

    def differences(self, u: np.ndarray) -> Sides:
        p = self.point
        return self._once(
            "differences",
            u,
            lambda: oracles.differences(p.f, p.inputs, self.i, u, p.noise, p.starts),
        )

    def slope(self, u: np.ndarray) -> Slope:
        """J u by the most exact valid oracle, or by differences where it abstains."""
        return self._once("slope", u, lambda: self._slope(u))

    def _once(self, what: str, u: np.ndarray, measure: Callable[[], Any]) -> Any:
        """The slope of a single entry is measured once, for the check and for its text."""
        moving = np.flatnonzero(u)
        if len(moving) != 1:
            return measure()
        key = (what, self.i, int(moving[0]), float(u.flat[moving[0]]))
        if key not in self.point.slopes:
            self.point.slopes[key] = measure()
        return self.point.slopes[key]

    def known_slope(self, entry: int) -> Slope | None:
        """The slope of this entry, for a step of length 1, if it was measured with any length."""
        for (what, i, k, length), slope in self.point.slopes.items():
            if (what, i, k) == ("slope", self.i, entry):
                return Slope(slope.value / length, slope.error / abs(length))
        return None

    def _slope(self, u: np.ndarray) -> Slope:
        try:
            if self.leading == "complex step":
                return self.complex_step(u)
            if self.leading == "one large step":
                return self.one_large_step(u)
        except Abstention:
            pass
        return self.differences(u).central

    def _ask(self, name: str, oracle: Callable[[np.ndarray], Any]) -> Any:
        try:
            answer = oracle(self.probe)
        except Abstention as reason:
            self.answers[name] = str(reason)
            return None
        if isinstance(answer, Slope):
            self.answers[name] = answer
        return answer

    def abstains(self, name: str) -> bool:
        return isinstance(self.answers[name], str)

    def _guard(self, name: str, slope: Slope | None) -> None:
        """Reject an oracle that contradicts the differences: the complex step of `np.abs` is wrong
        without an error, `x % 1` looks affine. Smaller steps must confirm the contradiction."""
        if slope is None or self.sides is None:
            return
        lost = self._loses_an_output(slope, self.sides)
        if not (lost or self._contradicts(slope, self.sides)):
            return
        p = self.point
        if self._below_resolution(slope):
            self.answers["differences"] = "f does not move by a rounding over the steps tried"
            return
        try:
            closer = oracles.differences(
                p.f, p.inputs, self.i, self.probe, p.noise, oracles.SMALLER
            )
        except Abstention:
            return
        if not (self._loses_an_output(slope, closer) or self._contradicts(slope, closer)):
            self.sides, self.answers["differences"] = closer, closer.central
            return
        self.answers[name] = "contradicts the differences: " + (
            "f is not analytic as written (np.abs, np.var, a comparison of complex numbers?)"
            if name == "complex step"
            else "f is not affine"
        )

    def _underflows(self, exact: Slope) -> bool:
        """Whether the complex step is too small a number to have all of its digits."""
        assert self.sides is not None
        lost = float(exact.error.max(initial=0))
        return lost > 1e-6 * float(np.abs(self.sides.central.value).max(initial=0)) > 0

    def _below_resolution(self, slope: Slope) -> bool:
        """Whether f moves by less than its roundings over the steps of the differences: log cosh x
        near 0 is log 1."""
        assert self.sides is not None
        slopes = np.maximum(np.abs(slope.value), np.abs(self.sides.central.value))
        moves = slopes * float(self.sides.steps.max(initial=0))
        largest = max(1.0, float(np.abs(self.point.inputs[self.i]).max(initial=0)))
        return bool((moves <= oracles.EPS * np.maximum(largest, np.abs(self.point.y))).all())

    def _loses_an_output(self, slope: Slope, sides: Sides) -> bool:
        """Whether the slope of an output is exactly zero, and f moves there by far more than a
        rounding of that output (whose noise may be drowned by that of larger outputs): a cast to
        real numbers in one of several terms."""
        central = np.abs(sides.central.value)
        moves = central * float(sides.steps.max(initial=0))
        seen = (moves > 1e6 * oracles.EPS * np.abs(self.point.y)) & (central > 1e-3 * central.max())
        return bool((seen & (slope.value == 0)).any()) if central.size else False

    @staticmethod
    def _contradicts(slope: Slope, sides: Sides | None) -> bool:
        assert sides is not None
        gap = np.abs(slope.value - sides.central.value)
        size = float(np.abs(sides.central.value).max(initial=0))
        return bool((gap > 100 * sides.central.error + 1e-4 * size).any())
