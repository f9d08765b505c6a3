"""The settings of every experiment, those of experiments on images, and their checks.

An experiment's own settings inherit these, and override fields with another default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.training.command_line import (
    UsageError,
    at_least,
    flag_name,
    flag_value,
    one_of,
    setting,
)
from minibn.backend import get_backend
from minibn.fast.precision import MANTISSA
from minibn.fast.selection import runs_cuda_kernels
from minibn.nn.init import BY_NAME as INITS

BACKENDS = ("numpy", "cupy", "strict")
KERNELS = ("fast", "lean", "reference")
GRAPHS = ("auto", "on", "off")
PRECISIONS = tuple(MANTISSA)
DATA = ("cifar10", "shapes")
INIT_ALIASES = {"glorot": "glorot_uniform", "he": "he_normal"}


def init_setting() -> Any:
    """The field `init` of settings: a name of `minibn.nn.init`."""
    return setting(
        "glorot_uniform",
        "the weights at the start (glorot: glorot_uniform, he: he_normal)",
        choices=INITS,
        convert=lambda word: INIT_ALIASES.get(word, word),
    )


@dataclass(frozen=True)
class SharedSettings:
    """How a study runs, and where it lies."""

    quick: bool = setting(False, "a smaller problem and fewer steps: over in two minutes")
    steps: int = setting(1000, "updates per run")
    seed: tuple[int, ...] = setting((0,), "root seeds of all that is drawn")
    # The paper used a GPU; NumPy runs on every machine.
    backend: str = setting(
        "numpy", "where arrays live; strict: NumPy within CuPy's limits, a test", choices=BACKENDS
    )
    threads: int | None = setting(
        None, "threads of kernels and BLAS (default: MINIBN_NUM_THREADS, else all cores)", kind=int
    )
    # The same mathematics in another rounding; `python -m experiments.compare` compares two.
    kernels: str = setting(
        "fast",
        "how ops run on NumPy: fast; lean, which keeps less for the backward pass: less memory, "
        "more time; or reference: the definitions in minibn/ops alone",
        choices=KERNELS,
    )
    # What a GPU's fast units multiply; weights, sums, statistics and activations stay float32.
    precision: str = setting(
        "fp32",
        "rounding of the factors in convolutions and linear layers: fp32, all 23 bits of the "
        "mantissa; tf32, 10; or bf16, 7. NumPy emulates it: the same accuracy, slower",
        choices=PRECISIONS,
    )
    # The same numbers bit for bit, so that studies do not store it.
    graph: str = setting(
        "auto",
        "capture each step on a GPU as a CUDA graph, one launch: auto, where possible; on, an "
        "error where not; off",
        choices=GRAPHS,
    )
    checkpoint_every: int = setting(500, "steps between checkpoints")
    out: str | None = setting(
        None,
        "the study's folder (default: runs/EXPERIMENT/TIME)",
        kind=str,
        path=True,
    )
    resume: str | None = setting(
        None, "continue the study in this folder; only --steps may be raised", kind=str,
        path=True,
    )  # fmt: skip
    force: bool = setting(
        False, "with --resume: accept other threads, kernels, backend, data or BLAS"
    )


@dataclass(frozen=True)
class ImageSettings(SharedSettings):
    """The shared settings, and the images to train on."""

    data: str = setting("cifar10", "the data set", choices=DATA)
    data_dir: str | None = setting(
        None, "folder with cifar-10-batches-py or its archive (else the cache, else a download)",
        kind=str, path=True,
    )  # fmt: skip
    # All of it; fewer images make a quick trial.
    train_size: int | None = setting(
        None, "training images: the first ones (default: all)", kind=int
    )


def check_shared(s: SharedSettings, plans: Sequence[Any], may_repeat: Sequence[str] = ()) -> None:
    """Raise UsageError for settings with which no experiment can work. plans: its runs, which must
    have different names; may_repeat: the lists that may name something twice."""
    one_of("--backend", s.backend, BACKENDS)
    one_of("--kernels", s.kernels, KERNELS)
    one_of("--graph", s.graph, GRAPHS)
    if s.graph == "on" and not runs_cuda_kernels(get_backend(s.backend)):
        raise UsageError("--graph on needs a GPU: --backend cupy.")
    if s.graph == "on" and s.kernels == "reference":
        raise UsageError(
            "--graph on with --kernels reference: only kernels are captured. Take --graph auto."
        )
    one_of("--precision", s.precision, PRECISIONS)
    if s.precision != "fp32" and s.kernels == "reference":
        raise UsageError(
            f"--precision {s.precision} with --kernels reference would round nothing: definitions "
            "compute in float32. Take --kernels fast or lean."
        )
    at_least("--steps", s.steps, 1)
    at_least("--checkpoint-every", s.checkpoint_every, 1)
    if s.threads is not None:
        at_least("--threads", s.threads, 1)
    for seed in s.seed:
        at_least("--seed", seed, 0)
    for name, values in vars(s).items():
        if isinstance(values, tuple) and name not in may_repeat and len(set(values)) < len(values):
            raise UsageError(f"{flag_name(name)} names something twice: {flag_value(values)}.")
    if len({plan.name for plan in plans}) < len(plans):
        rates = flag_value(vars(s)["lr"])
        raise UsageError(f"--lr {rates}: rates of a study must differ in six digits.")


def check_exact(s: SharedSettings, what: str) -> None:
    """Raise UsageError for a precision or --graph on: both are for float32 only. what: the
    beginning of "... in float64", for the message."""
    if s.graph == "on":
        raise UsageError(f"--graph on: {what} in float64, step by step. Leave it out.")
    if s.precision != "fp32":
        raise UsageError(
            f"--precision {s.precision} rounds float32 alone, and {what} in float64. Leave it out."
        )


def check_images(s: ImageSettings) -> None:
    """Raise UsageError for an unknown data set, or no images."""
    one_of("--data", s.data, DATA)
    if s.train_size is not None:
        at_least("--train-size", s.train_size, 1)


def check_measurements(s: Any) -> None:
    """Raise UsageError for intervals, step sizes or rates that can't work. s: settings with the
    intervals of all recorders."""
    for name in ("record_every", "probe_every", "shift_every", "curvature_every"):
        at_least(flag_name(name), getattr(s, name), 0)
    for name in ("lr", "probe_sizes"):
        for number in getattr(s, name):
            at_least(flag_name(name), number, 0, above=True)
    if s.probe_every and math.isinf(max(s.lr) * max(s.probe_sizes)):
        raise UsageError(
            f"--lr {max(s.lr)} times --probe-sizes {max(s.probe_sizes)} must be a finite number. "
            "Take a smaller one of either."
        )


def in_precision(settings: Mapping[str, Any]) -> str:
    """A study's precision for a title or a note; "" for the default."""
    precision = settings["precision"]
    return "" if precision == SharedSettings.precision else f", products in {precision}"
