"""Studies with known numbers, and the findings of claims on them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import claims
from experiments.claiming import metrics, rules
from experiments.claiming.claim import Claim, Finding, at, find
from experiments.claiming.evidence import Evidence, Key, Trace
from experiments.claiming.metrics import Metric, difference
from experiments.training.json_files import read_json, write_json
from experiments.training.study import Run, Study

KINDS = ("vgg_cifar", "deep_linear", "theorems", "learning_rates")
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


def forget_streams(run: Run) -> None:
    """Let a run's result say nothing of its streams, as of an older version: they may be edited."""
    path = run.folder / "result.json"
    result = read_json(path)
    del result["streams"]
    write_json(path, result)


def trace(folder: Path, variant: str = "batchnorm", **run: Any) -> Trace:
    """A single run of a study of its own."""
    return Trace(add_run(study(folder), variant, **run))


def pair(folder: Path, ours: list[float], theirs: list[float], **settings: Any) -> Study:
    """batchnorm and standard, a run a seed, with these accuracies."""
    made = study(folder, **settings)
    for variant, numbers in (("batchnorm", ours), ("standard", theirs)):
        for seed, accuracy in enumerate(numbers):
            add_run(made, variant, seed, accuracy)
    return made


def claim(metric: Metric, rule: rules.Rule, *keys: Key, **more: Any) -> Claim:
    told = {"place": "place", "kind": "vgg_cifar", "why": "why", **more}
    return Claim("id", "says", runs=keys, metric=metric, rule=rule, **told)


ACCURACY = metrics.train_accuracy(0, STEPS)
BETTER = claim(difference(ACCURACY), rules.more_by(0.02), *at(0.1, "batchnorm", "standard"))


def judge(what: Claim, *studies: Study) -> Finding:
    return find(what, Evidence([s.folder for s in studies], KINDS))


def named(id: str) -> Claim:
    """The claim of that id."""
    (what,) = [c for c in claims.CLAIMS if c.id == id]
    return what
