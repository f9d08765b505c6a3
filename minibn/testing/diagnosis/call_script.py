"""A failed check of a function with containers, or of another library, as a script that repeats the
call of the check: it needs minibn, and the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minibn.testing.diagnosis.reproducer import _literal
from minibn.testing.diagnosis.sources import source_of
from minibn.testing.libraries import as_numpy, is_array, library_of

KEYWORDS = ("wrt", "zero_gradient", "seed", "complex_convention")  # that stand in the script


def call_script(
    check: str,
    functions: Mapping[str, Callable[..., Any]],
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    title: str,
) -> str:
    """The script `check(*functions, *arguments, **keywords)`; what can't be written is left to the
    reader."""
    sources = [source_of(f, name) for name, f in functions.items()]
    values = [expression(x) for x in arguments]
    said = [f"{k}={keywords[k]!r}" for k in KEYWORDS if keywords.get(k) not in (None, (), 0)]
    imports = {line for source in sources for line in source.imports}
    if any("torch." in value for value in values):
        imports.add("import torch")
    if any("jnp." in value for value in values):
        imports.add("import jax.numpy as jnp")
    lines = [
        f"# {title}",
        "import numpy as np",
        *sorted(imports),
        f"from minibn.testing import {check}",
        *(line for source in sources for line in source.lines),
        *(f"x{i} = {value}" for i, value in enumerate(values)),
        f"{check}({', '.join([*functions, *(f'x{i}' for i in range(len(values))), *said])})",
    ]
    return "\n".join(lines) + "\n"


def expression(x: Any) -> str:
    """Python's text for an argument: numbers, arrays and tensors in dicts, lists and tuples."""
    if x is None or type(x) in (bool, int, float, complex, str):
        return repr(x)
    if type(x) is dict:
        return "{" + ", ".join(f"{k!r}: {expression(v)}" for k, v in x.items()) + "}"
    if type(x) in (list, tuple):
        inside = ", ".join(map(expression, x)) + ("," if type(x) is tuple and len(x) == 1 else "")
        return f"[{inside}]" if type(x) is list else f"({inside})"
    if is_array(x) and (array := as_numpy(x)).dtype.kind in "fiub":
        text = _literal(np.asarray(array))
        library = library_of(x)
        if library == "torch":
            return f"torch.from_numpy({text}{'.copy()' if 'frombuffer' in text else ''})"
        return f"jnp.asarray({text})" if library in ("jax", "jaxlib") else text
    if is_array(x) and array.dtype.kind == "c":
        return f"{expression(array.real.copy())} + 1j * {expression(array.imag.copy())}"
    return f"...  # put your {type(x).__name__} here"
