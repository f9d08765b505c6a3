"""Laws of layers: BatchNorm's running statistics, and the state of every module.

Those of the other norms are in `layer_norms.py` and `lp_norms.py`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import Tensor, grad, nn, no_grad, ops
from minibn.autograd import tape
from minibn.backend import Backend, to_numpy
from minibn.testing.laws.agreement import agree, identical
from minibn.testing.strategies import Point, norm_problems
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import EVERY_LAYER, law
from suite.loops import moments
from suite.registry import LAYERS, LayerProblem

BATCH_NORM = ("nn.BatchNorm",)


@st.composite
def batches(draw: Any) -> tuple[Point, float | None, list[np.ndarray]]:
    """(gamma, beta and eps; a momentum; batches of different sizes)"""
    point = draw(norm_problems(variance="ordinary"))
    momentum = draw(st.sampled_from([0.1, 0.5, 1.0, 0.0, None]))
    rng, C = np.random.default_rng((point.seed, 1)), point.inputs[0].shape[-1]
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    return point, momentum, [k + (k + 1) * rng.standard_normal((n, C)) for k, n in enumerate(sizes)]


def about_the_layer(sentence: str, **settings: Any) -> Any:
    return law(
        "BatchNorm layer",
        sentence,
        over=BATCH_NORM,
        draw=batches(),
        subject=lambda name: nn.BatchNorm,
        **settings,
    )


def layer(cls: Any, point: Point, momentum: float | None = 0.1) -> Any:
    """The layer with the point's gamma and beta, on the backend in use."""
    _, gamma, beta = point.inputs
    made = cls(len(gamma), eps=point.settings["eps"], momentum=momentum)
    made.initialize(0, dtype=np.float64)
    made.gamma.place(gamma)
    made.beta.place(beta)
    return made


def unchanged(before: dict[str, np.ndarray], module: Any, when: str) -> None:
    for name, array in module.state_dict().items():
        identical(array, before[name], f"{name} {when}")


@about_the_layer(
    "After k batches the running statistics are the closed form of the batches' mean and unbiased "
    "variance: weights m·(1-m)^(k-i), or 1/k without a momentum."
)
def running_statistics_in_closed_form(cls: Any, drawn: Any, backend: Backend) -> None:
    point, m, xs = drawn
    norm, k = layer(cls, point, m), len(xs)
    for x in xs:
        norm(backend.asarray(x))
    each = np.array([[moments(channel.tolist()) for channel in x.T] for x in xs])  # (k, C, 2)
    unbiased = np.array([len(x) / (len(x) - 1) for x in xs])
    weights = np.array([1 / k if m is None else m * (1 - m) ** (k - 1 - i) for i in range(k)])
    first = 0.0 if m is None else (1 - m) ** k  # what is left of the initial 0 and 1
    agree(to_numpy(norm.running_mean.data), weights @ each[:, :, 0], "the running mean")
    expected = (weights * unbiased) @ each[:, :, 1] + first
    agree(to_numpy(norm.running_var.data), expected, "the running variance")
    assert norm.batches.data == k, f"{norm.batches.data} batches were counted, not {k}"


@about_the_layer("Evaluation writes no state, forward or backward.")
def evaluation_writes_nothing(cls: Any, drawn: Any, backend: Backend) -> None:
    point, m, xs = drawn
    norm = layer(cls, point, m)
    norm(backend.asarray(xs[0]))
    before = norm.eval().state_dict()
    for x in xs:
        y = norm(Tensor(backend.asarray(x), requires_grad=True))
        y.backward(backend.asarray(np.cos(x)))
    unchanged(before, norm, "after evaluation")


@about_the_layer("Evaluation is affine by the running statistics: x̄ = g·γ/√(running_var + eps).")
def evaluation_is_affine(cls: Any, drawn: Any, backend: Backend) -> None:
    point, m, xs = drawn
    norm = layer(cls, point, m)
    for x in xs:
        norm(backend.asarray(x))
    norm.eval()
    mean, var = to_numpy(norm.running_mean.data), to_numpy(norm.running_var.data)
    _, gamma, beta = point.inputs
    slope = gamma / np.sqrt(var + point.settings["eps"])
    x = Tensor(backend.asarray(xs[-1]), requires_grad=True)
    y, g = norm(x), np.cos(xs[-1])
    sizes = np.abs(slope) * (np.abs(xs[-1]) + np.abs(mean)) + np.abs(beta)
    agree(y.numpy(), (xs[-1] - mean) * slope + beta, "the value", scale=sizes)
    agree(to_numpy(grad(y, x, backend.asarray(g))), g * slope, "x̄")


@about_the_layer("In training, the output does not depend on the running statistics.")
def training_ignores_running_statistics(cls: Any, drawn: Any, backend: Backend) -> None:
    point, m, xs = drawn
    norm, x = layer(cls, point, m), backend.asarray(xs[0])
    first = to_numpy(norm(x))
    norm.running_mean.place(np.full(len(point.inputs[1]), 50.0))
    norm.running_var.place(np.full(len(point.inputs[1]), 90.0))
    identical(to_numpy(norm(x)), first, "the output with other running statistics")


@about_the_layer("Images and vectors are one case: all axes but the last are the batch.")
def images_and_vectors_are_one(cls: Any, drawn: Any, backend: Backend) -> None:
    point, m, _ = drawn
    x = point.inputs[0]
    for training in (True, False):
        one, other = (layer(cls, point, m).train(training) for _ in range(2))
        expected = to_numpy(one(backend.asarray(x.reshape(-1, x.shape[-1]))))
        actual = to_numpy(other(backend.asarray(x)))
        identical(actual, expected.reshape(x.shape), f"the output, training={training}")
        unchanged(one.state_dict(), other, "after images")


# -- every layer


def about_layers(sentence: str, **settings: Any) -> Any:
    def layers(case: str) -> st.SearchStrategy[LayerProblem]:
        return LAYERS[case.removeprefix("nn.")].problems

    return law("layers", sentence, over=EVERY_LAYER, draw=layers, devices=False, **settings)


@about_layers("A call in evaluation mode, and its backward pass, write no state.")
def no_layer_writes_in_evaluation(drawn: LayerProblem, backend: Backend) -> None:
    module = drawn.layer.eval()
    before = module.state_dict()
    x = Tensor(drawn.x, requires_grad=True)
    y = module(x)
    y.backward(np.cos(np.arange(y.size)).reshape(y.shape))
    unchanged(before, module, "after evaluation")


@about_layers("A layer that loads the state of another goes on as that one, bit for bit.")
def the_state_is_all_there_is(drawn: LayerProblem, backend: Backend) -> None:
    module, twin = drawn.layer, copy.deepcopy(drawn.layer)
    for _, state in twin.named_parameters():
        state.place(0 * state.numpy() + 0.5)
    for _, buffer in twin.named_buffers():
        buffer.place(0 * buffer.numpy() + 7)
    twin.load_state_dict(module.state_dict())
    for call in ("first", "second"):
        identical(to_numpy(twin(drawn.x)), to_numpy(module(drawn.x)), f"the {call} output")
        unchanged(module.state_dict(), twin, f"after the {call} call")


@about_layers("Under no_grad a layer gives the same bits and moves the same state.")
def no_grad_is_not_evaluation(drawn: LayerProblem, backend: Backend) -> None:
    module, twin = drawn.layer, copy.deepcopy(drawn.layer)
    expected = module(Tensor(drawn.x, requires_grad=True))
    with no_grad():
        actual = twin(Tensor(drawn.x, requires_grad=True))
    assert actual.is_leaf, "under no_grad the output is recorded"
    identical(actual.numpy(), expected.numpy(), "the output")
    unchanged(module.state_dict(), twin, "after a call under no_grad")


# -- faults


class Biased(nn.BatchNorm):
    def track(self, mean, var, M):
        super().track(mean, var * 0.9, M)


class AlwaysTracks(nn.BatchNorm):
    def forward(self, x):
        self.running_mean.data[...] += 1
        return super().forward(x)


class NeverRunning(nn.BatchNorm):
    def forward(self, x):
        return ops.batch_norm(x, self.gamma, self.beta, eps=self.eps)


class AlwaysRunning(nn.BatchNorm):
    def forward(self, x):
        with self.mode(training=False):
            return super().forward(x)


class OnlyOverTheBatch(nn.BatchNorm):
    def forward(self, x):
        return super().forward(x) * (1 if x.ndim == 2 else 1.1)


def only_recorded(layer, x):
    return ops.relu(x) * (2.0 if tape.grad_enabled.get() else 1.0)


def counts_in_evaluation(layer, x):
    layer.weight.data[...] += 1
    return ops.matmul(x, layer.weight)


add_faults(
    running_statistics_in_closed_form=Fault("nn.BatchNorm", Biased),
    evaluation_writes_nothing=Fault("nn.BatchNorm", AlwaysTracks),
    evaluation_is_affine=Fault("nn.BatchNorm", NeverRunning),
    training_ignores_running_statistics=Fault("nn.BatchNorm", AlwaysRunning),
    images_and_vectors_are_one=Fault("nn.BatchNorm", OnlyOverTheBatch),
    no_layer_writes_in_evaluation=Fault(
        "nn.Linear", patch=(nn.Linear, "forward", counts_in_evaluation)
    ),
    the_state_is_all_there_is=Fault(
        "nn.Conv2d", patch=(nn.Conv2d, "load_state_dict", lambda self, s: None)
    ),
    no_grad_is_not_evaluation=Fault("nn.ReLU", patch=(nn.ReLU, "forward", only_recorded)),
)
