"""Norms over the batch, with running statistics: BatchNorm (Ioffe & Szegedy 2015), l_p norms.

BatchNorm follows PyTorch's convention.

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
from minibn.autograd.dispatch import find_kernel
from minibn.autograd.tape import no_grad
from minibn.autograd.tensor import value
from minibn.errors import check_flag, check_real, with_own_keywords
from minibn.nn.module import Module
from minibn.nn.noise import Noise
from minibn.nn.state import Buffer, Counter, Parameter, ones, zeros
from minibn.ops.batch_normalization import check_batch, check_eps
from minibn.ops.lp_normalization import check_order


class RunningStatistics(Module):
    """Base class: running statistics, updated by each training batch, used in evaluation.

    statistics: the names of the buffers that hold them. momentum: the weight of the new batch, or
    None for the plain average over all batches.
    """

    statistics: tuple[str, ...]
    batches: Counter

    def __init__(self, eps: float, momentum: float | None) -> None:
        name = type(self).__name__
        eps = check_eps(name, eps)
        if momentum is not None:
            momentum = check_real(momentum, f"{name}: momentum")
            if not 0 <= momentum <= 1:
                raise ValueError(
                    f"{name}: momentum={momentum} is the weight of the new batch: 0 to 1."
                )
        self.eps, self.momentum = eps, momentum
        self.tracking = True  # whether training batches update the running statistics

    def update_running_statistics(self, *new: Any) -> None:
        """running = (1 - weight) · running + weight · new,  weight = the momentum, or 1 / batches.

        new: the statistics of a batch, in the order of `statistics`.
        """
        if not self.tracking:
            return
        seen = self.batches.advance()
        weight = 1 / (seen + 1) if self.momentum is None else self.momentum
        running = [getattr(self, name) for name in self.statistics]
        pairs = [(old.data, value(one)) for old, one in zip(running, new, strict=True)]
        kernel = find_kernel(self, [array for pair in pairs for array in pair])
        (kernel or self).average(weight, pairs)
        for statistic in running:
            statistic.bump_version()

    def average(self, weight: float, pairs: list[tuple[Any, Any]]) -> None:
        """Update each running array in place: pairs of (running, new)."""
        for old, new in pairs:
            old *= 1 - weight
            old += weight * new


class BatchNorm(RunningStatistics):
    """Normalise each channel over the batch; images (N, H, W, C) and vectors (N, C) alike.

    Training uses the batch's mean and biased variance, and updates the running ones by `momentum`
    (None: their plain average over all batches). Evaluation uses the running ones.
    Law: after k batches running_mean = (1-m)^k · 0 + Σ m (1-m)^(k-i) · mean_i.
    Raises ShapeError for a channel with a single value in training.

    >>> import numpy as np
    >>> norm = BatchNorm(2).initialize(0)
    >>> norm(np.array([[1, 10], [3, 30]], np.float32)).numpy().round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    statistics = ("running_mean", "running_var")

    @with_own_keywords
    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(eps, momentum)
        self.gamma = Parameter((channels,), ones)
        self.beta = Parameter((channels,), zeros)
        self.running_mean = Buffer((channels,), zeros)
        self.running_var = Buffer((channels,), ones)
        self.batches = Counter()

    def scale_and_shift(self) -> tuple[Any, Any]:
        """(scale, shift), (C,) each: in evaluation y = x · scale + shift."""
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
        """Update the running statistics; M: values per channel, `var`: biased."""
        self.update_running_statistics(mean, var * (M / (M - 1)))


class LpBatchNorm(RunningStatistics):
    """Subtract each channel's mean and divide by its l_p norm (Santurkar et al. 2018, 3.3).

    p: 1, 2 or float("inf"): mean |x|, √(mean x²) or max |x| over the batch, before the mean is
    subtracted; images (N, H, W, C) and vectors (N, C) alike. center_first and reduce are
    other readings of the paper's words (see `ops/lp_normalization.py`). Running mean and norm,
    which the paper does not mention, are updated as BatchNorm's and used in evaluation; the norm
    starts at 1. Raises ValueError for another p, ShapeError for a channel with a single
    value in training.

    >>> import numpy as np
    >>> norm = LpBatchNorm(1, p=float("inf"), eps=0.0).initialize(0)
    >>> norm(np.array([[1], [3], [4], [-4]], np.float32)).numpy().ravel().tolist()
    [0.0, 0.5, 0.75, -1.25]
    """

    statistics = ("running_mean", "running_norm")

    @with_own_keywords
    def __init__(
        self,
        channels: int,
        *,
        p: float,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        center_first: bool = False,
        reduce: str = "norm_of_mean",
    ) -> None:
        super().__init__(eps, momentum)
        check_order("LpBatchNorm", p, reduce)
        self.center_first = check_flag(center_first, "LpBatchNorm: center_first")
        self.p, self.reduce = p, reduce
        self.gamma = Parameter((channels,), ones)
        self.beta = Parameter((channels,), zeros)
        self.running_mean = Buffer((channels,), zeros)
        self.running_norm = Buffer((channels,), ones)
        self.batches = Counter()

    def forward(self, x: Any) -> Any:
        settings: dict[str, Any] = {"p": self.p, "eps": self.eps}
        if not self.training:
            return ops.lp_batch_norm_inference(
                x, self.gamma, self.beta, self.running_mean, self.running_norm, **settings
            )
        settings |= {"center_first": self.center_first, "reduce": self.reduce}
        y, mean, norm = ops.lp_batch_norm(x, self.gamma, self.beta, return_moments=True, **settings)
        self.update_running_statistics(mean, norm)
        return y


class FrozenBatchNorm(Module):
    """BatchNorm with fixed statistics: an affine map of each channel, in training as well.

    The statistics are the mean and the biased variance of the first training batch, on which the
    output is BatchNorm's; later only gamma and beta are trained. In a network each layer is
    estimated on the outputs of the normalised layers before it. The state has BatchNorm's names:
    loaded from a BatchNorm that was trained, its running statistics are used. Before any batch,
    evaluation is the identity. It isolates the effect of the scale at initialisation from that of
    gradients through statistics. (A measurement that restores the state before the first batch, as
    in `minibn.analysis`, estimates anew each time.) Raises ShapeError for a first batch with one
    value a channel.
    """

    @with_own_keywords
    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        eps = check_eps("FrozenBatchNorm", eps)
        self.eps = eps
        self.gamma = Parameter((channels,), ones)
        self.beta = Parameter((channels,), zeros)
        self.running_mean = Buffer((channels,), zeros)
        self.running_var = Buffer((channels,), ones)
        self.batches = Counter()  # 0 until the statistics are estimated

    def forward(self, x: Any) -> Any:
        if self.training and self.batches.data == 0:
            check_batch(x.shape, self.gamma, self.beta)
            self.batches.advance()
            for fixed, new in zip(
                (self.running_mean, self.running_var), ops.moments(value(x)), strict=True
            ):
                fixed.data[...] = new
                fixed.bump_version()
        return ops.batch_norm_inference(
            x, self.gamma, self.beta, self.running_mean, self.running_var, eps=self.eps
        )


class NoisyBatchNorm(Module):
    """BatchNorm followed by Noise: after the affine, before the ReLU (Algorithm 1 of the paper)."""

    def __init__(self, channels: int, **settings: Any) -> None:
        self.norm = BatchNorm(channels, **settings)
        self.noise = Noise()

    def forward(self, x: Any) -> Any:
        return self.noise(self.norm(x))


def reestimate_statistics(model: Module, batches: Iterable[Any]) -> None:
    """Replace the running statistics of every norm by their average over `batches` of inputs.

    Weights and the statistics of FrozenBatchNorm do not change. The rest of the model is in eval
    mode meanwhile (no noise, no dropout); all modes are restored. Raises ValueError if there are no
    batches.
    """
    if not isinstance(model, Module):
        raise TypeError(f"reestimate_statistics: model is a {type(model).__name__}, no Module.")
    norms = [m for _, m in model.named_modules() if isinstance(m, RunningStatistics)]
    settings = [(norm.momentum, norm.tracking) for norm in norms]
    with model.mode(training=False), no_grad():
        try:
            for norm in norms:
                norm.training, norm.momentum, norm.tracking = True, None, True
            count = 0
            for count, x in enumerate(batches, start=1):
                if count == 1:  # only once there is a batch, the old statistics are cleared
                    for norm in norms:
                        norm.batches.data[...] = 0
                        for name in norm.statistics:
                            getattr(norm, name).data[...] = 0
                model(x)
        finally:
            for norm, (momentum, tracking) in zip(norms, settings, strict=True):
                norm.momentum, norm.tracking = momentum, tracking
    if count == 0:
        raise ValueError("reestimate_statistics: batches is empty, so there is nothing to average.")
