"""Models and losses whose curvature is known, or small enough to be computed in full."""

import numpy as np

from minibn import nn
from minibn.nn.module import Module
from minibn.nn.state import Parameter


class Weights(Module):
    """A model that is its weights: loss(w, A) is then any function of them."""

    def __init__(self, *shape):
        self.w = Parameter(shape, lambda shape, rng: rng.standard_normal(shape))

    def forward(self, x):
        return self.w * 1


def quadratic(w, A):
    """½ wᵀA w, whose Hessian is A."""
    return (w * (A @ w)).sum() * 0.5


def quadratic_model(A):
    return Weights(len(A)).initialize(0, dtype=np.float64), (None, A)


def symmetric(eigenvalues, seed=0):
    """A matrix with these eigenvalues and axes that are drawn."""
    n = len(eigenvalues)
    U, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    A = (U * np.asarray(eigenvalues)) @ U.T
    return (A + A.T) / 2


def squares(y, targets):
    return ((y - targets) ** 2).sum()


def images(dtype=np.float64, N=4):
    rng = np.random.default_rng(1)
    return rng.standard_normal((N, 5, 5, 2)).astype(dtype), rng.integers(0, 3, N)


def conv_net(dtype=np.float64, norm=True, noise=False, eps=1e-5):
    parts = {"conv": nn.Conv2d(2, 3, 3, padding=1, bias=not norm)}
    parts |= {"norm": nn.BatchNorm(3, eps=eps)} if norm else {}
    parts |= {"noise": nn.Noise()} if noise else {}
    parts |= {"relu": nn.ReLU(), "pool": nn.MaxPool2d(2), "flatten": nn.Flatten()}
    return nn.Sequential(**parts, linear=nn.Linear(12, 3)).initialize(0, dtype=dtype)


def full(H):
    """The whole matrix, a column a product."""
    return np.stack([H @ row for row in np.eye(H.size)], axis=1)
