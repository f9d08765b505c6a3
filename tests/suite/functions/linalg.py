"""Products, inverses, decompositions, transforms."""

import numpy as np

from minibn.testing.strategies import arrays
from suite.functions.function import function, normal

inv, solve = np.linalg.inv, np.linalg.solve
WELL = normal(3, 3) + 3 * np.eye(3)
SYMMETRIC = normal(3, 3) + normal(3, 3).T + np.diag([0, 3.0, 9.0])
MATRICES = arrays((3, 3), textures=("dyadic", "normal"))
INVERTIBLE = MATRICES.map(lambda a: (a + 15 * np.eye(3),))
APART = MATRICES.map(lambda a: (a + a.T + np.diag([0, 30.0, 60.0]),))


@function(at=[(normal(3, 3), normal(3, 3, seed=1))])
def rows_by_rows(a, b):
    """a bᵀ, as np.einsum("ij,kj->ik", a, b)."""
    return a @ b.T


@rows_by_rows.right
def rows_by_rows_vjp(g, a, b):
    return g @ b, g.T @ a


@rows_by_rows.wrong()
def rows_by_rows_without_a_transpose(g, a, b):
    """g a for gᵀ a: square matrices hide it."""
    return g @ b, g @ a


@rows_by_rows.wrong()
def rows_by_rows_returns_the_transposed(g, a, b):
    """The gradient of b comes transposed."""
    return g @ b, (g.T @ a).T


@function(at=[(normal(3), normal(3, 3), normal(3, seed=2))])
def bilinear(x, a, y):
    return x @ a @ y


@bilinear.right
def bilinear_vjp(g, x, a, y):
    return g * (a @ y), g * np.outer(x, y), g * (a.T @ x)


@bilinear.wrong()
def bilinear_with_swapped_factors(g, x, a, y):
    """outer(y, x) for outer(x, y)."""
    return g * (a @ y), g * np.outer(y, x), g * (a.T @ x)


@function(at=[(normal(4, 3), normal(3, 2), normal(2))])
def linear(x, w, b):
    return x @ w + b


@linear.right
def linear_vjp(g, x, w, b):
    return g @ w.T, x.T @ g, g.sum(0)


@linear.wrong()
def linear_averages_the_bias(g, x, w, b):
    """The gradient of the bias is a mean over the batch, not the sum."""
    return g @ w.T, x.T @ g, g.mean(0)


@linear.wrong()
def linear_averages_the_weights(g, x, w, b):
    """The gradient of the weights is divided by the batch."""
    return g @ w.T, x.T @ g / len(x), g.sum(0)


linear.hard("linear_of_a_single_example", (normal(1, 3), normal(3, 2), normal(2)), why="N = 1.")
linear.hard(
    "linear_of_two_scales",
    (normal(4, 3) * [1e-6, 1.0, 1e6], normal(3, 2), normal(2)),
    why="Scales.",
)


@function(at=[(normal(3, 1), normal(2, 3, 4))])
def scaled_rows(x, y):
    return x * y


@scaled_rows.right
def scaled_rows_vjp(g, x, y):
    return (g * y).sum((0, 2))[:, None], g * x


@scaled_rows.wrong()
def scaled_rows_averages_over_a_broadcast_axis(g, x, y):
    """One broadcast axis is summed, the other averaged."""
    return (g * y).sum(0).mean(-1)[:, None], g * x


@scaled_rows.wrong()
def scaled_rows_takes_the_first_of_a_broadcast_axis(g, x, y):
    """The sum over the broadcast axis is missing: only its first element contributes."""
    return (g * y)[0].sum(-1)[:, None], g * x


@function(at=[normal(5), normal(8)])
def power_spectrum(x):
    f = np.fft.fft(x)
    return f.real**2 + f.imag**2


@power_spectrum.right
def power_spectrum_vjp(g, x):
    return 2 * np.real(np.fft.fft(np.conj(np.fft.fft(x)) * g))


@power_spectrum.wrong()
def power_spectrum_without_the_conjugate(g, x):
    """The conjugate of the adjoint is missing."""
    return 2 * np.real(np.fft.fft(np.fft.fft(x) * g))


@power_spectrum.wrong()
def power_spectrum_with_the_normalised_inverse(g, x):
    """ifft divides by n; the adjoint of fft does not."""
    return 2 * np.real(np.fft.ifft(np.fft.fft(x) * g))


@function(at=[normal(6), normal(5)])
def real_spectrum(x):
    f = np.fft.rfft(x)
    return np.concatenate([f.real, f.imag])


@real_spectrum.right
def real_spectrum_vjp(g, x):
    n, m = len(x), len(x) // 2 + 1
    phase = 2 * np.pi * np.outer(np.arange(m), np.arange(n)) / n
    return g[:m] @ np.cos(phase) - g[m:] @ np.sin(phase)


@real_spectrum.wrong()
def real_spectrum_by_the_inverse(g, x):
    """irfft times n counts the inner frequencies twice."""
    n, m = len(x), len(x) // 2 + 1
    return np.fft.irfft(g[:m] + 1j * g[m:], n) * n


@function(at=[(WELL, normal(3))], drawn="none")
def linear_solve(a, b):
    return solve(a, b)


@linear_solve.right
def linear_solve_vjp(g, a, b):
    lam = solve(a.T, g)
    return -np.outer(lam, solve(a, b)), lam


@linear_solve.wrong()
def linear_solve_without_the_transpose(g, a, b):
    """A⁻¹ g for A⁻ᵀ g."""
    lam = solve(a, g)
    return -np.outer(lam, solve(a, b)), lam


@linear_solve.wrong()
def linear_solve_with_a_plus(g, a, b):
    """The minus of the derivative of an inverse is missing."""
    lam = solve(a.T, g)
    return np.outer(lam, solve(a, b)), lam


linear_solve.hard(
    "linear_solve_of_a_hilbert_matrix",
    (1 / (np.arange(4)[:, None] + np.arange(4) + 1.0), np.ones(4)), why="A condition of 1e4.",
)  # fmt: skip


@function(at=[WELL], drawn=INVERTIBLE)
def inverse(a):
    return inv(a)


@inverse.right
def inverse_vjp(g, a):
    return -inv(a).T @ g @ inv(a).T


@inverse.wrong()
def inverse_without_transposes(g, a):
    """-A⁻¹ g A⁻¹."""
    return -inv(a) @ g @ inv(a)


inverse.hard(
    "inverse_of_a_nearly_singular_matrix", np.array([[1.0, 1.0], [1.0, 1.001]]), why="1e3."
)


@function(at=[WELL], drawn=INVERTIBLE)
def log_determinant(a):
    return np.linalg.slogdet(a)[1]


@log_determinant.right
def log_determinant_vjp(g, a):
    return g * inv(a).T


@log_determinant.wrong()
def log_determinant_without_the_transpose(g, a):
    """A⁻¹ for A⁻ᵀ: symmetric matrices hide it."""
    return g * inv(a)


@function(at=[SYMMETRIC], drawn=APART)
def eigenvalues(a):
    return np.linalg.eigvalsh((a + a.T) / 2)


@eigenvalues.right
def eigenvalues_vjp(g, a):
    v = np.linalg.eigh((a + a.T) / 2)[1]
    return v * g @ v.T


@eigenvalues.wrong()
def eigenvalues_with_vectors_in_rows(g, a):
    """Vᵀ diag(g) V: the eigenvectors are the columns."""
    v = np.linalg.eigh((a + a.T) / 2)[1]
    return v.T * g @ v


eigenvalues.hard(
    "eigenvalues_that_nearly_meet", np.diag([1.0, 1.0 + 1e-4, 3.0]) + 1e-6, why="A kink nearby."
)


@function(at=[normal(3, 3)], drawn="none")
def largest_singular_value(a):
    return np.linalg.svd(a)[1][0]


@largest_singular_value.right
def largest_singular_value_vjp(g, a):
    u, _, v = np.linalg.svd(a)
    return g * np.outer(u[:, 0], v[0])


@largest_singular_value.wrong()
def largest_singular_value_transposed(g, a):
    """outer(v, u) for outer(u, v)."""
    u, _, v = np.linalg.svd(a)
    return g * np.outer(v[0], u[:, 0])


@function(at=[normal(3, 3)], drawn="none")
def spectral_norm(a):
    return a / largest_singular_value(a)


@spectral_norm.right
def spectral_norm_vjp(g, a):
    s = largest_singular_value(a)
    return g / s - (g * a).sum() / s**2 * largest_singular_value_vjp(1.0, a)


@spectral_norm.wrong()
def spectral_norm_with_a_constant_sigma(g, a):
    """σ is treated as a constant."""
    return g / largest_singular_value(a)


@function(at=[normal(3, 3) @ normal(3, 3).T + 3 * np.eye(3)], drawn="none")
def cholesky(a):
    return np.linalg.cholesky((a + a.T) / 2)


def cholesky_pullback(g, a, halve_the_diagonal):
    low = cholesky(a)
    p = np.tril(low.T @ g)
    if halve_the_diagonal:
        p[np.diag_indices_from(p)] /= 2
    s = inv(low).T @ p @ inv(low)
    return (s + s.T) / 2


@cholesky.right
def cholesky_vjp(g, a):
    return cholesky_pullback(g, a, True)


@cholesky.wrong()
def cholesky_with_a_whole_diagonal(g, a):
    """The diagonal of Φ is not halved."""
    return cholesky_pullback(g, a, False)


@function(at=[normal(3, 3)])
def lower_triangle(x):
    return np.tril(x)


@lower_triangle.right
def lower_triangle_vjp(g, x):
    return np.tril(g)


@lower_triangle.wrong()
def lower_triangle_without_its_diagonal(g, x):
    """The diagonal of the cotangent is dropped."""
    return np.tril(g, -1)


@lower_triangle.wrong()
def lower_triangle_leaks(g, x):
    """The mask is forgotten in the backward pass."""
    return g.copy()
