"""Random layers: Noise (Algorithm 1 of Santurkar et al. 2018) and Dropout.

Their random numbers are a function of (seed, the layer's path, the step), so they do not depend on
the backend, on threads, or on other draws. The step is a Counter that increases with every call in
training mode and is saved with the model, so that a resumed run continues with the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

from minibn import ops
from minibn.autograd.tensor import value
from minibn.backend import backend_of
from minibn.errors import check_flag, check_real
from minibn.nn.module import Module
from minibn.nn.state import Counter
from minibn.ops.precision import to_floating_point
from minibn.random import NoiseDraws, derive, uniforms


class RandomLayer(Module):
    """Base class: a key (from `initialize`), a step, and whether the layer is active."""

    def __init__(self, in_eval: bool = False) -> None:
        self.in_eval = check_flag(in_eval, f"{type(self).__name__}: in_eval")
        self.step = Counter()
        self._key: int | None = None

    def seeded(self, seed: int, path: str) -> None:
        self._key = derive(seed, type(self).__name__, path)

    @property
    def key(self) -> int:
        """The key of the random generator, derived from the seed and the layer's path."""
        if self._key is None:
            raise RuntimeError(
                f"{self.name or type(self).__name__!r} has no key for its draws yet: they belong "
                "to a seed. Call model.initialize(seed=0); load a state_dict after that."
            )
        return self._key

    @property
    def active(self) -> bool:
        return self.training or self.in_eval

    def next_step(self) -> int:
        """The step of this call. It increases in training only; evaluation repeats its draws."""
        return self.step.advance() if self.training else int(self.step.data)


class Noise(RandomLayer):
    """y = s · x + m with s and m drawn anew for each activation and step (Algorithm 1).

        per unit j:        mu_j ~ U(-n_mu, n_mu),            sigma_j ~ U(1, n_sigma)
        per activation:    m ~ U(mu_j - r_mu, mu_j + r_mu),  s ~ N(sigma_j, r_sigma²)

    A unit is a channel; height and width count as batch. r_sigma in the paper's N(sigma_j, r_sigma)
    is a standard deviation here, or a variance with `r_is_variance=True`. Off in eval
    mode unless `in_eval=True`. Gradients flow through x (times s). Raises ValueError for a setting
    that is negative or not finite.
    """

    n_mu: float
    n_sigma: float
    r_mu: float
    r_sigma: float

    def __init__(
        self,
        n_mu: float = 0.5,
        n_sigma: float = 1.25,
        r_mu: float = 0.1,
        r_sigma: float = 0.1,
        *,
        r_is_variance: bool = False,
        in_eval: bool = False,
    ) -> None:
        super().__init__(in_eval)
        settings = {"n_mu": n_mu, "n_sigma": n_sigma, "r_mu": r_mu, "r_sigma": r_sigma}
        for name, setting in settings.items():
            number = check_real(setting, f"Noise: {name}")
            if not 0 <= number < math.inf:
                raise ValueError(f"Noise: {name}={setting} must be finite and not negative.")
            setattr(self, name, number)
        self.r_is_variance = check_flag(r_is_variance, "Noise: r_is_variance")

    def draws(self, step: int) -> NoiseDraws:
        """A function of x that draws (s, m) for this step."""
        n_mu, n_sigma, r_mu, r_sigma = map(
            float, (self.n_mu, self.n_sigma, self.r_mu, self.r_sigma)
        )
        spread = r_sigma**0.5 if self.r_is_variance else r_sigma
        return NoiseDraws(self.key, step, n_mu, n_sigma, r_mu, spread)

    def draw(self, x: Any, step: int) -> tuple[Any, Any]:
        """(s, m) of x's shape for this step."""
        return self.draws(step)(x)

    def forward(self, x: Any) -> Any:
        if not self.active:
            return x
        [x] = to_floating_point(x)
        s, m = self.draw(value(x), self.next_step())
        return x * s + m


class Dropout(RandomLayer):
    """Zero each activation with probability p and scale the rest by 1 / (1-p). Off in eval mode."""

    def __init__(self, p: float = 0.5, *, in_eval: bool = False) -> None:
        super().__init__(in_eval)
        p = check_real(p, "Dropout: p")
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p={p} is the share that is dropped: 0 <= p < 1.")
        self.p = p

    def forward(self, x: Any) -> Any:
        if not self.active:
            return x
        [x] = to_floating_point(x)
        draws = uniforms(backend_of(value(x)), self.key, self.next_step(), x.size, x.dtype)
        return ops.dropout(x, self.p, draws.reshape(x.shape))
