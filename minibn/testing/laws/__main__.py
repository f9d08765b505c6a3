"""Print LAWS.md: `python -m minibn.testing.laws`."""

import sys

from minibn.console import prints_anywhere
from minibn.testing.laws import LAWS, laws_page


@prints_anywhere
def main() -> None:
    print(laws_page(LAWS.values()), end="")


if __name__ == "__main__":
    sys.exit(main())
