"""A solution, read from a Python file or from the cells of a notebook that define something.

Of a notebook only imports, functions, classes, and assignments without a call are executed, cell by
cell: its experiments and plots are not. Lines that begin with % or ! are left out.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import linecache
import sys
import traceback
import types
from pathlib import Path
from typing import Any

KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign)
LONGEST = 300  # characters of a message


class LoadError(Exception):
    """The solution can't be loaded; the message names the line."""


def load(path: Path) -> dict[str, Any]:
    """The names that a solution defines. Raises LoadError."""
    module = _notebook(path) if path.suffix == ".ipynb" else _python_file(path)
    return vars(module)


def _python_file(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path.name} is neither a Python file (.py) nor a notebook (.ipynb)")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise LoadError(describe(error, path.parent)) from None
    return module


def _notebook(path: Path) -> types.ModuleType:
    module = types.ModuleType(path.stem)
    sys.modules.setdefault(path.stem, module)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LoadError(f"{path.name} is no notebook: {error!r:.100}") from None
    for number, code in enumerate(codes, 1):
        name = f"code cell {number}"
        lines = ["" if line.lstrip()[:1] in ("%", "!") else line for line in code.splitlines()]
        linecache.cache[name] = (len(code), None, [line + "\n" for line in lines], name)
        try:
            tree = ast.parse("\n".join(lines), name)
            tree.body = [node for node in tree.body if _defines(node)]
            exec(compile(tree, name, "exec"), vars(module))
        except (Exception, SystemExit) as error:
            raise LoadError(describe(error, path.parent)) from None
    return module


def _defines(node: ast.stmt) -> bool:
    calls = any(isinstance(n, ast.Call) for n in ast.walk(node))
    return isinstance(node, KEPT) or (isinstance(node, ASSIGNMENTS) and not calls)


def describe(error: BaseException, folder: Path | None = None) -> str:
    """The error in one line, with the last line of the solution that was executed; no traceback."""
    message = " ".join(str(error).split())[:LONGEST]
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SystemExit):
        what = f"it ends the program ({what})"
    if isinstance(error, SyntaxError):
        place = Path(error.filename or "?").name
        code = f": {error.text.strip()}" if error.text else ""
        return f"{type(error).__name__}: {error.msg} ({place}, line {error.lineno}{code})"
    own = [f for f in traceback.extract_tb(error.__traceback__) if _is_theirs(f.filename, folder)]
    if not own:
        return what
    last = own[-1]
    where = Path(last.filename).name
    inside = f" in {last.name}" if not last.name.startswith("<") else ""
    return f"{what} ({where}, line {last.lineno}{inside}: {last.line})"


def _is_theirs(filename: str, folder: Path | None) -> bool:
    if filename.startswith(("code cell ", "<ipython", "<solution")):
        return True
    path = Path(filename)
    if "site-packages" in path.parts or path.parent == Path(__file__).parent:
        return False
    return folder is None or folder in path.parents
