"""SGD, with momentum (Polyak 1964) and Nesterov's variant (Sutskever et al. 2013)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minibn.errors import with_own_keywords
from minibn.optim.optimizer import Group, Optimizer


class SGD(Optimizer):
    """w ← w - lr · v,  v = g without momentum, else v ← momentum · v + g.

    Nesterov: w ← w - lr · (g + momentum · v). As PyTorch: no dampening, the first velocity is the
    gradient itself.
    """

    slots = ("velocity",)

    @with_own_keywords
    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay, momentum=momentum, nesterov=nesterov)
        if any(group["nesterov"] and group["momentum"] == 0 for group in self.groups):
            raise ValueError("SGD: nesterov=True needs a momentum above 0.")

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
