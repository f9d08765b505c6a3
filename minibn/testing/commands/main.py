"""The command line: `python -m minibn.testing check|grade|kill|conventions|laws|api`.

    check conv2d --examples 500 --dtype float32 --backend strict
    check all
    check mylayers:forward --vjp mylayers:backward --shapes 4,3 3
    grade batch_norm solution.py

Exit code 0: all is right; 1: a gradient is wrong; 2: the command can't be run, for the reason that
is printed. A function with a hand-written vjp needs NumPy alone; rows of the registry, which is
part of a checkout, need hypothesis.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibn.backend import get_backend
from minibn.console import prints_anywhere
from minibn.errors import BackendUnavailable, did_you_mean
from minibn.testing.check import check_vjp
from minibn.testing.commands import rows
from minibn.testing.commands.api_page import api_page
from minibn.testing.commands.checkout import NoCheckout, suite
from minibn.testing.commands.conventions import broken_promises, conventions_table
from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.commands.search import sample, search_failure
from minibn.testing.grading import command as grading_command
from minibn.testing.laws import LAWS, laws_page
from minibn.testing.problem import Problem
from minibn.testing.report import GradReport

ROW_EXAMPLES, FUNCTION_EXAMPLES = 100, 20


class CommandError(Exception):
    """The command can't be run; the message is one line, with the remedy."""


# -- check


def check(args: argparse.Namespace) -> int:
    """Check the rows or functions `args.names`, print the table of digits, then failures."""
    if args.examples is not None and args.examples < 1:
        raise CommandError(f"--examples {args.examples}: at least 1.")
    if args.seed < 0:
        raise CommandError(f"--seed {args.seed}: seeds are 0, 1, 2, ...")
    try:
        get_backend(args.backend)
    except (BackendUnavailable, ValueError) as error:
        raise CommandError(f"--backend {args.backend}: {error}") from error
    table = DigitsTable()
    functions = [name for name in args.names if ":" in name]
    if functions and functions != args.names:
        raise CommandError("check rows of the registry and functions one after the other.")
    if functions:
        failed = [report for name in functions if (report := _check_function(name, args, table))]
    elif args.vjp or args.shapes:
        raise CommandError(
            f"--vjp and --shapes are for functions, named package.module:function; "
            f"{args.names[0]!r} has no colon."
        )
    else:
        failed = _check_rows(args, table)
    print(table.table(most=len(table.rows)))
    for report in failed:
        print(f"\n{report}")
    if args.json:
        _write(args, table)
    return int(bool(failed))


def _check_rows(args: argparse.Namespace, table: DigitsTable) -> list[GradReport]:
    try:
        known = list(rows.all_rows())
    except NoCheckout as error:
        raise CommandError(f"{error} A function of yours needs no checkout.") from error
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise CommandError(
            "the registry draws its problems with hypothesis, which is not installed: "
            "pip install 'minibn[test]'. A function with --vjp and --shapes needs NumPy alone."
        ) from error
    chosen = known if args.names == ["all"] else args.names
    for name in chosen:
        try:
            rows.row(name)
        except rows.UnknownName as error:
            raise CommandError(str(error)) from error
    promised = [name for name in chosen if rows.row(name).digits_of(args.dtype) is not None]
    for name in chosen:
        if name not in promised:
            print(f"{name}: left out, in {args.dtype} its row promises nothing.", file=sys.stderr)
    if not promised:
        raise CommandError("nothing is left to check: try --dtype float32 or float64.")
    failed = []
    for name in promised:
        ask = functools.partial(
            rows.check_named, name, backend=args.backend, order=args.order, dtype=args.dtype,
            raises=False,
        )  # fmt: skip
        if sys.stderr.isatty():
            print(f"\r{name:<40}\r", end="", file=sys.stderr)
        examples = args.examples or ROW_EXAMPLES
        report = search_failure(
            name, rows.problems(name), ask, table, examples=examples, seed=args.seed
        )  # fmt: skip
        failed += [report] if report else []
    return failed


def _check_function(name: str, args: argparse.Namespace, table: DigitsTable) -> GradReport | None:
    """A function on arrays with its vjp, or one of Tensors without."""
    f = import_function(name)
    if not args.shapes:
        raise CommandError(f"of what shapes are the inputs of {name}? For example: --shapes 4,3 3")
    if args.vjp:
        if args.backend != "numpy" or args.order != 1:
            raise CommandError(
                "--backend and --order need a function of Tensors: a vjp runs on NumPy arrays. "
                "Leave them out, or --vjp."
            )
        vjp = import_function(args.vjp)

        def ask(problem: Problem, diagnose: bool) -> GradReport:
            return check_vjp(
                f, vjp, *(x.astype(args.dtype) for x in problem.inputs), name=name,
                seed=problem.seed, raises=False, diagnose=diagnose,
            )  # fmt: skip
    else:

        def ask(problem: Problem, diagnose: bool) -> GradReport:
            return rows.check_named(
                name, problem, backend=args.backend, order=args.order, dtype=args.dtype,
                raises=False, diagnose=diagnose,
            )  # fmt: skip

    shapes = [shape_of(text) for text in args.shapes]
    examples = args.examples or FUNCTION_EXAMPLES
    try:
        return sample(name, shapes, f, ask, table, examples=examples, seed=args.seed)
    except Exception as error:  # any error of f's own
        last = traceback.extract_tb(error.__traceback__)[-1]
        given = ", ".join(map(str, shapes))
        raise CommandError(
            f"{name} at normal inputs of shapes {given}: {type(error).__name__}: {error} "
            f"({last.filename}:{last.lineno})"
        ) from error


def import_function(name: str) -> Callable[..., Any]:
    """`package.module:function`, imported; modules of the working directory are found."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise CommandError(
            f"{name}: {error}. Is it installed, or a file of the working directory?"
        ) from error
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            functions = [key for key, x in vars(target).items() if callable(x) and key[0] != "_"]
            raise CommandError(
                f"in {module_name} there is no function {part!r}. {did_you_mean(part, functions)}"
            )
        target = getattr(target, part)
    if not callable(target):
        raise CommandError(f"{name} is a {type(target).__name__}: name a function.")
    return target


def shape_of(text: str) -> tuple[int, ...]:
    """
    >>> shape_of("4,3"), shape_of("3"), shape_of("()")
    ((4, 3), (3,), ())
    """
    sizes = [size for size in text.strip("()").split(",") if size.strip()]
    try:
        shape = tuple(int(size) for size in sizes)
    except ValueError:
        shape = (-1,)
    if any(size < 0 for size in shape):
        raise CommandError(f"--shapes {text}: sizes joined by commas, such as 4,3; () is a number.")
    return shape


def _write(args: argparse.Namespace, table: DigitsTable) -> None:
    """The table as data, each row with the report of its failure, or of its worst check."""
    data = {
        "seed": args.seed, "dtype": args.dtype, "backend": args.backend, "order": args.order,
        "numpy": np.__version__, "covered": table.coverage.as_data(),
        "checks": [
            row.as_data() | {"report": json.loads(row.worst.to_json()) if row.worst else None}
            for row in table.worst_first()
        ],
    }  # fmt: skip
    try:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
    except OSError as error:
        raise CommandError(f"--json {args.json}: {error.strerror}.") from error


# -- the other commands


def conventions(args: argparse.Namespace) -> int:
    print(conventions_table())
    if failed := broken_promises():
        print(f"\nNot as promised: {', '.join(failed)}")
    return int(bool(failed))


def laws(args: argparse.Namespace) -> int:
    try:
        ours = suite("laws")
        print(laws_page(ours.LAWS.values(), ours.about), end="")
    except NoCheckout as error:
        print(laws_page(LAWS.values()), end="")
        print(f"These are the laws about any op. {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        raise _needs_extra(error, "laws") from error
    return 0


def api(args: argparse.Namespace) -> int:
    print(api_page(), end="")
    return 0


def kill(argv: Sequence[str]) -> int:
    try:
        return suite("mutants.kill").main(argv)
    except NoCheckout as error:
        raise CommandError(str(error)) from error
    except ModuleNotFoundError as error:
        raise _needs_extra(error, "kill") from error


def _needs_extra(error: ModuleNotFoundError, command: str) -> Exception:
    if error.name != "hypothesis":
        return error
    return CommandError(
        f"{command} needs hypothesis, which is not installed: pip install 'minibn[test]'."
    )


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        "python -m minibn.testing", description="Are the gradients right?"
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    about = "gradients of minibn's ops and layers (in a checkout), or of a function of yours"
    one = commands.add_parser("check", help=about, description=f"Check {about}.")
    one.add_argument(
        "names", nargs="+", metavar="NAME",
        help="a row of the registry (conv2d, BatchNorm), `all`, or package.module:function",
    )  # fmt: skip
    one.add_argument("--vjp", metavar="MODULE:FUNCTION", help="vjp(g, *inputs) of a function")
    one.add_argument(
        "--shapes", nargs="+", metavar="SIZES", help="the shapes of its inputs, such as 4,3 3"
    )
    one.add_argument(
        "--examples", type=int, metavar="N",
        help=f"problems for each name (default {ROW_EXAMPLES}, {FUNCTION_EXAMPLES} for a function)",
    )  # fmt: skip
    one.add_argument("--dtype", choices=rows.DTYPES, default="float64")
    one.add_argument("--backend", default="numpy", help="numpy, strict or cupy")
    one.add_argument(
        "--order", type=int, choices=(1, 2), default=1, help="2: second derivatives, too"
    )
    one.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the problems (0)")
    one.add_argument("--json", metavar="FILE", help="the table and the reports, as data")
    one.set_defaults(run=check)
    grading_command.add_parser(commands)
    commands.add_parser("kill", help="which check finds which wrong gradient", add_help=False)
    for name, run, about in (
        ("conventions", conventions, "derivatives at kinks and BatchNorm's choices, as computed"),
        ("laws", laws, "what holds for every op and layer, as a table"),
        ("api", api, "every public name, with its signature and docstring, as Markdown"),
    ):
        commands.add_parser(name, help=about, description=about).set_defaults(run=run)
    return whole


def require_current_folder() -> None:
    """Raise CommandError if it was deleted: Hypothesis can't be imported there."""
    try:
        os.getcwd()
    except OSError:
        raise CommandError("the current folder was deleted. Go to another.") from None


@prints_anywhere
def main(argv: Sequence[str] | None = None) -> int:
    """Carry the command out and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        require_current_folder()
        if argv[:1] == ["kill"]:  # it has options of its own
            return kill(argv[1:])
        args = parser().parse_args(argv)
        return args.run(args)
    except CommandError as error:
        print(f"python -m minibn.testing {' '.join(argv[:1])}: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # argparse, after --help or a flag it does not know
        return int(stop.code or 0)
