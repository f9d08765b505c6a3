"""A failed check as a script: at most 20 lines that compute both gradients and compare them.

The script needs NumPy and the function under test. Small arrays stand in it as numbers, larger
ones as base64, both exact to the last bit. It differentiates ⟨g, f⟩ entry by entry, by a complex
step if that works for f and by central differences if not, prints the worst entry and ends in an
AssertionError if the two gradients differ by more than they may.

A function is imported by name where it can be; otherwise its source is pasted, with the numbers
and modules it uses; if that is impossible or too long, a marked line is left to fill in.
"""

import ast
import base64
import warnings
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from minibn.autograd.backward import grad
from minibn.autograd.tensor import Tensor
from minibn.testing.diagnosis.evidence import largest
from minibn.testing.diagnosis.sources import Source, source_of, without

LINES, COLUMNS = 20, 100
NUMBERS = 60  # an array of more is stored as base64
ENTRIES = 2000  # of an input with more, only the worst are compared
PROBES, FEW = 20, 2  # entries on which an oracle for the script is tried
DIGITS = {"float64": 1e-9, "float32": 1e-4, "float16": 3e-2}  # tolerance, relative to the scale


def script(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    inputs: Sequence[np.ndarray],
    cotangent: np.ndarray,
    position: int,
    numeric: np.ndarray | None = None,
    name: str = "f",
    value: Callable[..., Any] | None = None,
    wrt: Sequence[int] = (),
) -> str:
    """The script that compares vjp(cotangent, *inputs)[position] with the derivative of f.

    wrt: the inputs whose gradients the vjp returns, if it leaves others out.
    value: f, as it is called to choose the script's oracle (a function that counts its calls).
    numeric: the oracles' gradient, if known (NaN where it was not measured). Of an input with more
    than 2000 entries only the worst ones of these are compared.
    The script exits with 0 if the gradients agree.
    """
    arrays, g = [_host(x) for x in inputs], _host(cotangent)
    returned = vjp(g.copy(), *(x.copy() for x in arrays))
    several = isinstance(returned, (tuple, list))
    left_out = several and len(returned) < len(arrays) and position in wrt
    index = list(wrt).index(position) if left_out else position
    analytic = returned[index] if several else returned
    call = f"vjp(g, *inputs){f'[{index}]' if several else ''}"
    if analytic is None:
        analytic, call = np.zeros_like(arrays[position]), f"0 * inputs[{position}]"
    functions = [source_of(f, "f"), source_of(vjp, "vjp")]
    tail = _comparison(value or f, arrays, g, position, analytic, numeric, call, "f(*moved)")
    return _layout(_title(name, position), functions, arrays, g, tail)


def script_for_tensors(
    f: Callable[..., Any],
    inputs: Sequence[np.ndarray],
    cotangent: np.ndarray,
    position: int,
    numeric: np.ndarray | None = None,
    name: str = "f",
    on_arrays: Callable[..., Any] | None = None,
) -> str:
    """`script` for a function of minibn's Tensors, whose gradient comes from `minibn.grad`.
    on_arrays: f on arrays, as it is called to choose the script's oracle."""
    arrays, g = [_host(x) for x in inputs], _host(cotangent)
    leaves = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
    analytic = grad(f(*leaves), leaves[position], g, unused="zeros").numpy()
    real = all(x.dtype.kind == "f" for x in arrays) or 'x.dtype.kind == "f"'
    functions = [Source("grad", ("from minibn import Tensor, grad",)), source_of(f, "f")]
    call = f'grad(f(*leaves), leaves[{position}], g, unused="zeros").numpy()'
    tail = [
        f"leaves = [Tensor(x, requires_grad={real}) for x in inputs]",
        *_comparison(
            on_arrays or (lambda *values: f(*map(Tensor, values)).numpy()),
            arrays,
            g,
            position,
            analytic,
            numeric,
            call,
            "f(*map(Tensor, moved)).numpy()",
        ),
    ]
    return _layout(_title(name, position), functions, arrays, g, tail)


def _host(x: Any) -> np.ndarray:
    return np.asarray(x)  # host: a script holds NumPy arrays


def _title(name: str, position: int) -> str:
    return f"# Gradient of input {position} of {' '.join(name.split())}: is the vjp right?"


# -- the script's computation


def _comparison(
    f: Callable[..., Any],
    inputs: list[np.ndarray],
    g: np.ndarray,
    position: int,
    analytic: Any,
    numeric: np.ndarray | None,
    call: str,
    value: str,
) -> list[str]:
    """The lines that differentiate, call the vjp and compare."""
    x, analytic = inputs[position], _host(analytic)
    if analytic.shape != x.shape:
        shapes = f"shape {{analytic.shape}} for an input of {{inputs[{position}].shape}}"
        return [
            f"analytic = np.asarray({call})",
            f'assert analytic.shape == inputs[{position}].shape, f"{shapes}"',
        ]
    if x.size == 0:
        return ["# The input is empty: there is nothing to compare."]
    entries = _entries(analytic, numeric)
    oracle, h, tolerance = _oracle(f, inputs, g, position, analytic, numeric, entries)
    floats = all(x.dtype.kind == "f" for x in inputs)
    cast = "x.astype(type(h))" + ("" if floats else ' if x.dtype.kind == "f" else x')
    every = entries is None
    choice = [] if every else [f"entries = {entries}  # of {x.size}"]
    if oracle == "complex step":
        slope = f"along(i, {h}j).imag / {h}"
    else:
        choice += [f"stencil = {{{h}: 8, -{h}: -8, {2 * h}: -1, -{2 * h}: 1}}  # of fourth order"]
        slope = f"sum(c * along(i, h) for h, c in stencil.items()) / {12 * h!r}"
    worst = "worst" if every else "entries[worst]"
    return [
        "",
        f"def along(i, h):  # <g, f> with entry i of input {position} moved by h",
        f"    moved = [{cast} for x in inputs]",
        f"    moved[{position}].flat[i] += h",
        f"    return np.sum(g * {value})",
        "",
        *choice,
        f"numeric = np.array([{slope} for i in {f'range({x.size})' if every else 'entries'}])",
        f"analytic = np.ravel({call}){'' if every else '[entries]'}.astype(float)",
        "worst = np.argmax(off := np.abs(analytic - numeric))",
        f"index = tuple(map(int, np.unravel_index({worst}, {x.shape})))",
        f'print(f"at {{index}}: vjp {{analytic[worst]:.15g}}, {oracle} {{numeric[worst]:.15g}}")',
        f'assert off[worst] <= {tolerance:.1e}, f"the vjp is off by {{off[worst]:.3g}}"',
    ]


def _entries(analytic: np.ndarray, numeric: np.ndarray | None) -> list[int] | None:
    """The entries to compare, worst first; None for all of them."""
    if analytic.size <= ENTRIES:
        return None
    if numeric is None:
        return [int(i) for i in np.linspace(0, analytic.size - 1, 12)]
    off = np.abs(np.ravel(analytic - numeric))
    off[~np.isfinite(np.ravel(analytic))] = np.inf
    off[np.isnan(np.ravel(numeric))] = -1
    return [int(i) for i in np.argsort(-off, kind="stable")[:12] if off[i] >= 0]


def _oracle(
    f: Callable[..., Any],
    inputs: list[np.ndarray],
    g: np.ndarray,
    position: int,
    analytic: np.ndarray,
    numeric: np.ndarray | None,
    entries: list[int] | None,
) -> tuple[str, float, float]:
    """(oracle, step, tolerance): a complex step if it agrees with differences, else differences
    with the step at which halving it changes least. The complex step is tried on `PROBES` entries
    (the worst, and others), differences on two of them, since they take eight calls each."""
    n = analytic.size
    probes = entries or sorted({int(i) for i in np.linspace(0, n - 1, min(n, PROBES))})
    if numeric is not None:
        off = np.nan_to_num(np.abs(np.ravel(analytic - numeric)), nan=-1.0, posinf=np.inf)
        probes = sorted({int(np.argmax(off)), *probes[: PROBES - 1]})
    few = probes[:: max(1, (len(probes) - 1) // (FEW - 1))][:FEW]

    def along(i: int, h: float | complex) -> Any:
        moved = [x.astype(type(h)) if x.dtype.kind == "f" else x for x in inputs]
        moved[position].flat[i] += h
        return np.sum(g * f(*moved))

    def differences(h: float) -> np.ndarray:
        terms = {h: 8, -h: -8, 2 * h: -1, -2 * h: 1}.items()
        return np.array([sum(c * along(i, s) for s, c in terms) / (12 * h) for i in few])

    def exact() -> np.ndarray | None:
        """The complex step at the probes, if f takes complex numbers."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # "discards the imaginary part"
                slopes = np.array([along(i, 1e-20j).imag / 1e-20 for i in probes])
                return slopes if abs(along(0, 0j) - value) <= 1e-9 * abs(value) + 1e-12 else None
        except Exception:  # f may raise anything for complex numbers: then differences are used
            return None

    with np.errstate(all="ignore"):
        value = along(0, 0.0)
        floor = 1e-14 * largest(np.abs(value))
        loss = DIGITS.get(str(analytic.dtype), 1e-9)
        slopes = exact()
        known = None if numeric is None else np.ravel(numeric)[probes]
        size = 0.0 if numeric is None else largest(numeric)
        if slopes is not None and known is not None and np.isfinite(known).any():
            apart = np.abs(slopes - known)[np.isfinite(known)]
            if np.all(apart <= 1e-7 * size):
                return "complex step", 1e-20, max(loss / 10, 1e-10) * size + floor
        tries = {h: differences(h) for h in (1e-2, 1e-3, 1e-4, 1e-5)}
        errors = {h: float(np.abs(d - differences(h / 2)).max()) for h, d in tries.items()}
        h = min(errors, key=lambda h: errors[h] if np.isfinite(errors[h]) else np.inf)
        scale = max(largest(tries[h]), size, 0.0 if slopes is None else largest(slopes))
        if slopes is not None and numeric is None:
            here = slopes[[probes.index(i) for i in few]]
            if np.all(np.abs(here - tries[h]) <= 10 * errors[h] + 1e-6 * scale):
                return "complex step", 1e-20, max(loss / 10, 1e-10) * scale + floor
    tolerance = loss * scale + 10 * errors[h] + floor / h
    return "central differences", h, tolerance if np.isfinite(tolerance) else loss * scale


# -- its layout


def _layout(
    title: str, functions: list[Source], inputs: list[np.ndarray], g: np.ndarray, tail: list[str]
) -> str:
    """At most 20 lines: inputs share a line, function bodies are packed closer, and at last
    functions are left out, the longest first, until it fits. Remaining room is used to fold
    arrays, and then for blank lines."""
    written = [_literal(x) for x in inputs]
    rows = [f"inputs = [{written[0]},", *(f"          {w}," for w in written[1:])]
    rows[-1] = rows[-1][:-1] + "]"
    shared = [f"inputs = [{', '.join(written)}]"]
    compact = [line for line in tail if line]

    def head(parts: list[Source], how: str) -> list[str]:
        imports = sorted({line for part in parts for line in part.imports})
        return [title, "import numpy as np", *imports, *(x for p in parts for x in getattr(p, how))]

    imports: dict[str, str] = {}  # a name that two functions import differently: the first has it
    for k, part in enumerate(functions):
        if any(imports.setdefault(line.split()[-1], line) != line for line in part.imports):
            functions = [without(p) if i == k else p for i, p in enumerate(functions)]
    tries = [(functions, how, a) for how in ("lines", "packed", "dense") for a in (rows, shared)]
    left = list(functions)
    for k in sorted(range(len(left)), key=lambda k: -len(left[k].lines)):
        left = [without(p) if i == k and p.lines else p for i, p in enumerate(left)]
        tries += [(left, "dense", rows), (left, "dense", shared)]
    for parts, how, arrays in tries:
        top = head(parts, how)
        if (used := len(top) + len(arrays) + 1 + len(compact)) <= LINES:
            break
    room, folded = LINES - used, []
    for line in [*arrays, f"g = {_literal(g)}"]:
        pieces = _fold(line)
        fits = len(pieces) - 1 <= room
        room -= len(pieces) - 1 if fits else 0
        folded += pieces if fits else [line]
    return (
        "\n".join([*top, *folded, *(tail if len(tail) - len(compact) <= room else compact)]) + "\n"
    )


def _fold(line: str) -> list[str]:
    """The line broken at spaces into lines of 100 columns, if that can be done."""
    indent = " " * (len(line) - len(line.lstrip()))
    parts = wrap(
        line.lstrip(),
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=" " * 10,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return parts if all(len(part) <= COLUMNS for part in parts) else [line]


def _literal(x: np.ndarray) -> str:
    """An expression that gives x, exact to the last bit."""
    dtype = "" if x.dtype in (np.float64, np.int64, np.bool_) else f', "{x.dtype}"'
    if x.size == 0:
        return f'np.zeros({x.shape}, "{x.dtype}")'
    if x.size <= NUMBERS and np.isfinite(x).all():
        for one in (str, lambda v: repr(v.item())):  # short digits, if they come back exactly
            text = _nested(x, one)
            if np.array(ast.literal_eval(text), x.dtype).tobytes() == x.tobytes():
                return f"np.array({text}{dtype})"
    data = base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
    read = f'np.frombuffer(__import__("base64").b64decode("{data}"), "{x.dtype}")'
    return f"{read}.reshape({x.shape})"


def _nested(x: np.ndarray, one: Callable[[Any], str]) -> str:
    if x.ndim == 0:
        return one(x[()])
    return "[" + ", ".join(_nested(np.asarray(row), one) for row in x) + "]"  # host: of the script
