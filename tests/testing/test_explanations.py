"""Ordinary mistakes in a vjp, each with the words that its explanation must have."""

# ruff: noqa: E501  (tables, a mistake on each line)
import numpy as np
import pytest

from minibn.testing import check_vjp


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def softmax(x):
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def truth(x):
    return 1 - np.tanh(x) ** 2


X = normal(3, 4)
SMALL = np.array([0.5, -1.0, 2.5])

MISTAKES = {
    "swapped": (lambda x, y: x * x * y, lambda g, x, y: (g * x * x, 2 * g * x * y), (SMALL, normal(3)), "gradients of inputs 0 and 1 swapped"),
    "arguments": (np.tanh, lambda x, g: g * truth(x), (X,), "the cotangent is its first argument here"),
    "forward cumsum": (np.cumsum, lambda g, x: np.cumsum(g), (normal(5),), "It is J·g, where Jᵀ·g belongs"),
    "roll": (lambda x: np.roll(x, 2), lambda g, x: np.roll(g, 2), (normal(7),), "It is J·g"),
    "solve": (lambda b: np.linalg.solve(np.arange(9.0).reshape(3, 3) + 3 * np.eye(3), b), lambda g, b: np.linalg.solve(np.arange(9.0).reshape(3, 3) + 3 * np.eye(3), g), (SMALL,), "not transposed"),
    "shift by 2": (lambda x: x[2:-1] ** 2, lambda g, x: np.r_[2 * g * x[2:-1], 0, 0, 0], (normal(9),), "shifted by -2 along axis 0"),
    "tanh factor": (np.tanh, lambda g, x: g, (X,), "the factor 1 - (the output)² is missing"),
    "sigmoid factor": (sigmoid, lambda g, x: g, (X,), "the factor the output (1 - the output) is missing"),
    "square": (lambda x: x**3, lambda g, x: 3 * g * x, (X,), "the factor input 0 is missing"),
    "log1p": (np.log1p, lambda g, x: g / x, (np.array([0.5, 2.0]),), "1 + input 0"),
    "branch": (np.arctan, lambda g, x: g * np.where(np.abs(x) > 10, 0.5, 1 / (1 + x * x)), (20 * normal(6),), "|input 0| is above 10"),
    "threshold": (np.sin, lambda g, x: g * np.where(x > 2, 1.5, np.cos(x)), (SMALL,), "input 0 is above 2"),
    "constant at the left": (lambda x: np.where(x > 0, x, 0.5 * np.exp(x) - 0.5), lambda g, x: g * np.where(x > 0, 1, 0.5 * np.exp(x) + 0.5), (X,), "where the input is negative"),
    "power of two": (np.sin, lambda g, x: 8 * g * np.cos(x), (X,), "8 = 2^3 everywhere"),
    "eighth": (np.sin, lambda g, x: g * np.cos(x) / 8, (X,), "1/8 = 2^-3 everywhere"),
    "pi": (np.sin, lambda g, x: g * np.cos(x) * np.pi, (X,), "π everywhere"),
    "root": (lambda x: x * x / 2, lambda g, x: g * x / 2, (normal(5, 4),), "a factor √4"),
    "softmax diagonal": (softmax, lambda g, x: g * softmax(x) * (1 - softmax(x)), (X,), "the sum over the other outputs is missing"),
    "softmax sum": (softmax, lambda g, x: g * softmax(x), (X,), "the term with the sum over axis 1"),
    "unit": (unit, lambda g, x: g / np.sqrt((x * x).sum(-1, keepdims=True)), (X,), "the term with the sum over axis 1"),
    "broadcast": (lambda b: np.zeros((4, 3)) + b * b, lambda g, b: 2 * b * g[0], (SMALL,), "cotangent at index 0 of axis 0 alone: is the sum over that axis missing"),
    "one output": (lambda x: np.stack([x, x * x, np.sin(x)]), lambda g, x: g[0] + 2 * g[1] * x - g[2] * np.cos(x), (SMALL,), "the output at index 2 of axis 0 is wrong (its sign)"),
    "dropped path": (lambda x: np.r_[x[2:0:-1], x], lambda g, x: g[2:].copy(), (normal(5),), "(0,) and (1,) is wrong (it is dropped)"),
    "mask": (lambda x: softmax(x * [1, 1, 0]), lambda g, x: softmax(x) * (g - (g * softmax(x)).sum(-1, keepdims=True)), (normal(2, 3),), "a mask, an index or an axis"),
    "batch element": (lambda x: x * (x * x).sum(-1, keepdims=True), lambda g, x: g * (x[:1] ** 2).sum(-1, keepdims=True) + 2 * x[:1] * (g * x[:1]).sum(-1, keepdims=True), (normal(3, 2),), "right at index 0 of axis 0, and wrong at all others"),
    "weights at the ends": (lambda x: (x * x)[1:-1].sum() + (x * x)[[0, -1]].sum() / 2, lambda g, x: 2 * g * x, (normal(5),), "2 at (0,) and (4,)"),
    "transposed cotangent": (lambda x: x @ np.arange(9.0).reshape(3, 3), lambda g, x: g.T @ np.arange(9.0).reshape(3, 3).T, (normal(3, 3),), "the cotangent with its last two axes transposed"),
    "conjugate": (lambda x: np.stack([np.cos(2 * np.pi * np.outer(range(5), range(5)) / 5) @ x, np.sin(2 * np.pi * np.outer(range(5), range(5)) / 5) @ x]), lambda g, x: g[0] @ np.cos(2 * np.pi * np.outer(range(5), range(5)) / 5) - g[1] @ np.sin(2 * np.pi * np.outer(range(5), range(5)) / 5), (normal(5),), "negated"),
    "cotangent ignored": (lambda x: np.sin(x).sum(0), lambda g, x: np.cos(x), (X,), "the cotangent is ignored"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_an_ordinary_mistake_is_named(name):
    f, vjp, arrays, words = MISTAKES[name]
    report = check_vjp(f, vjp, *arrays, raises=False)
    assert words in " ".join(report.diagnosis.sentences), report


REMARKS = {
    "eps": (lambda x: x / np.sqrt((x * x).sum() + 1e-5), lambda g, x: g / np.sqrt((x * x).sum()) - x * (g * x).sum() / (x * x).sum() ** 1.5, (X,), "an eps that is missing"),
    "another derivative": (lambda x: np.exp(-x * x), lambda g, x: g * np.sin(x), (X,), "another function of the entry"),
    "float16": (lambda x: x @ X, lambda g, x: (g @ X.T).astype(np.float16).astype(float), (normal(2, 3),), "float16"),
}  # fmt: skip


@pytest.mark.parametrize("name", REMARKS)
def test_what_nothing_explains_gets_a_remark_that_claims_no_more_than_is_seen(name):
    f, vjp, arrays, words = REMARKS[name]
    report = check_vjp(f, vjp, *arrays, raises=False)
    assert report.diagnosis.sentences == []
    assert words in report.diagnosis.remark
    assert words.split()[0] in report.screen


def test_random_errors_of_any_size_are_not_explained():
    for seed in range(30):
        noise = normal(4, 3, seed=seed)
        report = check_vjp(
            lambda x: np.cumsum(np.tanh(x), 1),
            lambda g, x: np.cumsum(g[:, ::-1], 1)[:, ::-1] * truth(x) + noise * g,  # noqa: B023
            normal(4, 3, seed=seed + 100), raises=False,
        )  # fmt: skip
        assert report.diagnosis.sentences == [], report


def test_few_entries_are_worded_as_doubtful():
    report = check_vjp(
        lambda x: (np.array([1.0, 3.0, 4.0]) * x).sum(),
        lambda g, x: g * np.array([0.0, 3.0, 4.0]), np.ones(3), raises=False,
    )  # fmt: skip
    assert "3 entries only: other explanations fit as well" in report.diagnosis.sentences[-1]
