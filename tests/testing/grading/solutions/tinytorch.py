"""Right solutions in TinyTorch's style: layers on a Tensor of their own, which holds float32."""

import numpy as np


class Tensor:
    def __init__(self, data, requires_grad=False, parents=(), pull=None):
        self.data = np.array(data, dtype=np.float32)
        self.requires_grad = requires_grad or any(p.requires_grad for p in parents)
        self.grad = None
        self.parents, self.pull = parents, pull

    @property
    def shape(self):
        return self.data.shape

    def backward(self, gradient=None):
        if not self.requires_grad:
            return
        g = np.ones_like(self.data) if gradient is None else np.asarray(gradient, np.float32)
        self.grad = g if self.grad is None else self.grad + g
        if self.pull is not None:
            for parent, d in zip(self.parents, self.pull(g), strict=True):
                parent.backward(d)


def normalised(x, gamma, beta, mean, var, eps, axes, batch=True):
    """gamma (x - mean) / sqrt(var + eps) + beta; gamma and beta have the shape of mean."""
    std = np.sqrt(var + eps)
    x_hat = (x.data - mean) / std
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
    scale, others = gamma.data, tuple(a for a in range(x.data.ndim) if a in axes)
    if gamma.data.size == x.shape[1]:
        scale = gamma.data.reshape([x.shape[1] if a == 1 else 1 for a in range(x.data.ndim)])
    shift = beta.data.reshape(scale.shape)
    summed = tuple(a for a in range(x.data.ndim) if scale.shape[a] == 1)
    del shape, others

    def pull(g):
        d = g * scale
        if batch:
            d = d - d.mean(axes, keepdims=True) - x_hat * (d * x_hat).mean(axes, keepdims=True)
        dgamma = (g * x_hat).sum(summed).reshape(gamma.shape)
        return d / std, dgamma, g.sum(summed).reshape(beta.shape)

    return Tensor(scale * x_hat + shift, parents=(x, gamma, beta), pull=pull)


class BatchNorm2d:
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        self.eps, self.momentum, self.training = eps, momentum, True
        self.gamma = Tensor(np.ones(num_features), requires_grad=True)
        self.beta = Tensor(np.zeros(num_features), requires_grad=True)
        self.running_mean, self.running_var = np.zeros(num_features), np.ones(num_features)

    def train(self):
        self.training = True

    def eval(self):
        self.training = False

    def forward(self, x):
        shape = (1, -1, 1, 1)
        if not self.training:
            mean, var = self.running_mean.reshape(shape), self.running_var.reshape(shape)
            return normalised(x, self.gamma, self.beta, mean, var, self.eps, (0, 2, 3), False)
        mean = x.data.mean((0, 2, 3), keepdims=True)
        var = x.data.var((0, 2, 3), keepdims=True)
        m = self.momentum
        self.running_mean = (1 - m) * self.running_mean + m * mean.ravel()
        self.running_var = (1 - m) * self.running_var + m * var.ravel()
        return normalised(x, self.gamma, self.beta, mean, var, self.eps, (0, 2, 3))


class Dropout:
    def __init__(self, p=0.5):
        self.p = p

    def forward(self, x, training=True):
        if not training:
            return x
        mask = (np.random.random(x.shape) >= self.p) / (1 - self.p)  # noqa: NPY002
        return Tensor(x.data * mask, parents=(x,), pull=lambda g: (g * mask,))


class Conv2d:
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0):
        size = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 2
        self.stride, self.padding = stride, padding
        self.weight = Tensor(np.zeros((out_channels, in_channels, *size)), requires_grad=True)
        self.bias = Tensor(np.zeros(out_channels), requires_grad=True)

    def __call__(self, x):
        return self.forward(x)

    def forward(self, x):
        p, s, w = self.padding, self.stride, self.weight.data
        Kh, Kw = w.shape[2:]
        padded = np.pad(x.data, ((0, 0), (0, 0), (p, p), (p, p)))
        cols = np.lib.stride_tricks.sliding_window_view(padded, (Kh, Kw), axis=(2, 3))
        cols = cols[:, :, ::s, ::s]

        def pull(g):
            dx = np.zeros_like(padded)
            for h, v in np.ndindex(*g.shape[2:]):
                part = np.einsum("nf,fcij->ncij", g[:, :, h, v], w)
                dx[:, :, h * s : h * s + Kh, v * s : v * s + Kw] += part
            H, W = x.shape[2:]
            dw = np.einsum("nchwij,nfhw->fcij", cols, g)
            return dx[:, :, p : p + H, p : p + W], dw, g.sum((0, 2, 3))

        out = np.einsum("nchwij,fcij->nfhw", cols, w) + self.bias.data[:, None, None]
        return Tensor(out, parents=(x, self.weight, self.bias), pull=pull)


def softmax_cross_entropy(logits, labels):
    x, labels = logits.data, labels.data.astype(int)
    z = x - x.max(1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    loss = -log_p[np.arange(len(x)), labels].mean()
    pull = lambda g: (g * (np.exp(log_p) - np.eye(x.shape[1])[labels]) / len(x),)  # noqa: E731
    return Tensor(loss, parents=(logits,), pull=pull)
