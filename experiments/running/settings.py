"""The settings that every experiment has, those of experiments on images, and what can't work.

An experiment's own settings inherit these, and name again what has another default there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.running.command_line import (
    UsageError,
    at_least,
    flag_name,
    one_of,
    setting,
    shown,
)

BACKENDS = ("numpy", "cupy", "strict")
KERNELS = ("fast", "lean", "reference")
DATA = ("cifar10", "shapes")


@dataclass(frozen=True)
class SharedSettings:
    """How a study runs, and where it lies."""

    quick: bool = setting(False, "a smaller problem and fewer steps: over in two minutes")
    steps: int = setting(1000, "updates per run")
    seed: tuple[int, ...] = setting((0,), "root seeds of all that is drawn")
    # The paper ran on a GPU; NumPy is what everybody has.
    backend: str = setting(
        "numpy", f"where arrays live: {', '.join(BACKENDS)} (NumPy within CuPy's limits: a test)"
    )
    threads: int | None = setting(
        None, "threads of kernels and BLAS (default: MINIBN_NUM_THREADS, else all cores)", kind=int
    )
    # The same mathematics in another rounding; `python -m experiments.compare` shows two studies.
    kernels: str = setting(
        "fast",
        "how ops run on NumPy: fast; lean, which keeps less for the backward pass: less memory, "
        "more time; or reference: the definitions in minibn/ops alone",
    )
    checkpoint_every: int = setting(500, "steps between checkpoints")
    out: str | None = setting(None, "the study's folder (default: runs/EXPERIMENT/TIME)", kind=str)
    resume: str | None = setting(
        None, "continue the study in this folder; only --steps may be raised", kind=str
    )
    force: bool = setting(False, "with --resume: accept other threads, kernels or data")


@dataclass(frozen=True)
class ImageSettings(SharedSettings):
    """And which images it trains on."""

    data: str = setting("cifar10", f"the data set: {', '.join(DATA)}")
    data_dir: str | None = setting(
        None, "folder with cifar-10-batches-py or its archive (else the cache, else a download)",
        kind=str,
    )  # fmt: skip
    # All of it; fewer images make a quick trial.
    train_size: int | None = setting(None, "use the first so many training images", kind=int)


def check_shared(s: SharedSettings, plans: Sequence[Any], may_repeat: Sequence[str] = ()) -> None:
    """Raise UsageError for settings with which no experiment can work. plans: its runs, which must
    have different names; may_repeat: the lists that may name something twice."""
    one_of("--backend", s.backend, BACKENDS)
    one_of("--kernels", s.kernels, KERNELS)
    at_least("--steps", s.steps, 1)
    at_least("--checkpoint-every", s.checkpoint_every, 1)
    if s.threads is not None:
        at_least("--threads", s.threads, 1)
    for seed in s.seed:
        at_least("--seed", seed, 0)
    for name, values in vars(s).items():
        if isinstance(values, tuple) and name not in may_repeat and len(set(values)) < len(values):
            raise UsageError(f"{flag_name(name)} names something twice: {shown(values)}.")
    if len({plan.name for plan in plans}) < len(plans):
        rates = shown(vars(s)["lr"])
        raise UsageError(f"--lr {rates}: rates of a study must differ in six digits.")


def check_images(s: ImageSettings) -> None:
    """Raise UsageError for a data set that there isn't, or no images."""
    one_of("--data", s.data, DATA)
    if s.train_size is not None:
        at_least("--train-size", s.train_size, 1)
