"""How large the error is: what can be said if no formula and no place explains it.

A small relative error points to precision or to an eps; the values of the input between which a
function of single entries is wrong point to a branch. Each function takes the Evidence and returns
a sentence, or None.
"""

import numpy as np

from minibn.testing.diagnosis.evidence import Evidence, largest

SMALL = 5e-3  # relative error, below which it may be a matter of precision or of an eps


def lower_precision(ev: Evidence) -> str | None:
    """An error of the size and the randomness of float32's, float16's or bfloat16's rounding."""
    known = ev.measured & np.isfinite(ev.analytic) & (np.abs(ev.numeric) > 0)
    if known.sum() < 2 or not np.isfinite(ev.error[known]).all() or ev.analytic.dtype != float:
        return None
    ours, relative = ev.analytic[known], np.abs(ev.error[known] / ev.numeric[known])
    for dtype, most in ((np.float32, 1e-5), (np.float16, 5e-2)):
        if largest(ev.error) > most * largest(ev.numeric):
            continue
        if (ours.astype(dtype).astype(float) == ours).all() and ours.any():
            return (
                f"Every entry is a number of {np.dtype(dtype)}, and the error is of the size of "
                f"its rounding: is the gradient computed, or kept, in {np.dtype(dtype)}?"
            )
    signs = np.sign(ev.error * ev.numeric)
    columns = signs.reshape(len(signs), -1) if signs.ndim else signs
    mixed = 0.2 < (signs[known] > 0).mean() < 0.8 and (np.ptp(columns, axis=0) > 0).mean() > 0.5
    size = largest(ev.error) / largest(ev.numeric)
    if known.sum() >= 4 and mixed and relative.max() < SMALL:
        if 1e-9 < size < 3e-7:
            return (
                f"The error is random, and {size:.1g} of the gradient: is something computed in "
                "float32?"
            )
        if 2e-5 < size < SMALL and relative.max() < 3 * SMALL:
            return (
                f"The error has either sign, and is {size:.1g} of the gradient: is something "
                "computed in float16 or bfloat16, or approximated?"
            )
    return None


def small_error(ev: Evidence) -> str | None:
    """A small relative error of one sign."""
    known = ev.measured & np.isfinite(ev.analytic) & (np.abs(ev.numeric) > 10 * ev.tolerance)
    if not known.any() or known.sum() < ev.measured.sum() / 2:
        return None
    relative = np.abs(ev.error[known] / ev.numeric[known])
    size = largest(ev.error) / largest(ev.numeric)
    if not size < SMALL:
        return None
    low, high = float(relative.min()), float(relative.max())
    span = f"{high:.1g}" if high < 2 * low else f"between {low:.1g} and {high:.1g}"
    return (
        f"The gradient is nearly right, the relative error is {span}: an eps that is missing or in "
        "another place, an approximation of f's formula, or a number with too few digits?"
    )


def function_of_the_entry(ev: Evidence) -> str | None:
    """f takes entry by entry, and the error depends on the entry's value."""
    known = ev.measured & np.isfinite(ev.analytic) & (np.abs(ev.numeric) > ev.tolerance)
    if ev.x.shape != ev.output.shape or known.sum() < 4:
        return None
    x, ratio = ev.x[known], ev.analytic[known] / ev.numeric[known]
    order = np.argsort(x)
    some = order[np.unique(np.linspace(0, len(order) - 1, 4).astype(int))]
    shown = ", ".join(f"{ratio[k]:.4g} at {x[k]:.3g}" for k in some)
    return (
        f"f takes input {ev.position} entry by entry, so its derivative is another function of the "
        f"entry than the vjp's. The ratio analytic/numeric is {shown}."
    )


SIZES = (lower_precision, small_error)
