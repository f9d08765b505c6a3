"""What fewer digits cost: the errors of a VGG's products, and trainings beside each other.

    python -m experiments.precision [--backend cupy]    each product, in each precision
    python -m experiments.precision A B C               studies that differ in --precision alone

Without studies: for each convolution of the network, and its classifier, the errors of its output
y and of both gradients x̄ and w̄ against float64, as shares ‖error‖ / ‖exact‖. x is the ReLU of
normal numbers (for the first layer, normal numbers), w is drawn as in He et al. (2015), the
cotangent is normal. Rounding errors of factors are independent of each other and grow in a sum as
the sum does, so the share does not depend on the sum's length: it is below the unit roundoff,
2^-11 for tf32 and 2^-8 for bf16 (0.6 of it, measured).

With studies: loss, accuracies and their spread over the seeds, and how far each run's loss is from
that of the first study with the same seed. Two trainings that differ by any rounding part, in time,
as two seeds do; so the difference between two seeds of the first study stands beside it, and a
study trained as the first but on another number of threads shows the effect of rounding alone.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.output import markdown_table
from experiments.training.command_line import UsageError, at_least, one_of, parse_folders, setting
from experiments.training.comparability import require_comparable
from experiments.training.entry_point import program
from experiments.training.settings import BACKENDS, PRECISIONS
from experiments.training.study import Run, Study
from experiments.views.series import group_runs, spread
from experiments.views.vgg_tables import LAST, final_train
from minibn import Tensor, grad, kernels, ops, precision, use
from minibn.backend import get_backend
from reference_models.vgg import VGG

PROGRAM = "python -m experiments.precision"
CLASSES = 10


@dataclass(frozen=True)
class Options:
    backend: str = setting("numpy", "where the products are computed", choices=BACKENDS)
    model: str = setting("vgg16", "the network", choices=VGG)
    batch_size: int = setting(4, "images")
    seed: int = setting(0, "seed of the random numbers")


@dataclass(frozen=True)
class Layer:
    """A convolution 3×3 of `side` × `side` pixels, or (side 0) a linear layer."""

    side: int
    C: int
    F: int

    @property
    def name(self) -> str:
        shape = f"{self.C} → {self.F}"
        return f"conv2d {shape}, {self.side}×{self.side}" if self.side else f"linear {shape}"

    def product(self, x, w):
        return ops.conv2d(x, w, padding=1) if self.side else ops.matmul(x, w)

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """(x, w, cotangent), float32."""
        pixels = (self.side, self.side) if self.side else ()
        taps = (3, 3) if self.side else ()
        x = rng.standard_normal((batch, *pixels, self.C))
        x = x if self.C == 3 else np.maximum(x, 0)
        w = rng.standard_normal((*taps, self.C, self.F)) * (2 / (9 ** bool(taps) * self.C)) ** 0.5
        g = rng.standard_normal((batch, *pixels, self.F))
        return tuple(a.astype(np.float32) for a in (x, w, g))

    def results(self, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
        """[y, x̄, w̄] on the current backend, brought to the host."""
        backend = get_backend()
        leaves = [Tensor(backend.asarray(a), requires_grad=True) for a in (x, w)]
        y = self.product(*leaves)
        return [backend.to_numpy(a.data) for a in (y, *grad(y, leaves, backend.asarray(g)))]


def layers(model: str) -> list[Layer]:
    """Each shape of the network once, in order."""
    convolutions, side, C = [], 32, 3
    for entry in VGG[model]:
        if isinstance(entry, str):
            side //= 2
        else:
            convolutions.append(Layer(side, C, entry))
            C = entry
    return list(dict.fromkeys([*convolutions, Layer(0, C, CLASSES)]))


def errors(layer: Layer, options: Options) -> Iterator[list[float]]:
    """For each precision the shares ‖error‖ / ‖exact‖ of y, x̄ and w̄."""
    arrays = layer.draw(options.batch_size, np.random.default_rng(options.seed))
    with use("numpy"), kernels("reference"):
        exact = layer.results(*(a.astype(np.float64) for a in arrays))
    for name in PRECISIONS:
        with use(options.backend), precision(name):
            rounded = layer.results(*arrays)
        yield [
            float(np.linalg.norm(a - b) / np.linalg.norm(b))
            for a, b in zip(rounded, exact, strict=True)
        ]


def table_of_products(options: Options) -> str:
    rows = [
        (layer.name, *(", ".join(f"{e:.1e}" for e in three) for three in errors(layer, options)))
        for layer in layers(options.model)
    ]
    note = f"errors of y, x̄, w̄ as shares of their norms; {options.batch_size} images"
    return markdown_table(("product", *PRECISIONS), rows, note)


def table_of_trainings(studies: Sequence[Study]) -> str:
    """A row a variant and study."""
    require_comparable(studies, free=("precision",))
    first, rows = studies[0], []
    for group in group_runs(run for run in first.runs() if run.result):
        own = [abs(loss(a) - loss(b)) for a, b in itertools.combinations(group.runs, 2)]
        for study in studies:
            pairs = [(run, study.run(run.name)) for run in group.runs]
            pairs = [(a, b) for a, b in pairs if b.final_result(0) is not None]
            runs = [b for _, b in pairs]
            apart = own if study is first else [abs(loss(a) - loss(b)) for a, b in pairs]
            cells = [
                spread([loss(run) for run in runs]),
                spread([final_train(run) for run in runs], ".3f"),
                spread([test_accuracy(run) for run in runs], ".3f"),
                ("between seeds: " if study is first else "") + spread(apart, ".2g"),
            ]
            who = (group.variant, f"{group.lr:g}", label_of(study, first), str(len(runs)))
            rows.append((*who, *cells))
    head = (
        "variant", "lr", "precision", "seeds", "loss", "train accuracy", "test accuracy",
        f"loss apart from {label_of(first, first)}'s, same seed",
    )  # fmt: skip
    note = f"loss, train: means over the last {LAST:.0%} of the steps; median (least to largest)"
    return markdown_table(head, rows, note)


def label_of(study: Study, first: Study) -> str:
    """The study's precision, and its backend, kernels and threads where they differ."""
    others = [
        f"{key} {study.settings.get(key)}"
        for key in ("backend", "kernels", "threads")
        if study.settings.get(key) != first.settings.get(key)
    ]
    return ", ".join([f"{study.settings.get('precision')}", *others])


def loss(run: Run) -> float:
    """The mean loss over the last tenth of the steps; NaN if the run diverged."""
    losses = [record["loss"] for record in run.records("metrics")]
    if run.result is None or run.result["status"] == "diverged":
        return math.nan
    return float(np.mean(losses[-max(1, int(len(losses) * LAST)) :]))


def test_accuracy(run: Run) -> float:
    """The last test accuracy; NaN if there is none."""
    tests = run.records("test")
    return tests[-1]["accuracy"] if tests else math.nan


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table. Returns the exit code."""
    folders, options = parse_folders(
        Options, arguments, program=PROGRAM, description=__doc__, folders="[A B C]"
    )
    one_of("--backend", options.backend, BACKENDS)
    one_of("--model", options.model, tuple(VGG))
    at_least("--batch-size", options.batch_size, 1)
    at_least("--seed", options.seed, 0)
    if len(folders) == 1:
        raise UsageError(f"which other studies? {PROGRAM} runs/fp32 runs/tf32 runs/bf16")
    if folders:
        studies = [Study.open(folder, "vgg_cifar", "STUDY") for folder in folders]
        print(table_of_trainings(studies))
    else:
        print(table_of_products(options))


if __name__ == "__main__":
    sys.exit(main())
