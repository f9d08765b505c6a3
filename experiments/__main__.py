"""`python -m experiments`: a list of the experiments, their figures and costs, and of the tools.

`python -m experiments NAME ...` is `python -m experiments.NAME ...`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from experiments.catalogue import EXPERIMENTS, TOOLS
from experiments.training.command_line import UsageError, one_of
from experiments.training.entry_point import program

PROGRAM = "python -m experiments"


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list, or run the one that the arguments name. Returns the exit code."""
    name, *words = arguments or [""]
    if name in ("", "-h", "--help"):
        print_list()
        return 0
    if name.startswith("-"):
        raise UsageError(f"which experiment? Its name comes first: {PROGRAM} vgg_cifar --quick")
    one_of("experiment", name, [entry.name for entry in (*EXPERIMENTS, *TOOLS)])
    code: int = importlib.import_module(f"experiments.{name}").main(words)
    return code


def print_list() -> None:
    wide = max(len(entry.name) for entry in (*EXPERIMENTS, *TOOLS))
    columns = max(len(entry.figures) for entry in EXPERIMENTS)
    print("Experiments: python -m experiments.NAME [--quick] [--help]\n")
    for entry in EXPERIMENTS:
        print(f"  {entry.name:{wide}}  {entry.figures:{columns}}  {entry.what}")
        print(f"  {'':{wide}}  {'':{columns}}  cost: {entry.cost}\n")
    print("All of them: python -m experiments.reproduce --scale quick|cpu|paper\n")
    print("Tools: python -m experiments.NAME\n")
    for entry in TOOLS:
        print(f"  {entry.name:{wide}}  {entry.what}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
