"""After a failure: measure the wrong gradient entry by entry, so that it can be explained."""

from __future__ import annotations

import time

import numpy as np

from minibn.testing.diagnosis.evidence import Evidence
from minibn.testing.judging.bench import Bench
from minibn.testing.judging.oracles import Abstains
from minibn.testing.judging.pulling import SAFETY, Pulled

MOST = 1000  # entries of an input that are measured one by one
SECONDS = 20.0  # that this may take, about


def dissect(bench: Bench, pulled: Pulled, which: int = 0) -> Evidence:
    """What is known about the gradient of the bench's input, for cotangent number `which`."""
    point, i = bench.point, bench.i
    c, x = point.cotangents[which], point.inputs[i]
    ones = np.ones_like(c)
    numeric, with_ones = np.full(x.size, np.nan), np.full(x.size, np.nan)
    error, ties = np.zeros(x.size), np.zeros(x.size, bool)
    entries: np.ndarray = np.arange(x.size)
    start = time.perf_counter()
    bench.slope(bench.probe)
    most = int(np.clip(SECONDS / max(time.perf_counter() - start, 1e-9), 8, MOST))
    if x.size > most:
        some = point.rng.choice(x.size, most, replace=False)
        entries = np.union1d(some, _hunt(bench, pulled, which))
    for k in entries:
        u = np.zeros(x.shape)
        u.flat[k] = 1.0
        try:
            slope = bench.slope(u)
            if bench.kinked:
                ties[k] = bench.differences(u).kinks().any()
        except Abstains:
            continue
        numeric[k], error[k] = slope.along(c)
        with_ones[k] = slope.along(ones)[0]
    analytic = pulled.gradients[which].astype(float)
    scale = float(np.nanmax(np.abs(numeric), initial=0))
    tolerance = SAFETY * (error.reshape(x.shape) + pulled.spread + pulled.eps * scale)
    return Evidence(
        position=i,
        inputs=tuple(point.inputs),
        output=point.y,
        cotangent=c,
        analytic=analytic,
        numeric=numeric.reshape(x.shape),
        tolerance=np.maximum(tolerance, 1e-9 * scale),
        others=_of_the_others(bench, c),
        with_ones=with_ones.reshape(x.shape),
        ties=ties.reshape(x.shape) if bench.kinked else None,
    )


def _hunt(bench: Bench, pulled: Pulled, which: int) -> np.ndarray:
    """Where in a large input the gradient is wrong: halve it, and follow the half that is worse."""
    c, x = bench.point.cotangents[which], bench.point.inputs[bench.i]
    g = pulled.gradients[which].astype(float)
    suspects = np.arange(x.size)
    while len(suspects) > 8:
        halves = np.array_split(suspects, 2)
        off = []
        for half in halves:
            u = np.zeros(x.shape)
            u.flat[half] = bench.point.rng.standard_normal(len(half))
            gap = abs(float((g * u).sum()) - bench.slope(u).along(c)[0])
            off.append(gap if np.isfinite(gap) else np.inf)
        suspects = halves[int(off[1] > off[0])]
    return suspects


def _of_the_others(bench: Bench, c: np.ndarray) -> dict[int, np.ndarray]:
    """The numeric gradients of inputs of the same size: were two of them swapped?"""
    found = {}
    point, x = bench.point, bench.point.inputs[bench.i]
    for k, other in enumerate(point.inputs):
        if k == bench.i or other.size != x.size or x.size > MOST // 10:
            continue
        there = Bench(point, k)
        units = np.eye(other.size).reshape(other.size, *other.shape)
        try:
            found[k] = np.array([there.slope(u).along(c)[0] for u in units]).reshape(other.shape)
        except Abstains:
            continue
    return found
