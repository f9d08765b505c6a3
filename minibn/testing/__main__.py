"""`python -m minibn.testing check|grade|kill|conventions|laws|api`, see `commands/main.py`."""

import sys

from minibn.testing.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
