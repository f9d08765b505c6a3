"""What a kernel is: a faster way to run a definition, on the arrays of one backend.

A definition is what people read: an op's class in `minibn.ops`, an optimizer's update, a function
that draws. It runs when a gradient is itself differentiated, when a dtype is unusual, and on every
backend. A kernel does the same for arrays of one backend, faster, where it `fits`; a law says that
they agree. `selection.py` chooses; `minibn.autograd.dispatch` is where the core asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minibn.autograd.dispatch import mode
from minibn.fast.precision import current as precision


class Kernel:
    """One run of a definition by other means. For an op it has `forward` and `vjp`, on arrays only,
    and an instance lives as long as the graph's node: what it keeps between the two is its own.

    op                the op (or other definition) that it stands for, with its settings
    needs_input_grad  for each input whether it needs a gradient; nowhere True if no backward pass
                      can follow. Set before `forward`, and again before `vjp`
    keep              whether arrays may be kept to save time: a backward pass may follow, and the
                      mode is not "lean"

    `vjp` gets a cotangent of the output's dtype; it may be called twice (retain_graph), and must
    not write into its arguments. A kernel without one leaves it to the definition.
    """

    needs_input_grad: tuple[bool, ...] = ()
    keep = False
    rounds = False  # whether it is asked only where factors are to be rounded (`minibn.precision`)

    def __init__(self, op: Any) -> None:
        self.op = op

    @classmethod
    def fits(cls, op: Any, *inputs: Any) -> bool:
        """Whether this kernel computes these inputs rightly."""
        return True

    @classmethod
    def pays(cls, op: Any, *inputs: Any) -> bool:
        """Whether it is faster than the definition here."""
        return True

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError

    def vjp(self, g: Any, out: Any, *inputs: Any) -> Any:
        self.op.needs_input_grad = self.needs_input_grad
        return self.op.vjp(g, out, *inputs)


KernelTable = dict[Any, tuple[type[Kernel], ...]]  # by the definition: a class, or a function


def first(among: Iterable[type[Kernel]], op: Any, inputs: Sequence[Any]) -> Kernel | None:
    """The first of these kernels that fits and is worth it, or None."""
    always, exact = mode() == "always", precision() == "fp32"
    for kernel in among:
        if kernel.rounds and exact:
            continue
        if kernel.fits(op, *inputs) and (always or kernel.pays(op, *inputs)):
            return kernel(op)
    return None
