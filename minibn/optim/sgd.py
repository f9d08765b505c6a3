"""SGD, with momentum (Polyak 1964) and Nesterov's variant (Sutskever et al. 2013)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minibn.optim.optimizer import Group, Optimizer


class SGD(Optimizer):
    """w ← w - lr · v,  v = g without momentum, else v ← momentum · v + g.

    Nesterov: w ← w - lr · (g + momentum · v). As PyTorch: no dampening, the first velocity is the
    gradient itself.
    """

    slots = ("velocity",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: momentum={momentum} must lie in [0, 1).")
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov=True needs a momentum above 0.")
        super().__init__(params, lr, weight_decay, momentum=float(momentum), nesterov=nesterov)

    def state_arrays(self, w: Any, state: dict[str, Any], group: Group) -> list[Any]:
        """The velocity; nothing without momentum."""
        return super().state_arrays(w, state, group) if group["momentum"] else []

    def update(self, group: Group, w: Any, g: Any, v: Any = None) -> None:
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
        if v is not None:
            v *= group["momentum"]
            v += g
            g = g + group["momentum"] * v if group["nesterov"] else v
        w -= self.lr * group["lr_scale"] * g
