"""Wrong solutions: the right one of CS231n's style with one mistake that people make.

Each is (what is wrong, the right text, the wrong text); the text occurs in the spec's functions.
"""

# ruff: noqa: E501  a mutant is a line of a table

from pathlib import Path

SOLUTIONS = Path(__file__).parent / "solutions"
FUNCTIONS = {
    "batch_norm": ("batchnorm_forward", "layernorm_forward"),
    "layer_norm": ("layernorm_forward", "conv_forward_naive"),
    "conv2d": ("conv_forward_naive", "max_pool_forward_naive"),
    "max_pool2d": ("max_pool_forward_naive", "softmax_loss"),
    "softmax_cross_entropy": ("softmax_loss", "dropout_forward"),
    "dropout": ("dropout_forward", None),
}

MUTANTS = {
    "batch_norm": [
        ("the unbiased variance", "x.var(axis=0)\n", "x.var(axis=0, ddof=1)\n"),
        ("eps outside of the root", "np.sqrt(var + eps)\n        x_hat", "(np.sqrt(var) + eps)\n        x_hat"),
        ("statistics of rows", "x.mean(axis=0), x.var(axis=0)", "x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)"),
        ("the mean term is missing", "(dout - dbeta / N - x_hat", "(dout - x_hat"),
        ("the variance term is missing", " - x_hat * dgamma / N)", ")"),
        ("gamma is missing in dx", "dx = gamma / std", "dx = 1 / std"),
        ("dx is divided by the variance", "dx = gamma / std", "dx = gamma / std**2"),
        ("dgamma is averaged", "dgamma = (dout * x_hat).sum(axis=0)", "dgamma = (dout * x_hat).mean(axis=0)"),
        ("momentum the wrong way round", "momentum * running_mean + (1 - momentum) * mean", "(1 - momentum) * running_mean + momentum * mean"),
        ("evaluation by the batch's mean", "gamma * (x - running_mean)", "gamma * (x - x.mean(axis=0))"),
        ("running_var is never stored", '    bn_param["running_var"] = running_var\n', ""),
        ("x is centred in place", "x_hat = (x - mean) / std", "x -= mean\n        x_hat = x / std"),
    ],
    "layer_norm": [
        ("statistics of columns", "x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)", "x.mean(axis=0), x.var(axis=0)"),
        ("the unbiased variance", "x.var(axis=1, keepdims=True)", "x.var(axis=1, keepdims=True, ddof=1)"),
        ("eps outside of the root", "np.sqrt(var + eps)", "np.sqrt(var) + eps"),
        ("no eps", "np.sqrt(var + eps)", "np.sqrt(var)"),
        ("gamma is missing in dx", "d_hat = dout * gamma", "d_hat = dout"),
        ("gamma after the means", "d_hat = dout * gamma\n    dx =", "d_hat = dout\n    dx = gamma * d_hat - d_hat +"),
        ("the mean term is missing", "dx = d_hat - d_hat.mean(axis=1, keepdims=True)", "dx = d_hat"),
        ("the variance term is missing", "(dx - x_hat * (d_hat * x_hat).mean(axis=1, keepdims=True)) / std", "dx / std"),
        ("means of dx over the batch", "(d_hat * x_hat).mean(axis=1, keepdims=True)", "(d_hat * x_hat).mean(axis=0, keepdims=True)"),
        ("dgamma without x_hat", "dgamma = (dout * x_hat).sum(axis=0)", "dgamma = dout.sum(axis=0)"),
        ("dbeta is averaged", "dbeta = dout.sum(axis=0)", "dbeta = dout.mean(axis=0)"),
    ],
    "conv2d": [
        ("dx keeps the last value", "dpadded[n, :, r : r + HH, c : c + WW] +=", "dpadded[n, :, r : r + HH, c : c + WW] ="),
        ("a true convolution", "c : c + WW] * w[f]).sum()", "c : c + WW] * w[f, :, ::-1, ::-1]).sum()"),
        ("the filter is flipped in dx", "dout[n, f, i, j] * w[f]\n", "dout[n, f, i, j] * w[f, :, ::-1, ::-1]\n"),
        ("no stride in dx and dw", "                    r, c = i * stride, j * stride\n                    dw", "                    r, c = i, j\n                    dw"),
        ("the padding is not cut off", "[:, :, pad : pad + H, pad : pad + W]", "[:, :, :H, :W]"),
        ("db is averaged over images", "dout.sum(axis=(0, 2, 3))", "dout.mean(axis=0).sum(axis=(1, 2))"),
        ("no bias", ".sum() + b[f]", ".sum()"),
        ("dw of the last image", "                    dw[f] +=", "                    dw[f] = 0 if (i, j) == (0, 0) else dw[f]\n                    dw[f] +="),
        ("the size is rounded up", "1 + (H + 2 * pad - HH) // stride, 1", "1 - (-(H + 2 * pad - HH) // stride), 1"),
        ("w is padded with x", "padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))\n    Ho", 'padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="edge")\n    Ho'),
        ("height for width", "c : c + WW] += dout", "c : c + HH] += dout"),
    ],
    "max_pool2d": [
        ("windows from zero", ".max(axis=(2, 3))", ".max(axis=(2, 3), initial=0)"),
        ("the largest absolute value", "x[:, :, r : r + HH, c : c + WW].max(", "abs(x[:, :, r : r + HH, c : c + WW]).max("),
        ("the mean of the window", ".max(axis=(2, 3))", ".mean(axis=(2, 3))"),
        ("dx keeps the last value", "dx[n, k, r + a, c + b] +=", "dx[n, k, r + a, c + b] ="),
        ("all ties get the gradient", "dx[n, k, r + a, c + b] += dout[n, k, i, j]", "dx[n, k, r : r + HH, c : c + WW] += (window == window.max()) * dout[n, k, i, j]"),
        ("the gradient is spread evenly", "dx[n, k, r + a, c + b] += dout[n, k, i, j]", "dx[n, k, r : r + HH, c : c + WW] += dout[n, k, i, j] / window.size"),
        ("the stride is the size", "                    r, c = i * stride, j * stride\n                    window", "                    r, c = i * HH, j * WW\n                    window"),
        ("argmin for argmax", "window.argmax()", "window.argmin()"),
        ("the index is of a square window", "np.unravel_index(window.argmax(), window.shape)", "divmod(window.argmax(), 2)"),
        ("the size is rounded up", "1 + (H - HH) // stride, 1", "1 - (-(H - HH) // stride), 1"),
        ("only the first image", "    for n in range(N):", "    for n in range(1):"),
    ],
    "softmax_cross_entropy": [
        ("no shift by the largest", "shifted = x - x.max(axis=1, keepdims=True)", "shifted = x"),
        ("log of p + 1e-8", "    loss = -log_p", "    log_p = np.log(np.exp(log_p) + 1e-8)\n    loss = -log_p"),
        ("softmax over the batch", "np.exp(shifted).sum(axis=1, keepdims=True)", "np.exp(shifted).sum(axis=0, keepdims=True)"),
        ("the loss is a sum", ".sum() / N", ".sum()"),
        ("dx is not divided by N", "    dx /= N\n", ""),
        ("dx without the label", "    dx[np.arange(N), y] -= 1\n", ""),
        ("the label's sign", "dx[np.arange(N), y] -= 1", "dx[np.arange(N), y] += 1"),
        ("log p for p", "dx = np.exp(log_p)", "dx = log_p.copy()"),
        ("one for all rows", "dx[np.arange(N), y] -= 1", "dx[:, y] -= 1"),
        ("shifted by one number", "x.max(axis=1, keepdims=True)", "x.max() - 800"),
        ("dx in place of the mean over classes", "dx /= N", "dx /= dx.size"),
        ("x is shifted in place", "shifted = x - x.max(axis=1, keepdims=True)", "x -= x.max(axis=1, keepdims=True)\n    shifted = x"),
    ],
    "dropout": [
        ("not scaled", "< p) / p", "< p) * 1.0"),
        ("p is the chance to drop", "(np.random.rand(*x.shape) < p) / p", "(np.random.rand(*x.shape) > p) / (1 - p)"),
        ("the scale of the other convention", "< p) / p", "< p) / (1 - p)"),
        ("scaled in evaluation", "    else:\n        out = x\n", "    else:\n        out = x * p\n"),
        ("another mask in backward", "        dx = dout * mask\n", "        dx = dout * (np.random.rand(*dout.shape) < 0.5) / 0.5\n"),
        ("backward without a mask", "        dx = dout * mask\n", "        dx = dout\n"),
        ("backward without the scale", "        dx = dout * mask\n", "        dx = dout * (mask > 0)\n"),
        ("a mask for each row", "np.random.rand(*x.shape)", "np.random.rand(x.shape[0], *[1] * (x.ndim - 1))"),
        ("always the same mask", '        np.random.seed(dropout_param["seed"])', "        np.random.seed(0)"),
        ("no dropout", "out = x * mask", "out = x"),
        ("scaled twice", "        dx = dout * mask\n", "        dx = dout * mask / dropout_param['p']\n"),
        ("dropped in evaluation, too", 'if mode == "train":', "if True:"),
    ],
}  # fmt: skip


def right_source() -> str:
    text = (SOLUTIONS / "cs231n.py").read_text(encoding="utf-8")
    return text.replace("  # noqa: NPY002  as the course does", "")


def wrong_source(spec: str, right: str, wrong: str) -> str:
    """The solution with one text replaced in the functions of a spec, once."""
    source = right_source()
    first, last = FUNCTIONS[spec]
    start = source.index(f"def {first}(")
    end = source.index(f"def {last}(") if last else len(source)
    part = source[start:end]
    assert right in part, f"{spec}: no {right!r}"
    return source[:start] + part.replace(right, wrong, 1) + source[end:]


def names_of(source: str) -> dict:
    """What a solution defines, in this process."""
    names: dict = {"__name__": "solution"}
    exec(compile(source, "<solution>", "exec"), names)
    return names
