"""The settings that all VGG experiments share, and their checks.

`vgg_cifar`, `landscape`, `covariate_shift` and `lp_norms` are the same trainings with other
defaults and other figures; `learning_rates` trains with these settings, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from experiments.training.command_line import UsageError, at_least, flag_name, one_of, setting
from experiments.training.runner import Plan
from experiments.training.settings import (
    INITS,
    ImageSettings,
    check_images,
    check_measurements,
    check_shared,
    init_setting,
)
from experiments.training.variants import (
    OWN,
    is_own,
    one_of_variants,
    own_norm,
    try_norm,
    variant_name,
)
from minibn import nn, use
from minibn.analysis.gradient_probe import DIRECTIONS
from reference_models.norms import Norm
from reference_models.vgg import VGG, vgg

MOST_PARAMETERS = 10**12  # beyond what any machine holds

# The name of a variant -> (norm, noise)
VARIANTS = {
    "standard": ("none", False),
    "batchnorm": ("batch", False),
    "noisy-batchnorm": ("batch", True),
    "noisy-standard": ("none", True),
    "l1": ("l1", False),
    "l2": ("l2", False),
    "linf": ("linf", False),
    "layernorm": ("layer", False),
    "groupnorm": ("group", False),
    "instancenorm": ("instance", False),
    "rmsnorm": ("rms", False),
    "weightstandardisation": ("weight", False),
    "groupnorm-weightstandardisation": ("group+weight", False),
    "frozen-batchnorm": ("frozen", False),
    # Other readings of the paper's words on l_p norms: see reference_models/norms.py.
    "l1-centred": ("l1-centred", False),
    "linf-centred": ("linf-centred", False),
    "l2-mean-of-norm": ("l2-mean-of-norm", False),
    "linf-mean-of-norm": ("linf-mean-of-norm", False),
}
FOUR = ("standard", "batchnorm", "noisy-batchnorm", "noisy-standard")  # of Figs. 1 and 2


def variants_of(default: tuple[str, ...]) -> Any:
    """The field `variants` of settings."""
    return setting(
        default, f"what to train ({OWN})", choices=VARIANTS, also="--norm", convert=variant_name
    )


@dataclass(frozen=True)
class Settings(ImageSettings):
    """The paper's settings by default; what it does not say is marked as our choice."""

    quick: bool = setting(False, "a small network on drawn shapes: over in two minutes")
    # "15,000 steps (training accuracy plateaus)": 38 epochs of CIFAR-10.
    steps: int = setting(15_000, "updates per run")
    seed: tuple[int, ...] = setting(
        (0,), "root seeds of weights, data order and noise, not of shapes"
    )
    test_size: int | None = setting(None, "test images: the first ones (default: all)", kind=int)
    # "VGG-like": layers up to #13 are shown. VGG-16 has 13 convolutions (our choice).
    model: str = setting("vgg16", "the network", choices=VGG)
    width: float = setting(1.0, "factor on the convolutions' channels")
    # Not stated in the paper; one linear layer is the least that can classify (our choice).
    head: str = setting(
        "linear", "hidden widths of the classifier: linear, 512,512 or 4096,4096", metavar="WIDTHS"
    )
    # "Glorot"; uniform is the default of the libraries of 2018. he is the control: with Glorot a
    # ReLU network without a norm starts on a plateau (our choice).
    init: str = init_setting()
    variants: tuple[str, ...] = variants_of(FOUR)
    # Fig. 1 also shows 0.5, where the standard network stays at chance.
    lr: tuple[float, ...] = setting((0.1,), "learning rates; each variant is trained at each")
    batch_size: int = setting(128, "images per step")
    # "standard stochastic gradient descent"; how its loss curves decay fits no momentum either.
    momentum: float = setting(0.0, "momentum of SGD")
    # Not stated. Its loss curves start above ln 10 and fit a penalty of about 4e-4 (inferred).
    weight_decay: float = setting(0.0, "l2 penalty; 4e-4 fits the paper's loss curves")
    # "since our focus is on training, we do not use data augmentation"
    augment: bool = setting(False, "pad-and-crop and flip the training images")
    # A short run, too, has several points.
    eval_every: int = setting(
        None, "steps between measurements of test accuracy (default: 500, of a run of less than "
        "2,000 steps a quarter of it)", kind=int,
    )  # fmt: skip
    record_every: int = setting(
        100, "steps between records of the activations' distributions; 0: none"
    )
    probe_every: int = setting(
        0, "steps between probes along the gradient (Figs. 4, 11, 12); 0: none. A probe costs one "
        "training step more than it has sizes",
    )  # fmt: skip
    # "[1/2, 4] × step size"; the points between are read off Fig. 11.
    probe_sizes: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0, 4.0), "the probe's step sizes, as multiples of the rate"
    )
    # "the loss behaves in a similar way when we examine other (random) directions too"
    probe_directions: tuple[str, ...] = setting(
        ("gradient",), "directions of the probes", choices=DIRECTIONS
    )
    shift_every: int = setting(
        0, "steps between measurements of internal covariate shift (Fig. 3), for every layer; 0: "
        "none. One costs about ten training steps with VGG-16",
    )  # fmt: skip
    curvature_every: int = setting(
        0, "steps between measurements of the Hessian: along the gradient, largest eigenvalues, "
        "trace; 0: none. One costs about fifty training steps",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.eval_every is None:  # a number from here on: --resume may raise the steps
            object.__setattr__(self, "eval_every", max(1, min(500, self.steps // 4)))


def check(s: Settings) -> None:
    """Raise UsageError for settings that can't work, before any work is done."""
    check_shared(s, plans(s))
    check_images(s)
    one_of("--model", s.model, tuple(VGG))
    one_of("--init", s.init, tuple(INITS))
    for variant in s.variants:
        one_of_variants("--variants", variant, VARIANTS)
    for direction in s.probe_directions:
        one_of("--probe-directions", direction, DIRECTIONS)
    check_measurements(s)
    for name in ("batch_size", "eval_every"):
        at_least(flag_name(name), getattr(s, name), 1)
    if s.test_size is not None:
        at_least("--test-size", s.test_size, 1)
    at_least("--width", s.width, 0, above=True)
    at_least("--weight-decay", s.weight_decay, 0)
    if not 0 <= s.momentum < 1:
        raise UsageError(f"--momentum {s.momentum} must lie in [0, 1).")
    try:
        numbers = sum(p.size for p in vgg(s.model, width=s.width, head=s.head).parameters())
    except OverflowError:
        numbers = MOST_PARAMETERS + 1
    except ValueError as error:
        raise UsageError(str(error)) from None
    if numbers > MOST_PARAMETERS:
        raise UsageError(
            f"--width {s.width:g} with --head {s.head} makes a network of more than "
            f"{MOST_PARAMETERS:.0e} parameters. Take a smaller one."
        )
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    for variant in s.variants:
        if not isinstance(norm_of(variant)[0], str):
            with use(s.backend):
                try_norm(variant, partial(network, s, variant, 0), images)


def norm_of(variant: str) -> tuple[Norm, bool]:
    """(norm, noise) of a variant. Raises UsageError if it is one's own and can't be imported."""
    return (own_norm(variant), False) if is_own(variant) else VARIANTS[variant]


def network(s: Settings, variant: str, seed: int, dtype: Any = np.float32) -> nn.Sequential:
    """The variant's VGG, with the weights that belong to the seed."""
    norm, noise = norm_of(variant)
    model = vgg(s.model, width=s.width, head=s.head, norm=norm, noise=noise, init=INITS[s.init])
    return model.initialize(seed, dtype)


def plans(s: Settings) -> list[Plan]:
    return [Plan(v, lr, seed) for seed in s.seed for lr in s.lr for v in s.variants]
