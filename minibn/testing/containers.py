"""Dicts, lists, tuples and dataclasses as trees: their leaves by path, and the same tree with
other leaves.

>>> tree = {"w": [1.0, 2.0], "b": None}
>>> paths(tree)
[("['w'][0]", 1.0), ("['w'][1]", 2.0), ("['b']", None)]
>>> rebuild(tree, iter([3.0, 4.0, 5.0]))
{'w': [3.0, 4.0], 'b': 5.0}
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any


class Mismatch(Exception):
    """A gradient does not have the structure of its input; the message says where."""


class Missing:
    """In place of a gradient: a dict that lacks the key."""


MISSING = Missing()


def children(x: Any) -> list[tuple[str, Any]] | None:
    """The parts of a container, each with the step that leads to it; None for a leaf.

    >>> children({"w": 1.0}), children((5, 6)), children(1.0)
    ([("['w']", 1.0)], [('[0]', 5), ('[1]', 6)], None)
    """
    if isinstance(x, Mapping):
        return [(f"[{key!r}]", x[key]) for key in x]
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return [(f".{name}", part) for name, part in zip(x._fields, x, strict=True)]
    if isinstance(x, (list, tuple)):
        return [(f"[{i}]", part) for i, part in enumerate(x)]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return [(f".{field.name}", getattr(x, field.name)) for field in dataclasses.fields(x)]
    return None


def paths(x: Any, path: str = "", above: tuple[int, ...] = ()) -> list[tuple[str, Any]]:
    """Every leaf of `x` with its path, in the order of `rebuild`. Raises ValueError for a container
    that contains itself."""
    parts = children(x)
    if parts is None:
        return [(path, x)]
    if id(x) in above:
        raise ValueError(f"the container at {path or 'the top'} contains itself: give a tree.")
    return [leaf for step, part in parts for leaf in paths(part, path + step, (*above, id(x)))]


def rebuild(x: Any, leaves: Iterator[Any]) -> Any:
    """A container of x's type and structure, with these leaves."""
    parts = children(x)
    if parts is None:
        return next(leaves)
    new = [rebuild(part, leaves) for _, part in parts]
    if isinstance(x, dict):  # a copy keeps the subclass, and what it knows beside its items
        filled = copy.copy(x)
        filled.update(zip(x, new, strict=True))
        return filled
    if isinstance(x, Mapping):
        return type(x)(zip(x, new, strict=True))  # type: ignore[call-arg]  # as mappings do
    if hasattr(x, "_make"):
        return x._make(new)
    if isinstance(x, (list, tuple)):
        return type(x)(new)
    filled = copy.copy(x)
    for field, part in zip(dataclasses.fields(x), new, strict=True):
        object.__setattr__(filled, field.name, part)  # a frozen one, too
    return filled


def align(x: Any, gradient: Any, label: str) -> list[Any]:
    """The gradient of each leaf of `x`; None stands for zeros of a whole part, MISSING for a key
    that a dict lacks. Lists and tuples are alike, and a dict of its fields stands for a dataclass.

    Raises Mismatch, which names the place by `label` and the path.
    """
    parts = children(x)
    if parts is None:
        return [gradient]
    if gradient is None or gradient is MISSING:
        return [gradient] * len(paths(x))
    kind, names = type(x).__name__, _names(x)
    if names is not None and isinstance(gradient, Mapping):
        if extra := [key for key in gradient if key not in names]:
            raise Mismatch(f"{label}: the gradient has {extra}, which the {kind} lacks")
        found = [gradient.get(name, MISSING) for name in names]
    elif type(gradient) is type(x) or (
        isinstance(x, (list, tuple)) and isinstance(gradient, (list, tuple))
    ):
        found = [part for _, part in children(gradient) or []]
    else:
        raise Mismatch(
            f"{label} is a {kind}, its gradient a {type(gradient).__name__}: return a {kind} of "
            "the same structure"
        )
    if len(found) != len(parts):
        raise Mismatch(f"{label}: the gradient has {len(found)} parts, the {kind} has {len(parts)}")
    return [
        leaf
        for (step, part), g in zip(parts, found, strict=True)
        for leaf in align(part, g, label + step)
    ]


def _names(x: Any) -> list[Any] | None:
    """The keys or fields of a container; None for a list or a plain tuple."""
    if isinstance(x, Mapping):
        return list(x)
    if hasattr(x, "_fields"):
        return list(x._fields)
    return None if isinstance(x, (list, tuple)) else [f.name for f in dataclasses.fields(x)]
