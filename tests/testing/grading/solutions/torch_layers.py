"""Right solutions in PyTorch's style: a Function, modules, and a function of tensors."""

import torch
from torch import nn


class LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, eps):
        mean = x.mean(1, keepdim=True)
        std = (x.var(1, correction=0, keepdim=True) + eps).sqrt()
        x_hat = (x - mean) / std
        ctx.save_for_backward(x_hat, gamma, std)
        return gamma * x_hat + beta

    @staticmethod
    def backward(ctx, g):
        x_hat, gamma, std = ctx.saved_tensors
        d = g * gamma
        dx = d - d.mean(1, keepdim=True) - x_hat * (d * x_hat).mean(1, keepdim=True)
        return dx / std, (g * x_hat).sum(0), g.sum(0), None


class BatchNorm2d(nn.Module):
    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps, self.momentum = eps, momentum

    def forward(self, x):
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            n = x.numel() / x.shape[1]
            with torch.no_grad():
                self.running_mean += self.momentum * (mean - self.running_mean)
                self.running_var += self.momentum * (var * n / max(n - 1, 1) - self.running_var)
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


class MaxPool2d(nn.MaxPool2d):
    pass


class Conv2d(nn.Conv2d):
    pass


class Dropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)


def softmax_cross_entropy(x, labels):
    return (torch.logsumexp(x, 1) - x[torch.arange(len(x)), labels]).mean()
