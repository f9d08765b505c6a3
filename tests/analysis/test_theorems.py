"""The theorems hold to rounding in their corrected forms, and what v3 prints otherwise fails."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.backends import on_backends

from minibn import nn, ops
from minibn.analysis import theorems, units
from minibn.analysis.theorems import (
    hessian_identity,
    lemma_4_5,
    multiple,
    shares,
    theorem_4_1,
    theorem_4_1_printed,
    theorem_4_1_without_eps,
    theorem_4_2,
    theorem_4_4,
    theorem_4_4_printed,
    theorem_c_1,
    theorem_c_1_maxima,
    through_inputs,
    worst_inputs,
)
from minibn.analysis.units import Sides, Units, dot, units_at, weight_gradients
from minibn.autograd.backward import grad
from minibn.autograd.tensor import Tensor
from minibn.backend import Backend, get_backend, to_numpy
from minibn.errors import ShapeError
from minibn.random import generator

EXACT = 1e-10
HEADS = ("tanh", "product", "convex")


def head(kind: str, m: int, C: int, seed: int) -> Callable[[Tensor], Tensor]:
    """A random loss of z (m, C), in which all values of all units meet."""
    rng, backend = generator(seed, "head"), get_backend()
    K = 2 * m
    a, b, c = (rng.standard_normal(shape) for shape in ((K, m), (C, K), (K, K)))
    a, b, c = (backend.asarray(x, dtype=np.float64) for x in (a / m**0.5, b, c))

    def loss(z: Tensor) -> Tensor:
        mixed = ops.matmul(ops.matmul(a, z), b)  # (K, K)
        if kind == "tanh":
            return (ops.tanh(mixed) * c).sum()
        if kind == "product":
            return (ops.sigmoid(mixed) * mixed * c).mean()
        return ops.logsumexp(mixed + c)

    return loss


def drawn(
    seed: int, m: int = 8, eps: float = 1e-5, kind: str = "tanh", C: int = 1, size: float = 1.0
) -> Units:
    """Units with a random head, pre-activations, gamma and beta."""
    rng, backend = generator(seed, "units"), get_backend()
    y = rng.standard_normal((m, C)) * rng.uniform(0.3, 3, C) + rng.standard_normal(C)
    gamma, beta = rng.choice([-1, 1], C) * rng.uniform(0.3, 2, C), rng.standard_normal(C)
    y, gamma, beta = (backend.asarray(v, dtype=np.float64) for v in (y, gamma, beta))
    loss = head(kind, m, C, seed)
    return Units(lambda z: loss(z) * size, y, gamma, beta, eps)


def worst(sides: Sides) -> float:
    return float(to_numpy(sides.residual).max())


def exact_forms(u: Units) -> list[Sides]:
    """Every identity about one set of units, but those of weight space."""
    curvature = theorem_4_2(u)
    return [
        theorems.fact_c_2(u),
        theorem_4_1(u),
        curvature.hessian,
        curvature.exact,
        theorems.observation_4_3(u),
        theorem_4_4(u, 2.0),
        theorem_c_1(u, curvature, 2.0),
        theorems.scale_invariance(u, 3.0),
        theorems.orthogonality(u),
    ]


seeds = st.integers(0, 2**32)
# Two values normalise to ±1 whatever they are: what is left of a gradient is eps and rounding.
batches = st.sampled_from([3, 8, 64])
epsilons = st.sampled_from([0.0, 1e-5, 0.1])


@on_backends
@given(seed=seeds, m=batches, eps=epsilons, kind=st.sampled_from(HEADS), C=st.integers(1, 3))
def test_every_identity_is_exact_at_any_eps(
    seed: int, m: int, eps: float, kind: str, C: int, backend: Backend
) -> None:
    for sides in exact_forms(drawn(seed, m, eps, kind, C)):
        assert worst(sides) < EXACT, sides.theorem


@on_backends
@given(seed=seeds, m=batches, eps=epsilons)
def test_the_hessian_identity_holds_along_any_vector(
    seed: int, m: int, eps: float, backend: Backend
) -> None:
    u = drawn(seed, m, eps, C=2)
    v = backend.asarray(generator(seed, "v").standard_normal((m, 2)))
    assert worst(hessian_identity(u, v)) < EXACT


@on_backends
@given(seed=seeds, m=batches, eps=epsilons, largest=st.floats(0.1, 10))
def test_weight_space_is_at_its_maxima_where_the_inputs_are_orthogonal(
    seed: int, m: int, eps: float, largest: float, backend: Backend
) -> None:
    u = drawn(seed, m, eps, C=2)
    gradient, curvature = through_inputs(u, worst_inputs(u, largest, seed))
    assert worst(theorem_4_4(u, largest, gradient)) < EXACT
    assert worst(theorem_c_1(u, theorem_4_2(u), largest, curvature)) < EXACT


@given(seeds, st.floats(0.1, 10))
def test_no_inputs_of_the_norm_give_a_larger_gradient(seed: int, largest: float) -> None:
    u, rng = drawn(seed, m=8), generator(seed, "inputs")
    for width in (1, 5, 20):
        x = rng.standard_normal((8, width))
        x *= largest / np.linalg.norm(x, 2)
        assert ((x.T @ u.d) ** 2).sum() <= theorem_4_4(u, largest).left[0] * (1 + EXACT)


@given(seeds, batches, st.sampled_from(HEADS))
def test_the_vanilla_gradient_is_that_of_the_network_without_norm(
    seed: int, m: int, kind: str
) -> None:
    loss = head(kind, m, 2, seed)
    y = Tensor(generator(seed, "y").standard_normal((m, 2)) * 3 + 1, requires_grad=True)
    plain = grad(loss(y), y).data
    once = Units(loss, y.data, np.ones(2), np.zeros(2))
    matched = Units(loss, y.data, once.sigma, once.mean)
    np.testing.assert_allclose(matched.g, plain, rtol=1e-9, atol=1e-12 * abs(plain).max())
    assert matched.scaling.tolist() == [1, 1]


@given(seeds, st.sampled_from([8, 64]), epsilons)
def test_the_printed_4_1_is_violated_wherever_there_is_a_correlation(
    seed: int, m: int, eps: float
) -> None:
    u = drawn(seed, m, eps, C=3)
    assert (theorem_4_1_printed(u).is_exceeded | (shares(u).correlation < 1e-6)).all()


def test_the_printed_4_1_even_has_negative_right_sides() -> None:
    rng = generator(0, "regression")
    y, target = rng.standard_normal((2, 64, 5))
    u = Units(lambda z: ((z - target) ** 2).sum(), y, np.ones(5), np.zeros(5))
    assert (theorem_4_1_printed(u).right < 0).all()
    assert worst(theorem_4_1(u)) < EXACT


@given(seeds, batches)
def test_without_eps_4_1_is_an_identity_at_eps_0_and_an_upper_bound_elsewhere(
    seed: int, m: int
) -> None:
    assert worst(theorem_4_1_without_eps(drawn(seed, m, eps=0))) < EXACT
    off = theorem_4_1_without_eps(drawn(seed, m, eps=0.1))
    assert off.residual[0] > 0 and not off.is_exceeded.any()


@given(seeds, batches)
def test_the_printed_4_2a_is_an_identity_at_eps_0_only(seed: int, m: int) -> None:
    assert worst(theorem_4_2(drawn(seed, m, eps=0)).printed) < EXACT
    assert worst(theorem_4_2(drawn(seed, m, eps=0.1)).printed) > EXACT


def test_the_parts_of_4_2_for_a_quadratic_are_those_of_its_matrix() -> None:
    m, rng = 9, generator(0, "quadratic")
    half = rng.standard_normal((m, m))
    H, gamma, eps = half + half.T, 1.7, 0.1
    y = rng.standard_normal((m, 1)) * 2 + 3
    u = Units(
        lambda z: (z * ops.matmul(H, z)).sum() * 0.5, y, np.array([gamma]), np.array([0.4]), eps
    )
    y_hat = (y - y.mean()) / np.sqrt(y.var() + eps)
    g = H @ (gamma * y_hat + 0.4)
    P = np.eye(m) - 1 / m - y_hat @ y_hat.T / m
    d = gamma / u.sigma * (P @ g)
    found, scaling = theorem_4_2(u), gamma**2 / (y.var() + eps)
    separation = gamma / (m * (y.var() + eps)) * (g * y_hat).sum() * (d * d).sum()
    for value, expected in (
        (found.vanilla, g.T @ H @ g),
        (found.along, d.T @ H @ d),
        (found.inner, g.T @ y_hat),
        (found.separation, separation),
        (found.bound_b.right, scaling * g.T @ H @ g - separation),
        (found.printed.right, scaling * d.T @ H @ d - separation),
        (theorems.orthogonality(u).size, np.linalg.norm(y) * np.linalg.norm(d)),
    ):
        np.testing.assert_allclose(value, np.ravel(expected), rtol=1e-12)


def share(violated: Callable[[Units], Sides], *, kind: str = "tanh", size: float = 1) -> float:
    """In which share of 60 draws ≤ is violated."""
    return np.mean([violated(drawn(s, kind=kind, size=size)).is_exceeded[0] for s in range(60)])


@pytest.mark.parametrize("kind", HEADS)
def test_4_2b_holds_in_some_cases_only(kind: str) -> None:
    assert 0 < share(lambda u: theorem_4_2(u).bound_b, kind=kind) < 1


def test_c_1_about_maxima_holds_in_some_cases_only() -> None:
    assert 0 < share(lambda u: theorem_c_1_maxima(u, theorem_4_2(u), 2.0)) < 1


def test_whether_the_printed_4_4_holds_depends_on_the_units_of_the_loss() -> None:
    def printed(u: Units) -> Sides:
        return theorem_4_4_printed(u, 2.0)

    assert share(printed, size=1e-3) == 1
    assert share(printed, size=1e3) == 0
    assert worst(theorem_4_4(drawn(0, size=1e-3), 2.0)) < EXACT


@given(seeds, st.floats(0.1, 10))
def test_the_largest_form_is_that_of_the_best_inputs(seed: int, largest: float) -> None:
    rng = generator(seed, "form")
    matrix, v = rng.standard_normal((2, 2)), rng.standard_normal(2)
    matrix = (matrix + matrix.T) * rng.choice([-1, 1])
    angle = np.linspace(0, 2 * np.pi, 20_001)
    reached = (v[:, None] + np.linalg.norm(v) * np.stack([np.cos(angle), np.sin(angle)])) / 2
    best = largest**4 * max((reached * (matrix @ reached)).sum(0).max(), 0)
    found = theorems._largest_form(matrix, v, largest)
    assert best - EXACT <= found
    assert found <= best + 1e-6 * largest**4 * np.linalg.norm(matrix) * (v @ v)


@given(seeds, st.integers(1, 12))
def test_no_inputs_give_more_than_the_largest_form(seed: int, m: int) -> None:
    rng = generator(seed, "form")
    matrix, v = rng.standard_normal((m, m)), rng.standard_normal(m)
    matrix = matrix + matrix.T
    found = theorems._largest_form(matrix, v, 2.0)
    for width in (1, m, 3 * m):
        x = rng.standard_normal((m, width))
        u = x @ (x.T @ v) * (2 / np.linalg.norm(x, 2)) ** 2
        assert u @ matrix @ u <= found + EXACT * (1 + abs(found))


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), -np.eye(3), np.diag([1.0, 0, 0])])
def test_the_largest_form_of_hard_cases(matrix: np.ndarray) -> None:
    v = np.array([0.0, 3.0, 4.0])  # nothing along the only direction that counts
    expected = 2.0**4 * 2.5**2 if matrix[0, 0] > 0 else 0  # the ball's radius, along the first axis
    assert theorems._largest_form(matrix, v, 2.0) == pytest.approx(expected, abs=1e-9)


@given(seeds, st.integers(1, 30), st.floats(0.01, 100))
def test_lemma_4_5_is_algebra_for_any_weights(seed: int, F: int, size: float) -> None:
    rng = generator(seed, "weights")
    start, optimum = rng.standard_normal((F, 4)) * size, rng.standard_normal((F, 4))
    assert worst(lemma_4_5(start, optimum)) < EXACT
    k = multiple(start, optimum)
    nearest = dot(optimum * k - start, optimum * k - start)
    for other in (0.5, 0.99, 1.01, 2, -1):
        away = optimum * k * other - start
        assert (nearest <= dot(away, away) * (1 + EXACT)).all(), "k is the nearest multiple"


@given(seeds, batches, epsilons)
def test_what_4_1_removes_is_what_beta_and_gamma_learn_from(seed: int, m: int, eps: float) -> None:
    u = drawn(seed, m, eps, C=2)
    gamma, beta = (Tensor(v, requires_grad=True) for v in (u.gamma, u.beta))
    y = Tensor(u.y, requires_grad=True)
    g_gamma, g_beta = grad(u.loss(ops.batch_norm(y, gamma, beta, eps=eps)), (gamma, beta))
    removed = shares(u)
    size = dot(u.g, u.g)
    weight = 2 / m - dot(u.y_hat, u.y_hat) / m**2
    np.testing.assert_allclose(removed.mean, g_beta.data**2 / m / size, rtol=1e-9)
    np.testing.assert_allclose(removed.correlation, g_gamma.data**2 * weight / size, rtol=1e-9)
    np.testing.assert_allclose(removed.reduction, dot(u.d, u.d) / size, rtol=1e-9)


def test_units_without_a_gradient_have_no_residual_and_no_warning() -> None:
    y = generator(0, "y").standard_normal((8, 3))
    y[:, 2] = 5.0  # a constant unit: y_hat is 0
    u = Units(lambda z: (z[:, 1:] ** 3).sum(), y, np.array([1.0, 0.0, 2.0]), np.zeros(3))
    for sides in exact_forms(u):
        assert worst(sides) < EXACT, sides.theorem
    assert shares(u).remainder.tolist()[0] == 1


# -- on a network


def network(noise: bool = False) -> nn.Sequential:
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 3, 3, padding=1, bias=False), "norm1": nn.BatchNorm(3),
        "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(3, 4, 3, bias=False), "norm2": nn.BatchNorm(4),
        **({"noise2": nn.Noise()} if noise else {}), "relu2": nn.ReLU(), "flat": nn.Flatten(),
        "linear3": nn.Linear(16, 5), "norm3": nn.BatchNorm(5), "relu3": nn.ReLU(),
        "head": nn.Linear(5, 3),
    }  # fmt: skip
    model = nn.Sequential(**parts).initialize(0, np.float64)
    rng = generator(0, "gamma")
    for name in ("norm1", "norm2", "norm3"):
        norm = dict(model.children())[name]
        norm.gamma.place(rng.uniform(0.5, 2, norm.gamma.shape))
        norm.beta.place(rng.standard_normal(norm.beta.shape))
    return model


def images() -> tuple[object, np.ndarray]:
    rng = generator(0, "images")
    x = get_backend().asarray(rng.standard_normal((6, 8, 8, 3)))
    return x, rng.integers(0, 3, 6)


@pytest.mark.parametrize("norm", ["norm1", "norm2", "norm3"])
def test_every_unit_of_a_network_obeys(norm: str, backend: Backend) -> None:
    with units_at(network(), norm, images()) as u:
        assert u.m == {"norm1": 6 * 64, "norm2": 6 * 4, "norm3": 6}[norm]
        for sides in exact_forms(u):
            assert worst(sides) < EXACT, sides.theorem
        assert to_numpy(theorem_4_1_printed(u).is_exceeded).all()


@pytest.mark.parametrize("norm", ["norm1", "norm2", "norm3"])
def test_gradients_of_units_are_those_of_the_whole_network(norm: str, backend: Backend) -> None:
    model, (x, labels) = network(), images()
    seen: list[Tensor] = []
    parts = dict(model.children())
    with parts[norm].watch(lambda module, given, out: seen.extend((given[0], out))):
        loss = ops.softmax_cross_entropy(model(x), labels)
    before = list(parts.values())[list(parts).index(norm) - 1].weight
    d, g, w = grad(loss, (*seen, before))
    with units_at(model, norm, (x, labels)) as u:
        both = weight_gradients(model, norm, (x, labels), u)
    for ours, theirs in ((u.d, d), (u.g, g), (both[1], w.reshape(-1, w.shape[-1]))):
        ours, theirs = to_numpy(ours), theirs.numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-12 * abs(theirs).max())
    assert not np.allclose(to_numpy(both[0]), to_numpy(both[1]))


@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_a_noisy_network_as_it_was(training: bool) -> None:
    model, (x, labels) = network(noise=True), images()
    model(x)
    model.train(training)
    states = [*model.named_parameters(), *model.named_buffers()]
    arrays = [(state.data, state.data.copy()) for _, state in states]
    with units_at(model, "norm2", (x, labels)) as u:
        assert all(part.training for _, part in model.named_modules())
        assert worst(theorem_4_2(u).hessian) < EXACT, "the noise is the same on both sides"
        weight_gradients(model, "norm2", (x, labels), u)
    for (name, state), (array, copy) in zip(states, arrays, strict=True):
        assert state.data is array and np.array_equal(array, copy), name
        assert state.grad is None
    assert {part.training for _, part in model.named_modules()} == {training}


@pytest.mark.parametrize("name", ["norm4", "relu1", ""])
def test_what_is_no_batch_norm_is_named_with_those_there_are(name: str) -> None:
    with (
        pytest.raises(ValueError, match=f"{name!r} is no BatchNorm.*norm1, norm2, norm3"),
        units_at(network(), name, images()),
    ):
        pass


def test_a_network_without_norms_has_none_to_name() -> None:
    with (
        pytest.raises(ValueError, match="There are: none"),
        units_at(nn.Sequential(nn.Linear(2, 2)), "norm", images()),
    ):
        pass


def test_bad_units_raise_at_once() -> None:
    y, one, zero = np.ones((4, 2)), np.ones(2), np.zeros(2)
    with pytest.raises(ShapeError, match="fewer than two values"):
        Units(lambda z: z.sum(), y[:1], one, zero)
    with pytest.raises(ShapeError, match="gamma has shape"):
        Units(lambda z: z.sum(), y, one[:1], zero)
    with pytest.raises(ShapeError, match=r"loss\(z\) has shape \(2,\)"):
        Units(lambda z: z.sum(axis=0), y, one, zero)
    with pytest.raises(ShapeError, match=r"\(8, 2\).*one unit"):
        u = drawn(0, C=2)
        theorem_c_1_maxima(u, theorem_4_2(u), 2.0)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="eps=0"):
        Units(lambda z: (z**2).sum(), y, one, zero, eps=0)


def test_a_residual_is_relative_to_the_largest_term_and_zero_where_all_are() -> None:
    sides = Sides("", np.array([1.0, 0.0]), (np.array([100.0, 0.0]), np.array([-98.0, 0.0])))
    assert sides.residual.tolist() == [0.01, 0.0]
    assert sides.is_exceeded.tolist() == [False, False]
    assert Sides("", sides.right, (sides.left,)).is_exceeded.tolist() == [True, False]
    assert Sides("", sides.left, sides.terms, np.array([2.0, 2.0])).residual.tolist() == [0.5, 0]
    assert units.length(np.array([[3.0], [4.0]])).tolist() == [5.0]
