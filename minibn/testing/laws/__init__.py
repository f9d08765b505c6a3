"""Laws: what holds for every op, whatever the numbers.

`LAWS` has them (`LAWS.md` is made from it), and `check_laws(problem)` checks them on an op of your
own. `make_op(f, vjp)` makes an op of a function with a hand-written vjp. Laws about
minibn's own ops, layers and optimizers are in `tests/suite/laws/` of a checkout.
"""

from minibn.testing.laws import arrays, graph, vjp  # noqa: F401  each registers its laws
from minibn.testing.laws.base import LAWS, Law, check_laws
from minibn.testing.laws.function_op import make_op
from minibn.testing.laws.page import laws_page

__all__ = ["LAWS", "Law", "check_laws", "laws_page", "make_op"]
