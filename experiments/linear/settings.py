"""The settings of the deep linear network's trainings, and their checks.

What the paper leaves open was decided by its loss curves (Figs. 3b, 5b). Losses at steps 1,000,
2,000, 5,000 and 10,000; ours are medians of 5 to 24 seeds, which differ by a factor of 2:

    standard                            rate 1e-6                 rate 1e-7
    the paper's                         4200 3000 2900 1670       6000 5500 4900 4000
    A's entries N(0, 1/10)              3800 3200 2000 1800       8000 6700 4600 3700
    A's entries N(0, 1)                 26e3 21e3 18e3 17e3       48e3 35e3 29e3 23e3
    truncated normals, half the sum     9100 8100 6600 5100       19e3 16e3 12e3 9000

    batchnorm
    the paper's                         1400 1200  540  480       3900 2700 1400  710
    N(0, 1/10), a linear output          790  680  530  440       4200 2500 1500  760
    N(0, 1/10), a norm after it         1100  610  550  520       4000 2700 1200  790

What does not fit: losses start at 1.3e4 (standard) and 1.9e4 (batchnorm), in the paper at 3.3e4 to
4e4; and its gradients (Figs. 10, 11b) are several times larger, as with N(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.training.command_line import UsageError, at_least, flag_name, one_of, setting
from experiments.training.runner import Plan
from experiments.training.settings import (
    INITS,
    SharedSettings,
    check_exact,
    check_measurements,
    check_shared,
    init_setting,
)
from experiments.training.variants import (
    OWN,
    is_own,
    one_of_variants,
    own_norm,
    variant_name,
)
from reference_models.norms import Norm

# The name of a variant -> its norm. None has noise.
VARIANTS = {
    "standard": "none",
    "batchnorm": "batch",
    "l1": "l1",
    "l2": "l2",
    "linf": "linf",
    "layernorm": "layer",
    "groupnorm": "group",
    "rmsnorm": "rms",
    "weightstandardisation": "weight",
    "groupnorm-weightstandardisation": "group+weight",
    "frozen-batchnorm": "frozen",
    # Other readings of the paper's words on l_p norms: see reference_models/norms.py.
    "l1-centred": "l1-centred",
    "linf-centred": "linf-centred",
    "l2-mean-of-norm": "l2-mean-of-norm",
    "linf-mean-of-norm": "linf-mean-of-norm",
}
LARGEST = 10**9  # numbers: beyond what any machine trains
MOST = 1e6  # of the problem's scales: far above, losses overflow before the first step


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The paper's settings by default; what it does not say is marked as our choice. Arrays this
    small are no work for a GPU."""

    quick: bool = setting(False, "fewer steps: the findings in two minutes")
    steps: int = setting(10_000, "updates per run")
    seed: tuple[int, ...] = setting((0,), "root seeds of the weights, of x and of A")
    checkpoint_every: int = setting(1000, "steps between checkpoints")
    # Products of 1000×10 by 10×10 gain nothing from a second thread.
    threads: int | None = setting(1, "threads of kernels and BLAS", kind=int)
    # "k = 25 layers", "A ∈ R^10×10", "a dataset of size 1000"
    depth: int = setting(25, "layers")
    width: int = setting(10, "units of every layer")
    samples: int = setting(1000, "samples, which all are in the batch of every step")
    # "i.i.d. Gaussian" entries: of which variance, it does not say. With 1/width, where a
    # target varies as much as an input does, losses agree from step 1,000 on (see above).
    target_std: float = setting(
        1.0, "standard deviation of a target: the entries of A are N(0, target_std²/width)"
    )
    # ‖·‖² as it is written, summed over samples: a mean would start at 20 and not at 2e4.
    loss_scale: float = setting(1.0, "factor on the sum of squared errors; 0.5 is also common")
    # "Glorot"; uniform is the default of the libraries of 2018 (our choice).
    init: str = init_setting()
    # Not stated, and the losses fit both; VGG's output has none either (our choice).
    norm_output: bool = setting(False, "a norm after the last layer, too")
    # Not stated; as in every other network here (our choice).
    fixed_affine: bool = setting(False, "keep the norms' gamma at 1 and beta at 0")
    variants: tuple[str, ...] = setting(
        ("standard", "batchnorm", "l1", "l2", "linf"),
        f"variants to train at the first rate ({OWN})",
        choices=VARIANTS,
        also="--norm",
        convert=variant_name,
    )
    variants_elsewhere: tuple[str, ...] = setting(
        ("standard", "batchnorm"),
        "variants to train at the other rates",
        metavar="NAME",
        convert=variant_name,
    )
    lr: tuple[float, ...] = setting((1e-6, 1e-7), "learning rates")
    probe_every: int = setting(
        50, "steps between probes along the gradient (Figs. 10, 11b, 13); 0: none"
    )
    # "[1/100, 30] × step size"; the points between are read off Fig. 11b.
    probe_sizes: tuple[float, ...] = setting(
        (0.01, 0.1, 1.0, 10.0, 30.0), "the probe's step sizes, as multiples of the rate"
    )
    # One point every 50 steps, as in the paper's figure.
    shift_every: int = setting(
        50, "steps between measurements of internal covariate shift, for every layer; 0: none. One "
        "costs about 16 training steps",
    )  # fmt: skip
    # Its largest eigenvalue is compared with 2/lr (the edge of stability; not in the paper).
    curvature_every: int = setting(
        500, "steps between measurements of the Hessian: along the gradient, largest eigenvalues, "
        "trace; 0: none. One costs about forty training steps",
    )  # fmt: skip
    record_every: int = setting(
        50, "steps between records of the activations' distributions; 0: none"
    )


# As far as the paper's first point of each loss curve.
QUICK = {"steps": 1000, "probe_every": 100, "shift_every": 200, "checkpoint_every": 500}


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    check_shared(s, plans(s))
    check_exact(s, "the deep linear network trains")
    one_of("--init", s.init, tuple(INITS))
    for name in ("variants", "variants_elsewhere"):
        for variant in getattr(s, name):
            one_of_variants(flag_name(name), variant, VARIANTS)
    check_measurements(s)
    at_least("--depth", s.depth, 1)
    if s.width < 2:
        raise UsageError(
            f"--width {s.width} must be at least 2: one unit is no layer to normalise."
        )
    groups = [p.variant for p in plans(s) if str(norm_of(p.variant)).startswith("group")]
    if s.width == 2 and groups:
        raise UsageError(
            f"--width 2 with {groups[0]}: each of its two groups is one unit, which has no "
            "variance. Take a --width of 3 or more, or leave that variant out."
        )
    at_least("--samples", s.samples, 2)  # one has no variance
    for name in ("target_std", "loss_scale"):
        at_least(flag_name(name), getattr(s, name), 0, above=True)
        if getattr(s, name) > MOST:
            raise UsageError(f"{flag_name(name)} {getattr(s, name)} must be at most {MOST:g}.")
    if s.depth * s.width**2 + s.samples * s.width > LARGEST:
        raise UsageError(
            f"--depth {s.depth} --width {s.width} --samples {s.samples} is more than a machine "
            "holds. Take a smaller network."
        )


def norm_of(variant: str) -> Norm:
    """The norm of a variant. Raises UsageError if it is one's own and can't be imported."""
    return own_norm(variant) if is_own(variant) else VARIANTS[variant]


def plans(s: Settings) -> list[Plan]:
    """The runs of the study: every variant at the first rate, some at the others."""
    first, *others = s.lr
    return [
        Plan(variant, lr, seed)
        for seed in s.seed
        for lr in (first, *others)
        for variant in (s.variants if lr == first else s.variants_elsewhere)
    ]
