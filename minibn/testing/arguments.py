"""The front of `check_vjp`: what a user brings becomes a tuple of NumPy arrays and one result.

Inputs and outputs may be dicts, lists, tuples, named tuples and dataclasses, nested in any way, of
arrays of any library, and complex. The check itself sees real NumPy arrays and one output: the
leaves of the inputs, and the outputs one after the other in a single vector. The function and its
vjp get what they were written for, and reports name a leaf by its path: "input 0['weight']".

A complex array is a pair of real ones here, its real and its imaginary part, on a last axis. What
the gradient of a complex number is depends on the library. For z = a + ib and a real loss L

    "pytorch"   dL/da + i dL/db: the direction of steepest ascent; PyTorch, TensorFlow, minibn's text
    "jax"       dL/da - i dL/db: its conjugate; JAX and HIPS autograd

and the cotangent of a complex output is of the same form.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec

import numpy as np

from minibn.errors import did_you_mean
from minibn.testing.containers import MISSING, Mismatch, align, children, paths, rebuild
from minibn.testing.diagnosis.call_script import call_script
from minibn.testing.libraries import DIFFERENTIATED, as_numpy, is_array, is_tensor, like
from minibn.testing.report import Diagnosis, GradReport, InputReport, without_listeners

P = ParamSpec("P")
CONVENTIONS = {
    "pytorch": "dL/da + i dL/db (PyTorch's convention)",
    "jax": "dL/da - i dL/db (the convention of JAX and of HIPS autograd)",
}
OUTPUTS = 8  # of so many outputs each is checked alone after a failure


class NotAnalytic(TypeError):
    """The complex step is not for functions of complex numbers."""


def name_of(f: Any) -> str:
    """The name of a function in a report."""
    while isinstance(f, partial):
        f = f.func
    name = getattr(f, "__qualname__", None) or type(f).__name__
    return "the function" if name.endswith("<lambda>") else name.rpartition("<locals>.")[2]


def takes_any_arguments(check: Callable[P, GradReport]) -> Callable[P, GradReport]:
    """`check(f, vjp, *arrays, **keywords)`, which knows one kind of function, for every kind."""

    @wraps(check)
    def check_any(*given: P.args, **keywords: P.kwargs) -> GradReport:
        f, vjp, arguments = given[0], given[1], given[2:]
        convention = keywords.get("complex_convention", "pytorch")
        if convention not in CONVENTIONS:
            raise ValueError(
                f"complex_convention={convention!r}: {did_you_mean(convention, CONVENTIONS)}"
            )
        if not (callable(f) and callable(vjp) and arguments) or _is_plain(
            f, arguments, keywords.get("wrt")
        ):
            return check(*given, **keywords)
        return check_leaves(check, f, vjp, arguments, **keywords)  # type: ignore[arg-type]

    return check_any


def _is_plain(f: Callable[..., Any], arguments: Sequence[Any], wrt: Any) -> bool:
    """Whether the check takes f and its arguments as they are: NumPy arrays and one output.

    What can't be differentiated is left to the check as well, which says so."""
    chosen = [wrt] if isinstance(wrt, (int, str)) else wrt
    if chosen is not None and any(isinstance(i, str) for i in chosen):
        return False
    arrays = []
    for i, x in enumerate(arguments):
        if chosen is not None and not {i, i - len(arguments)} & set(chosen):
            arrays.append(x)
            continue
        if x is None or is_tensor(x) or (children(x) is not None and not _is_numbers(x)):
            return False
        array = np.asarray(x)
        if array.dtype.kind == "c":
            return False
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            return True
        arrays.append(array)
    y = f(*(x.copy(order="K") if isinstance(x, np.ndarray) else x for x in arrays))
    if is_tensor(y) or (children(y) is not None and not _is_number_list(y)):
        return False
    return not (is_array(y) or isinstance(y, complex)) or np.asarray(y).dtype.kind != "c"


def _is_numbers(x: Any) -> bool:
    """Whether NumPy reads a list as an array of numbers: it holds numbers alone, and is regular."""
    if any(type(leaf) not in (bool, int, float, complex) for _, leaf in paths(x)):
        return False
    try:
        return isinstance(x, (list, tuple)) and np.asarray(x).dtype.kind in "biufc"
    except ValueError:  # ragged
        return False


def _is_number_list(y: Any) -> bool:
    """An output that is a list of Python's numbers is an array; a tuple has several outputs."""
    return isinstance(y, list) and _is_numbers(y)


@dataclass
class Leaf:
    """An array among the inputs or outputs: as it was given, and its values for the check.

    values   None for what is passed on as it is: settings, labels that are no NumPy arrays
    moves    it is differentiated
    pairs    it is complex: the last axis of `values` is the real and the imaginary part
    """

    label: str
    x: Any
    values: np.ndarray | None = None
    moves: bool = False
    pairs: bool = False

    def object(self, values: np.ndarray, sign: int = 1, layout: bool = True) -> Any:
        """Other values in the place of this leaf's, as an object of its kind."""
        if self.pairs:
            z = np.empty_like(values[..., 0], np.result_type(values, np.complex64))
            z.real, z.imag = values[..., 0], sign * values[..., 1]
            values = z
        return like(values, self.x, layout)

    def values_of(self, x: Any, sign: int = 1) -> np.ndarray:
        """The values of an object of this leaf's kind."""
        array = as_numpy(x)
        return np.stack([array.real, sign * array.imag], axis=-1) if self.pairs else array

    def read_back(self, values: np.ndarray, x: Any, sign: int = 1) -> None:
        """Write into `values` what a function has written into `x`, which was made from them."""
        if self.pairs or is_tensor(self.x):
            now = self.values_of(x, sign)
            if now.shape == values.shape and now.tobytes() != values.tobytes():
                values[...] = now


def leaf_of(label: str, x: Any, chosen: bool) -> Leaf:
    """A leaf with its values, which move if it is `chosen` and holds floats or complex numbers."""
    if not (is_array(x) or type(x) in (float, complex)):
        return Leaf(label, x)
    if not chosen:
        return Leaf(label, x, x if isinstance(x, np.ndarray) else None)
    values = as_numpy(x)
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind in "fc" and size > (8 if kind == "f" else 16):
        raise TypeError(
            f"{label} has dtype {values.dtype}: only {DIFFERENTIATED} are differentiated. "
            "Convert it with .astype(float)."
        )
    if kind not in "fc":
        return Leaf(label, x, values if isinstance(x, np.ndarray) else None)
    if not np.isfinite(values).all():
        raise ValueError(f"{label} holds NaN or infinity: give a point of f's domain.")
    leaf = Leaf(label, x, values, moves=True, pairs=kind == "c")
    leaf.values = leaf.values_of(x)
    return leaf


class Inputs:
    """The arguments of a function, and the arrays among them that the check moves."""

    def __init__(self, arguments: Sequence[Any], wrt: Any, names: Sequence[str]) -> None:
        tops = [np.asarray(x) if _is_top_level_array(x) else x for x in arguments]
        self.count = len(tops)
        self.names = names
        labels = [f"input {i}" for i in range(self.count)]
        found = [
            (i, labels[i] + path, x) for i, top in enumerate(tops) for path, x in paths(top)
        ]
        self.tree = tuple(tops)
        everything = [(i, label) for i, label, _ in found]
        chosen = set(
            range(len(found)) if wrt is None else select(wrt, everything, names, "wrt", self.count)
        )
        self.leaves = [leaf_of(label, x, k in chosen) for k, (_, label, x) in enumerate(found)]
        self.positions = [i for i, _, _ in found]
        self.chosen = sorted({self.positions[k] for k in chosen})
        for i in self.chosen:
            mine = [leaf for k, leaf in zip(self.positions, self.leaves, strict=True) if k == i]
            if not any(leaf.moves for leaf in mine) and tops[i] is not None:
                self._refuse(i, mine)
        self.core = [k for k, leaf in enumerate(self.leaves) if leaf.values is not None]
        self.moving = [n for n, k in enumerate(self.core) if self.leaves[k].moves]
        if not self.moving:
            raise TypeError(f"nothing to differentiate: give an array of {DIFFERENTIATED}.")

    def _refuse(self, i: int, leaves: list[Leaf]) -> None:
        others = [k for k in self.chosen if k != i]
        instead = f" Or name what to differentiate: wrt={others}." if others else ""
        what = f"has dtype {as_numpy(leaves[0].x).dtype}" if (
            len(leaves) == 1 and is_array(leaves[0].x)
        ) else f"is a {type(self.tree[i]).__name__} without an array of floats"
        raise TypeError(f"input {i} {what}: only {DIFFERENTIATED} are differentiated.{instead}")

    @property
    def complex(self) -> bool:
        return any(leaf.pairs for leaf in self.leaves)

    def arrays(self) -> list[np.ndarray]:
        """What the check gets, in the order in which it gives them back."""
        return [self.leaves[k].values for k in self.core]  # type: ignore[misc]

    def arguments(self, arrays: Sequence[np.ndarray]) -> tuple[list[Any], list[Any]]:
        """(the arguments with these values, the objects that hold them)."""
        objects = [leaf.x for leaf in self.leaves]
        for k, array in zip(self.core, arrays, strict=True):
            objects[k] = self.leaves[k].object(array) if self.leaves[k].moves else array
        return list(rebuild(self.tree, iter(objects))), [objects[k] for k in self.core]

    def read_back(self, arrays: Sequence[np.ndarray], objects: Sequence[Any]) -> None:
        for k, array, x in zip(self.core, arrays, objects, strict=True):
            if self.leaves[k].moves:
                self.leaves[k].read_back(array, x)

    def gradients(self, result: Any, sign: int) -> tuple[Any, ...]:
        """What a vjp returned, as one array for each of `arrays`. Raises Mismatch."""
        failure, loose = None, None
        for parts in self._candidates(result):
            try:
                found = self._aligned(parts)
            except Mismatch as error:
                failure = failure or error
                continue
            if all(_fits(self.leaves[k], g) for k, g in zip(self.core, found, strict=True)):
                loose = found
                break
            loose = loose or found
        if loose is None:
            raise failure or Mismatch("the vjp returns nothing")
        return tuple(
            _gradient(self.leaves[k], g, sign) for k, g in zip(self.core, loose, strict=True)
        )

    def _candidates(self, result: Any) -> Iterator[list[Any]]:
        """The ways to read a result: a gradient for each argument, for each chosen one, or the
        gradient of the only one itself."""
        several = isinstance(result, (tuple, list))
        if len(self.chosen) == 1:
            yield self._only_chosen([result])
        if several and len(result) == self.count:
            yield list(result)
        elif several and len(result) == len(self.chosen):
            yield self._only_chosen(result)
        elif len(self.chosen) > 1:
            n = len(result) if several else 1
            raise Mismatch(
                f"the vjp returns {n} gradient{'s' * (n != 1)} for {self.count} inputs: it must "
                "return one for each, by position (None for one without)"
            )

    def _only_chosen(self, gradients: Sequence[Any]) -> list[Any]:
        whole: list[Any] = [None] * self.count
        for i, g in zip(self.chosen, gradients, strict=True):
            whole[i] = g
        return whole

    def _aligned(self, parts: Sequence[Any]) -> list[Any]:
        whole = [
            g
            for i, (x, part) in enumerate(zip(self.tree, parts, strict=True))
            for g in (
                align(x, part, f"input {i}")
                if i in self.chosen
                else [None] * self.positions.count(i)
            )
        ]
        for leaf, g in zip(self.leaves, whole, strict=True):
            if leaf.moves and g is MISSING:
                raise Mismatch(
                    f"{leaf.label}: the vjp returns no gradient for it (None stands for zeros; "
                    "what is not differentiated is left out by wrt=)"
                )
        return [None if whole[k] is MISSING else whole[k] for k in self.core]


def _is_top_level_array(x: Any) -> bool:
    """Numbers and lists of numbers become NumPy arrays, where they are an argument of their own."""
    return type(x) in (float, complex) or isinstance(x, np.generic) or _is_numbers(x)


def _fits(leaf: Leaf, gradient: Any) -> bool:
    if gradient is None or not leaf.moves:
        return True
    try:
        shape = getattr(gradient, "shape", None) if is_array(gradient) else np.shape(gradient)
    except ValueError:  # ragged
        return False
    return tuple(shape or ()) == np.shape(as_numpy(leaf.x))


def _gradient(leaf: Leaf, gradient: Any, sign: int) -> Any:
    """The gradient of a leaf as the check expects it; as it is where NumPy is all there is."""
    if gradient is None or not leaf.moves:
        return None
    if not leaf.pairs and not is_tensor(gradient):
        if np.iscomplexobj(gradient):
            raise Mismatch(f"{leaf.label} is real, its gradient complex: return the real part")
        return gradient
    array = as_numpy(gradient)
    if leaf.pairs:
        shape = np.shape(as_numpy(leaf.x))
        if array.dtype.kind != "c":
            raise Mismatch(
                f"{leaf.label} is complex, its gradient {array.dtype}: the imaginary part is missing"
            )
        if array.shape != shape:
            raise Mismatch(f"{leaf.label}: a gradient of shape {array.shape} for {shape}")
        return leaf.values_of(gradient, sign)
    if array.dtype.kind == "c":
        raise Mismatch(f"{leaf.label} is real, its gradient complex: return the real part")
    return array


class Outputs:
    """The outputs of a function, which the check sees as a single array."""

    def __init__(self, y: Any) -> None:
        y = np.asarray(y) if _is_number_list(y) else y
        self.tree = y
        self.leaves = [leaf_of("output" + path, _as_array(x), True) for path, x in paths(y)]
        self.moving = [leaf for leaf in self.leaves if leaf.moves]
        if not self.moving:
            kinds = ", ".join(sorted({_kind(leaf.x) for leaf in self.leaves})) or "nothing"
            raise TypeError(f"f gives {kinds}, not floats: there is nothing to differentiate.")
        self.single = len(self.moving) == 1
        self.sizes = [leaf.values.size for leaf in self.moving]  # type: ignore[union-attr]

    @property
    def complex(self) -> bool:
        return any(leaf.pairs for leaf in self.moving)

    def array(self, y: Any, as_given: bool = False) -> np.ndarray:
        """The values of an output. Of several outputs in a vector; `as_given`: in the lowest of
        their precisions, since a cotangent of this dtype is exact in all."""
        found = paths(np.asarray(y) if _is_number_list(y) else y)
        if len(found) != len(self.leaves):
            raise ValueError(
                f"f gives {len(found)} outputs, and gave {len(self.leaves)} before: their number "
                "must not depend on the values."
            )
        parts = [
            leaf.values_of(_as_array(x))
            for leaf, (_, x) in zip(self.leaves, found, strict=True)
            if leaf.moves
        ]
        if self.single:
            return parts[0]
        flat = np.concatenate([part.reshape(-1) for part in parts])
        lowest = min((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)
        return flat.astype(lowest) if as_given and flat.dtype.kind == "f" else flat

    def cotangent(self, g: np.ndarray, sign: int) -> tuple[Any, list[tuple[Leaf, Any, Any]]]:
        """(the cotangent in the structure of the outputs, with None for what is no float; its
        leaves with the part of g and the object of each)."""
        if self.single:
            pieces = [g]
        else:
            pieces = [
                part.reshape(leaf.values.shape)  # type: ignore[union-attr]
                for leaf, part in zip(
                    self.moving, np.split(g, np.cumsum(self.sizes)[:-1]), strict=True
                )
            ]
        used = []
        for leaf, piece in zip(self.moving, pieces, strict=True):
            assert leaf.values is not None
            if piece.dtype != leaf.values.dtype and not self.single:
                piece = piece.astype(leaf.values.dtype)
            used.append((leaf, piece, leaf.object(np.asarray(piece), sign, layout=False)))
        objects = iter([x for _, _, x in used])
        whole = [next(objects) if leaf.moves else None for leaf in self.leaves]
        return rebuild(self.tree, iter(whole)), used


def _as_array(x: Any) -> Any:
    """A number that a function gives is an array without axes: so is its cotangent."""
    return np.asarray(x) if type(x) in (float, complex) or isinstance(x, np.generic) else x


def _kind(x: Any) -> str:
    return str(as_numpy(x).dtype) if is_array(x) else type(x).__name__


@dataclass
class Front:
    """A function and its vjp on what users have, as a function and a vjp on NumPy arrays."""

    f: Callable[..., Any]
    vjp: Callable[..., Any]
    inputs: Inputs
    outputs: Outputs
    conjugate_cotangent: bool = False
    conjugate_gradient: bool = False

    @property
    def complex(self) -> bool:
        return self.inputs.complex or self.outputs.complex

    def value(self, f: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
        """f on NumPy arrays."""
        if self.complex and any(x.dtype.kind == "c" for x in arrays):
            raise NotAnalytic("a complex step needs a function of real numbers")
        arguments, objects = self.inputs.arguments(arrays)
        y = f(*arguments)
        self.inputs.read_back(arrays, objects)
        dtypes = [x.dtype for x in self.inputs.arrays()]
        return self.outputs.array(y, as_given=[x.dtype for x in arrays] == dtypes)

    def pull(self, vjp: Callable[..., Any], g: np.ndarray, *arrays: np.ndarray) -> tuple[Any, ...]:
        """The vjp on NumPy arrays. Raises Mismatch if the gradients have another structure."""
        arguments, objects = self.inputs.arguments(arrays)
        sign = -1 if self.conjugate_cotangent else 1
        cotangent, used = self.outputs.cotangent(np.asarray(g), sign)
        result = vjp(cotangent, *arguments)
        self.inputs.read_back(arrays, objects)
        for leaf, piece, x in used:
            leaf.read_back(piece, x, sign)
        if not self.outputs.single:
            g[...] = np.concatenate([piece.reshape(-1) for _, piece, _ in used])
        return self.inputs.gradients(result, -1 if self.conjugate_gradient else 1)


def check_leaves(
    check: Callable[..., GradReport],
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    labels: Callable[[str], str] = str,
    notes: Sequence[str] = (),
    **keywords: Any,
) -> GradReport:
    """`check`, which takes NumPy arrays and one output, for arguments and outputs of any kind.

    labels   the name of a leaf in the report, of its path: of "input 0['weight']", say
    notes    sentences about the check as a whole, for the report
    keywords  those of `check_vjp`
    """
    convention = keywords.pop("complex_convention", "pytorch")
    raises, promise = keywords.pop("raises", True), keywords.pop("convention", None)
    reference, wrt = keywords.pop("reference", None), keywords.pop("wrt", None)
    zero = keywords.pop("zero_gradient", ())
    keywords["name"] = keywords.get("name") or name_of(f)
    inputs = Inputs(arguments, wrt, _parameters_of(f))
    leaves = [(inputs.positions[k], inputs.leaves[k].label) for k in inputs.core]
    if isinstance(zero, (int, str)):
        zero = [zero]
    flat = select(zero, leaves, inputs.names, "zero_gradient", inputs.count) if zero else []
    flat = [n for n in flat if n in inputs.moving]
    first, _ = inputs.arguments([np.array(x) for x in inputs.arrays()])
    conjugate = convention == "jax"
    front = Front(f, vjp, inputs, Outputs(f(*first)), conjugate, conjugate)

    if keywords.get("reproduce") is None:
        keywords["reproduce"] = partial(_script, f, vjp, arguments, {
            "wrt": wrt, "zero_gradient": zero, "seed": keywords.get("seed", 0),
            "complex_convention": convention if conjugate else None,
        }, keywords["name"])  # fmt: skip

    def run(front: Front, **others: Any) -> GradReport:
        if reference is not None:
            others["reference"] = partial(front.value, reference)
        if promise is not None:
            others["convention"] = partial(front.pull, promise)
        try:
            with without_listeners():
                return check(
                    partial(front.value, front.f), partial(front.pull, front.vjp),
                    *inputs.arrays(), wrt=inputs.moving, zero_gradient=flat, raises=False,
                    **(keywords | others),
                )  # fmt: skip
        except Mismatch as error:
            return GradReport(keywords["name"], faults=[str(error)], seed=keywords.get("seed", 0))

    report = run(front)
    report.notes += notes
    if front.complex:
        report.notes.append(
            f"The gradient of a complex z = a + ib is {CONVENTIONS[convention]}; complex numbers "
            "were compared as pairs of real ones, on an axis of their own."
        )
    if not report.passed:
        quick = partial(run, diagnose=False)
        report.notes += _conjugates(front, quick, convention) or _single_outputs(front, quick)
    _relabel(report, inputs, labels)
    return report.settle(raises)


def _script(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    arguments: Sequence[Any],
    keywords: dict[str, Any],
    name: str,
    *point: Any,
) -> str:
    title = f"The gradient of {name}: is the vjp right?"
    return call_script("check_vjp", {"f": f, "vjp": vjp}, arguments, keywords, title)


def _parameters_of(f: Callable[..., Any]) -> list[str]:
    """The names of a function's positional parameters, as far as they are known."""
    try:
        found = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def select(
    chosen: Any, leaves: Sequence[tuple[int, str]], names: Sequence[str], keyword: str, count: int
) -> list[int]:
    """The numbers of those leaves, given as (position, label), that positions and names mean.

    "weight" and "input 0['weight']" both name the leaf of this label, or all leaves below it.
    Raises ValueError for one that names nothing, or what another one names too.
    """
    chosen = [chosen] if isinstance(chosen, (int, str)) else list(chosen)
    found: list[int] = []
    for item in chosen:
        if isinstance(item, str):
            new = [k for k, (i, label) in enumerate(leaves) if _named(item, i, label, names)]
        else:
            new = [k for k, (i, _) in enumerate(leaves) if i in (item, item + count)]
        if not new or set(new) & set(found):
            hint = did_you_mean(item, [label for _, label in leaves])
            why = "is named twice" if new else f"is no input. {hint}"
            raise ValueError(f"{keyword}={chosen}: {item!r} {why}")
        found += new
    if not found:
        raise ValueError(f"{keyword}={chosen}: name at least one input.")
    return found


def _named(item: str, position: int, label: str, names: Sequence[str]) -> bool:
    wanted, path = _dotted(item), _dotted(label)
    inside = path.partition(".")[2]
    known = [path, inside]
    if position < len(names):
        known.append(f"{names[position]}.{inside}".strip("."))
    return bool(wanted) and any(k == wanted or k.startswith(wanted + ".") for k in known)


def _dotted(label: str) -> str:
    """The label "input 0['w'][1]" as "0.w.1"."""
    return re.sub(r"\[['\"]?(.*?)['\"]?\]", r".\1", label.removeprefix("input ")).strip(".")


def _conjugates(
    front: Front, run: Callable[[Front], GradReport], convention: str
) -> list[str]:
    """Is the gradient right in the other convention, or with one conjugation too many?"""
    if not front.complex:
        return []
    other = "pytorch" if convention == "jax" else "jax"
    here = (front.conjugate_cotangent, front.conjugate_gradient)
    for pair, text in (
        (
            (not here[0], not here[1]),
            f"The gradient is right in the other convention, {CONVENTIONS[other]}: pass "
            f"complex_convention={other!r}, or conjugate the cotangent and the gradient.",
        ),
        ((here[0], not here[1]), "The gradient would be right if it were conjugated."),
        ((not here[0], here[1]), "The gradient would be right if its cotangent were conjugated."),
    ):
        changed = Front(front.f, front.vjp, front.inputs, front.outputs, *pair)
        if run(changed).passed:
            return [text]
    return []


def _single_outputs(front: Front, run: Callable[..., GradReport]) -> list[str]:
    """For which of several outputs is the gradient wrong? The others' cotangents are zeros."""
    outputs = front.outputs
    if outputs.single or len(outputs.moving) > OUTPUTS:
        return []
    ends = np.cumsum([0, *outputs.sizes])
    wrong, right = [], []
    for leaf, start, end in zip(outputs.moving, ends[:-1], ends[1:], strict=True):
        alone = _OneOutput(**vars(front), start=int(start), end=int(end))
        report = run(alone)
        bad = report.faults or any(x.verdict in ("wrong", "inconclusive") for x in report.inputs)
        (wrong if bad else right).append(leaf.label)
    if not wrong or not right:
        return []
    return [
        f"The gradient is wrong for {', '.join(wrong)} alone, and right for {', '.join(right)}."
    ]


@dataclass
class _OneOutput(Front):
    """One of several outputs: the part of the vector from `start` to `end`."""

    start: int = 0
    end: int = 0

    def value(self, f: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
        return super().value(f, *arrays)[self.start : self.end]

    def pull(self, vjp: Callable[..., Any], g: np.ndarray, *arrays: np.ndarray) -> tuple[Any, ...]:
        whole = np.zeros(sum(self.outputs.sizes), g.dtype)
        whole[self.start : self.end] = g
        gradients = super().pull(vjp, whole, *arrays)
        g[...] = whole[self.start : self.end]
        return gradients


def _relabel(report: GradReport, inputs: Inputs, labels: Callable[[str], str]) -> None:
    """Name leaves by their paths, where the check has counted arrays."""
    names = [labels(inputs.leaves[k].label) for k in inputs.core]

    def named(text: str) -> str:
        return re.sub(
            r"\binput (\d+)\b(?![\['])",
            lambda m: names[int(m[1])] if int(m[1]) < len(names) else m[0],
            text,
        )

    for entry in report.inputs:
        k = inputs.core[entry.position]
        leaf, entry.name = inputs.leaves[k], names[entry.position]
        entry.position, entry.sides = inputs.positions[k], named(entry.sides)
        if leaf.pairs:
            _as_complex(entry, as_numpy(leaf.x))
    report.faults[:] = [_renamed_fault(fault, named, labels) for fault in report.faults]
    measure = report.diagnose
    if measure is not Diagnosis:

        def diagnose() -> Diagnosis:
            found = measure()
            return Diagnosis([named(s) for s in found.sentences], named(found.screen), found.script)

        report.diagnose = diagnose


def _renamed_fault(
    fault: str, named: Callable[[str], str], labels: Callable[[str], str]
) -> str:
    label = re.match(r"input \d+(?:\[|\.)[^:\s]*", fault)  # a Mismatch has the path already
    return labels(label[0]) + fault[label.end() :] if label else named(fault)


def _as_complex(entry: InputReport, x: np.ndarray) -> None:
    entry.shape, entry.dtype = x.shape, str(x.dtype)
    entry.oracles = {
        name: "the function is complex itself" if NotAnalytic.__name__ in str(answer) else answer
        for name, answer in entry.oracles.items()
    }
