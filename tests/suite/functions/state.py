"""What a vjp remembers from call to call. A factory makes f and a wrong vjp with a fresh memory."""

import numpy as np

from suite.functions.function import function, normal


def random_mask(seed, x):
    return (np.random.default_rng(seed).random(x.shape) < 0.5) * 2.0


@function(at=[normal(4)])
def sine_with_memory(x):
    return np.sin(x)


@sine_with_memory.right
def sine_with_memory_vjp(g, x):
    return g * np.cos(x)


@sine_with_memory.wrong(makes_pair=True)
def sine_keeps_its_first_input():
    """What the first forward pass saved is used for ever."""
    saved: list[np.ndarray] = []

    def f(x):
        if not saved:
            saved.append(x.copy())
        return np.sin(x)

    def vjp(g, x):
        return g * np.cos(saved[0])

    return f, vjp


@sine_with_memory.wrong(makes_pair=True)
def sine_backward_keeps_its_first_input():
    """The vjp saves cos x at its first call, and uses it for every later point."""
    saved: list[np.ndarray] = []

    def vjp(g, x):
        if not saved:
            saved.append(np.cos(x))
        return g * saved[0]

    return np.sin, vjp


@sine_with_memory.wrong(makes_pair=True)
def sine_keeps_the_last_input_of_the_forward_pass():
    """Whatever ran forward last is differentiated, also after other points have been evaluated."""
    saved = [np.zeros(0)]

    def f(x):
        saved[0] = x
        return np.sin(x)

    def vjp(g, x):
        return g * np.cos(saved[0].real)

    return f, vjp


@sine_with_memory.wrong(makes_pair=True)
def sine_looks_up_by_shape():
    """A cache with the shape as its key."""
    saved: dict[tuple, np.ndarray] = {}

    def vjp(g, x):
        return g * np.cos(saved.setdefault(x.shape, x.copy()))

    return np.sin, vjp


@function(at=[normal(4, 3)])
def masked(x):
    return x * random_mask(1, x)


@masked.right
def masked_vjp(g, x):
    return g * random_mask(1, x)


@masked.wrong()
def masked_with_another_mask(g, x):
    """Dropout whose backward pass draws again."""
    return g * random_mask(2, x)


@masked.wrong()
def masked_without_its_scale(g, x):
    """1 / (1 - p) is missing in the backward pass."""
    return g * (random_mask(1, x) > 0)


@masked.wrong(makes_pair=True)
def masked_draws_in_every_call():
    """Dropout whose generator goes on: forward and backward pass differ."""
    rng = np.random.default_rng(3)

    def vjp(g, x):
        return g * (rng.random(x.shape) < 0.5) * 2.0

    return masked.f, vjp


@function(at=[normal(4)])
def parabola(x):
    return x * x


@parabola.right
def parabola_vjp(g, x):
    return 2 * g * x


@parabola.wrong(makes_pair=True)
def parabola_accumulates():
    """The gradient buffer is never cleared."""
    buffers: dict[tuple, np.ndarray] = {}

    def vjp(g, x):
        buffer = buffers.setdefault(x.shape, np.zeros_like(x))
        buffer += 2 * g * x
        return buffer.copy()

    return parabola.f, vjp


@parabola.wrong(makes_pair=True)
def parabola_returns_one_buffer():
    """Every call writes its gradient into the same array, so earlier results change."""
    buffers: dict[tuple, np.ndarray] = {}

    def vjp(g, x):
        buffer = buffers.setdefault(x.shape, np.zeros_like(x))
        buffer[...] = 2 * g * x
        return buffer

    return parabola.f, vjp


@parabola.wrong(makes_pair=True)
def parabola_wrong_in_every_fourth_call():
    """A race: every fourth call gives half of the gradient."""
    calls = [0]

    def vjp(g, x):
        calls[0] += 1
        return 2 * g * x * (0.5 if calls[0] % 4 == 0 else 1)

    return parabola.f, vjp


@parabola.wrong(makes_pair=True)
def parabola_loses_digits_in_every_fourth_call():
    """Every fourth call computes in float32."""
    calls = [0]

    def vjp(g, x):
        calls[0] += 1
        d = 2 * g * x
        return d.astype(np.float32).astype(float) if calls[0] % 4 == 0 else d

    return parabola.f, vjp


@parabola.wrong(makes_pair=True)
def parabola_is_right_once():
    """The graph is freed by the first backward pass, the second one returns zeros."""
    calls = [0]

    def vjp(g, x):
        calls[0] += 1
        return 2 * g * x * (calls[0] == 1)

    return parabola.f, vjp


LAST_BIT = "The order of a sum changes from call to call, as with atomic additions on a GPU."
_rng = np.random.default_rng(7)


@function(at=[normal(8)], drawn="none", accuracy=1e-14)
def atomic_sum(x):
    return np.sum(np.sort(x)[_rng.permutation(len(x))].cumsum()[-1:] ** 2)


@atomic_sum.right
def atomic_sum_vjp(g, x):
    return np.full(x.shape, 2 * g * x.sum())


@atomic_sum.wrong()
def atomic_sum_without_the_two(g, x):
    """The factor of the square is missing."""
    return np.full(x.shape, g * x.sum())


@function(at=[normal(4, 3)], drawn="none", accuracy=1e-14)
def atomic_gradient(x):
    """Values are the same in each call, the gradient's last bit is not."""
    return x.sum(0) ** 2


@atomic_gradient.right
def atomic_gradient_vjp(g, x):
    order = _rng.permutation(len(x))
    return np.repeat((2 * g * x[order].cumsum(0)[-1])[None], len(x), 0)
