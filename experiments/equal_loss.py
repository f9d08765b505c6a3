"""Is BatchNorm's landscape smoother, or has its network only learnt more? A control of Fig. 4.

The loss, its gradient and how much both change become small as a network learns, so at equal steps
the network that learns faster seems to have the smoother landscape. Here the probes along the
gradient of two networks of one seed are compared where their training losses are equal (2.0, 1.5,
1.0, 0.7 and 0.5 nats), each step size by itself, from Glorot's initialisation, with which a ReLU
network without a norm starts on a plateau, and from He's. Beside them stands the quotient at equal
steps. A loss that a network jumps over has no number: nothing is interpolated. What is judged of it
are the claims loss-change-at-equal-loss, gradient-change-at-equal-loss and
loss-change-he-at-equal-loss of claiming/claims.toml, at the step size 0.1, by the same bins.

It trains nothing: it takes VGG studies with probes, of both initialisations together, or what
`experiments.claims` kept of them. Each needs a standard network at every seed. --quick trains two
short studies on drawn shapes first, in two minutes; the same command continues them.

    python -m experiments.equal_loss STUDY [STUDY ...] [--out DIR]
    python -m experiments.equal_loss --quick

The studies, for example (VGG-16 at a quarter of the width, about 17 minutes of one core a seed):

    python -m experiments.vgg_cifar --variants standard batchnorm --model vgg16 --width 0.25 \\
        --steps 2000 --probe-every 50 --probe-sizes 0.01 0.1 0.5 1 2 4 --init he --threads 1
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import landscape
from experiments.claiming.streams import RunStreams, load, read_study
from experiments.training.command_line import UsageError, at_least, parse_folders, setting
from experiments.training.entry_point import check_out, program
from experiments.training.study import Study
from experiments.vgg.runs import KIND
from experiments.views import equal_loss as equal_loss_figures

PROGRAM = "python -m experiments.equal_loss"
INITS = ("glorot_uniform", "he_normal")
# So many steps that most losses are reached, and probes dense enough that few are jumped over.
QUICK_FLAGS = (
    *("--quick", "--steps", "350", "--probe-every", "10", "--probe-directions", "gradient"),
    *("--probe-sizes", "0.01", "1", "4"),
)


@dataclass(frozen=True)
class Options:
    quick: bool = setting(False, "first train two short studies on drawn shapes")
    seed: tuple[int, ...] = setting((0,), "with --quick: root seeds of the trainings")
    out: str | None = setting(
        None, "folder for figure, table, summary, and the studies of --quick (default: equal_loss "
        "in the first study's folder; runs/equal_loss with --quick)", kind=str, path=True,
    )  # fmt: skip


def train_quick(out: Path, seeds: Sequence[int]) -> tuple[list[Path], int]:
    """Train the studies of --quick, or continue them. Returns (their folders, exit code)."""
    folders = [out / init for init in INITS]
    for init, folder in zip(INITS, folders, strict=True):
        flags = [*QUICK_FLAGS, "--init", init, "--seed", *map(str, seeds)]
        where = "--resume" if (folder / "study.json").exists() else "--out"
        flags += [where, str(folder)]  # a study of other settings is refused
        if code := landscape.main(flags):
            return folders, code
    return folders, 0


def read(path: Path) -> list[RunStreams]:
    """The runs of a study's folder or of a kept study's file."""
    if path.suffix == ".npz" and path.is_file():
        return load(path)
    return read_study(Study.open(path, KIND, "STUDY"))


@program(PROGRAM, stopped="Stopped. The same command goes on.")
def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, after training with --quick. Returns the exit code."""
    paths, options = parse_folders(Options, arguments, program=PROGRAM, description=__doc__)
    check_out(options.out)
    if options.quick == bool(paths):
        raise UsageError(
            f"which studies? {PROGRAM} runs/glorot runs/he, or --quick alone, which trains two."
        )
    if any(path.suffix == ".npz" for path in paths[:1]) and options.out is None:
        raise UsageError("--out DIR is needed beside a kept study, which is a file.")
    for seed in options.seed:
        at_least("--seed", seed, 0)
    out = Path(options.out or (paths[0] / "equal_loss" if paths else "runs/equal_loss"))
    if options.quick:
        paths, code = train_quick(out, options.seed)
        if code:
            return code
    equal_loss_figures.plot([run for path in paths for run in read(path)], out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
