"""After a failure: measure the wrong gradient entry by entry, so that it can be explained."""

from __future__ import annotations

import time

import numpy as np

from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import Abstention
from minibn.testing.checking.vjp_calls import SAFETY, VjpResult
from minibn.testing.diagnosis.evidence import Evidence

MOST = 1000  # entries of an input that are measured one by one
SECONDS = 20.0  # that this may take, about


def dissect(ensemble: Ensemble, result: VjpResult, which: int = 0) -> Evidence:
    """The evidence about the gradient of the ensemble's input, for cotangent number `which`."""
    point, i = ensemble.point, ensemble.i
    c, x = point.cotangents[which], point.inputs[i]
    ones = np.ones_like(c)
    numeric, with_ones = np.full(x.size, np.nan), np.full(x.size, np.nan)
    error, ties = np.zeros(x.size), np.zeros(x.size, bool)
    entries: np.ndarray = np.arange(x.size)
    start = time.perf_counter()
    ensemble.slope(ensemble.probe)
    most = int(np.clip(SECONDS / max(time.perf_counter() - start, 1e-9), 8, MOST))
    if x.size > most:
        some = point.rng.choice(x.size, most, replace=False)
        entries = np.union1d(some, _bisect(ensemble, result, which))
    for k in entries:
        u = np.zeros(x.shape)
        u.flat[k] = 1.0
        try:
            slope = ensemble.slope(u)
            if ensemble.kink_count:
                ties[k] = ensemble.differences(u).kinks().any()
        except Abstention:
            continue
        numeric[k], error[k] = slope.along(c)
        with_ones[k] = slope.along(ones)[0]
    analytic = result.gradients[which].astype(float)
    scale = float(np.nanmax(np.abs(numeric), initial=0))
    tolerance = SAFETY * (error.reshape(x.shape) + result.spread + result.eps * scale)
    return Evidence(
        position=i,
        inputs=tuple(point.inputs),
        output=point.y,
        cotangent=c,
        analytic=analytic,
        numeric=numeric.reshape(x.shape),
        tolerance=np.maximum(tolerance, 1e-9 * scale),
        others=_numeric_of_others(ensemble, c),
        with_ones=with_ones.reshape(x.shape),
        ties=ties.reshape(x.shape) if ensemble.kink_count else None,
    )


def _bisect(ensemble: Ensemble, result: VjpResult, which: int) -> np.ndarray:
    """Where in a large input the gradient is wrong: halve it, and follow the half that is worse."""
    c, x = ensemble.point.cotangents[which], ensemble.point.inputs[ensemble.i]
    g = result.gradients[which].astype(float)
    suspects = np.arange(x.size)
    while len(suspects) > 8:
        halves = np.array_split(suspects, 2)
        off = []
        for half in halves:
            u = np.zeros(x.shape)
            u.flat[half] = ensemble.point.rng.standard_normal(len(half))
            gap = abs(float((g * u).sum()) - ensemble.slope(u).along(c)[0])
            off.append(gap if np.isfinite(gap) else np.inf)
        suspects = halves[int(off[1] > off[0])]
    return suspects


def _numeric_of_others(ensemble: Ensemble, c: np.ndarray) -> dict[int, np.ndarray]:
    """The numeric gradients of inputs of the same size: were two of them swapped?"""
    gradients = {}
    point, x = ensemble.point, ensemble.point.inputs[ensemble.i]
    for k, other in enumerate(point.inputs):
        if k == ensemble.i or other.size != x.size or x.size > MOST // 10:
            continue
        there = Ensemble(point, k)
        units = np.eye(other.size).reshape(other.size, *other.shape)
        try:
            entries = [there.slope(u).along(c)[0] for u in units]
            gradients[k] = np.array(entries).reshape(other.shape)
        except Abstention:
            continue
    return gradients
