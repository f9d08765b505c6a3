"""Print LAWS.md: `python -m minibn.testing.laws`."""

from minibn.testing.laws import LAWS, laws_page

if __name__ == "__main__":
    print(laws_page(LAWS.values()), end="")
