"""The page of every public name of `minibn.testing`: its signature and its docstring, as Markdown.

API.md is `python -m minibn.testing api > minibn/testing/API.md`; a test compares. The source is
read, not run: defaults stand on the page as they are written.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODULES = (
    "minibn.testing",
    "minibn.testing.decorator",
    "minibn.testing.strategies",
    "minibn.testing.laws",
    "minibn.testing.grading",
)
HEAD = """\
# The public names of minibn.testing

Written by `python -m minibn.testing api`, from the signatures and docstrings; a test compares. The
[README](README.md) is the tour.
"""
Function = ast.FunctionDef


@dataclass(frozen=True)
class Entry:
    """A public name: the node of its definition, and its docstring."""

    module: str  # that exports it
    name: str
    node: ast.stmt
    text: str

    @property
    def parameters(self) -> list[str]:
        """Of a function, without what hypothesis fills in; the fields of a dataclass."""
        if isinstance(self.node, Function):
            return [a.arg for a in _arguments(self.node) if a.arg not in ("draw", "self")]
        if isinstance(self.node, ast.ClassDef) and _is_dataclass(self.node):
            return [field.target.id for field in _fields(self.node)]  # type: ignore[attr-defined]
        return []

    @property
    def signature(self) -> str:
        if isinstance(self.node, Function):
            return _signature(self.name, self.node)
        if isinstance(self.node, ast.ClassDef):
            bases = ", ".join(map(ast.unparse, self.node.bases))
            parts = [f"class {self.name}({bases})" if bases else f"class {self.name}"]
            parts += [f"    {ast.unparse(field)}" for field in _fields(self.node)]
            for method in self.node.body:
                if isinstance(method, Function) and method.name[0] != "_":
                    shown = _signature(method.name, method, indent="    ")
                    parts += ["", f"    {shown}" if not _is_property(method) else _as_field(method)]
                    if said := ast.get_docstring(method):
                        parts += [f"        # {said.split(chr(10) * 2)[0]}".replace("\n", " ")]
            return "\n".join(parts)
        return ast.unparse(self.node)


def entries(module: str) -> list[Entry]:
    """The public names of a module, in the order of the alphabet."""
    tree = _tree(module)
    found = []
    for name in sorted(_public(tree), key=str.lower):
        node, text = _definition(module, name)
        found.append(Entry(module, name, node, text))
    return found


def api_page() -> str:
    """All entries as Markdown: a heading, the signature, the docstring."""
    lines = [HEAD]
    for module in MODULES:
        if importlib.util.find_spec(module):
            lines += [f"## {module}", "", *_links(module), ""]
            for entry in entries(module):
                lines += [f"### {entry.name}", "", "```python", entry.signature, "```", ""]
                lines += [*_prose(entry.text), ""] if entry.text else []
    return "\n".join(lines).rstrip() + "\n"


def _links(module: str) -> list[str]:
    return [", ".join(f"[`{e.name}`](#{e.name.lower()})" for e in entries(module))]


def _prose(text: str) -> Iterator[str]:
    """The first paragraph as it is; the others, which are aligned, in a block."""
    first, _, rest = text.partition("\n\n")
    yield re.sub(r"([*_<])", r"\\\1", first) if "`" not in first else first
    if rest.strip():
        yield from ("", "```text", rest.rstrip(), "```")


# -- definitions


def _path(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin, module
    return Path(spec.origin)


def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text(encoding="utf-8"))


def _public(tree: ast.Module) -> list[str]:
    """The names in __all__; without it, the functions and classes that are defined there."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    defined = (n.name for n in tree.body if isinstance(n, (Function, ast.ClassDef)))
    return [name for name in defined if name[0] != "_"]


def _definition(module: str, name: str) -> tuple[ast.stmt, str]:
    """Where the name is defined, through any number of imports, and its docstring."""
    body = _tree(module).body
    for i, node in enumerate(body):
        if isinstance(node, (Function, ast.ClassDef)) and node.name == name:
            return node, ast.get_docstring(node) or ""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            after = body[i + 1] if i + 1 < len(body) else None
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return node, inspect.cleandoc(str(after.value.value)) if said else ""  # type: ignore
        names = {a.asname or a.name: a.name for a in getattr(node, "names", ())}
        if isinstance(node, ast.ImportFrom) and name in names:
            return _definition(str(node.module), names[name])
    raise LookupError(f"{module} exports {name!r}, and does not define it")


# -- signatures


def _arguments(node: Function) -> list[ast.arg]:
    a = node.args
    extra = [x for x in (a.vararg, a.kwarg) if x]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *extra]


def _signature(name: str, node: Function, indent: str = "") -> str:
    """On one line, if it fits, else with a line for each argument."""
    node.args.args = [a for a in node.args.args if a.arg not in ("draw", "self", "cls")]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = ast.unparse(node.args)
    line = f"{name}({arguments}){returns}"
    if len(indent + line) <= 96:
        return line
    parts = [f"{indent}    {part}," for part in _split(arguments)]
    return "\n".join([f"{name}(", *parts, f"{indent}){returns}"])


def _split(arguments: str) -> list[str]:
    """At the commas that are outside of brackets."""
    parts, depth = [""], 0
    for c in arguments:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def _is_property(node: Function) -> bool:
    return any("property" in ast.unparse(d) for d in node.decorator_list)


def _as_field(node: Function) -> str:
    return f"    {node.name}: {ast.unparse(node.returns) if node.returns else 'Any'}"


def _fields(node: ast.ClassDef) -> list[ast.stmt]:
    return [field for field in node.body if isinstance(field, ast.AnnAssign)]
