"""Batch normalisation of the columns of x, with running statistics (Ioffe & Szegedy 2015).

x (N, C), gamma (C,), beta (C,) -> (N, C):   gamma · (x - mean) / √(var + eps) + beta

mean and var are those of the batch, var is biased (divided by N). In training mode
running = momentum · running + (1 - momentum) · that of the batch, with a momentum of 0.9; where
momentum is the weight of the batch (PyTorch, TinyTorch) it is 0.1. In evaluation the running
statistics take the batch's place. For images (N, C, H, W) the statistics run over N, H and W.
"""

import numpy as np

from minibn.testing.grading import (
    Case,
    Check,
    Gradient,
    RowsAsImages,
    Spec,
    Unmodified,
    Values,
    cs231n,
    minibn_function,
    minitorch_class,
    on_arrays,
    tinytorch_layer,
    torch_function,
    torch_layer,
)

MOMENTUM = 0.9


def forward(x, gamma, beta, eps):
    centred = x - x.mean(0)
    return gamma * centred / np.sqrt((centred**2).mean(0) + eps) + beta


def cases(rng):
    def case(kind, n, c, eps=1e-5, scale=1.0, offset=0.0, zero_gradient=frozenset()):
        x = offset + scale * rng.standard_normal((n, c))
        gamma, beta = rng.uniform(0.5, 2, c), rng.standard_normal(c)
        inputs = {"x": x, "gamma": gamma, "beta": beta}
        return Case(kind, inputs, {"eps": eps}, zero_gradient)

    return [
        case("a batch", 4, 2),
        case("a batch", 6, 3, scale=2.0, offset=3.0),
        case("a batch", 12, 4),
        case("a variance near eps", 6, 2, eps=1e-2, scale=0.1),
        case("a batch of one", 1, 3, zero_gradient=frozenset({"x", "gamma"})),
    ]


def after_three_batches(student, rng):
    """The batches, and the results of three training steps and one in evaluation."""
    gamma, beta = rng.uniform(0.5, 2, 3), rng.standard_normal(3)
    batches = [3.0 + 2.0 * rng.standard_normal((6, 3)) for _ in range(4)]
    modes = ("train", "train", "train", "eval")
    steps = [
        (mode, {"x": x, "gamma": gamma, "beta": beta}, None)
        for mode, x in zip(modes, batches, strict=True)
    ]
    return batches, gamma, beta, student.steps({"eps": 1e-5}, steps)


def running_statistics(student, rng):
    batches, _, _, results = after_three_batches(student, rng)
    start = 0.0 if student.style.name == "cs231n" else 1.0  # of the variance
    for name, begin, of in (
        ("running_mean", 0.0, (lambda x: x.mean(0),)),
        ("running_var", start, variances(student)),
    ):
        if name not in results[2].state:
            yield f"{name} is not stored"
            continue
        possible = []
        for statistic in of:
            running = np.full(3, begin)
            for x in batches[:3]:
                running = MOMENTUM * running + (1 - MOMENTUM) * statistic(x)
            possible.append(running)
        found = results[2].state[name].reshape(-1)
        if not any(near(found, running) for running in possible):
            yield (
                f"after three batches {name} is {numbers(found)}, and must be "
                f"{numbers(possible[0])}: running = {MOMENTUM} running + "
                f"{1 - MOMENTUM:.1f} batch, from {begin:g}"
            )


def variances(student):
    """PyTorch's running variance is unbiased, CS231n's is not; elsewhere both count."""
    biased, unbiased = (lambda x: x.var(0)), (lambda x: x.var(0, ddof=1))
    names = {"cs231n": (biased,), "torch": (unbiased,)}
    return names.get(student.style.name, (biased, unbiased))


def evaluation(student, rng):
    batches, gamma, beta, results = after_three_batches(student, rng)
    state = {name: x.reshape(-1) for name, x in results[2].state.items()}
    if not {"running_mean", "running_var"} <= set(state):
        yield "running_mean and running_var are not stored"
        return
    mean, var = state["running_mean"], state["running_var"]
    if not mean.shape == var.shape == gamma.shape:
        yield f"running_mean has shape {mean.shape}, and must have {gamma.shape}"
        return
    out = results[3].out
    if not near(out, gamma * (batches[3] - mean) / np.sqrt(var + 1e-5) + beta):
        if near(out, forward(batches[3], gamma, beta, 1e-5)):
            yield "in evaluation the statistics are those of the batch, not the running ones"
        else:
            yield "in evaluation the output is not that of the running statistics"
    if not all(near(results[3].state[name].reshape(-1), x) for name, x in state.items()):
        yield "evaluation changes the running statistics"


def near(a, b):
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5)


def numbers(x):
    return np.array2string(x, precision=4, separator=", ")


def bn_param(settings, mode):
    mode = "train" if mode == "train" else "test"
    return [{"mode": mode, "eps": settings["eps"], "momentum": MOMENTUM}]


RUNNING = {"state": ("running_mean", "running_var"), "provides": ("running statistics",)}
LAYER = {
    "construct": lambda inputs, settings: [len(inputs["gamma"]), settings["eps"]],
    "parameters": {"gamma": ("weight", "gamma"), "beta": ("bias", "beta")},
}
IMAGES = {"layout": RowsAsImages()}

SPEC = Spec(
    title="batch normalisation",
    forward=forward,
    cases=cases,
    styles=[
        cs231n("batchnorm_forward", "batchnorm_backward", arguments=bn_param, **RUNNING),
        cs231n("spatial_batchnorm_forward", "spatial_batchnorm_backward",
               arguments=bn_param, **RUNNING, **IMAGES),
        on_arrays("batch_norm", "eps"),
        minibn_function("batch_norm", "eps"),
        minitorch_class("BatchNorm", "eps"),
        torch_function("BatchNorm", "eps"),
        torch_function("batch_norm", "eps"),
        torch_layer("BatchNorm1d", **LAYER, **RUNNING),
        torch_layer("BatchNorm2d", **LAYER, **RUNNING, **IMAGES),
        tinytorch_layer("BatchNorm1d", **LAYER, **RUNNING),
        tinytorch_layer("BatchNorm2d", **LAYER, **RUNNING, **IMAGES),
    ],
    parts=[
        Values(10),
        Values(5, on="a variance near eps"),
        Values(5, on="a batch of one"),
        Gradient(25, of="x"),
        Gradient(10, of="x", on="a variance near eps"),
        Gradient(10, of="gamma"),
        Gradient(10, of="beta"),
        Unmodified(5),
        Check(10, name="running statistics", needs="running statistics", look=running_statistics),
        Check(10, name="evaluation", needs="running statistics", look=evaluation),
    ],
)  # fmt: skip
