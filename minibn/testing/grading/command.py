"""`python -m minibn.testing grade SPEC SOLUTION`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from minibn.testing.grading.grading import grade
from minibn.testing.grading.result import UNUSABLE, Grade
from minibn.testing.grading.spec import SHIPPED, SpecError
from minibn.testing.grading.styles import STYLES

EPILOG = """Exit code 0: all points; 1: points are lost; 2: the command can't be run (no such
file, an invalid spec); 3: the solution could not be run (an error while it is loaded, none of the
functions that are asked for is defined, no call ended within the time limit)."""

INTERRUPTED = 130  # as a shell reports it


def add_parser(commands: Any) -> None:
    """The subcommand `grade`, added to a parser's subparsers."""
    about = "points, digits and an explanation for a student's solution"
    one = commands.add_parser("grade", help=about, description=about, epilog=EPILOG)
    one.add_argument("spec", metavar="SPEC", help=f"{', '.join(SHIPPED)}, or a file that sets SPEC")
    one.add_argument("solution", metavar="SOLUTION", help="a .py file or a notebook, .ipynb")
    one.add_argument(
        "--style", default="", metavar="STYLE",
        help=f"{', '.join(STYLES)}, or the function or class to grade, such as "
        "BatchNorm2d (default: what the solution defines)",
    )  # fmt: skip
    one.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the cases (0)")
    one.add_argument(
        "--time-limit", type=float, default=60, metavar="SECONDS",
        help="seconds for the whole solution (60)",
    )  # fmt: skip
    one.add_argument(
        "--part-limit", type=float, default=10, metavar="SECONDS", help="seconds for each part (10)"
    )
    one.add_argument(
        "--memory-limit", type=int, default=4096, metavar="MB",
        help="memory of the solution, where the system has a limit (4096)",
    )  # fmt: skip
    one.add_argument(
        "--json", metavar="FILE", help="write the grade as JSON; - for standard output"
    )
    one.add_argument(
        "--format", choices=("minibn", "gradescope"), default="minibn", help="of --json"
    )
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Grade, print or write the result, and return the exit code."""
    problem = _problem(args)
    if not problem:
        try:
            result = grade(
                args.spec, args.solution, style=args.style, seed=args.seed,
                time_limit=args.time_limit, part_limit=args.part_limit,
                memory_limit=args.memory_limit,
            )  # fmt: skip
        except (SpecError, FileNotFoundError) as error:
            problem = str(error)
        except KeyboardInterrupt:
            print("python -m minibn.testing grade: stopped.", file=sys.stderr)
            return INTERRUPTED
        else:
            problem = _write(args, result)
            if not problem:
                return result.exit_code
    print(f"python -m minibn.testing grade: {problem}", file=sys.stderr)
    return UNUSABLE


def _problem(args: argparse.Namespace) -> str:
    """Why these arguments can't be used, or nothing."""
    if args.seed < 0:
        return f"--seed {args.seed}: seeds are 0, 1, 2, ..."
    for flag in ("time_limit", "part_limit", "memory_limit"):
        if not getattr(args, flag) > 0:
            return f"--{flag.replace('_', '-')} {getattr(args, flag)}: it must be above 0."
    if args.format != "minibn" and not args.json:
        return f"--format {args.format} says how --json FILE is written: name a file, or -."
    return ""


def _write(args: argparse.Namespace, result: Grade) -> str:
    if args.json != "-":
        print(result)
    if not args.json:
        return ""
    data = result.to_gradescope() if args.format == "gradescope" else result.to_json()
    if args.json == "-":
        print(data)
        return ""
    try:
        Path(args.json).write_text(data + "\n", encoding="utf-8")
    except OSError as error:
        return f"--json {args.json}: {error.strerror}."
    return ""
