"""Kernels: faster implementations of definitions, for the arrays of one backend.

A definition is readable code: an op's class in `minibn.ops`, an optimizer's update, a function that
draws random numbers. It runs on every backend, for every dtype, and when a gradient is itself
differentiated. A kernel computes the same for arrays of one backend, where it `fits`; a law tests
that they agree. `selection.py` chooses the kernel, `minibn.autograd.dispatch` calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minibn.autograd.dispatch import mode
from minibn.fast.precision import current as precision


class Kernel:
    """One call of a definition. For an op it has `forward` and `vjp`, on arrays only; the instance
    lives as long as the graph's node, and may save arrays between the two as attributes.

    op                the op (or other definition) in whose place it runs, with its settings
    needs_input_grad  for each input whether it needs a gradient; all False if no backward pass
                      can follow. Set before `forward`, and again before `vjp`
    keep              whether arrays may be saved for the backward pass: one may follow, and the
                      mode is not "lean"

    `vjp` gets a cotangent of the output's dtype; it may be called twice (retain_graph), and must
    not write into its arguments. By default it is the definition's.
    """

    needs_input_grad: tuple[bool, ...] = ()
    keep = False
    rounds = False  # whether it runs only where factors are to be rounded (`minibn.precision`)

    def __init__(self, op: Any) -> None:
        self.op = op

    @classmethod
    def fits(cls, op: Any, *inputs: Any) -> bool:
        """Whether this kernel supports these inputs."""
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


def select_kernel(among: Iterable[type[Kernel]], op: Any, inputs: Sequence[Any]) -> Kernel | None:
    """The first of these kernels that fits and pays, or None."""
    always, exact = mode() == "always", precision() == "fp32"
    for kernel in among:
        if kernel.rounds and exact:
            continue
        if kernel.fits(op, *inputs) and (always or kernel.pays(op, *inputs)):
            return kernel(op)
    return None
