"""Our source uses only names and keywords that CuPy has: checked in the syntax tree, without CuPy.

By convention the array namespace is always called `xp` (or is `array_module(x)`, `backend.xp`).
NumPy is called on purpose where a line says why (`# host: labels come as a list`), and in layers
and optimizers by functions whose annotations name np.ndarray or np.random.Generator.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minibn.backend.cupy_surface import Parameters, surface

ROOT = Path(__file__).parents[2]
PACKAGES = ("minibn", "reference_models")
# Where every array may be one of CuPy's.
EDGE = ("minibn/nn/", "minibn/optim/")  # ... but weights are drawn, and states kept, on the host
ARRAY_CODE = (*EDGE, "minibn/ops/", "minibn/autograd/")
# Functions of NumPy that take dtypes alone.
ON_DTYPES = {"can_cast", "issubdtype", "promote_types", "result_type", "dtype", "finfo", "iinfo"}


def source_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def lies_in(path: Path, places: tuple[str, ...]) -> bool:
    return path.relative_to(ROOT).as_posix().startswith(places)


def dotted(node: ast.expr) -> tuple[ast.expr, list[str]]:
    """`xp.linalg.norm` -> (the node of xp, ["linalg", "norm"])."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return node, names


def name_in_cupy(node: ast.expr) -> str | None:
    """The dotted name below an array namespace, or None if the node is something else."""
    base, names = dotted(node)
    if "xp" in names:  # backend.xp.zeros, self.xp.zeros
        names = names[names.index("xp") + 1 :]
        return ".".join(names)
    called = isinstance(base, ast.Call) and dotted(base.func)
    if called and ([getattr(called[0], "id", ""), *called[1]])[-1] == "array_module":
        return ".".join(names)
    return ".".join(names) if isinstance(base, ast.Name) and base.id == "xp" else None


def in_numpy(name: str) -> bool:
    value: object = np
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            return part == "newaxis"
    return True


def complaint_about_call(name: str, parameters: Parameters | None, call: ast.Call) -> str | None:
    positional = 0 if any(isinstance(a, ast.Starred) for a in call.args) else len(call.args)
    keywords = [k.arg for k in call.keywords if k.arg is not None]
    complaint = parameters.complaint(positional, keywords) if parameters else None
    return complaint and f"CuPy's {name} {complaint}"


def namespace_faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Uses of `xp` that CuPy, or NumPy, does not have."""
    inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inside:
            name = name_in_cupy(node)
            if not name:
                continue
            if name not in surface():
                yield node.lineno, f"CuPy has no {name}"
            elif not in_numpy(name):
                yield node.lineno, f"NumPy has no {name}"
        elif isinstance(node, ast.Call):
            name = name_in_cupy(node.func)
            complaint = complaint_about_call(name, surface().get(name), node) if name else None
            if complaint:
                yield node.lineno, complaint


def lines_on_the_host(tree: ast.AST) -> set[int]:
    """The lines of functions that say by their annotations that they handle host arrays."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            notes = [note for note in (node.returns, *(a.annotation for a in arguments)) if note]
            said = " ".join(map(ast.unparse, notes))
            if "np.ndarray" in said or "np.random.Generator" in said:
                lines |= set(range(node.lineno, node.end_lineno + 1))
    return lines


def numpy_faults(tree: ast.AST, text: str, edge: bool) -> Iterator[tuple[int, str]]:
    """Uses of NumPy's functions in code that handles arrays of any backend."""
    lines = text.splitlines()
    on_the_host = lines_on_the_host(tree) if edge else set()
    aliases = {"numpy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or a.name for a in node.names if a.name == "numpy"}
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numpy":
            for alias in node.names:
                if not about_types(alias.name):
                    yield node.lineno, f"{alias.name} is taken from numpy"
    inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inside:
            continue
        base, names = dotted(node)
        if not isinstance(base, ast.Name) or base.id not in aliases or about_types(names[0]):
            continue
        if names[:2] == ["random", "Generator"] or node.lineno in on_the_host:
            continue
        if "# host: " not in lines[node.lineno - 1]:
            yield node.lineno, f"np.{'.'.join(names)} where xp.{'.'.join(names)} belongs"


def about_types(name: str) -> bool:
    """Whether a name of NumPy is a type, a constant, or a function of dtypes alone."""
    value = getattr(np, name, None)
    return (
        name in ON_DTYPES
        or name in ("ndarray", "newaxis")
        or isinstance(value, float)
        or (isinstance(value, type) and issubclass(value, np.generic))
    )


def method_faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Keywords that CuPy's array methods don't take, and methods that only NumPy's arrays have."""
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    only_numpy = {
        name
        for name in dir(np.ndarray)
        if not name.startswith("_") and f"ndarray.{name}" not in surface()
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        base = dotted(node.func)[0]
        if isinstance(base, ast.Name) and base.id in imported:
            continue  # ops.sum(x, axis=0): a function of a module
        if name_in_cupy(node.func) is not None:
            continue
        name = f"ndarray.{node.func.attr}"
        if node.func.attr in only_numpy:
            yield node.lineno, f"CuPy has no {name}"
        complaint = complaint_about_call(name, surface().get(name), node)
        if complaint and "positional" not in complaint:
            yield node.lineno, complaint


def faults(text: str, array_code: bool = True, edge: bool = False) -> list[str]:
    tree = ast.parse(text)
    found = list(namespace_faults(tree))
    if array_code:
        found += [*numpy_faults(tree, text, edge), *method_faults(tree)]
    return [f"{line}: {message}" for line, message in sorted(found)]


def test_our_source_uses_only_what_cupy_has():
    found = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in source_files()
        for fault in faults(
            path.read_text(encoding="utf-8"), lies_in(path, ARRAY_CODE), lies_in(path, EDGE)
        )
    ]
    assert not found, "\n".join(found)


def test_the_walk_sees_the_ops_and_finds_names_of_the_namespace_in_them():
    files = [path for path in source_files() if lies_in(path, ARRAY_CODE)]
    assert ROOT / "minibn/autograd/tape.py" in files
    names = {
        name_in_cupy(node)
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    assert {"exp", "where"} <= names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("xp.vecdot(a, b)", "CuPy has no vecdot"),
        ("with xp.errstate(over='ignore'): pass", "CuPy has no errstate"),
        ("f = xp.nditer", "CuPy has no nditer"),
        ("x = array_module(x).vecdot(x, x)", "CuPy has no vecdot"),
        ("x = backend.array_module(x, y).linalg.vecdot(x, x)", "CuPy has no linalg.vecdot"),
        ("get_backend().xp.vecdot(a, b)", "CuPy has no vecdot"),
        ("xp.linalg.vector_norm(x)", "CuPy has no linalg.vector_norm"),
        ("la = xp.linalg", "CuPy has no linalg"),
        ("xp.random.normal(3)", "CuPy has no random.normal"),
        ("xp.asnumpy(x)", "NumPy has no asnumpy"),
        ("xp.sum(x, where=mask)", "CuPy's sum takes no 'where'"),
        ("xp.max(x, initial=0)", "CuPy's max takes no 'initial'"),
        ("xp.linalg.norm(x, dtype=d)", "CuPy's linalg.norm takes no 'dtype'"),
        ("xp.exp(x, where=mask)", "CuPy's exp takes no 'where'"),
        ("xp.clip(x, min=0)", "CuPy's clip takes no 'min'"),
        ("xp.einsum('i->', x, out=y)", "CuPy's einsum takes no 'out'"),
        ("xp.sum(x, 0, None, None, True, 0)", "CuPy's sum takes 5 positional arguments"),
        ("import numpy as np\nnp.sum(x)", "np.sum where xp.sum belongs"),
        ("import numpy as np\nf = np.maximum", "np.maximum where xp.maximum belongs"),
        ("import numpy\nnumpy.exp(x)", "np.exp where xp.exp belongs"),
        ("import numpy as np\nnp.add.at(x, i, y)", "np.add.at where"),
        ("import numpy as np\nnp.random.normal(size=3)", "np.random.normal where"),
        ("from numpy import tensordot", "tensordot is taken from numpy"),
        ("from numpy.linalg import norm", "norm is taken from numpy"),
        ("x.sum(axis=0, where=mask)", "CuPy's ndarray.sum takes no 'where'"),
        ("(x * y).mean(axis=0).var(correction=1)", "CuPy's ndarray.var takes no 'correction'"),
        ("x.setflags(write=False)", "CuPy has no ndarray.setflags"),
    ],
)
def test_a_fault_is_found(text, said):
    assert any(said in fault for fault in faults(text)), faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "xp.sum(x, axis=0, keepdims=True)",
        "array_module(x).linalg.norm(x, axis=-1)",
        "xp.lib.stride_tricks.as_strided(x, shape=s, strides=t)",
        "xp.zeros(3, dtype=xp.float32)[xp.newaxis]",
        "xp.add.at(x, i, y)",
        "xp.add(x, y, out=x)",
        "xp.einsum('ij,j->i', x, y, optimize=True)",
        "xp.take_along_axis(x, i, axis=1)",
        "xp.finfo(x.dtype).eps * xp.pi",
        "xp.concatenate([x, y], axis=-1)",
        "xp.matmul(x, y, out=z)",
        "x.sum(axis=0, dtype=d, keepdims=True).astype(d, copy=False).reshape(2, 3)",
        "x.transpose(0, 2, 1).copy()",
        "import numpy as np\nisinstance(x, np.ndarray) and np.dtype(d) == np.float32",
        "import numpy as np\nnp.issubdtype(x.dtype, np.floating)",
        "import numpy as np\ndef f(g: np.random.Generator): pass",
        "import numpy as np\ny = np.asarray(x)  # host: labels come as a list",
        "from minibn import ops\nops.var(x, axis=0, correction=1)",
        "self.xp.zeros(3)",
    ],
)
def test_good_code_passes(text):
    assert faults(text) == []


def test_host_code_may_use_numpy_but_not_unknown_names_of_the_namespace():
    text = "import numpy as np\nnp.sum(x)\nx.sum(where=mask)\nxp.vecdot(x, x)"
    assert faults(text, array_code=False) == ["4: CuPy has no vecdot"]


def test_functions_at_the_edge_say_by_annotation_that_they_work_on_the_host():
    text = "import numpy as np\ndef f(x{}):\n    return np.ones(3)"
    for annotated in (": np.ndarray", ": dict[str, np.ndarray]", ", rng: np.random.Generator"):
        assert faults(text.format(annotated), edge=True) == []
        assert faults(text.format(annotated)) == ["3: np.ones where xp.ones belongs"]
    assert faults(text.format(""), edge=True) == ["3: np.ones where xp.ones belongs"]


def test_the_surface_knows_what_every_gpu_program_uses():
    """A faulty generator would write a file that accepts everything, or nothing."""
    assert 400 < len(surface()) < 800
    assert surface()["sum"] == Parameters.parse("a, axis, dtype, out, keepdims")
    assert surface()["ndarray.sum"] == Parameters.parse("axis, dtype, out, keepdims")
    assert surface()["float32"] is None
    unknown = sorted(n for n, p in surface().items() if p is not None and p.names is None)
    assert "sum" not in unknown
    assert len(unknown) < 30
