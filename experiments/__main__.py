"""`python -m experiments`: a list of the experiments, their figures and costs, and of the tools."""

from __future__ import annotations

import sys

from experiments.catalogue import EXPERIMENTS, TOOLS
from minibn.console import prints_anywhere


@prints_anywhere
def main() -> int:
    """Print the list. Returns the exit code."""
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
