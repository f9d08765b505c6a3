"""The source of a function for a standalone script: an import, pasted code, or a line to fill in.

Pasted source may use NumPy, the standard library, anything that can be imported by name, and
numbers and strings of its globals and closure, which are inserted as literals. Annotations and
docstrings are left out.
"""

import ast
import builtins
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

WIDTH = 100
RESERVED = {
    "f", "vjp", "inputs", "g", "along", "numeric", "analytic", "worst", "index", "off", "entries",
    "stencil", "leaves",
}  # fmt: skip  # the names of the script itself: a helper of that name would be overwritten


@dataclass(frozen=True)
class Source:
    """The lines that define a function."""

    name: str
    imports: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()  # the same with several statements on a line of 100 columns
    dense: tuple[str, ...] = ()  # the same in as few lines as possible, however long


def missing(name: str) -> str:
    return f"{name} = ...  # put your function here"


def without(source: Source) -> Source:
    """A line in place of the function, for the reader to fill in."""
    line = (missing(source.name),)
    return replace(source, imports=(), lines=line, packed=line, dense=line)


def source_of(function: Callable[..., Any], name: str) -> Source:
    """`function` under the name `name`: its import, its source, or a line to fill in."""
    if line := importable(function, name):
        return Source(name, (line,))
    return _paste(function, name) or without(Source(name))


def importable(thing: Any, name: str) -> str | None:
    """The import that makes `thing` available as `name`, if another process can do it.

    >>> import math
    >>> importable(math.sqrt, "f")
    'from math import sqrt as f'
    """
    module = path = ""
    if isinstance(thing, types.ModuleType):
        module = thing.__name__
    elif isinstance(named := getattr(thing, "__qualname__", getattr(thing, "__name__", None)), str):
        module, path = str(getattr(thing, "__module__", None) or ""), named
    last = module.rpartition(".")[2]
    if not module or module == "__main__" or last.startswith("test_") or last == "conftest":
        return None  # pytest's modules are found by pytest alone
    try:
        target = importlib.import_module(module)
        for part in path.split(".") if path else ():
            target = getattr(target, part)
    except (ImportError, AttributeError):
        return None
    if target is not thing and target is not getattr(thing, "__wrapped__", None):
        return None
    if not path:
        return f"import {module} as {name}" if module != name else f"import {module}"
    first, *rest = path.split(".")
    if rest:
        return f"from {module} import {first}; {name} = {path}"
    return f"from {module} import {path}" + (f" as {name}" if name != path else "")


def _paste(function: Callable[..., Any], name: str) -> Source | None:
    if not isinstance(function, types.FunctionType) or (node := _node(function)) is None:
        return None
    around = _surroundings(node, function)
    if around is None:
        return None
    imports, constants = around
    node = Literals(constants).visit(node)
    body: ast.stmt
    if isinstance(node, ast.Lambda):
        body = ast.fix_missing_locations(ast.Assign([ast.Name(name, ast.Store())], node))
    else:
        body = _bare(node, name)
    lines = tuple(ast.unparse(body).split("\n"))
    return Source(name, imports, lines, _pack(body, WIDTH), _pack(body, sys.maxsize))


class Literals(ast.NodeTransformer):
    """Puts the numbers and strings of a function's globals and closure into its source: f and its
    vjp may use one name for two numbers."""

    def __init__(self, constants: Mapping[str, Any]) -> None:
        self.constants = constants

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.constants and isinstance(node.ctx, ast.Load):
            return ast.parse(repr(self.constants[node.id]), mode="eval").body
        return node


def _node(function: types.FunctionType) -> ast.FunctionDef | ast.Lambda | None:
    """The definition of `function` in its file: the smallest one that holds all of its code."""
    try:
        lines, _ = inspect.findsource(function)
        tree = ast.parse("".join(lines))
    except (OSError, SyntaxError, TypeError):
        return None
    code = function.__code__
    places = [
        (line, column, end_line, end_column)
        for line, end_line, column, end_column in code.co_positions()
        if None not in (line, end_line, column, end_column)
        and (line, column) != (end_line, end_column)  # the code of the call itself
    ]
    arguments = code.co_varnames[: code.co_argcount]
    matches: list[tuple[tuple[int, int], Any]] = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            continue
        start = (node.lineno, node.col_offset)
        end = (node.end_lineno or 0, node.end_col_offset or 0)
        same = tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args)) == arguments
        if same and all(start <= place[:2] and place[2:] <= end for place in places):
            matches.append((start, node))
    return max(matches, key=lambda pair: pair[0])[1] if matches else None  # the innermost


def _surroundings(
    node: ast.FunctionDef | ast.Lambda, function: types.FunctionType
) -> tuple[tuple[str, ...], dict[str, Any]] | None:
    """The imports and the constants that the source needs; None if it needs more than that."""
    if getattr(node, "decorator_list", None):
        return None
    bound = {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    for n in ast.walk(node):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            bound.add(n.id)
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n is not node:
            bound.add(n.name)
        elif isinstance(n, (ast.Import, ast.ImportFrom)):
            bound |= {(a.asname or a.name).partition(".")[0] for a in n.names}
    bare = _bare(node, "f") if isinstance(node, ast.FunctionDef) else node
    used = {n.id for n in ast.walk(bare) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    closure = inspect.getclosurevars(function)
    known: Mapping[str, Any] = {**closure.globals, **closure.nonlocals}
    imports, constants = [], {}
    for name in sorted(used - bound):
        thing = known.get(name, function.__globals__.get(name, known))
        if thing is known:
            if hasattr(builtins, name):
                continue
            return None
        if thing is function:  # recursion, under a name that changes
            return None
        if name in RESERVED:
            return None
        if _constant(thing):
            constants[name] = thing
        elif name == "np" and thing is sys.modules["numpy"]:
            continue  # the script has it
        elif name != "np" and (line := importable(thing, name)):
            imports.append(line)
        else:
            return None
    return tuple(imports), constants


def _constant(x: Any) -> bool:
    if isinstance(x, tuple):
        return all(map(_constant, x))
    return x is None or type(x) in (bool, int, str) or (type(x) is float and abs(x) < float("inf"))


def _bare(node: ast.FunctionDef, name: str) -> ast.FunctionDef:
    """The definition under another name, without annotations and docstring."""
    copy = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(copy, ast.FunctionDef)  # it was one
    copy.name, copy.returns = name, None
    for n in ast.walk(copy):
        if isinstance(n, ast.arg):
            n.annotation = None
    if ast.get_docstring(copy) is not None:
        copy.body = copy.body[1:] or [ast.Pass()]
    return copy


def _pack(node: ast.stmt, width: int) -> tuple[str, ...]:
    """As few lines of `width` columns as possible: simple statements side by side."""
    if not isinstance(node, ast.FunctionDef) or any(hasattr(s, "body") for s in node.body):
        return tuple(ast.unparse(node).split("\n"))
    alone = ast.FunctionDef(node.name, node.args, [ast.Pass()], [])
    head = ast.unparse(ast.fix_missing_locations(alone)).split("\n")[0]
    lines: list[str] = []
    for statement in map(ast.unparse, node.body):
        if lines and len(lines[-1]) + 2 + len(statement) <= width:
            lines[-1] += "; " + statement
        else:
            lines.append("    " + statement)
    if len(lines) == 1 and len(head) + len(lines[0]) <= width:
        return (f"{head} {lines[0].strip()}",)
    return head, *lines
