"""The ensemble: every oracle at one input of a function, asked along one direction.

The differences look first, since they need nothing but values: they find kinks, and judge whether
the complex step can be believed. Then the most exact oracle that serves leads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    composite: bool = False  # a network: what its gradient is at a kink is a convention
    measured: np.ndarray | None = None  # the noise, once it is known

    def __post_init__(self) -> None:
        self.y = np.asarray(self.f(*self.inputs), float)
        if self.measured is None:
            self.measured = oracles.noise_of(self.f, self.inputs, self.rng)

    @property
    def noise(self) -> np.ndarray:
        """How far rounding moves each output."""
        assert self.measured is not None
        return self.measured

    @property
    def coarse(self) -> bool:
        """Whether f computes in no more than float32 inside."""
        return float(np.linalg.norm(self.noise)) >= 3e-9 * float(np.linalg.norm(self.y))

    def at(self, inputs: list[np.ndarray]) -> Point:
        """The same function at another point."""
        return replace(self, inputs=inputs)

    def neighbour(self) -> Point:
        """The same, one unit in the last place away; or here, if f raises there."""
        salt = oracles.salt_from(self.rng)
        away = [oracles.one_ulp_away(x, salt) for x in self.inputs]
        return self if oracles.value_near(self.f, away) is None else self.at(away)


@dataclass
class Ensemble:
    """The oracles at one input of a point: which of them serve, and which leads."""

    point: Point
    i: int

    def __post_init__(self) -> None:
        x = self.point.inputs[self.i]
        self.probe = np.asarray(self.point.rng.standard_normal(x.shape))
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
        served = [n for n in ("complex step", "one large step") if not self.abstains(n)]
        self.leading = served[0] if served else "differences"

    def at(self, point: Point) -> Ensemble:
        """The same ensemble, with the oracle that leads here, at another point."""
        other = object.__new__(Ensemble)
        other.__dict__.update(self.__dict__ | {"point": point})
        return other

    @property
    def kink_count(self) -> int:
        """The outputs that have a kink along the probe."""
        return int(self.sides.kinks().sum()) if self.sides is not None else 0

    def complex_step(self, u: np.ndarray) -> Slope:
        return oracles.complex_step(self.point.f, self.point.inputs, self.i, u)

    def one_large_step(self, u: np.ndarray) -> Slope:
        return oracles.one_large_step(self.point.f, self.point.inputs, self.i, u, self.point.noise)

    def by_reference(self, u: np.ndarray) -> Slope:
        f, inputs, noise = self.point.reference, self.point.inputs, self.point.noise
        assert f is not None
        return oracles.differences(f, inputs, self.i, u, noise, self.point.starts).central

    def differences(self, u: np.ndarray) -> Sides:
        p = self.point
        return oracles.differences(p.f, p.inputs, self.i, u, p.noise, p.starts)

    def slope(self, u: np.ndarray) -> Slope:
        """J u by the most exact oracle that serves here, or by differences where it does not."""
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
            found = oracle(self.probe)
        except Abstention as reason:
            self.answers[name] = str(reason)
            return None
        if isinstance(found, Slope):
            self.answers[name] = found
        return found

    def abstains(self, name: str) -> bool:
        return isinstance(self.answers[name], str)

    def _guard(self, name: str, found: Slope | None) -> None:
        """An oracle must agree with the differences, roughly: `np.abs` passes the complex step
        without a word, `x % 1` looks affine. A contradiction is confirmed with smaller steps."""
        if found is None or not self._against(found, self.sides):
            return
        p = self.point
        try:
            closer = oracles.differences(
                p.f, p.inputs, self.i, self.probe, p.noise, oracles.SMALLER
            )
        except Abstention:
            return
        if not self._against(found, closer):
            self.sides, self.answers["differences"] = closer, closer.central
            return
        self.answers[name] = "contradicts the differences: " + (
            "f is not analytic as written (np.abs, np.var, a comparison of complex numbers?)"
            if name == "complex step"
            else "f is not affine"
        )

    @staticmethod
    def _against(found: Slope, sides: Sides | None) -> bool:
        assert sides is not None
        gap = np.abs(found.value - sides.central.value)
        size = float(np.abs(sides.central.value).max(initial=0))
        return bool((gap > 100 * sides.central.error + 1e-4 * size).any())
