"""The settings of the theorems' trainings and random losses, and their checks."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.training.command_line import (
    UsageError,
    at_least,
    flag_name,
    flag_value,
    one_of,
    setting,
)
from experiments.training.runner import Plan
from experiments.training.settings import (
    DATA,
    INITS,
    ImageSettings,
    check_exact,
    check_images,
    check_shared,
    init_setting,
)

VARIANT = "batchnorm"
SIDE = 32  # pixels
MOST = {"draws": 10**6, "largest": 1e6}  # above: hours of losses, squares that overflow


@dataclass(frozen=True)
class Settings(ImageSettings):
    """Our choices throughout: the paper proves its theorems and measures none of them."""

    quick: bool = setting(False, "a smaller batch, fewer draws and steps: in a minute")
    steps: int = setting(2000, "updates per run")  # then nearly all images are learnt
    seed: tuple[int, ...] = setting((0,), "root seeds of weights, data order and random losses")
    checkpoint_every: int = setting(200, "steps between checkpoints")
    # Arrays this small gain little from a second thread.
    threads: int | None = setting(1, "threads of kernels and BLAS", kind=int)
    # Needs no download, and a network this small learns it.
    data: str = setting("shapes", "the data set", choices=DATA)
    # Units enough to see their spread; a unit costs four Hessian-vector products a measurement.
    channels: tuple[int, ...] = setting((8, 16), "filters of the two convolutions")
    # The paper's theorems are about a linear layer, where m is the batch.
    hidden: int = setting(32, "units of the hidden linear layer")
    init: str = init_setting()
    batch_size: int = setting(64, "images per step, and values m of a unit of the linear layer")
    lr: float = setting(0.1, "learning rate")  # as the paper's VGG
    measure_every: int = setting(
        200, "steps between measurements of all units, which are also made at steps 1, 2, 4, ..."
    )
    # The sizes that bracket what a linear layer sees.
    m: tuple[int, ...] = setting((8, 64), "values of a unit, for the random losses")
    # The paper has none, layers have 1e-5, and a large one shows its effect.
    eps: tuple[float, ...] = setting((0.0, 1e-5, 0.1), "eps, for the random losses")
    draws: int = setting(30, "random losses of each of three kinds, for each m and eps")
    # With 1 a missing lambda² would not be noticed.
    largest: float = setting(2.0, "lambda of Theorems 4.4 and C.1: the spectral norm of the inputs")


QUICK = {
    "train_size": 2000, "batch_size": 32, "steps": 200, "measure_every": 50, "draws": 5,
    "checkpoint_every": 100,
}  # fmt: skip


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    check_shared(s, plans(s), may_repeat=("channels",))
    check_images(s)
    check_exact(s, "the theorems are measured")
    one_of("--init", s.init, tuple(INITS))
    for name in ("hidden", "measure_every", "draws"):
        at_least(flag_name(name), getattr(s, name), 1)
    at_least("--batch-size", s.batch_size, 3)  # a norm turns any two values into ±1
    for name in ("lr", "largest"):
        at_least(flag_name(name), getattr(s, name), 0, above=True)
    for name, most in MOST.items():
        if getattr(s, name) > most:
            raise UsageError(f"{flag_name(name)} {getattr(s, name)} must be at most {most:g}.")
    if len(s.channels) != 2:
        raise UsageError(f"--channels {flag_value(s.channels)}: there are two convolutions.")
    for name, least in (("channels", 1), ("m", 3), ("eps", 0)):
        for number in getattr(s, name):
            at_least(flag_name(name), number, least)
    numbers = max(s.batch_size * SIDE**2 * max(s.channels), max(s.m) ** 2, s.hidden * s.channels[1])
    if numbers > 10**10:
        raise UsageError(
            f"--batch-size {s.batch_size} --channels {flag_value(s.channels)} --hidden "
            f"{s.hidden} --m {flag_value(s.m)} is more than a machine holds. Take less."
        )


def plans(s: Settings) -> list[Plan]:
    return [Plan(VARIANT, s.lr, seed) for seed in s.seed]
