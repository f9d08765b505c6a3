"""What --variants takes: the experiment's variants, the names of their norms, or one's own norm.

    --variants batchnorm        a variant
    --variants batch            the same: `norm="batch"` in `reference_models`
    --variants my_norms:MyNorm  MyNorm(channels) of my_norms.py, or any function of the channels

One's own norm is tried before anything is trained: `try_norm`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import numpy as np

from experiments.training.command_line import UsageError, one_of
from minibn import Tensor, nn, to_numpy
from reference_models.norms import ALIASES, MakeNorm, Norm

OWN = "the names of their norms (batch, layer, ...) mean the same; module:Class is one's own norm"


def variant_name(word: str) -> str:
    """The name of the variant that a word means; other words unchanged.

    >>> variant_name("layer")
    'layernorm'
    """
    return {norm: variant for variant, norm in ALIASES.items()}.get(word, word)


def is_own(variant: str) -> bool:
    """Whether it names one's own norm: `module:Class`."""
    return ":" in variant


def one_of_variants(flag: str, variant: str, known: Iterable[str]) -> None:
    """Raise UsageError unless `variant` is known, or names a norm that can be imported."""
    if is_own(variant):
        own_norm(variant)
    else:
        one_of(flag, variant, tuple(known))


def own_norm(variant: str) -> MakeNorm:
    """The class or function that `module:Class` names. Raises UsageError if there is none."""
    module, _, path = variant.partition(":")
    try:
        make: Any = reduce(getattr, path.split("."), importlib.import_module(module))
    except Exception as error:  # of any kind: it is the user's module
        raise UsageError(
            f"--variants {variant} can't be imported: {type(error).__name__}: {error}. It is "
            "module:Class, of a module in this folder or an installed one."
        ) from None
    if not callable(make):
        raise UsageError(
            f"--variants {variant} is a {type(make).__name__}: it must be a Module's "
            "class, or a function of the number of channels."
        )
    return make


def norm_text(norm: Norm) -> str:
    """A norm as it is stored in config.json: its name, or `module:Class`."""
    if isinstance(norm, str):
        return norm
    return f"{norm.__module__}:{getattr(norm, '__qualname__', type(norm).__qualname__)}"


def try_norm(variant: str, network: Callable[[], nn.Module], inputs: np.ndarray) -> None:
    """Raise UsageError unless the network with one's own norm works: initialised, with one batch
    forward and backward, in evaluation, and saved.

    network: makes it, with its weights. inputs: a batch of two examples or more.
    """
    try:
        with np.errstate(all="ignore"):
            model = network()
            outputs = model(Tensor(inputs))
            loss = (outputs * outputs).mean()
            loss.backward()
            numbers = [to_numpy(loss.data), *model.state_dict().values()]
            model.eval()(Tensor(inputs))
    except Exception as error:  # of any kind: it is the user's class
        raise UsageError(
            f"--variants {variant} can't be trained: {type(error).__name__}: {error}"
        ) from None
    if not all(np.isfinite(x).all() for x in numbers):
        raise UsageError(f"--variants {variant} gives a loss or a state that is not finite.")
    lost = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if lost:
        raise UsageError(
            f"--variants {variant}: {', '.join(lost[:3])} get no gradient. Does its forward use "
            "them, and ops of minibn throughout?"
        )
