"""Right solutions in the style "arrays": f and f_vjp, with settings by position."""

import numpy as np


def batch_norm(x, gamma, beta, eps):
    return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta


def batch_norm_vjp(g, x, gamma, beta, eps):
    std = np.sqrt(x.var(0) + eps)
    x_hat = (x - x.mean(0)) / std
    dx = gamma / std * (g - g.mean(0) - x_hat * (g * x_hat).mean(0))
    return dx, (g * x_hat).sum(0), g.sum(0)


def layer_norm(x, gamma, beta, eps):
    return batch_norm(x.T, 1.0, 0.0, eps).T * gamma + beta


def layer_norm_vjp(g, x, gamma, beta, eps):
    x_hat = batch_norm(x.T, 1.0, 0.0, eps).T
    dx = batch_norm_vjp((g * gamma).T, x.T, 1.0, 0.0, eps)[0].T
    return dx, (g * x_hat).sum(0), g.sum(0)


def windows(x, Kh, Kw, stride):
    found = np.lib.stride_tricks.sliding_window_view(x, (Kh, Kw), axis=(2, 3))
    return found[:, :, ::stride, ::stride]  # (N, C, Ho, Wo, Kh, Kw)


def conv2d(x, w, b, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    cols = windows(x, *w.shape[2:], stride)
    return np.einsum("nchwij,fcij->nfhw", cols, w) + b[:, None, None]


def conv2d_vjp(g, x, w, b, stride, padding):
    Kh, Kw = w.shape[2:]
    H, W = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dw = np.einsum("nchwij,nfhw->fcij", windows(padded, Kh, Kw, stride), g)
    dx = np.zeros_like(padded)
    for h in range(g.shape[2]):
        for v in range(g.shape[3]):
            r, c = h * stride, v * stride
            dx[:, :, r : r + Kh, c : c + Kw] += np.einsum("nf,fcij->ncij", g[:, :, h, v], w)
    return dx[:, :, padding : padding + H, padding : padding + W], dw, g.sum((0, 2, 3))


def max_pool2d(x, size, stride):
    return windows(x, *size, stride).max((4, 5))


def max_pool2d_vjp(g, x, size, stride):
    Kh, Kw = size
    dx = np.zeros_like(x)
    for n, k, h, v in np.ndindex(*g.shape):
        window = np.s_[n, k, h * stride : h * stride + Kh, v * stride : v * stride + Kw]
        tied = x[window] == x[window].max()
        dx[window] += g[n, k, h, v] * tied / tied.sum()  # shared
    return dx


def softmax_cross_entropy(x, labels):
    z = x - x.max(1, keepdims=True)
    return (np.log(np.exp(z).sum(1)) - z[np.arange(len(x)), labels]).mean()


def softmax_cross_entropy_vjp(g, x, labels):
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return g * (p - np.eye(x.shape[1])[labels]) / len(x)


def dropout(x, p, draws):
    return x * (draws > p) / (1 - p)


def dropout_vjp(g, x, p, draws):
    return g * (draws > p) / (1 - p)
