"""What you read is what runs: a kernel is used only if its definition is unchanged since its test.

`python -m minibn.fast verify` runs the law "kernels agree with definitions" and then stores in
`verified.json`, for each definition that has a kernel, a hash of its syntax tree (without
docstrings and comments), and of all that it calls in `minibn.ops`, `nn`, `optim` and `random`. At
its first use in a process a definition is compared with its hashes. If it was edited, it runs
instead of the kernel, with one warning. It also runs if `forward` or `vjp` was replaced
(`mock.patch`, an attribute of an instance).

Parsing takes a while, so the hashes of the files are compared first.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from minibn.errors import EditedDefinition

VERIFIED = Path(__file__).with_name("verified.json")
PACKAGE = Path(__file__).parents[1]  # minibn/
COMMAND = "python -m minibn.fast verify"
# The modules of definitions and their parts; not the tape, the backends, Module, State.
CONTENT = ("minibn.ops", "minibn.nn", "minibn.optim", "minibn.random", "minibn.fast.fused_ops")
FOUNDATION = ("minibn.nn.module", "minibn.nn.state")
METHODS = ("forward", "vjp", "update", "update_all", "average")  # that a kernel replaces


@dataclass(frozen=True)
class Entry:
    """The entry of a definition in `verified.json`: the hash of each of its parts, by name, and the
    files that contain them (below `minibn/`)."""

    parts: dict[str, str]
    files: tuple[str, ...]


# -- at run time

Binding = tuple[Any, str, Any]  # a class or module, a name in it, its original function


def bindings_of(key: Any) -> tuple[Binding, ...] | None:
    """The methods of a definition (a class or a function), and the functions and ops that it calls:
    if one is replaced, kernels must not run. None, and a warning, if the definition was edited."""
    if not key.__module__.startswith("minibn."):  # a user's op, with the user's kernel
        return ((key, "forward", key.forward),)
    entry = entries().get(name_of(key))
    if entry is None:
        trouble = f"{name_of(key)} was never compared with its kernels, so it"
    elif changed := edited_parts(key, entry):
        where = " and ".join(f"{part.__qualname__} ({_source_of(part)})" for part in changed)
        trouble = f"{where} was edited since kernels were compared with it, so {name_of(key)}"
    else:
        return tuple(_bindings(key, entry))
    warnings.warn(
        f"{trouble} runs by its definition, slower. When the text is right: {COMMAND}",
        EditedDefinition,
        stacklevel=2,
    )
    return None


def edited_parts(key: Any, entry: Entry) -> list[Any]:
    """The parts of a definition that changed since they were verified."""
    files = _verified()["files"]
    if entry.files and all(_file_hash(file) == files.get(file) for file in entry.files):
        return []
    try:
        return [part for part in parts_of(key) if entry.parts.get(name_of(part)) != text_of(part)]
    except OSError:  # no source, so no edit
        return []


def _bindings(key: Any, entry: Entry) -> Iterator[Binding]:
    """The bindings at the first use (None for those replaced before)."""
    package = sys.modules["minibn.ops"]
    for name in dict.fromkeys((name_of(key), *entry.parts)):
        module, _, attribute = name.rpartition(".")
        part = getattr(importlib.import_module(module), attribute)
        if isinstance(part, type):
            if part is key or hasattr(part, "vjp"):
                for method in METHODS:
                    if hasattr(part, method):
                        yield part, method, _own(getattr(part, method), f".{method}")
            continue
        yield sys.modules[module], attribute, _own(part, attribute)
        public = getattr(package, attribute, None)
        if part in (public, getattr(public, "__wrapped__", None)):
            yield package, attribute, public


def _own(function: Any, name: str) -> Any:
    """The function, if it is minibn's of that name, else None."""
    is_named = getattr(function, "__qualname__", "").endswith(name)
    return function if is_named and function.__module__.startswith("minibn.") else None


@functools.cache
def _verified() -> dict[str, Any]:
    try:
        return json.loads(VERIFIED.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or damaged: nothing is verified
        return {"files": {}, "definitions": {}}


@functools.cache
def entries() -> dict[str, Entry]:
    """The verified definitions, by name such as "minibn.ops.conv.Conv2d"."""
    found = _verified()["definitions"].items()
    return {name: Entry(e["parts"], tuple(e["files"])) for name, e in found}


@functools.cache
def _file_hash(file: str) -> str | None:
    try:
        return hashlib.sha256((PACKAGE / file).read_text(encoding="utf-8").encode()).hexdigest()
    except OSError:
        return None


def name_of(key: Any) -> str:
    """The dotted name of a class or function.

    >>> name_of(Entry)
    'minibn.fast.verified.Entry'
    """
    return f"{key.__module__}.{key.__qualname__}"


# -- texts


def text_of(part: Any) -> str:
    """The hash of the syntax tree of a class or function, and of the constants that it uses.
    Raises OSError if there is no source."""
    text = f"{_tree_text(_tree(part))} {_constants(part)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def entry_of(key: Any) -> Entry:
    """The entry of a definition's current text."""
    parts = parts_of(key)
    files = {_source_of(part).relative_to(PACKAGE).as_posix() for part in parts}
    return Entry({name_of(part): text_of(part) for part in parts}, tuple(sorted(files)))


def write(names: dict[str, Entry]) -> None:
    """Write `verified.json` anew."""
    files = sorted({file for entry in names.values() for file in entry.files})
    found = {
        "note": f"Made by {COMMAND}: which texts the kernels were compared with.",
        "files": {file: _file_hash(file) for file in files},
        "definitions": {name: vars(entry) for name, entry in sorted(names.items())},
    }
    VERIFIED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@functools.cache
def parts_of(key: Any) -> tuple[Any, ...]:
    """The classes and functions that a definition consists of, itself first."""
    found, waiting = [], [key]
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.append(part)
            waiting += [p for p in _referred_to(part) if _is_content(p)]
    return (key, *sorted(found[1:], key=name_of))


def _is_content(x: Any) -> bool:
    module = getattr(x, "__module__", None) or ""
    return (
        isinstance(x, (type, FunctionType))
        and any(module == name or module.startswith(name + ".") for name in CONTENT)
        and module not in FOUNDATION
    )


def _referred_to(part: Any) -> Iterator[Any]:
    """The values of the global names and module attributes that the text uses."""
    names = vars(sys.modules[part.__module__])
    for node in ast.walk(_tree(part)):
        if isinstance(node, ast.Name) and node.id in names:
            yield names[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            base = names.get(node.value.id)
            if isinstance(base, ModuleType) and base.__name__.startswith("minibn"):
                yield getattr(base, node.attr, None)


def _constants(part: Any) -> list[tuple[str, str]]:
    """The numbers and texts among the global names that the text uses."""
    names = vars(sys.modules[part.__module__])
    used = {n.id for n in ast.walk(_tree(part)) if isinstance(n, ast.Name) and n.id in names}
    return sorted((n, repr(names[n])) for n in used if isinstance(names[n], (int, float, str)))


def _source_of(part: Any) -> Path:
    file = sys.modules[part.__module__].__file__
    if file is None:
        raise OSError(f"{part.__module__} has no source file")
    return Path(file)


@functools.cache
def _module_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _tree(part: Any) -> ast.AST:
    """The syntax tree of a class or function of a module's top level."""
    for node in _module_tree(_source_of(part)).body:
        if getattr(node, "name", None) == part.__qualname__:
            return node
    raise OSError(f"{name_of(part)} does not stand in its module's source")


def _tree_text(node: Any) -> str:
    """A syntax tree as text that is the same in every version of Python: without positions, empty
    fields and docstrings."""
    if isinstance(node, list):
        return "[" + ",".join(map(_tree_text, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    fields.pop("kind", None)  # of a string: u"..."
    body = fields.get("body")
    if isinstance(body, list) and body and isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        says = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        fields["body"] = body[1:] if says and isinstance(body[0].value.value, str) else body
    given = [(k, v) for k, v in sorted(fields.items()) if v is not None and v != []]
    return f"{type(node).__name__}({','.join(f'{k}={_tree_text(v)}' for k, v in given)})"
