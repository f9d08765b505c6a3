"""Which studies may share a table or figure: those of the same training on the same data.

They may differ in what is compared (variants, rates, seeds), in where and how the runs were
carried out, and in the intervals of measurements. All other settings are the scale of a study.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from experiments.training.study import Run, Study
from minibn.errors import DataError

COMPARED = ("variants", "variants_elsewhere", "decays", "lr", "seed")
CARRIED_OUT = ("quick", "backend", "data_dir", "threads", "kernels", "checkpoint_every")
MEASURED = (
    "eval_every",
    "record_every",
    "probe_every",
    "probe_sizes",
    "probe_directions",
    "shift_every",
    "curvature_every",
    "measure_every",
    "moments_steps",
    "angle_every",
)
FREE = frozenset((*COMPARED, *CARRIED_OUT, *MEASURED))


def scale(study: Study, free: Collection[str] = ()) -> dict[str, Any]:
    """The settings that must be equal in studies to compare. free: more that may differ."""
    return {k: v for k, v in study.settings.items() if k not in FREE and k not in free}


def require_comparable(studies: Sequence[Study], free: Collection[str] = ()) -> None:
    """Raise DataError unless the studies, all of one kind, have one scale and the same data.

    The data must be the same in all VGG runs; in other kinds, where the seed may draw the data, in
    all runs of one seed.
    """
    first, *others = studies
    for other in others:
        _require_equal(first, other, scale(first, free), scale(other, free))
    probing = [study for study in studies if study.settings.get("probe_every")]
    for other in probing[1:]:  # a band over other step sizes is another measurement
        sizes = [{"probe_sizes": study.settings["probe_sizes"]} for study in (probing[0], other)]
        _require_equal(probing[0], other, *sizes)
    first_runs: dict[int | None, Run] = {}
    for run in (run for study in studies for run in study.runs()):
        seed: int | None = None if first.kind == "vgg_cifar" else run.config["seed"]
        like = first_runs.setdefault(seed, run)
        if run.config["data_fingerprint"] != like.config["data_fingerprint"]:
            raise DataError(
                f"{run.folder} was trained on other data than {like.folder}: tables and figures "
                "compare like with like. Use them separately."
            )


def _require_equal(
    first: Study, other: Study, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> None:
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            raise DataError(
                f"{other.folder} has {key} {theirs.get(key)}, {first.folder} {ours.get(key)}: "
                "tables and figures compare like with like. Use them separately."
            )
