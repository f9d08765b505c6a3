"""Wrong derivatives of the other norms: l_p norms over the batch, norms of one example, filters."""

from minibn.autograd.tensor import value
from minibn.ops import arithmetic
from minibn.ops.elementwise import real, sign, sqrt
from minibn.ops.layer_normalization import LayerNorm, RmsNorm
from minibn.ops.lp_normalization import LpBatchNorm
from minibn.ops.reduce import deviations, mean
from suite.mutants.mutant import wrong


@wrong(LpBatchNorm, "lp_batch_norm, p=1", "slope")
def lp_norm_is_a_constant(self, z, s):
    """The norm was computed outside of the graph: only the mean is differentiated."""
    return z * 0


@wrong(LpBatchNorm, "lp_batch_norm, p=1", "slope")
def l1_adds_up_for_an_average(self, z, s):
    """The slope of Σ |x| for that of mean |x|."""
    return sign(z) * 1.0


@wrong(LpBatchNorm, "lp_batch_norm, p=2", "slope")
def l2_slope_without_eps(self, z, s):
    """x / n for x / s in the slope: a large norm hides it."""
    n = sqrt(self.norms(z)[0])
    return z * (self.weight(z.size // z.shape[-1]) / n)


@wrong(LpBatchNorm, "lp_batch_norm, p=inf", "slope")
def linf_gives_the_gradient_to_all(self, z, s):
    """max |x| as if it were mean |x|."""
    return sign(z) * (1 / (z.size // z.shape[-1]))


@wrong(LpBatchNorm, "lp_batch_norm, p=inf", "slope", kink=True)
def linf_gives_all_to_each_tie(self, z, s):
    """Maxima that tie get the whole gradient each."""
    size = abs(real(value(z)))
    top = (size == size.max(axis=tuple(range(z.ndim - 1)))).astype(size.dtype)
    return sign(z) * (top * self.weight(z.size // z.shape[-1]))


class Parts:
    """inv_std and x̂ of a layer norm."""

    def __init__(self, op, x):
        centred = deviations(x, op.axes)[1]
        var = mean(centred * centred, op.axes, keepdims=True)
        self.inv_std = 1 / sqrt(var + op.eps)
        self.x_hat = centred * self.inv_std

    def gradient(self, op, u):
        along = mean(u * self.x_hat, op.axes, keepdims=True)
        return (u - mean(u, op.axes, keepdims=True) - self.x_hat * along) * self.inv_std


@wrong(LayerNorm, "layer_norm")
def layer_norm_multiplies_by_gamma_last(self, g, out, x, gamma, beta):
    """gamma outside of the means, as in BatchNorm, where it is the same for all that is averaged
    over. A fresh layer, with gamma = 1, never shows it."""
    parts = Parts(self, x)
    return parts.gradient(self, g) * gamma, g * parts.x_hat, g


@wrong(LayerNorm, "group_norm")
def group_norm_detaches_its_statistics(self, g, out, x, gamma, beta):
    """Mean and variance of a group are constants."""
    parts = Parts(self, x)
    return g * gamma * parts.inv_std, g * parts.x_hat, g


@wrong(LayerNorm, "instance_norm")
def instance_norm_averages_over_the_batch(self, g, out, x, gamma, beta):
    """The means of the derivative run over the examples as well, as in BatchNorm."""
    parts, u, axes = Parts(self, x), g * gamma, (0, *self.axes)
    along = mean(u * parts.x_hat, axes, keepdims=True)
    g_x = (u - mean(u, axes, keepdims=True) - parts.x_hat * along) * parts.inv_std
    return g_x, g * parts.x_hat, g


@wrong(arithmetic.Divide, "lp_batch_norm_inference")
def lp_inference_forgets_the_norm_in_gamma(self, g, out, x, y):
    """gamma̅ = Σ ȳ (x - mean): the running norm is missing."""
    return g * 1.0, None


@wrong(LayerNorm, "weight_standardisation")
def filters_get_the_gradient_of_standardised_ones(self, g, out, x, gamma, beta):
    """The filters are standardised in place, and trained as if they had been so all along."""
    return g * 1.0, g * Parts(self, x).x_hat, g


@wrong(RmsNorm, "rms_norm")
def rms_norm_is_centred(self, g, out, x, gamma):
    """Layer norm's derivative, with its mean term."""
    inv_rms = 1 / sqrt(mean(x * x, self.axes, keepdims=True) + self.eps)
    x_hat, u = x * inv_rms, g * gamma
    along = mean(u * x_hat, self.axes, keepdims=True)
    return (u - mean(u, self.axes, keepdims=True) - x_hat * along) * inv_rms, g * x_hat


@wrong(RmsNorm, "rms_norm")
def rms_norm_forgets_gamma(self, g, out, x, gamma):
    """gamma is missing in x̄. A fresh layer never shows it."""
    inv_rms = 1 / sqrt(mean(x * x, self.axes, keepdims=True) + self.eps)
    x_hat = x * inv_rms
    return (g - x_hat * mean(g * x_hat, self.axes, keepdims=True)) * inv_rms, g * x_hat
