"""A law that can't fail is worse than none: for each there is something wrong that breaks it.

BROKEN has a problem whose op is wrong, WRONG a stand-in for what the law is about, PATCHED a fault
planted in minibn itself.
"""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from support.wrong_norms import WRONG_NORMS

from minibn import Op, Tensor, apply, nn, ops, optim
from minibn.autograd import backward, tape
from minibn.autograd.dispatch import kernels
from minibn.backend import get_backend
from minibn.fast.cpu.fused_block import FusedBlockKernel
from minibn.ops.arithmetic import Add, Subtract
from minibn.ops.batch_normalization import BatchNorm
from minibn.ops.conv import Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.elementwise import Abs, Exp
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.ops.pool import AvgPool2dAdjoint
from minibn.ops.reduce import Sum
from minibn.ops.shape import unbroadcast
from minibn.testing import Problem
from minibn.testing.laws import LAWS
from minibn.testing.laws.optimizers import KINDS, SCHEDULES

X = np.random.default_rng(0).standard_normal((3, 4))
Y = np.random.default_rng(1).standard_normal((3, 4))


def expo(vjp, forward=np.exp):
    """exp with this vjp(g, out)."""

    class Broken(Op):
        needs_output = True

        def forward(self, x):
            return forward(x)

        def vjp(self, g, out, x):
            return vjp(g, out)

    return Problem(lambda x: apply(Broken(), x), (X,))


def into(g, out):
    g *= 2
    return g * out


def by_chance(x):
    return np.exp(x) + np.random.default_rng().random() * 1e-9


def counted(g, out, calls=[]):  # noqa: B006  it remembers on purpose
    calls.append(1)
    return g * out * len(calls)


def in_memory_order(x):
    return np.exp(x.ravel(order="K").reshape(x.shape))


def by_identity(x, y):
    return x * tape.value(x) if x is y else x * y


def unequal(x):
    return ops.exp(x) * (1 + 1e-12 * isinstance(x, Tensor))


def unlike_numpy(x):
    return ops.exp(x) * (1.0 if isinstance(tape.value(x), np.ndarray) else 1.001)


BROKEN = {
    "linear_in_the_cotangent": expo(lambda g, out: g * g * out),
    "zero_at_the_zero_cotangent": expo(lambda g, out: g * out + 1e-3),
    "finite_where_the_value_is": expo(lambda g, out: g * np.inf),
    "both_places_add_up": Problem(by_identity, (X, X)),
    "nothing_is_modified": expo(into),
    "memory_layout_changes_nothing": expo(lambda g, out: g * out, in_memory_order),
    "zero_strides_change_nothing": expo(lambda g, out: g * out * (2 if 0 in g.strides else 1)),
    "dtype_in_is_dtype_out": Problem(lambda x: x * np.ones(4), (X,)),
    "the_same_bits_twice": expo(lambda g, out: g * out, by_chance),
    "the_value_is_the_same": Problem(unequal, (X,)),
    "fan_out_adds_up": expo(lambda g, out: np.clip(g, -1, 1) * out),
    "unused_results_change_nothing": expo(counted),
    "as_on_numpy": Problem(unlike_numpy, (X,)),
    "backends_do_not_mix": Problem(lambda x, y: x * 1, (X, Y)),
    "hessian_symmetry": expo(lambda g, out: tape.value(g) * out),
    "the_derivative_of_the_gradient": expo(lambda g, out: g * tape.value(out)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_op_that_breaks_it_breaks_the_law(name):
    with pytest.raises(AssertionError, match="law broken"):
        LAWS[name](BROKEN[name], get_backend("numpy"))


# -- stand-ins


def batch_norm_with(edit):
    """batch_norm whose gradients pass through `edit(g_x, g_gamma, g_beta, g, x_hat, scale)`."""

    class Edited(BatchNorm):
        def vjp(self, g, out, x, gamma, beta):
            axes = tuple(range(x.ndim - 1))
            inv_std = 1 / ops.sqrt(ops.var(x, axes) + self.eps)
            x_hat = (x - ops.mean(x, axes)) * inv_std
            return edit(*super().vjp(g, out, x, gamma, beta), g, x_hat, gamma * inv_std)

    return lambda x, gamma, beta, *, eps: apply(Edited(eps), x, gamma, beta)


def slightly_large(g_x, g_gamma, g_beta, *_):
    return g_x * (1 + 1e-6), g_gamma, g_beta


def without_variance_term(g_x, g_gamma, g_beta, g, x_hat, scale):
    axes = tuple(range(g.ndim - 1))
    return scale * (g - ops.mean(g, axes)), g_gamma, g_beta


def without_mean_term(g_x, g_gamma, g_beta, g, x_hat, scale):
    return g_x + scale * ops.mean(g, tuple(range(g.ndim - 1))), g_gamma, g_beta


def gamma_by_x(g_x, g_gamma, g_beta, g, x_hat, scale):
    return g_x, ops.sum(g * (x_hat + 1), tuple(range(g.ndim - 1))), g_beta


def without_gamma(g_x, g_gamma, g_beta, g, x_hat, scale):
    return g_x * (1 / (1 + abs(scale))), g_gamma, g_beta


def the_first_larger(g_x, g_gamma, g_beta, *_):
    weight = np.ones(g_x.shape)
    weight[0] = 2
    return g_x * weight, g_gamma, g_beta


def over_all_channels(x, gamma, beta, *, eps):
    return (x - ops.mean(x)) / ops.sqrt(ops.var(x) + eps) * gamma + beta


def deaf_to_eps(x, gamma, beta, *, eps):
    return ops.batch_norm(x, gamma, beta, eps=1e-3)


def conv_bn_deaf_to_eps(x, w, gamma, beta, settings, eps):
    return ops.batch_norm(ops.conv2d(x, w, **settings), gamma, beta, eps=1e-3)


def flipped(x, w, bias=None, **settings):
    return ops.conv2d(x, w[::-1], bias, **settings)


def with_its_bias_doubled(x, w, bias=None, **settings):
    y = ops.conv2d(x, w, bias, **settings)
    return y if bias is None else y + bias


def fading(x, w, bias=None, **settings):
    y = ops.conv2d(x, w, bias, **settings)
    return y * np.linspace(1, 2, y.shape[1]).reshape(-1, 1, 1) if y.shape[1] > 1 else y


class Writes(optim.SGD):
    def update(self, w, g, state, group):
        g *= 2
        super().update(w, g, state, group)


class Forgets(optim.SGD):
    def load_state_dict(self, state):
        self.steps = 1


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


CONV, SOFT = "conv2d", "softmax_cross_entropy"
LAYER = "nn.BatchNorm"
WRONG = {
    "batch_norm_equals_loops": ("batch_norm", batch_norm_with(slightly_large)),
    "fused_equals_composed": ("batch_norm", batch_norm_with(slightly_large)),
    "scale_and_shift_cancel": ("batch_norm", deaf_to_eps),
    "input_gradients_sum_to_zero": ("batch_norm", batch_norm_with(without_mean_term)),
    "orthogonal_to_x_hat_up_to_eps": ("batch_norm", batch_norm_with(without_variance_term)),
    "gamma_and_beta_in_closed_form": ("batch_norm", batch_norm_with(gamma_by_x)),
    "linear_in_gamma": ("batch_norm", batch_norm_with(without_gamma)),
    "equivariant_under_permutations": ("batch_norm", batch_norm_with(the_first_larger)),
    "channels_are_independent": ("batch_norm", over_all_channels),
    "inference_is_affine": (
        "batch_norm_inference",
        lambda x, g, b, mean, var, eps: ops.batch_norm_inference(x, g, b, mean, var, eps=0.0),
    ),
    "filters_have_no_scale": ("conv2d, batch_norm", conv_bn_deaf_to_eps),
    "conv2d_equals_loops": (CONV, flipped),
    "linear_in_images_and_in_filters": (CONV, lambda *x, **k: ops.relu(ops.conv2d(*x, **k))),
    "an_impulse_returns_the_kernel": (CONV, flipped),
    "commutes_with_translations": (CONV, fading),
    "biases_are_added": (CONV, with_its_bias_doubled),
    "constants_stay_constant": ("avg_pool2d", lambda x, **k: ops.avg_pool2d(x, **k) * 1.01),
    "commutes_with_increasing_functions": (
        "max_pool2d",
        lambda x, size, stride, padding: ops.avg_pool2d(x, size, stride),
    ),
    "shifts_change_nothing": ("softmax", lambda labels: ops.tanh),
    "finite_at_huge_logits": ("softmax", lambda labels: lambda x: ops.exp(x) / ops.exp(x).sum()),
    "logsumexp_moves_along": ("logsumexp", ops.sum),
    "norms_scale": ("norm", (2.0, lambda x: ops.sum(x * x, 1))),
    "gradients_have_dual_norm_one": ("norm", (2.0, lambda x: 2 * ops.norm(x, axis=1))),
    "the_limit_is_the_maximum": ("norm, p=inf", (np.inf, lambda x: ops.norm(x, axis=1))),
    "norms_are_ordered": ("norm", lambda x, p, axis: ops.norm(x, {1: np.inf}.get(p, 1), axis)),
    "ten_steps_in_closed_form": ("SGD", replace(KINDS["Nesterov"], make=KINDS["momentum"].make)),
    "no_gradient_no_change": ("SGD", replace(KINDS["SGD"], make=lambda p, lr: optim.AdamW(p, lr))),
    "decay_alone_is_geometric": ("AdamW", KINDS["Adam"]),
    "the_state_round_trips": (
        "SGD", replace(KINDS["SGD"], make=lambda p, lr, **k: Forgets(p, lr, momentum=0.9)),
    ),
    "gradients_are_read_only": ("SGD", replace(KINDS["SGD"], make=Writes)),
    "schedules_in_closed_form": (
        "cosine", (SCHEDULES["step_decay"][0], SCHEDULES["cosine"][1]),
    ),
    "running_statistics_in_closed_form": (LAYER, Biased),
    "evaluation_writes_nothing": (LAYER, AlwaysTracks),
    "evaluation_is_affine": (LAYER, NeverRunning),
    "training_ignores_running_statistics": (LAYER, AlwaysRunning),
    "images_and_vectors_are_one": (LAYER, OnlyOverTheBatch),
    **WRONG_NORMS,
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_stand_in_breaks_the_law(name):
    case, wrong = WRONG[name]
    with pytest.raises(AssertionError, match="law broken"):
        LAWS[name].run(case, subject=wrong, shrink=False)


# -- faults planted in minibn


def scaled(f, by=1.01):
    return lambda *arguments, **settings: f(*arguments, **settings) * by


@contextmanager
def forgetful(on):
    """`recording` that doesn't restore after an exception."""
    before = tape._grad_enabled.get()
    tape._grad_enabled.set(on)
    yield
    tape._grad_enabled.set(before)


def recursive_ancestors(node):
    found = {node.order: node}
    for parent in node.parents:
        if isinstance(parent, tape.Node):
            found |= {n.order: n for n in recursive_ancestors(parent)}
    return [found[order] for order in sorted(found)]


def padded_with_zeros(x, padding, size):
    (ph, pw) = padding
    x = ops.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    return x, x


def halved_if_broadcast(g, shape):
    return unbroadcast(g, shape) * (0.5 if g.shape != shape else 1)


def variance_forgotten(self, g, out, x, gamma, beta):
    axes = tuple(range(x.ndim - 1))
    inv_std = 1 / ops.sqrt(ops.var(x, axes) + self.eps)
    return (g - ops.mean(g, axes)) * (gamma * inv_std), None, None


def softmax_alone(self, g, out, x):
    return ops.softmax(x) * (g * (1 / len(x)))


def sum_for_mean(self, g, out, x):
    return (ops.softmax(x) - ops.one_hot(self.labels, x.shape[1], x.dtype)) * g


def only_recorded(layer, x):
    return ops.relu(x) * (2.0 if tape._grad_enabled.get() else 1.0)


def counts_in_evaluation(layer, x):
    layer.weight.data[...] += 1
    return ops.matmul(x, layer.weight)


TAPE = "the tape"
PATCHED = {
    "of_x_with_itself": (TAPE, Subtract, "vjp", lambda self, g, out, x, y: (g, g)),
    "as_after_broadcast_to": ("add", backward, "unbroadcast", halved_if_broadcast),
    "small_shapes_keep_theirs": ("exp", Exp, "vjp", lambda self, g, out, x: g.reshape(-1)),
    "the_shape_of_the_input": ("add", backward, "_fit", lambda g, *_: g),
    "adjoint": ("sum", Sum, "vjp", scaled(Sum.vjp)),
    "euler": ("abs", Abs, "vjp", lambda self, g, out, x: g),
    "nothing_is_shared": ("add", backward, "_own", lambda g, owned: Tensor(tape.value(g))),
    "scalars_are_weak": ("add", tape, "value", lambda x: x.data if isinstance(x, Tensor) else x),
    "detached_inputs_get_nothing": ("exp", Tensor, "detach", lambda self: self),
    "diamonds_add_up": ("exp", Add, "vjp", lambda self, g, out, x, y: (g, None)),
    "a_second_walk": ("exp", tape.Node, "release", lambda self: None),
    "exceptions_leave_no_trace": ("exp", backward, "set_grad_enabled", forgetful),
    "depth_is_no_limit": (TAPE, backward, "_ancestors", recursive_ancestors),
    "ladders_are_walked_once": (TAPE, Add, "vjp", lambda self, g, out, x, y: (g, None)),
    "filter_gradients_are_orthogonal_up_to_eps": (
        "conv2d, batch_norm", BatchNorm, "vjp", variance_forgotten,
    ),
    "three_adjoints": (CONV, Conv2dInputGrad, "forward", scaled(Conv2dInputGrad.forward)),
    "one_trilinear_form": (
        "the three convolutions", Conv2dWeightGrad, "forward", scaled(Conv2dWeightGrad.forward),
    ),
    "unseen_pixels_do_nothing": (
        CONV, Conv2dInputGrad, "forward", lambda self, c, w: np.ones(self.x_shape),
    ),
    "avg_pool_equals_loops": (
        "avg_pool2d", AvgPool2dAdjoint, "forward", scaled(AvgPool2dAdjoint.forward),
    ),
    "gradient_mass_is_conserved": (
        "avg_pool2d", AvgPool2dAdjoint, "forward", scaled(AvgPool2dAdjoint.forward),
    ),
    "max_pool_equals_loops": ("max_pool2d", ops.pool, "reversed", list),  # ties go to the last
    "padding_is_never_returned": (
        "max_pool2d", ops.pool, "_pad_for_max", padded_with_zeros,
    ),
    "rows_of_gradients_sum_to_zero": (SOFT, SoftmaxCrossEntropy, "vjp", softmax_alone),
    "the_difference_to_one_hot": (SOFT, SoftmaxCrossEntropy, "vjp", sum_for_mean),
    "no_layer_writes_in_evaluation": ("nn.Linear", nn.Linear, "forward", counts_in_evaluation),
    "the_state_is_all_there_is": ("nn.Conv2d", nn.Conv2d, "load_state_dict", lambda self, s: None),
    "kernels_agree_with_definitions": (
        "fused_block", FusedBlockKernel, "forward", scaled(FusedBlockKernel.forward, 1.0001),
    ),
    "no_grad_is_not_evaluation": ("nn.ReLU", nn.ReLU, "forward", only_recorded),
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHED)
def test_a_fault_planted_in_minibn_breaks_the_law(name, monkeypatch):
    case, where, attribute, fault = PATCHED[name]
    monkeypatch.setattr(where, attribute, fault, raising=attribute != "reversed")
    try:
        with kernels("reference"), pytest.raises(AssertionError, match="law broken"):
            LAWS[name].run(case, shrink=False)  # no kernel in the place of what is broken
    finally:
        tape._grad_enabled.set(True)


def test_each_law_has_something_that_breaks_it():
    assert set(BROKEN) | set(WRONG) | set(PATCHED) == set(LAWS)
    assert len(BROKEN) + len(WRONG) + len(PATCHED) == len(LAWS)
