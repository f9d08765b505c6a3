"""Which step sizes of probes a figure or table is about: the paper's alone, where probes have more.

The least and the largest value over a probe depend on its step sizes, so they are compared with the
paper's over the paper's, and between variants over those that all have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import paper
from experiments.training.json_files import float_array
from experiments.views.series import Group
from minibn.analysis.gradient_probe import Probe
from minibn.errors import DataError

Record = dict[str, Any]  # of landscape.jsonl
LOSS, CHANGE = "losses", "gradient_change"
BY_SIZE = (LOSS, CHANGE, "cosine", "beta")  # its entries with a value a step size


def sizes_to_show(groups: Sequence[Group], direction: str = "gradient") -> tuple[float, ...]:
    """The step sizes that a figure or table of groups at one rate is about: the paper's if all
    probes have them, else all that the probes have in common.

    Raises DataError if they have none in common.
    """
    probes = [r for g in groups for s in g.records("landscape", direction=direction) for r in s]
    sizes = probes[0]["step_sizes"]
    for record in {tuple(r["step_sizes"]) for r in probes}:
        sizes = [size for size in sizes if np.isclose(size, record, rtol=1e-5, atol=0).any()]
    if not sizes:
        raise DataError(
            f"probes at lr {groups[0].lr:g} have no step size in common: tables and figures "
            "compare like with like. Use the studies separately."
        )
    theirs = [m * groups[0].lr for m in paper.MULTIPLES]
    known = [[s for s in sizes if np.isclose(s, size, rtol=1e-5, atol=0)] for size in theirs]
    return tuple(s[0] for s in known) if all(known) else tuple(sizes)


def at_sizes(record: Record, sizes: Sequence[float]) -> Record:
    """A record as if its probe had had these step sizes alone; {} if it lacks one."""
    own = np.asarray(record["step_sizes"])
    near = np.isclose(np.asarray(sizes)[:, None], own, rtol=1e-5, atol=0)
    if not near.any(1).all():
        return {}
    places = near.argmax(1).tolist()
    if len(places) == len(own):
        return record
    chosen = {key: [record[key][i] for i in places] for key in ("step_sizes", *BY_SIZE)}
    change = float_array(chosen[CHANGE], np.inf)
    with np.errstate(all="ignore"):  # 0 and infinity
        distance = change / float_array(chosen["beta"], np.inf)
    probe = Probe(
        loss=np.nan,
        gradient_norm=np.nan,
        step_sizes=np.array(chosen["step_sizes"]),
        losses=float_array(chosen[LOSS], np.inf),
        gradient_change=change,
        cosine=np.full(len(places), np.nan),
        distance=distance,
    )
    flags = {"saturated": probe.saturated, "at_floor": probe.at_floor}
    return {**record, **chosen, **flags, "at_ceiling": probe.at_ceiling}


def probes_of(
    group: Group, direction: str = "gradient", sizes: Sequence[float] = ()
) -> list[list[Record]]:
    """The probes of each seed that has any, at these step sizes (default: at all of theirs)."""
    seeds = group.records("landscape", direction=direction)
    return [[at_sizes(r, sizes) for r in s] for s in seeds] if sizes else seeds


def sizes_in_words(sizes: Sequence[float], record: Record) -> str:
    """The step sizes that are shown, and that the probes have others."""
    text = f"the step sizes {', '.join(f'{size:g}' for size in sizes)}"
    most = record["step_sizes"]
    if len(sizes) == len(most):
        return text
    return f"{text}, of those from {min(most):g} to {max(most):g}"
