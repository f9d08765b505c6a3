"""For each law of the norms something wrong that breaks it: law -> (case, stand-in)."""

import math

from minibn import apply, nn, ops
from minibn.ops.lp_normalization import LpBatchNorm


def over_the_batch_too(x, gamma, beta, **settings):
    return ops.layer_norm(x - ops.mean(x, 0) * 0.1, gamma, beta, **settings)


def deaf_to_eps(op):
    return lambda *inputs, **settings: op(*inputs, **{**settings, "eps": 1e-2})


def slightly_large(op):
    return lambda *inputs, **settings: op(*inputs, **settings) * (1 + 1e-7)


def not_centred(x, gamma, beta, *, axes, eps):
    return ops.rms_norm(x, gamma, axes=axes, eps=eps) + beta


def always_single_channels(x, gamma, beta, *, groups, eps):
    return ops.group_norm(x, gamma, beta, groups=x.shape[-1], eps=eps)


def over_channels_too(x, gamma, beta, *, eps):
    return ops.layer_norm(x, gamma, beta, axes="example", eps=eps)


def filters_not_centred(w, gamma, *, eps):
    axes = tuple(range(w.ndim - 1))
    return w * (gamma / ops.sqrt(ops.var(w, axes) + eps))


class NotCentred(nn.WSLinear):
    def filters(self):
        return filters_not_centred(self.weight, 1.0, eps=self.eps)


class Thaws(nn.FrozenBatchNorm):
    def forward(self, x):
        self.batches.data[...] = 0
        return super().forward(x)


class ConstantNorm(LpBatchNorm):
    def slope(self, z, s):
        return z * 0


def constant_norm(x, gamma, beta, *, p, eps, center_first, reduce):
    return apply(ConstantNorm(p, eps, center_first, reduce), x, gamma, beta)


def never_centred_first(*inputs, **settings):
    return ops.lp_batch_norm(*inputs, **{**settings, "center_first": False})


def one_for_infinity(*inputs, p, **settings):
    other = {1: math.inf, math.inf: 1}.get(p, p)
    return ops.lp_batch_norm(*inputs, p=other, **settings)


class Doubled(nn.LpBatchNorm):
    def update_running_statistics(self, mean, norm):
        super().update_running_statistics(mean, norm * 2)


WRONG_NORMS = {
    "norms_equal_counting": ("layer_norm", slightly_large(ops.layer_norm)),
    "examples_are_independent": ("layer_norm", over_the_batch_too),
    "the_scale_cancels": ("rms_norm", deaf_to_eps(ops.rms_norm)),
    "the_shift_cancels": ("layer_norm", not_centred),
    "one_group_is_layer_norm": ("group_norm", always_single_channels),
    "groups_of_one_are_instance_norm": ("instance_norm", over_channels_too),
    "one_instance_is_a_batch": ("instance_norm", deaf_to_eps(ops.instance_norm)),
    "centred_rms_norm_is_layer_norm": ("rms_norm", slightly_large(ops.rms_norm)),
    "standardised_filters_see_no_constant": ("weight_standardisation", filters_not_centred),
    "filters_have_no_shift_and_no_scale": ("nn.WSLinear", NotCentred),
    "frozen_statistics_are_the_first_batchs": ("nn.FrozenBatchNorm", Thaws),
    "lp_equals_composed": ("lp_batch_norm, p=inf", constant_norm),
    "lp_scale_cancels": ("lp_batch_norm, p=1", deaf_to_eps(ops.lp_batch_norm)),
    "lp_shift_cancels_if_centred_first": ("lp_batch_norm, p=1", never_centred_first),
    "centred_l2_is_batch_norm": ("lp_batch_norm, p=2", never_centred_first),
    "lp_values_are_ordered": ("lp_batch_norm, p=1", one_for_infinity),
    "lp_inference_by_the_batchs_statistics": (
        "lp_batch_norm_inference", deaf_to_eps(ops.lp_batch_norm_inference),
    ),
    "lp_running_statistics": ("nn.LpBatchNorm", Doubled),
}  # fmt: skip
