"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minibn.backend import array_module
from minibn.errors import with_own_keywords
from minibn.optim.optimizer import Group, Optimizer


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) with bias-corrected first and second moments.

    With `decoupled=True` (`AdamW`), decay shrinks the weights instead of joining the gradient.
    """

    slots = ("first", "second")

    @with_own_keywords
    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        settings = {"betas": betas, "eps": eps, "decoupled": decoupled}
        super().__init__(params, lr, weight_decay, **settings)
        self.updates = [0] * len(self.params)  # for the bias corrections

    def state_dtype(self, dtype: Any) -> Any:
        """At least float32: squares of gradients are 0 or infinite in float16."""
        return np.promote_types(dtype, np.float32)

    def settings_of(self, i: int, group: Group) -> Group:
        """The group's, and `step`: which update of this parameter it is."""
        self.updates[i] += 1
        return Group({**group.data, "step": self.updates[i]}, group.shared)

    def state_dict(self) -> dict[str, np.ndarray]:
        """As Optimizer's, with the number of updates of each parameter."""
        return super().state_dict() | {"updates": np.array(self.updates)}  # host: for a checkpoint

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """As Optimizer's."""
        given = np.asarray(state.get("updates", ()))  # host: from a checkpoint
        if given.shape != (len(self.params),):
            raise KeyError(f"Adam: updates has shape {given.shape}, not {(len(self.params),)}.")
        updates = [self._count(n, "updates") for n in given]
        super().load_state_dict({key: v for key, v in state.items() if key != "updates"})
        self.updates = updates

    def update(self, group: Group, w: Any, g: Any, first: Any, second: Any) -> None:
        lr, decay = self.lr * group["lr_scale"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        g = g.astype(first.dtype, copy=False)
        if decay and group["decoupled"]:
            w *= 1 - lr * decay
        elif decay:
            g = g + decay * w
        first += (1 - beta1) * (g - first)
        second += (1 - beta2) * (g * g - second)
        mean = first / (1 - beta1 ** group["step"])
        scale = array_module(w).sqrt(second / (1 - beta2 ** group["step"])) + group["eps"]
        w -= lr * mean / scale


def AdamW(
    params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 1e-2, **settings: Any
) -> Adam:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return Adam(params, lr, weight_decay=weight_decay, decoupled=True, **settings)
