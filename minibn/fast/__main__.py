"""`python -m minibn.fast verify`: compare kernels with definitions, and store their hashes.

    python -m minibn.fast verify             definitions edited since, or never verified
    python -m minibn.fast verify --all       every definition
    python -m minibn.fast verify --check     compares hashes only: exit status 1 if any is edited

For an op the law "kernels agree with definitions" runs on every row of the registry in which the op
runs: value and two derivatives, on NumPy, and with CUDA's kernels on the emulator where there is a
C++ compiler. Layers, optimizers and draws are compared on a small network, on some updates and on
some draws. If a kernel disagrees with a definition, its hash is not stored.
Needs a checkout (the registry is part of the tests) and hypothesis.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minibn import nn, ops, optim, random
from minibn.autograd.dispatch import kernels
from minibn.autograd.tape import Op
from minibn.autograd.tensor import Tensor
from minibn.backend import Backend, get_backend, to_numpy, use
from minibn.console import prints_anywhere
from minibn.errors import BackendUnavailable, did_you_mean
from minibn.fast import verified
from minibn.fast.cuda.emulator import compiler, emulate
from minibn.fast.fused_layers import ORDER
from minibn.fast.selection import emulation, kernels_of, skip_verification
from minibn.optim import Optimizer

TESTS = Path(__file__).parents[2] / "tests"
EXAMPLES = 10  # of each row of the registry, on NumPy; half as many on the emulator
CLOSE = 2e-5  # of the largest entry, in float32
MANY = (1 << 18) + 5  # elements: enough for kernels that pay for large arrays only

Definition = Any  # a class or a function


def definitions() -> dict[str, Definition]:
    """Every definition that has a kernel or is part of a fused block, by name."""
    with emulation.override(True):
        tables = [kernels_of(get_backend(name)) for name in ("numpy", "strict")]
    keys = {key for table in tables for key in table} | set(ORDER)
    return {verified.name_of(key): key for key in sorted(keys, key=verified.name_of)}


def places() -> Iterator[Backend]:
    """The backends on which kernels are compared, each in use while it is yielded."""
    with use("numpy") as backend:
        yield backend
    with contextlib.suppress(BackendUnavailable):
        compiler()
        with emulate(), use("strict") as backend:
            yield backend


# -- what is compared


def compare_op(op: Definition, suite: Any) -> None:
    """The law, on every row of the registry in which the op runs."""
    rows = suite.rows_of(op)
    if not rows:
        raise AssertionError(f"no row of the registry is named for it in {suite.__file__}")
    compared = False
    for backend in places():
        if op in kernels_of(backend):
            compared = True
            for row in rows:
                few = EXAMPLES if backend.name == "numpy" else EXAMPLES // 2
                suite.compare_on(backend, row, few)
    if not compared:
        raise AssertionError("it has CUDA kernels only, and their emulator needs a C++ compiler")


def compare_network() -> None:
    """A step of a small network: loss, gradients, running statistics, parameters."""

    def step() -> list[np.ndarray]:
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm(4), nn.Noise(), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.LpBatchNorm(5, p=1), nn.Flatten(),
            nn.Linear(5 * 9, 3),
        ).initialize(seed=0)  # fmt: skip
        x = np.random.default_rng(0).standard_normal((6, 10, 10, 3)).astype(np.float32)
        found = []
        for training in (True, False):
            with net.mode(training):
                y = net(get_backend().asarray(x))
                ops.softmax_cross_entropy(y, np.arange(6) % 3).backward()
                found.append(to_numpy(y.data))
        gradients = [to_numpy(p.grad.data) for p in net.parameters() if p.grad is not None]
        return found + gradients + list(net.state_dict().values())

    compare(step)


def compare_optimizer(kind: Callable[..., Optimizer]) -> None:
    """Three updates of a large parameter and of a small one, with every setting."""
    settings: list[dict[str, Any]] = [{}, {"weight_decay": 0.1}]
    if kind is optim.SGD:
        settings += [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}]
    else:
        settings += [{"decoupled": True, "weight_decay": 0.1}]
    for given in settings:

        def update(given: dict[str, Any] = given) -> list[np.ndarray]:
            rng, backend = np.random.default_rng(0), get_backend()
            values = [rng.standard_normal(n).astype(np.float32) for n in (MANY, 7)]
            params = [Tensor(backend.asarray(v), requires_grad=True) for v in values]
            optimizer = kind(params, lr=0.1, **given)
            for _ in range(3):
                for p in params:
                    p.grad = Tensor(backend.asarray(rng.standard_normal(p.size).astype(np.float32)))
                optimizer.step()
            return [to_numpy(p.data) for p in params]

        compare(update)


def compare_draws() -> None:
    """Integers, uniforms and normals, with and without scales and shifts."""

    def draw() -> list[np.ndarray]:
        backend = get_backend()
        shift = backend.asarray(np.arange(3, dtype=np.float32))
        found = [random.uniforms(backend, 1, 2, MANY, np.float32)]
        found += random.uniforms_and_normals(
            backend, 1, 2, MANY, np.float32, uniform=(0.5, shift), normal=(2.0, shift)
        )
        raw = random.integers(backend, 1, 2 << 128, 11)
        return [to_numpy(a) for a in found] + [to_numpy(raw).astype(np.float64)]

    compare(draw)


def compare(compute: Callable[[], list[np.ndarray]]) -> None:
    """Raises AssertionError unless `compute` gives the same by kernels as by definitions."""
    with use("numpy"), kernels("reference"):
        expected = compute()
    for backend in places():
        with kernels("always"):
            found = compute()
        for i, (ours, right) in enumerate(zip(found, expected, strict=True)):
            size = max(np.abs(right).max(initial=0), 1e-3)
            error = np.abs(ours - right).max(initial=0) / size
            if not error <= CLOSE:
                raise AssertionError(f"result {i} on {backend.name} is off by {error:.1e}")


def compare_definition(key: Definition, suite: Any) -> None:
    """Raises AssertionError if a kernel disagrees with this definition."""
    if isinstance(key, type) and issubclass(key, Op):
        compare_op(key, suite)
    elif isinstance(key, type) and issubclass(key, Optimizer):
        compare_optimizer(key)
    elif isinstance(key, type):
        compare_network()
    else:
        compare_draws()


# -- the command


def load_suite() -> Any:
    """The law and its table of rows, from the checkout's tests."""
    if not (TESTS / "suite").is_dir():
        raise SystemExit(
            "verify: it runs laws on the registry of ops, which is a part of the tests. Clone the "
            "repository, install it with pip install -e '.[test]', and run it there."
        )
    sys.path.insert(0, str(TESTS))
    return importlib.import_module("suite.laws.kernels")


def verify(names: list[str], everything: bool) -> int:
    """Compare these definitions (by default the edited ones) and store their hashes. Returns the
    exit status: 1 if one disagrees."""
    known, entries = definitions(), dict(verified.entries())
    for name in names:
        if name not in known:
            raise SystemExit(f"verify: {name!r} has no kernel. {did_you_mean(name, known, 3)}")
    chosen = names or [name for name in known if everything or name in edited_definitions()]
    suite, refused = load_suite() if chosen else None, 0
    for name in chosen:
        print(f"{name} ...", end=" ", flush=True)
        try:
            with skip_verification.override(True):
                compare_definition(known[name], suite)
        except Exception as error:  # of any kind: print it, and do not store the hash
            refused += 1
            print(f"REFUSED: its kernel does not agree with it.\n{type(error).__name__}: {error}")
        else:
            entries[name] = verified.entry_of(known[name])
            print("agrees", flush=True)
    verified.write({name: entry for name, entry in entries.items() if name in known})
    print(f"{len(chosen) - refused} verified, {refused} refused, {len(known)} in all.")
    return 1 if refused else 0


def edited_definitions() -> list[str]:
    """The definitions that changed since they were verified."""
    entries = verified.entries()
    return [
        name
        for name, key in definitions().items()
        if name not in entries or entries[name].parts != verified.entry_of(key).parts
    ]


@prints_anywhere
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minibn.fast",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["verify"])
    parser.add_argument("names", nargs="*", help="definitions, such as minibn.ops.conv.Conv2d")
    parser.add_argument("--all", action="store_true", help="every definition")
    parser.add_argument("--check", action="store_true", help="compare texts alone")
    given = parser.parse_args(arguments)
    if given.check:
        found = edited_definitions()
        print("\n".join(f"edited: {name}" for name in found) or "Nothing was edited.")
        return 1 if found else 0
    return verify(given.names, given.all)


if __name__ == "__main__":
    sys.exit(main())
