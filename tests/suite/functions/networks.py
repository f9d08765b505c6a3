"""Attention, recurrent cells, integrators, fixed points: chains of steps."""

import numpy as np

from minibn.testing.strategies import arrays, within
from suite.functions.elementwise import sigma
from suite.functions.function import function, normal
from suite.functions.reductions import softmax, softmax_pullback

QKV = (normal(3, 4), normal(3, 4, seed=1), normal(3, 2, seed=2))
CAUSAL = np.tril(np.ones((3, 3)))


@function(at=[QKV])
def attention(q, k, v):
    return softmax(q @ k.T / 2) @ v


@attention.right
def attention_vjp(g, q, k, v):
    p = softmax(q @ k.T / 2)
    ds = softmax_pullback(p, g @ v.T)
    return ds @ k / 2, ds.T @ q / 2, p.T @ g


@attention.wrong()
def attention_without_the_scale_of_its_keys(g, q, k, v):
    """1/√d is forgotten in the gradient of K."""
    d_q, d_k, d_v = attention_vjp(g, q, k, v)
    return d_q, d_k * 2, d_v


@attention.wrong()
def attention_with_constant_weights(g, q, k, v):
    """The gradient flows through the values only."""
    return np.zeros_like(q), np.zeros_like(k), attention_vjp(g, q, k, v)[2]


@attention.wrong()
def attention_without_a_transpose(g, q, k, v):
    """p g for pᵀ g: the number of queries is that of keys."""
    d_q, d_k, _ = attention_vjp(g, q, k, v)
    return d_q, d_k, softmax(q @ k.T / 2) @ g


attention.hard("attention_that_is_sure", (8 * QKV[0], 8 * QKV[1], QKV[2]), why="Saturated weights.")


def causal_weights(q, k):
    s = q @ k.T / 2
    e = np.exp(s - s.real.max()) * CAUSAL
    return e / e.sum(-1, keepdims=True)


@function(at=[QKV], domains=within(3.0))
def causal_attention(q, k, v):
    return causal_weights(q, k) @ v


def causal_pullback(g, q, k, v, weights):
    ds = softmax_pullback(weights, g @ v.T)
    return ds @ k / 2, ds.T @ q / 2, causal_weights(q, k).T @ g


@causal_attention.right
def causal_attention_vjp(g, q, k, v):
    return causal_pullback(g, q, k, v, causal_weights(q, k))


@causal_attention.wrong()
def causal_attention_looks_ahead(g, q, k, v):
    """The softmax of the backward pass has no mask."""
    return causal_pullback(g, q, k, v, softmax(q @ k.T / 2))


@function(at=[(normal(3, 2), 0.5 * normal(2, 2), normal(2, seed=3))])
def recurrent(x, w, h):
    for x_t in x:
        h = np.tanh(w @ h + x_t)
    return h


def recurrent_pullback(g, x, w, h, steps):
    states = [h]
    for x_t in x:
        states.append(np.tanh(w @ states[-1] + x_t))
    d_x, d_w = np.zeros_like(x), np.zeros_like(w)
    for t in reversed(range(len(x) - steps, len(x))):
        d_x[t] = g * (1 - states[t + 1] ** 2)
        d_w += np.outer(d_x[t], states[t])
        g = w.T @ d_x[t]
    return d_x, d_w, g


@recurrent.right
def recurrent_vjp(g, x, w, h):
    return recurrent_pullback(g, x, w, h, len(x))


@recurrent.wrong()
def recurrent_is_truncated(g, x, w, h):
    """Truncated backpropagation through time: two of three steps."""
    d_x, d_w, _ = recurrent_pullback(g, x, w, h, len(x) - 1)
    return d_x, d_w, np.zeros_like(h)


@recurrent.wrong()
def recurrent_counts_the_weights_once(g, x, w, h):
    """Only the last step contributes to the gradient of the shared weights."""
    d_x, _, d_h = recurrent_pullback(g, x, w, h, len(x))
    return d_x, recurrent_pullback(g, x, w, h, 1)[1], d_h


@function(at=[(normal(4, 2), normal(2))])
def lstm_cell(x, c):
    i, f, o, z = sigma(x[0]), sigma(x[1]), sigma(x[2]), np.tanh(x[3])
    return o * np.tanh(f * c + i * z)


def lstm_pullback(g, x, c, d_c):
    i, f, o, z = sigma(x[0]), sigma(x[1]), sigma(x[2]), np.tanh(x[3])
    t = np.tanh(f * c + i * z)
    d = g * o * d_c(t)
    gates = [d * z * i * (1 - i), d * c * f * (1 - f), g * t * o * (1 - o), d * i * (1 - z * z)]
    return np.stack(gates), d * f


@lstm_cell.right
def lstm_cell_vjp(g, x, c):
    return lstm_pullback(g, x, c, lambda t: 1 - t * t)


@lstm_cell.wrong()
def lstm_cell_without_the_outer_tanh(g, x, c):
    """The derivative of tanh(c) is missing."""
    return lstm_pullback(g, x, c, np.ones_like)


@lstm_cell.wrong()
def lstm_cell_with_swapped_gates(g, x, c):
    """The gradients of the input and the forget gate are swapped."""
    d_x, d_c = lstm_cell_vjp(g, x, c)
    return d_x[[1, 0, 2, 3]], d_c


@function(at=[(np.array([1.0, 0.5]), np.array([0.8, 1.2]))], domains=within(1.0))
def euler(y, k):
    for _ in range(5):
        y = y - 0.1 * k * y * y
    return y


def euler_pullback(g, y, k, late):
    states = [y]
    for _ in range(5):
        states.append(states[-1] - 0.1 * k * states[-1] ** 2)
    d_k = np.zeros_like(k)
    for t in reversed(range(5)):
        y_t = states[t + late]
        d_k, g = d_k - 0.1 * g * y_t**2, g * (1 - 0.2 * k * y_t)
    return g, d_k


@euler.right
def euler_vjp(g, y, k):
    return euler_pullback(g, y, k, 0)


@euler.wrong()
def euler_with_the_state_after_the_step(g, y, k):
    """Each step is differentiated at its end instead of its start."""
    return euler_pullback(g, y, k, 1)


@function(at=[np.array([0.3, 0.8])], domains=within(0.9), textures=("normal",))
def fixed_point(a):
    """y = cos(a y), by iteration."""
    y = np.zeros_like(a)
    for _ in range(200):
        y = np.cos(a * y)
    return y


@fixed_point.right
def fixed_point_vjp(g, a):
    y = fixed_point(a)
    return -g * y * np.sin(a * y) / (1 + a * np.sin(a * y))


@fixed_point.wrong()
def fixed_point_with_a_wrong_sign(g, a):
    """1 - a sin for 1 + a sin in the implicit derivative."""
    y = fixed_point(a)
    return -g * y * np.sin(a * y) / (1 - a * np.sin(a * y))


@fixed_point.wrong()
def fixed_point_differentiates_the_last_step(g, a):
    """The derivative of one step, with the solution before it a constant."""
    y = fixed_point(a)
    return -g * y * np.sin(a * y)


def until_it_stands(step, y, tolerance):
    """Iterate until a step changes nothing by more than the tolerance."""
    for _ in range(10_000):
        new = step(y)
        if np.abs(new - y).max() <= tolerance:
            return new
        y = new
    raise ArithmeticError("no convergence")


SOLVER = "Values are exact to 1e-13 only: differences see the stopping rule."


@function(at=[np.array([0.3, 0.8])], drawn="none", accuracy=1e-12)
def stopped_fixed_point(a):
    """y = cos(a y), until a step is below 1e-13."""
    return until_it_stands(lambda y: np.cos(a * y), np.zeros_like(a), 1e-13)


@stopped_fixed_point.right
def stopped_fixed_point_vjp(g, a):
    return fixed_point_vjp(g, a)


@stopped_fixed_point.wrong()
def stopped_fixed_point_with_a_wrong_sign(g, a):
    """1 - a sin for 1 + a sin."""
    return fixed_point_with_a_wrong_sign(g, a)


stopped_fixed_point.hard("stopped_fixed_point_slowly", np.array([1.1, 0.1]), why=SOLVER)

MATRIX = np.array([[4.0, 1.0, 0.0], [1.0, 5.0, 2.0], [0.0, 2.0, 6.0]])


@function(at=[normal(3)], drawn="none", accuracy=1e-12)
def stopped_jacobi(b):
    """The solution of a linear system by Jacobi's iteration, until a step is below 1e-13."""
    d = np.diag(MATRIX)
    return until_it_stands(lambda y: y + (b - MATRIX @ y) / d, np.zeros_like(b), 1e-13)


@stopped_jacobi.right
def stopped_jacobi_vjp(g, b):
    return np.linalg.solve(MATRIX.T, g)


@stopped_jacobi.wrong()
def stopped_jacobi_by_its_diagonal(g, b):
    """One iteration in the backward pass."""
    return g / np.diag(MATRIX)


@function(at=[np.array([2.0, 9.0])], drawn="none", accuracy=1e-12)
def stopped_newton(a):
    """√a by Newton's iteration, until a step is below 1e-13."""
    return until_it_stands(lambda y: (y + a / y) / 2, np.ones_like(a), 1e-13)


@stopped_newton.right
def stopped_newton_vjp(g, a):
    return g / (2 * np.sqrt(a))


@function(at=[normal(4)], drawn=arrays((4,)).map(lambda x: (x,)))
def gumbel_softmax(x):
    return softmax(2 * x)


@gumbel_softmax.right
def gumbel_softmax_vjp(g, x):
    return 2 * softmax_pullback(softmax(2 * x), g)


@gumbel_softmax.wrong()
def gumbel_softmax_without_its_temperature(g, x):
    """1/τ is forgotten in the backward pass."""
    return softmax_pullback(softmax(2 * x), g)
