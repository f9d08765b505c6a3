"""Studies with known numbers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.training.study import Run, Study

STEPS = 10
SETTINGS = {
    "model": "vgg11", "width": 0.5, "head": "linear", "data": "cifar10", "batch_size": 16,
    "steps": STEPS, "threads": 1, "record_every": 5, "kernels": "fast", "precision": "fp32",
}  # fmt: skip


def study(folder: Path, kind: str = "vgg_cifar", **settings: Any) -> Study:
    return Study.create(folder, kind, {**SETTINGS, **settings})


def add_run(
    study: Study,
    variant: str,
    seed: int = 0,
    accuracy: Any = 0.5,
    *,
    lr: float = 0.1,
    steps: int = STEPS,
    norm: str = "none",
    data: str = "d",
    diverged: int | None = None,
    **streams: Iterable[dict[str, Any]],
) -> Run:
    """A run with this accuracy (one, or one per step), loss 1 - accuracy, and these records."""
    run = study.run(f"{variant}-lr{lr:g}-seed{seed}")
    config = {"variant": variant, "lr": lr, "seed": seed, "norm": norm, "settings": study.settings}
    run.begin({**config, "data_fingerprint": data, "environment": {"threads": 1, "commit": "c"}})
    curve = np.broadcast_to(np.asarray(accuracy, np.float64), steps)[:diverged]
    for step, a in enumerate(curve.tolist()):
        run.stream("metrics").append({"step": step, "loss": 1 - a, "accuracy": a, "lr": lr})
    test = {"step": len(curve) - 1, "updates": len(curve), "accuracy": float(curve[-1])}
    streams = {"test": [test], **streams}
    for name, records in streams.items():
        for record in records:
            run.stream(name).append(record)
    done = {"status": "done", "steps": steps}
    run.finish(done if diverged is None else {"status": "diverged", "step": diverged})
    return run
