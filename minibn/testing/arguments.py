"""The front of `check_vjp`: what a user brings becomes a tuple of NumPy arrays and one result.

Inputs and outputs may be dicts, lists, tuples, named tuples and dataclasses, nested in any way, of
arrays of any library, and complex. The check itself sees real NumPy arrays and one output: the
leaves of the inputs, and the outputs one after the other in a single vector. The function and its
vjp get what they were written for, and reports name a leaf by its path: "input 0['weight']".

A complex array is a pair of real ones here, its real and its imaginary part, on a last axis. What
the gradient of a complex number is depends on the library. For z = a + ib and a real loss L

    "pytorch"   dL/da + i dL/db: the direction of steepest ascent; PyTorch, TensorFlow
    "jax"       dL/da - i dL/db: its conjugate; JAX and HIPS autograd

and the cotangent of a complex output is of the same form.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec

import numpy as np

from minibn.errors import did_you_mean
from minibn.testing.containers import Mismatch, children
from minibn.testing.diagnosis.call_script import call_script
from minibn.testing.leaves import Inputs, Outputs, is_number_list, is_numbers, select
from minibn.testing.libraries import as_numpy, is_array, is_tensor, room_for
from minibn.testing.report import Diagnosis, GradReport, InputReport, without_listeners

P = ParamSpec("P")
CONVENTIONS = {
    "pytorch": "dL/da + i dL/db (PyTorch's convention)",
    "jax": "dL/da - i dL/db (the convention of JAX and of HIPS autograd)",
}
OUTPUTS = 8  # of so many outputs each is checked alone after a failure


PLACE = re.compile(r"input \d+(?:\[[^\]]*\]|\.\w+)*")  # a leaf of the inputs, by its path


class Placed(str):
    """A fault that names leaves by their paths, where others count the arrays of the check."""


class NotAnalytic(TypeError):
    """The complex step is not for functions of complex numbers."""


def name_of(f: Any) -> str:
    """The name of a function in a report."""
    while isinstance(f, partial):
        f = f.func
    own = getattr(f, "__name__", None)
    name = getattr(f, "__qualname__", None) or own or type(f).__name__
    wraps_other = isinstance(own, str) and name.rpartition(".")[2] != own
    if inspect.isbuiltin(f) or wraps_other:  # no hidden classes, and the name of the inner function
        name = own
    if isinstance(owner := getattr(f, "__self__", None), type):  # Cube.apply, not Function.apply
        name = f"{owner.__name__}.{own}"
    return "the function" if name.endswith("<lambda>") else name.rpartition("<locals>.")[2]


def takes_any_arguments(check: Callable[P, GradReport]) -> Callable[P, GradReport]:
    """`check(f, vjp, *arrays, **keywords)`, which knows one kind of function, for every kind."""

    @wraps(check)
    def check_any(*given: P.args, **keywords: P.kwargs) -> GradReport:
        __tracebackhide__ = True
        if len(given) < 2:
            return check(*given, **keywords)
        f, vjp, arguments = given[0], given[1], given[2:]
        convention = keywords.get("complex_convention", "pytorch")
        if convention not in CONVENTIONS:
            raise ValueError(
                f"complex_convention={convention!r}: {did_you_mean(convention, CONVENTIONS)}"
            )
        names = [keywords.get("wrt"), keywords.get("zero_gradient")]
        plain = not any(_has_names(chosen) for chosen in names) and (
            not (callable(f) and callable(vjp) and arguments)
            or _is_plain(f, arguments, keywords.get("wrt"))
        )
        if plain:
            return check(*given, **keywords)
        return check_leaves(check, f, vjp, arguments, **keywords)  # type: ignore[arg-type]

    return check_any


def _has_names(chosen: Any) -> bool:
    return isinstance(chosen, str) or (
        chosen is not None
        and not isinstance(chosen, int)
        and any(isinstance(i, str) for i in chosen)
    )


def _is_plain(f: Callable[..., Any], arguments: Sequence[Any], wrt: Any) -> bool:
    """Whether the check takes f and its arguments as they are: NumPy arrays and one output.

    What can't be differentiated is left to the check as well, which says so."""
    chosen = [wrt] if isinstance(wrt, int) else wrt
    arrays = []
    for i, x in enumerate(arguments):
        if chosen is not None and not {i, i - len(arguments)} & set(chosen):
            arrays.append(x)
            continue
        if x is None or is_tensor(x) or (children(x) is not None and not is_numbers(x)):
            return False
        array = np.asarray(x)
        if array.dtype.kind == "c":
            return False
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            return True
        arrays.append(array)
    y = f(*(x.copy(order="K") if isinstance(x, np.ndarray) else x for x in arrays))
    if is_tensor(y) or (children(y) is not None and not is_number_list(y)):
        return False
    return not (is_array(y) or isinstance(y, complex)) or np.asarray(y).dtype.kind != "c"


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
        dtypes = [x.dtype for x in self.inputs.arrays()]
        with room_for(arrays, [leaf.x for leaf in self.inputs.leaves]):
            arguments, objects = self.inputs.arguments(arrays)
            y = f(*arguments)
            self.inputs.read_back(arrays, objects)
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
            after = np.concatenate([piece.reshape(-1) for _, piece, _ in used]).astype(g.dtype)
            if after.tobytes() != g.tobytes():  # the vjp has written into a part
                g[...] = after
        return self.inputs.gradients(result, -1 if self.conjugate_gradient else 1)


def check_leaves(
    check: Callable[..., GradReport],
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    labels: Callable[[str], str] = str,
    only: Callable[[Any], bool] | None = None,
    finish: Callable[[GradReport], None] = lambda report: None,
    **keywords: Any,
) -> GradReport:
    """`check`, which takes NumPy arrays and one output, for arguments and outputs of any kind.

    labels   the name of a leaf in the report, of its path: of "input 0['weight']", say
    only     which leaves can be differentiated at all; others are passed on as they are
    finish   called with the report before it is raised or returned: to add faults and notes
    keywords  those of `check_vjp`
    """
    convention = keywords.pop("complex_convention", "pytorch")
    raises, promise = keywords.pop("raises", True), keywords.pop("convention", None)
    reference, wrt = keywords.pop("reference", None), keywords.pop("wrt", None)
    zero = keywords.pop("zero_gradient", ())
    keywords["name"] = keywords.get("name") or name_of(f)
    inputs = Inputs(arguments, wrt, _parameters_of(f), only)
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
            return GradReport(
                keywords["name"], faults=[Placed(error)], seed=keywords.get("seed", 0)
            )

    report = run(front)
    if front.complex:
        report.notes.append(
            f"The gradient of a complex z = a + ib is {CONVENTIONS[convention]}; complex numbers "
            "were compared as pairs of real ones, on an axis of their own."
        )
    if not report.passed:
        quick = partial(run, diagnose=False)
        report.notes += _conjugates(front, quick, convention) or _single_outputs(front, quick)
    relabel(report, inputs, labels)
    finish(report)
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


def _conjugates(front: Front, run: Callable[[Front], GradReport], convention: str) -> list[str]:
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
    wrong: list[str] = []
    right: list[str] = []
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
        if (after := whole[self.start : self.end]).tobytes() != g.tobytes():
            g[...] = after
        return gradients


def relabel(report: GradReport, inputs: Inputs, labels: Callable[[str], str] = str) -> None:
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
    report.faults[:] = [
        PLACE.sub(lambda m: labels(m[0]), fault) if isinstance(fault, Placed) else named(fault)
        for fault in report.faults
    ]
    report.notes[:] = [note if isinstance(note, Placed) else named(note) for note in report.notes]
    measure = report.diagnose
    if measure is not Diagnosis:

        def diagnose() -> Diagnosis:
            found = measure()
            return Diagnosis([named(s) for s in found.sentences], named(found.screen), found.script)

        report.diagnose = diagnose


def _as_complex(entry: InputReport, x: np.ndarray) -> None:
    entry.shape, entry.dtype = x.shape, str(x.dtype)
    entry.oracles = {
        name: "the function is complex itself" if NotAnalytic.__name__ in str(answer) else answer
        for name, answer in entry.oracles.items()
    }
