"""Layer normalisation of the rows of x (Ba, Kiros & Hinton 2016).

x (N, D), gamma (D,), beta (D,) -> (N, D):   gamma · (x - mean) / √(var + eps) + beta

mean and var are those of each row, var is biased (divided by D). Rows don't depend on each other.
"""

import numpy as np

from minibn.testing.grading import (
    Case,
    Check,
    Gradient,
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


def forward(x, gamma, beta, eps):
    centred = x - x.mean(-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) + beta


def cases(rng):
    def case(kind, n, d, eps=1e-5, scale=1.0, offset=0.0):
        x = offset + scale * rng.standard_normal((n, d))
        inputs = {"x": x, "gamma": rng.uniform(0.5, 2, d), "beta": rng.standard_normal(d)}
        return Case(kind, inputs, {"eps": eps})

    return [
        case("some rows", 2, 4),
        case("some rows", 4, 4),  # a wrong axis has the right shape
        case("some rows", 3, 6, scale=2.0, offset=3.0),
        case("a variance near eps", 2, 6, eps=1e-2, scale=0.1),
        case("a single row", 1, 5),
    ]


def rows_are_independent(student, rng):
    gamma, beta = rng.uniform(0.5, 2, 4), rng.standard_normal(4)
    x = rng.standard_normal((3, 4))
    other = x.copy()
    other[1:] += 5 * rng.standard_normal((2, 4))
    outs = [
        student.steps({"eps": 1e-5}, [("train", {"x": y, "gamma": gamma, "beta": beta}, None)])[
            0
        ].out
        for y in (x, other)
    ]
    if outs[0].shape != x.shape or not np.allclose(outs[0][0], outs[1][0], rtol=1e-5, atol=1e-6):
        yield "the output of a row changes with the other rows: the statistics run over the batch"


LAYER = {
    "construct": lambda inputs, settings: [len(inputs["gamma"]), settings["eps"]],
    "parameters": {"gamma": ("weight", "gamma"), "beta": ("bias", "beta")},
}

SPEC = Spec(
    title="layer normalisation",
    forward=forward,
    cases=cases,
    styles=[
        cs231n("layernorm_forward", "layernorm_backward",
               arguments=lambda settings, mode: [{"eps": settings["eps"]}]),
        on_arrays("layer_norm", "eps"),
        minibn_function("layer_norm", keywords=lambda settings, mode: {"eps": settings["eps"]}),
        minitorch_class("LayerNorm", "eps"),
        torch_function("LayerNorm", "eps"),
        torch_function("layer_norm", "eps"),
        torch_layer("LayerNorm", **LAYER),
        tinytorch_layer("LayerNorm", **LAYER),
    ],
    parts=[
        Values(15),
        Values(5, on="a variance near eps"),
        Check(5, name="rows are independent", look=rows_are_independent),
        Gradient(30, of="x"),
        Gradient(10, of="x", on="a variance near eps"),
        Gradient(15, of="gamma"),
        Gradient(15, of="beta"),
        Unmodified(5),
    ],
)  # fmt: skip
