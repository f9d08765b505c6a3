"""Softmax cross-entropy: the mean over the batch of -log softmax(x)[label].

x (N, K), labels (N,) integers -> a number. Logits of 1000 are no reason for infinity.
"""

import numpy as np

from minibn.testing.grading import (
    Case,
    Gradient,
    Spec,
    Unmodified,
    Values,
    cs231n,
    minibn_function,
    minitorch_class,
    on_arrays,
    tinytorch_function,
    tinytorch_layer,
    torch_function,
    torch_layer,
)  # fmt: skip


def forward(x, labels):
    shifted = x - x.real.max(1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(1))
    return (log_sum - shifted[np.arange(len(x)), labels]).mean()


def cases(rng):
    def case(kind, n, k, change=lambda x, labels: x):
        x, labels = rng.standard_normal((n, k)), rng.integers(0, k, n)
        return Case(kind, {"x": change(x, labels)}, {"labels": labels})

    def mistaken(x, labels):
        x[np.arange(len(x)), (labels + 1) % x.shape[1]] += 25.0
        return x

    return [
        case("some logits", 2, 3),
        case("some logits", 4, 4),  # a wrong axis has the right shape
        case("some logits", 6, 3, lambda x, labels: 3 * x),
        case("a batch of one", 1, 4),
        case("large logits", 3, 4, lambda x, labels: 1000 + 2 * x),
        case("large negative logits", 3, 4, lambda x, labels: -1000 + 2 * x),
        case("a confident mistake", 3, 3, mistaken),
    ]


SPEC = Spec(
    title="softmax cross-entropy",
    forward=forward,
    cases=cases,
    styles=[
        cs231n("softmax_loss", arguments=lambda settings, mode: [settings["labels"]]),
        on_arrays("softmax_cross_entropy", "labels"),
        minibn_function("softmax_cross_entropy",
                        arguments=lambda settings, mode: [settings["labels"]],
                        keywords=lambda settings, mode: {}),
        minitorch_class("SoftmaxCrossEntropy", "labels"),
        torch_function("SoftmaxCrossEntropy", "labels"),
        torch_function("softmax_cross_entropy", "labels"),
        torch_layer("CrossEntropyLoss", arguments=lambda settings, mode: [settings["labels"]]),
        tinytorch_layer("CrossEntropyLoss", arguments=lambda settings, mode: [settings["labels"]]),
        tinytorch_function("softmax_cross_entropy", "labels"),
    ],
    parts=[
        Values(20),
        Values(5, on="a batch of one"),
        Values(10, on="large logits"),
        Values(5, on="large negative logits"),
        Values(5, on="a confident mistake"),
        Gradient(30, of="x"),
        Gradient(10, of="x", on="a batch of one"),
        Gradient(10, of="x", on="large logits"),
        Unmodified(5),
    ],
)  # fmt: skip
