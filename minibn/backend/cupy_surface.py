"""The API of the `cupy` namespace, names and parameters, from a small file.

`python -m minibn.backend.cupy_surface` writes `cupy_surface.json` where `import cupy` works (it
needs no GPU). A value is the parameter list without defaults ("a, axis, *, dtype"), or null for
what is not a function. Methods of arrays are `ndarray.sum`, of ufuncs `add.at`. The strict double
raises for names that are not in it, and a test checks minibn's source against it.
"""

import inspect
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("cupy_surface.json")
SUBMODULES = ("fft", "lib.stride_tricks", "linalg")

# Parameters behind **kwargs, and without those that CuPy has but does not support.
BY_HAND = {
    "einsum": "*operands, dtype, optimize",
    "meshgrid": "*xi, indexing, sparse, copy",
    "pad": "array, pad_width, mode, *, constant_values, end_values, reflect_type, stat_length",
    "matmul": "x1, x2, /, out, *, axes, axis, keepdims, casting, dtype, signature, order",
    "lib.stride_tricks.sliding_window_view": "x, window_shape, axis",
}
SCATTERS = ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor")


class Parameters(NamedTuple):
    """A parameter list: the first, how many by position, which by name (None: any)."""

    first: str
    positional: int | None
    names: frozenset[str] | None

    @classmethod
    def parse(cls, text: str) -> "Parameters":
        """From the file's notation: "a, b, /, c, *, d".

        >>> sorted(Parameters.parse("a, /, axis, *, out").names)
        ['axis', 'out']
        """
        positional: int | None = 0
        names: set[str] = set()
        open_ended, by_position = False, True
        for part in text.split(", ") if text else ():
            if part == "/":
                names.clear()
            elif part.startswith("**"):
                open_ended = True
            elif part.startswith("*"):
                by_position = False
                positional = positional if part == "*" else None
            else:
                names.add(part)
                if by_position and positional is not None:
                    positional += 1
        return cls(text.partition(",")[0], positional, None if open_ended else frozenset(names))

    def complaint(self, positional: int, names: Iterable[str]) -> str | None:
        """Why a call with so many positional arguments and these keywords fails, or None."""
        if self.positional is not None and positional > self.positional:
            return f"takes {self.positional} positional arguments, {positional} are given"
        if self.names is not None:
            for name in names:
                if name not in self.names:
                    return f"takes no {name!r} (it takes {', '.join(sorted(self.names)) or 'none'})"
        return None


@cache
def version() -> str:
    """The version of CuPy that the file was written from."""
    return str(json.loads(FILE.read_text(encoding="utf-8"))["cupy"])


@cache
def surface() -> dict[str, Parameters | None]:
    """Dotted name -> its parameters; None if it is not a function, or they are unknown."""
    names = json.loads(FILE.read_text(encoding="utf-8"))["names"]
    return {name: None if text is None else Parameters.parse(text) for name, text in names.items()}


def _describe(function: Any) -> str | None:
    """The parameter list of a function, from its signature or (Cython) its docstring."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return _parse_doc((inspect.getdoc(function) or "").partition("\n")[0])
    parts: list[str] = []
    previous = None
    for p in parameters:
        if p.name == "self":
            continue
        if previous == p.POSITIONAL_ONLY != p.kind:
            parts.append("/")
        if p.kind == p.KEYWORD_ONLY and previous not in (p.KEYWORD_ONLY, p.VAR_POSITIONAL):
            parts.append("*")
        parts.append("*" * ((p.kind == p.VAR_POSITIONAL) + 2 * (p.kind == p.VAR_KEYWORD)) + p.name)
        previous = p.kind
    return ", ".join(parts)


def _parse_doc(line: str) -> str | None:
    """ "f(self, Py_ssize_t a, b=(0, 1)) -> x" -> "a, b"; None if there is no parameter list."""
    found = re.match(r"[\w.]+\((.*)\)(?: ->.*)?$", line)
    if found is None:
        return None
    text = re.sub(r"=\([^)]*\)", "", found[1])
    parts = [part.partition("=")[0].split()[-1] for part in text.split(",") if part.strip()]
    return ", ".join(part for part in parts if part != "self")


def _names(cupy: ModuleType) -> dict[str, str | None]:
    """Every public name of the namespaces, with its parameters."""
    found: dict[str, str | None] = {}
    for path in ("", *SUBMODULES):
        module: Any = cupy
        for part in path.split(".") if path else ():
            module = getattr(module, part)
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith("_") or name == "annotations" or isinstance(value, ModuleType):
                continue
            full = f"{path}.{name}" if path else name
            if isinstance(value, cupy.ufunc):
                inputs = "x" if value.nin == 1 else "x1, x2"
                found[full] = f"{inputs}, /, out, *, casting, dtype"
            elif callable(value) and not isinstance(value, type):
                found[full] = _describe(value)
            else:
                found[full] = None
    for name in dir(cupy.ndarray):
        if not name.startswith("_"):
            method = getattr(cupy.ndarray, name)
            found[f"ndarray.{name}"] = _describe(method) if callable(method) else None
    found |= {f"{name}.at": "a, indices, b" for name in SCATTERS}
    return found | BY_HAND


def main() -> None:
    """Write the file from the CuPy that is installed."""
    import cupy

    text = json.dumps({"cupy": cupy.__version__, "names": _names(cupy)}, indent=0, sort_keys=True)
    FILE.write_text(text + "\n", encoding="utf-8")
    print(f"{FILE.name}: CuPy {cupy.__version__}, {len(text)} bytes")


if __name__ == "__main__":
    main()
