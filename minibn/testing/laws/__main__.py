"""Print LAWS.md: `python -m minibn.testing.laws`."""

from minibn.testing.laws import table

if __name__ == "__main__":
    print(table(), end="")
