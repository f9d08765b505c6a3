"""After a failure: measure the wrong gradient entry by entry, so that it can be explained.

Of a small input the check has measured every entry already. Of a larger one as many are measured as
the budget allows: all at once along the axes that f treats index by index (a batch), else some,
among them those that a bisection finds to be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import Abstention, Slope
from minibn.testing.checking.vjp_calls import SAFETY, VjpResult
from minibn.testing.diagnosis.budget import Budget
from minibn.testing.diagnosis.evidence import Evidence

OUTPUTS = 64  # the vjp's whole Jacobian is asked for, if there are no more
POINTS = 24  # values of the input at which a function of single entries is compared


@dataclass
class Measured:
    """The slopes of single entries, summed with each cotangent, and with ones."""

    numeric: np.ndarray  # (cotangents, entries), NaN where nothing was measured
    error: np.ndarray  # (cotangents, entries)
    with_ones: np.ndarray  # (entries,)
    ties: np.ndarray  # (entries,)
    columns: dict[int, np.ndarray]  # of the Jacobian, flat

    @classmethod
    def none(cls, cotangents: int, entries: int) -> Measured:
        unknown = np.full((cotangents, entries), np.nan)
        ties = np.zeros(entries, bool)
        return cls(unknown, np.zeros((cotangents, entries)), unknown[0].copy(), ties, {})


def dissect(
    ensemble: Ensemble, result: VjpResult, which: int = 0, budget: Budget | None = None
) -> Evidence:
    """The evidence about the gradient of the ensemble's input, for cotangent number `which`."""
    point, i = ensemble.point, ensemble.i
    x, y = point.inputs[i], point.y
    found = Measured.none(len(point.cotangents), x.size)
    known = _known(ensemble)
    for k in known:
        _measure_entry(ensemble, k, found)
    axes: tuple[int, ...] = ()
    if len(known) < x.size:
        axes = _measure_more(ensemble, result, which, budget, found)
    whole = len(found.columns) == x.size > 0
    jacobian = np.stack([found.columns[k] for k in range(x.size)], 1) if whole else None
    pulled = _pull_jacobian(result, y.shape) if whole and 1 < y.size <= OUTPUTS else None
    others = _slopes_of_others(ensemble, budget)
    ev, *rest = (
        replace(
            _evidence(ensemble, result, n, found),
            others={k: np.tensordot(slopes, c, c.ndim) for k, slopes in others.items()},
            jacobian=jacobian,
            pulled=pulled,
            rotated=result.rotated(c),
        )
        for n, c in sorted(enumerate(point.cotangents), key=lambda item: item[0] != which)
    )
    if x.shape == y.shape and (len(axes) == x.ndim if jacobian is None else _diagonal(jacobian)):
        ev = replace(ev, wider=_at_more_values(ensemble, result, which, ev, budget))
    return ev.beside(rest[0]) if rest else ev


def _evidence(ensemble: Ensemble, result: VjpResult, which: int, found: Measured) -> Evidence:
    point, x = ensemble.point, ensemble.point.inputs[ensemble.i]
    numeric = found.numeric[which].reshape(x.shape)
    scale = float(np.nanmax(np.abs(numeric), initial=0))
    error = found.error[which].reshape(x.shape)
    tolerance = SAFETY * (error + result.spread + result.eps * scale)
    return Evidence(
        position=ensemble.i,
        inputs=tuple(point.inputs),
        output=point.y,
        cotangent=point.cotangents[which],
        analytic=result.gradients[which].astype(float),
        numeric=numeric,
        tolerance=np.maximum(tolerance, 1e-9 * scale),
        with_ones=found.with_ones.reshape(x.shape),
        ties=found.ties.reshape(x.shape) if ensemble.kink_count else None,
    )


def _known(ensemble: Ensemble) -> list[int]:
    """The entries whose slopes the check has measured."""
    return sorted(
        {k for what, i, k, _ in ensemble.point.slopes if (what, i) == ("slope", ensemble.i)}
    )


def _unit(shape: tuple[int, ...], k: int) -> np.ndarray:
    u = np.zeros(shape)
    u.flat[k] = 1.0
    return u


def _measure_entry(ensemble: Ensemble, k: int, found: Measured) -> None:
    point = ensemble.point
    u = _unit(point.inputs[ensemble.i].shape, k)
    try:
        slope = ensemble.known_slope(k) or ensemble.slope(u)
        if ensemble.kink_count:
            found.ties[k] = ensemble.differences(u).kinks().any()
    except Abstention:
        return
    for n, c in enumerate(point.cotangents):
        found.numeric[n, k], found.error[n, k] = slope.along(c)
    found.with_ones[k] = slope.value.sum()
    found.columns[k] = np.ravel(slope.value)


def _measure_more(
    ensemble: Ensemble, result: VjpResult, which: int, budget: Budget | None, found: Measured
) -> tuple[int, ...]:
    """Within the budget: all entries, or those of all indices of some axes at once, which are
    returned, or some entries."""
    x = ensemble.point.inputs[ensemble.i]
    known = set(_known(ensemble))
    left = [k for k in range(x.size) if k not in known]
    if budget is None:
        for k in left:
            _measure_entry(ensemble, k, found)
        return ()
    before = budget.spent
    axes = _separate_axes(ensemble, budget)
    cost = max(1, (budget.spent - before) // max(1, x.ndim))  # of one slope
    rest = [n for a, n in enumerate(x.shape) if a not in axes]
    if axes and prod(rest) * cost <= budget.left:
        for index in np.ndindex(*rest):
            _measure_together(ensemble, axes, index, found)
        return axes
    if len(left) * cost > budget.left:
        most = max(8, budget.left // cost // 2)
        some = ensemble.point.rng.permutation(left)[:most]
        left = [*_bisect(ensemble, result, which, budget), *map(int, some)]
    for k in left:
        if budget.left < cost:
            break
        _measure_entry(ensemble, k, found)
    return ()


def _separate_axes(ensemble: Ensemble, budget: Budget) -> tuple[int, ...]:
    """The axes along which an output depends on the input of its own index alone, as along a
    batch."""
    x, y = ensemble.point.inputs[ensemble.i], ensemble.point.y
    axes = []
    for a in range(min(x.ndim, y.ndim)):
        if not 1 < x.shape[a] == y.shape[a] or budget.left < 2:
            continue
        half = ensemble.point.rng.permutation(x.shape[a])[: x.shape[a] // 2]
        u = np.zeros(x.shape)
        along = (slice(None),) * a + (half,)
        u[along] = ensemble.probe[along]
        try:
            value = np.abs(ensemble.slope(u).value)
        except Abstention:
            return ()
        outside = np.delete(value, half, axis=a)
        if outside.max(initial=0) <= 1e-9 * value.max(initial=0):
            axes.append(a)
    return tuple(axes)


def _measure_together(
    ensemble: Ensemble, axes: tuple[int, ...], index: tuple[int, ...], found: Measured
) -> None:
    """The entries with this index along the other axes, all at once."""
    point = ensemble.point
    x, y = point.inputs[ensemble.i], point.y
    place: list = [slice(None)] * x.ndim
    for a, k in zip([a for a in range(x.ndim) if a not in axes], index, strict=True):
        place[a] = k
    u = np.zeros(x.shape)
    u[tuple(place)] = 1.0
    try:
        slope = ensemble.slope(u)
        ties = ensemble.differences(u).kinks() if ensemble.kink_count else np.zeros(y.shape, bool)
    except Abstention:
        return
    summed = tuple(a for a in range(y.ndim) if a not in axes)
    where = np.arange(x.size).reshape(x.shape)[tuple(place)]
    for n, c in enumerate(point.cotangents):
        found.numeric[n, where] = (c * slope.value).sum(summed)
        found.error[n, where] = (np.abs(c) * slope.error).sum(summed)
    found.with_ones[where] = slope.value.sum(summed)
    found.ties[where] = ties.any(summed)


def _bisect(ensemble: Ensemble, result: VjpResult, which: int, budget: Budget) -> list[int]:
    """Where in a large input the gradient is wrong: halve it, and follow the half that is worse."""
    c, x = ensemble.point.cotangents[which], ensemble.point.inputs[ensemble.i]
    g = result.gradients[which].astype(float)
    suspects = np.arange(x.size)
    half_of_it = budget.left // 2
    while len(suspects) > 8 and budget.left > half_of_it:
        halves = np.array_split(suspects, 2)
        off = []
        for half in halves:
            u = np.zeros(x.shape)
            u.flat[half] = ensemble.point.rng.standard_normal(len(half))
            try:
                gap = abs(float((g * u).sum()) - ensemble.slope(u).along(c)[0])
            except Abstention:
                gap = 0.0
            off.append(gap if np.isfinite(gap) else np.inf)
        suspects = halves[int(off[1] > off[0])]
    return [int(k) for k in suspects[:8]]


def _slopes_of_others(ensemble: Ensemble, budget: Budget | None) -> dict[int, np.ndarray]:
    """The slopes (*input, *output) of inputs of the same size: were two gradients swapped?"""
    found = {}
    point, x = ensemble.point, ensemble.point.inputs[ensemble.i]
    for k, other in enumerate(point.inputs):
        if k == ensemble.i or other.size != x.size:
            continue
        there = ensemble.of_input(k)
        unknown = other.size - len(_known(there))
        if budget is not None and unknown * 2 > budget.left // 2:
            continue
        try:
            slopes = [
                (there.known_slope(n) or there.slope(_unit(other.shape, n))).value
                for n in range(other.size)
            ]
        except Abstention:
            continue
        found[k] = np.array(slopes).reshape(*other.shape, *point.y.shape)
    return found


def _pull_jacobian(result: VjpResult, shape: tuple[int, ...]) -> np.ndarray | None:
    """The Jacobian as the vjp sees it: a row for each output, whose cotangent is 1."""
    rows = [result.pull(_unit(shape, k)) for k in range(prod(shape))]
    known = [np.ravel(r).astype(float) for r in rows if r is not None]
    return np.stack(known) if len(known) == len(rows) else None


def _diagonal(jacobian: np.ndarray) -> bool:
    if jacobian.shape[0] != jacobian.shape[1]:
        return False
    return not (jacobian - np.diag(np.diag(jacobian))).any()


def _at_more_values(
    ensemble: Ensemble, result: VjpResult, which: int, ev: Evidence, budget: Budget | None
) -> Evidence | None:
    """The comparison at more values of an input of which f takes entry by entry: its entries times
    numbers from 0.2 to 5. Stacked on a new first axis, with the point itself first."""
    point, i, x = ensemble.point, ensemble.i, ensemble.point.inputs[ensemble.i]
    if not x.size or not np.isfinite(ev.analytic).all() or not ev.measured.all():
        return None
    rng = np.random.default_rng(7)
    stack = [(x, ev.output, ev.analytic, ev.numeric, ev.tolerance)]
    number = f"f{result.bytes}"
    for _ in range(min(12, ceil(POINTS / x.size))):
        moved = np.asarray(x * 5.0 ** rng.uniform(-1, 1, x.shape)).astype(number).astype(float)
        inputs = [moved if k == i else v for k, v in enumerate(point.inputs)]
        if (budget is not None and budget.left < 8) or oracles.value_near(point.f, inputs) is None:
            break
        elsewhere = result.at(inputs)
        there = ensemble.at(point.at(inputs))
        try:
            slope: Slope = there.slope(np.ones(x.shape))
        except Abstention:
            continue
        if elsewhere is None:
            continue
        numeric, error = ev.cotangent * slope.value, np.abs(ev.cotangent) * slope.error
        scale = float(np.abs(numeric).max(initial=0))
        tolerance = np.maximum(SAFETY * error, float(ev.tolerance.max()) + 1e-9 * scale)
        stack.append(
            (moved, there.point.y, elsewhere.gradients[which].astype(float), numeric, tolerance)
        )
    if len(stack) == 1:
        return None
    xs, ys, ours, theirs, tolerances = (np.stack(v) for v in zip(*stack, strict=True))
    inputs = [xs if k == i else v for k, v in enumerate(ev.inputs)]
    cotangents = np.broadcast_to(ev.cotangent, xs.shape)
    return Evidence(i, tuple(inputs), ys, cotangents, ours, theirs, tolerances)
