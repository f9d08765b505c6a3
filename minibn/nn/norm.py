"""BatchNorm with its running statistics (Ioffe & Szegedy 2015), by PyTorch's convention.

| library      | eps  | `momentum` weighs      | default | running variance |
|--------------|------|------------------------|---------|------------------|
| minibn, PyTorch | 1e-5 | the new batch       | 0.1     | unbiased         |
| Chainer, DeZero | 2e-5 | the old (`decay`)   | 0.9     | unbiased         |
| numpy-ml     | 1e-5 | the old                | 0.9     | biased           |
| equinox      | 1e-5 | the old                | 0.99    | biased           |

momentum here = 1 - decay there. All of them normalise a batch by its biased variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minibn import ops
from minibn.nn.module import Buffer, Counter, Module, Parameter, ones, zeros
from minibn.nn.noise import Noise
from minibn.tape import no_grad, value


class BatchNorm(Module):
    """Normalise each channel over the batch; images (N, H, W, C) and vectors (N, C) alike.

    Training uses the batch's mean and biased variance, and moves the running ones by `momentum`
    (None: their plain average over all batches). Evaluation uses the running ones and writes
    nothing. Law: after k batches running_mean = (1-m)^k · 0 + Σ m (1-m)^(k-i) · mean_i.
    Raises ShapeError for a channel with a single value in training.

    >>> import numpy as np
    >>> norm = BatchNorm(2).initialize(0)
    >>> norm(np.array([[1, 10], [3, 30]], np.float32)).numpy().round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        if not eps >= 0:
            raise ValueError(f"BatchNorm: eps={eps} must not be negative.")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(
                f"BatchNorm: momentum={momentum} is the weight of the new batch: 0 to 1."
            )
        self.eps, self.momentum = eps, momentum
        self.tracking = True  # whether training batches move the running statistics
        self.gamma = Parameter((channels,), ones)
        self.beta = Parameter((channels,), zeros)
        self.running_mean = Buffer((channels,), zeros)
        self.running_var = Buffer((channels,), ones)
        self.batches = Counter()

    def scale_and_shift(self) -> tuple[Any, Any]:
        """What evaluation does, as y = x · scale + shift: (C,) each."""
        scale = self.gamma * (1 / ops.sqrt(value(self.running_var) + self.eps))
        return scale, self.beta - value(self.running_mean) * scale

    def forward(self, x: Any) -> Any:
        if not self.training:
            return ops.batch_norm_inference(
                x, self.gamma, self.beta, self.running_mean, self.running_var, eps=self.eps
            )
        y, mean, var = ops.batch_norm(x, self.gamma, self.beta, eps=self.eps, return_moments=True)
        self.track(mean, var, x.size // x.shape[-1])
        return y

    def track(self, mean: Any, var: Any, M: int) -> None:
        """Take in the moments of a batch with M values a channel, `var` being biased:

        running = (1 - weight) · running + weight · new,   weight = the momentum, or 1 / batches.
        """
        if not self.tracking:
            return
        seen = self.batches.advance()
        weight = 1 / (seen + 1) if self.momentum is None else self.momentum
        unbiased = var * (M / (M - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.data *= 1 - weight
            running.data += weight * value(new)
            running.touch()


class NoisyBatchNorm(Module):
    """BatchNorm followed by Noise: after the affine, before the ReLU (Algorithm 1 of the paper)."""

    def __init__(self, channels: int, **settings: Any) -> None:
        self.norm = BatchNorm(channels, **settings)
        self.noise = Noise()

    def forward(self, x: Any) -> Any:
        return self.noise(self.norm(x))


def reestimate_statistics(model: Module, batches: Iterable[Any]) -> None:
    """Replace the running statistics of every BatchNorm by their average over `batches` of inputs.

    The weights stay. The rest of the model is in eval mode meanwhile (no noise, no dropout); every
    mode is restored. Raises ValueError if there are no batches.
    """
    norms = [module for _, module in model.named_modules() if isinstance(module, BatchNorm)]
    settings = [(norm.momentum, norm.tracking) for norm in norms]
    with model.mode(training=False), no_grad():
        try:
            for norm in norms:
                norm.training, norm.momentum, norm.tracking = True, None, True
            count = 0
            for count, x in enumerate(batches, start=1):
                if count == 1:  # the first batch replaces what was there: without one, it stays
                    for norm in norms:
                        norm.batches.data[...] = 0
                        norm.running_mean.data[...] = norm.running_var.data[...] = 0
                model(x)
        finally:
            for norm, (momentum, tracking) in zip(norms, settings, strict=True):
                norm.momentum, norm.tracking = momentum, tracking
    if count == 0:
        raise ValueError("reestimate_statistics: batches is empty, so there is nothing to average.")
