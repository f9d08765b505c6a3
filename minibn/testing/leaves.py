"""The arrays among the inputs and outputs of a function: leaves of containers, with their values as
real NumPy arrays.

A complex array is a pair of real ones here, its real and its imaginary part, on a last axis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn.errors import did_you_mean
from minibn.testing.containers import MISSING, Mismatch, align, children, paths, rebuild
from minibn.testing.libraries import DIFFERENTIATED, as_numpy, is_array, is_tensor, like


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
    if "float" in values.dtype.name and kind not in "fc":  # bfloat16, float8: not NumPy's own
        raise TypeError(
            f"{label} has dtype {values.dtype}: only {DIFFERENTIATED} are differentiated. "
            "Convert it to float32."
        )
    if kind not in "fc":
        return Leaf(label, x, values if isinstance(x, np.ndarray) else None)
    if not np.isfinite(values).all():
        raise ValueError(f"{label} holds NaN or infinity: give a point of f's domain.")
    leaf = Leaf(label, x, values, moves=True, pairs=kind == "c")
    leaf.values = leaf.values_of(x)
    return leaf


class Opaque:
    """A container that is passed on as it is: no tree for the check."""

    def __init__(self, x: Any) -> None:
        self.x = x


class Inputs:
    """The arguments of a function, and the arrays among them that the check moves."""

    def __init__(
        self, arguments: Sequence[Any], wrt: Any, names: Sequence[str], only: Any = None
    ) -> None:
        self.only = only
        positions = [wrt] if isinstance(wrt, int) else wrt
        by_position = positions is not None and all(isinstance(i, int) for i in positions)
        tops = [
            self._top(x, not by_position or bool({i, i - len(arguments)} & set(positions)))
            for i, x in enumerate(arguments)
        ]
        self.count = len(tops)
        self.names = names
        labels = [f"input {i}" for i in range(self.count)]
        found = [(i, labels[i] + path, x) for i, top in enumerate(tops) for path, x in paths(top)]
        self.tree = tuple(tops)
        everything = [(i, label) for i, label, _ in found]
        chosen = set(
            range(len(found)) if wrt is None else select(wrt, everything, names, "wrt", self.count)
        )
        if only is not None:
            chosen = {k for k in chosen if only(found[k][2])}
        self.leaves = [leaf_of(label, x, k in chosen) for k, (_, label, x) in enumerate(found)]
        self.positions = [i for i, _, _ in found]
        self.chosen = sorted({self.positions[k] for k in chosen})
        for i in self.chosen:
            mine = [leaf for k, leaf in zip(self.positions, self.leaves, strict=True) if k == i]
            if only is None and not any(leaf.moves for leaf in mine) and tops[i] is not None:
                self._refuse(i, mine)
        self.core = [k for k, leaf in enumerate(self.leaves) if leaf.values is not None]
        self.moving = [n for n, k in enumerate(self.core) if self.leaves[k].moves]
        if not self.moving:
            raise TypeError(f"nothing to differentiate: give an array of {DIFFERENTIATED}.")

    def _top(self, x: Any, chosen: bool) -> Any:
        """An argument as a tree: numbers and lists of numbers are arrays; what is not chosen is
        passed on as it is."""
        if not chosen:
            return x if children(x) is None else Opaque(x)
        plain = type(x) in (float, complex) or isinstance(x, np.generic) or is_numbers(x)
        return np.asarray(x) if plain and self.only is None else x

    def _refuse(self, i: int, leaves: list[Leaf]) -> None:
        others = [k for k in self.chosen if k != i]
        instead = f" Or name what to differentiate: wrt={others}." if others else ""
        what = (
            f"has dtype {as_numpy(leaves[0].x).dtype}"
            if (len(leaves) == 1 and is_array(leaves[0].x))
            else f"is a {type(self.tree[i]).__name__} without an array of floats"
        )
        raise TypeError(f"input {i} {what}: only {DIFFERENTIATED} are differentiated.{instead}")

    @property
    def complex(self) -> bool:
        return any(leaf.pairs for leaf in self.leaves)

    def arrays(self) -> list[np.ndarray]:
        """What the check gets, in the order in which it gives them back."""
        return [self.leaves[k].values for k in self.core]  # type: ignore[misc]

    def arguments(self, arrays: Sequence[np.ndarray]) -> tuple[list[Any], list[Any]]:
        """(the arguments with these values, the objects that hold them)."""
        objects = [x.x if isinstance(x := leaf.x, Opaque) else x for leaf in self.leaves]
        for k, array in zip(self.core, arrays, strict=True):
            objects[k] = self.leaves[k].object(array) if self.leaves[k].moves else array
        return list(rebuild(self.tree, iter(objects))), [objects[k] for k in self.core]

    def tangents(self, values: Sequence[np.ndarray]) -> list[Any]:
        """The arguments with tangents in the place of arrays; None for what is no array of
        floats."""
        objects: list[Any] = [None] * len(self.leaves)
        for k, t in zip(self.core, values, strict=True):
            objects[k] = self.leaves[k].object(t) if self.leaves[k].moves else None
        return list(rebuild(self.tree, iter(objects)))

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
    array = np.array(as_numpy(gradient))  # tensors may share memory: their libraries look after it
    if leaf.pairs:
        shape = np.shape(as_numpy(leaf.x))
        if array.dtype.kind != "c":
            raise Mismatch(
                f"{leaf.label} is complex, its gradient {array.dtype}: where is the imaginary part?"
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
        y = np.asarray(y) if is_number_list(y) else y
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
        try:
            found = align(self.tree, np.asarray(y) if is_number_list(y) else y, "output")
        except Mismatch as error:
            raise ValueError(
                f"f gives outputs of another structure than before: it must not depend on the "
                f"values. {error}".replace("its gradient", "now")
            ) from None
        parts = [
            leaf.values_of(_as_array(x))
            for leaf, x in zip(self.leaves, found, strict=True)
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


def is_numbers(x: Any) -> bool:
    """Whether NumPy reads a list as an array of numbers: it holds numbers alone, and is regular."""
    if any(type(leaf) not in (bool, int, float, complex) for _, leaf in paths(x)):
        return False
    try:
        return isinstance(x, (list, tuple)) and np.asarray(x).dtype.kind in "biufc"
    except ValueError:  # ragged
        return False


def is_number_list(y: Any) -> bool:
    """An output that is a list of Python's numbers is an array; a tuple has several outputs."""
    return isinstance(y, list) and is_numbers(y)


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
            known = [_dotted(label).partition(".")[2] or label for _, label in leaves]
            hint = did_you_mean(item, known)
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
