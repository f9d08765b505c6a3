"""Dropout (Srivastava et al. 2014), inverted: what is kept is divided by the chance to be kept.

x (any shape) -> the same shape: 0 with probability p, else x / (1 - p); in evaluation x itself.

CS231n's p is the probability to keep. Which values are dropped is the solution's own choice; the
grader finds it from the output, and holds the backward pass to it. In the style "arrays" uniform
draws of x's shape are an argument.
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


def forward(x, p, seed, draws, mask):
    return x * mask / (1 - p)


def mask(case, out):
    """What was kept, 0 or 1 for each value. ValueError says what the output can't be."""
    x, p = case.inputs["x"], case.settings["p"]
    if out.shape != x.shape:
        raise ValueError(f"the output has shape {out.shape}, and must have {x.shape}")
    kept = out != 0
    scaled = x / (1 - p)
    if not np.allclose(out[kept], scaled[kept], rtol=1e-4):
        ratios = out[kept] / x[kept]
        if np.ptp(ratios) > 1e-4 * abs(ratios[0]):
            raise ValueError("what is kept is not a multiple of the input")
        raise ValueError(
            f"what is kept is multiplied by {ratios[0]:.4g}, and must be by 1 / (1 - {p:.4g}) = "
            f"{1 / (1 - p):.4g}"
        )
    spread = np.sqrt(x.size * p * (1 - p))
    if abs(kept.sum() - x.size * (1 - p)) > 6 * spread + 1:
        raise ValueError(
            f"{kept.sum()} of {x.size} values are kept, each with probability {1 - p:.4g}"
        )
    return kept.astype(float)


def cases(rng):
    def case(kind, shape, p):
        x = rng.standard_normal(shape)
        x = x + np.copysign(0.1, x)  # no zeros: they would look dropped
        settings = {"p": p, "seed": int(rng.integers(1000)), "draws": rng.random(shape)}
        return Case(kind, {"x": x}, settings)

    return [
        case("a few values", (3, 4), 0.5),
        case("a few values", (8, 5), 0.25),
        case("many values", (20, 30), 0.2),
        case("many values", (300,), 0.7),
        case("an image", (2, 4, 4, 3), 0.4),
    ]


def evaluation(student, rng):
    x, g = rng.standard_normal((6, 5)), rng.standard_normal((6, 5))
    settings = {"p": 0.4, "seed": 1, "draws": rng.random((6, 5))}
    result = student.steps(settings, [("eval", {"x": x}, g)])[0]
    if not (result.out.shape == x.shape and np.allclose(result.out, x, rtol=1e-5)):
        yield "in evaluation the output is not the input"
    dx = (result.gradients or [None])[0]
    if result.cut or dx is None:
        yield "in evaluation no gradient reaches the input"
    elif dx.shape != x.shape or not np.allclose(dx, g, rtol=1e-5):
        yield "in evaluation the gradient is not that of the output"


def other_seeds(student, rng):
    x, before = np.ones((20, 20)), student.seed
    kept = []
    for seed in (1, 2):
        student.seed = seed
        settings = {"p": 0.5, "seed": seed, "draws": np.random.default_rng(seed).random(x.shape)}
        kept.append(student.steps(settings, [("train", {"x": x}, None)])[0].out != 0)
    student.seed = before
    if np.array_equal(*kept):
        yield "the same values are dropped for every seed"
    for pattern in kept:
        rows, columns = pattern.mean(1), pattern.mean(0)
        if set(rows) <= {0.0, 1.0} or set(columns) <= {0.0, 1.0}:
            yield "whole rows or columns are dropped: each value has a draw of its own"
            break


def dropout_param(settings, mode):
    mode = "train" if mode == "train" else "test"
    return [{"mode": mode, "p": 1 - settings["p"], "seed": settings["seed"]}]


LAYER = {
    "construct": lambda inputs, settings: [settings["p"]],
    "provides": ("evaluation",),
}

SPEC = Spec(
    title="dropout",
    forward=forward,
    cases=cases,
    mask=mask,
    styles=[
        cs231n("dropout_forward", "dropout_backward", arguments=dropout_param,
               provides=("evaluation",)),
        on_arrays("dropout", "p", "draws"),
        minibn_function("dropout", arguments=lambda s, mode: [s["p"], s["draws"]],
                        keywords=lambda s, mode: {}),
        minitorch_class("Dropout", "p"),
        torch_function("Dropout", "p"),
        torch_layer("Dropout", **LAYER),
        tinytorch_layer("Dropout", **LAYER),
    ],
    parts=[
        Values(20),
        Values(15, on="many values"),
        Check(10, name="another seed", look=other_seeds),
        Gradient(30, of="x"),
        Gradient(10, of="x", on="many values"),
        Unmodified(5),
        Check(10, name="evaluation", needs="evaluation", look=evaluation),
    ],
)  # fmt: skip
