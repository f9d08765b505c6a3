"""Use a trained run: its test accuracy by class, and its confusion matrix.

    python -m experiments.predict runs/vgg_cifar/20260101-120000/runs/batchnorm-lr0.1-seed0

Reads the run's config and last checkpoint, loads the data it was trained on, classifies the test
images in eval mode, and writes confusion.png and .svg into the run's folder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.training.command_line import (
    UsageError,
    at_least,
    one_of,
    parse_folders,
    setting,
    settings_from_json,
)
from experiments.training.entry_point import program
from experiments.training.loop import cores
from experiments.training.recorders import predictions
from experiments.training.settings import BACKENDS
from experiments.training.study import Run
from experiments.vgg.runs import load_data, network
from experiments.vgg.settings import Settings
from experiments.views.plotting import own_style, save, subplots
from minibn import nn, precision, use
from minibn.backend import get_backend
from minibn.data import Batches, Dataset, normalize
from minibn.errors import DataError

PROGRAM = "python -m experiments.predict"
OF_VGG = ("vgg_cifar", "learning_rates")  # the kinds of studies that train VGG


@dataclass(frozen=True)
class Options:
    backend: str = setting("numpy", "where arrays live", choices=BACKENDS)
    data_dir: str | None = setting(
        None, "where the run's data are now, if they moved", kind=str, path=True
    )
    batch_size: int = setting(250, "images per forward pass")
    # Running statistics lag behind the weights, and after noisy training they include the noise.
    reestimate: int = setting(
        0,
        "training batches from which to re-estimate the running statistics, without noise",
    )


def load_run(run: Run, data_dir: str | None = None) -> tuple[nn.Sequential, Dataset, int]:
    """(model with the run's weights, its data, its steps so far), on the current backend.

    Raises DataError for a run without a checkpoint, or other data than it was trained on.
    """
    if not (run.folder / "config.json").exists():
        raise DataError(
            f"{run.folder} is no run: it has no config.json. Runs lie in STUDY/runs/, such as "
            "runs/batchnorm-lr0.1-seed0."
        )
    config = run.config
    kind = config.get("experiment", OF_VGG[0])
    if kind not in OF_VGG:
        raise DataError(f"{run.folder} is a run of {kind}: predict takes runs of VGG.")
    saved = run.checkpoints.load()
    if saved is None:
        raise DataError(
            f"{run.folder} has no checkpoint yet, or was one of learning_rates, which keeps none. "
            "Train it first, or choose another."
        )
    if saved.notice:
        print(f"{run.name}: {saved.notice}")
    settings = Settings(**settings_from_json(Settings, config["settings"]))
    if data_dir:
        settings = dataclasses.replace(settings, data_dir=data_dir)
    if "model" not in saved.states:
        raise DataError(
            f"checkpoint {saved.path} has no weights (its part 'model'). Restore it, or "
            f"delete {run.folder} and train again."
        )
    data = load_data(settings)
    if data.fingerprint != config["data_fingerprint"]:
        raise DataError(
            f"the data of {run.name} changed since it was trained (fingerprints differ). "
            "Give the original with --data-dir."
        )
    model = network(settings, config["variant"], config["seed"])
    try:
        model.load_state_dict(saved.states["model"])
    except KeyError as error:
        raise DataError(f"checkpoint {saved.path}: {error.args[0]}") from None
    return model, data, saved.step


def reestimate(model: nn.Sequential, data: Dataset, config: dict[str, Any], count: int) -> None:
    """Replace the running statistics by their average over `count` training batches."""
    size = config["settings"]["batch_size"]
    batches = Batches(data.train_images, data.train_labels, size, config["seed"])
    backend = get_backend()
    nn.reestimate_statistics(
        model, (normalize(backend.asarray(batches.batch(i)[0])) for i in range(count))
    )


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix, (classes, classes) counts: row the true class, column the predicted."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(
        classes, classes
    )


@own_style()
def picture(counts: np.ndarray, classes: Sequence[str], title: str, folder: Path) -> Path:
    """Draw a confusion matrix, each row in per cent of its class. Returns the path of the PNG."""
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axes = subplots(figsize=(6.4, 5.6))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.grid(False)
    for (i, j), percent in np.ndenumerate(share):
        if percent >= 0.5:
            colour = "white" if percent > 55 else "black"
            axes.text(j, i, f"{percent:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted class", ylabel="true class (row: 100 %)", title=title)
    figure.tight_layout()
    return save(figure, folder, "confusion")


def describe(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Accuracy by class, and the class with which each is confused most often."""
    rows: list[tuple[Any, ...]] = []
    for i, name in enumerate(classes):
        wrong = counts[i].copy()
        wrong[i] = 0
        other = f"{classes[wrong.argmax()]} ({wrong.max()})" if wrong.any() else "-"
        accuracy = counts[i, i] / max(counts[i].sum(), 1)
        rows.append((name, counts[i].sum(), f"{accuracy:.3f}", other))
    total = counts.trace() / max(counts.sum(), 1)
    rows.append(("all", counts.sum(), f"{total:.3f}", ""))
    return markdown_table(("class", "images", "accuracy", "mostly confused with"), rows, align=True)


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and plot the confusion matrix. Returns the exit code."""
    folders, options = parse_folders(
        Options, arguments, program=PROGRAM, description=__doc__, folders="RUN"
    )
    if len(folders) != 1:
        raise UsageError(f"which run? {PROGRAM} STUDY/runs/batchnorm-lr0.1-seed0")
    one_of("--backend", options.backend, BACKENDS)
    at_least("--batch-size", options.batch_size, 1)
    at_least("--reestimate", options.reestimate, 0)
    cores()  # raises UsageError for a bad MINIBN_NUM_THREADS
    run = Run(folders[0])
    with use(options.backend):
        model, data, steps = load_run(run, options.data_dir)
        with precision(run.config["settings"]["precision"]):  # as it trained
            if options.reestimate:
                reestimate(model, data, run.config, options.reestimate)
            predicted = predictions(model, data.test_images, options.batch_size)
    counts = confusion(data.test_labels, predicted, len(data.classes))
    print(f"{run.name} after {steps} steps, {len(predicted):,} test images of {data.name}\n")
    print(describe(counts, data.classes))
    title = f"{run.name}, {steps} steps: {counts.trace() / counts.sum():.1%} of {data.name}"
    print(f"\nFigure: {picture(counts, data.classes, title, run.folder)}")


if __name__ == "__main__":
    sys.exit(main())
