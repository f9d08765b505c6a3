"""Imports go one way: the core knows no kernel, the library no experiment, and there are no cycles.

The source is read, not run: imports inside functions and those for types alone count too.
"""

import ast
import contextlib
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.copies import NOT_COPIED, ROOT, run_python, without_kernels

# Each line may import itself and the lines above it.
ORDER = (
    ("minibn.errors",),
    ("minibn.setting",),
    ("minibn.console",),
    ("minibn.backend",),
    ("minibn.autograd",),
    ("minibn.ops", "minibn.checkpoint"),
    ("minibn.random",),
    ("minibn.nn",),
    ("minibn.optim", "minibn.data"),
    ("minibn.fast",),
    ("minibn",),  # minibn/__init__.py: what users import, and the one place that plugs `fast` in
    ("minibn.analysis",),
    ("minibn.testing",),
    ("minibn.fast.__main__",),  # a command, which uses the laws
    ("reference_models",),
    ("experiments",),
)
PACKAGES = ("minibn", "reference_models", "experiments")
# What may be missing, or is slow to load, may be imported in a function.
OPTIONAL = {
    "PIL", "autograd", "cupy", "fcntl", "hypothesis", "jax", "matplotlib", "numpy", "onnx",
    "pytest", "resource", "threadpoolctl", "torch", "tqdm", "urllib",
}  # fmt: skip


def modules(root: Path) -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST) -> Iterator[tuple[ast.AST, str, str]]:
    """(node, module, name in it or "") of each import, also by `import_module("...")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, node.module or "", alias.name) for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node, node.args[0].value, ""


def arrows(root: Path) -> dict[str, set[str]]:
    """module -> the modules of ours that it imports."""
    ours = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in ours.items():
        targets = set()
        for _, module, attribute in imported(ast.parse(path.read_text(encoding="utf-8"))):
            target = f"{module}.{attribute}" if f"{module}.{attribute}" in ours else module
            if target in ours:
                targets.add(target)
        found[name] = targets
    return found


def level(module: str) -> int:
    """The line of ORDER to which a module belongs: that of the longest name that begins it."""
    lines = {name: i for i, names in enumerate(ORDER) for name in names}
    while module not in lines:
        module = module.rpartition(".")[0]
    return lines[module]


def upward(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} imports {target}, which stands above it"
        for name, targets in graph.items()
        for target in sorted(targets)
        if level(target) > level(name)
    ]


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The cycles of imports, each as the modules in it."""
    done: set[str] = set()
    found: list[str] = []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_no_import_runs_up():
    assert upward(arrows(ROOT)) == []


def test_no_imports_are_circular():
    assert circles(arrows(ROOT)) == []


def test_every_module_has_a_line_of_its_own():
    """A module beside the packages is not taken for a part of minibn/__init__.py."""
    named = {name for names in ORDER for name in names}
    beside = {name for name in modules(ROOT) if name.count(".") == 1 and name.startswith("minibn.")}
    assert beside - named == set()


def test_no_module_is_hidden_by_a_function_of_its_name():
    """`import minibn.ops.conv` gives the page, in every package."""
    hidden = []
    for name in modules(ROOT):
        package, _, leaf = name.rpartition(".")
        if package and leaf != "__main__":
            with contextlib.suppress(ModuleNotFoundError):  # such as torch
                importlib.import_module(name)
            if not isinstance(getattr(sys.modules[package], leaf, sys), ModuleType):
                hidden.append(name)
    assert hidden == []


def test_functions_import_only_what_may_be_missing():
    found = []
    for name, path in modules(ROOT).items():
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found += [
                    f"{name}.{function.name} imports {module}"
                    for node, module, _ in imported(function)
                    if isinstance(node, (ast.Import, ast.ImportFrom))
                    and module.partition(".")[0] not in OPTIONAL
                ]
    assert found == []


@pytest.mark.parametrize(
    "module, line, complaint",
    [
        ("minibn/ops/conv.py", "from minibn.fast import selection", "minibn.ops.conv imports"),
        (
            "minibn/backend/backends.py",
            "def f():\n    from minibn.ops import conv\n",
            "minibn.backend.backends imports minibn.ops.conv",
        ),
        (
            "minibn/optim/sgd.py",
            "if False:\n    import experiments.vgg_cifar\n",
            "minibn.optim.sgd imports experiments.vgg_cifar",
        ),
    ],
)
def test_an_arrow_that_runs_up_is_found(tmp_path, module, line, complaint):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=NOT_COPIED)
    with (tmp_path / module).open("a") as file:
        file.write("\n" + line + "\n")
    assert any(text.startswith(complaint) for text in upward(arrows(tmp_path)))


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == ["b -> c -> b"]


# -- the core is complete without the kernels


def test_the_copy_has_no_kernels_from_elsewhere(tmp_path):
    done = run_python(without_kernels(tmp_path), "-c", "import minibn; import minibn.fast")
    assert "No module named 'minibn.fast'" in done.stderr


def test_without_fast_the_readmes_example_trains(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = readme.split("```python\n")[1:]
    example = next(b for b in (block.split("```")[0] for block in blocks) if ">>>" not in b)
    done = run_python(without_kernels(tmp_path), "-W", "error", "-c", example)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.9


def test_without_fast_the_tests_of_ops_pass(tmp_path):
    folder = without_kernels(tmp_path)
    for part in ("ops", "suite", "support", "conftest.py"):
        source = ROOT / "tests" / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / "tests" / part)
    shutil.copy(ROOT / "pyproject.toml", folder)
    few = ["-p", "minibn.testing.plugin", "--gradients=quick"]  # what is tried with many elsewhere
    done = run_python(
        folder, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *few, "tests/ops"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
