"""Kernels: fast ways to run an op, behind its definition.

An op's class in `minibn.ops` is the definition: the page that people read, and what runs when a
gradient is itself differentiated, when a dtype is unusual, and on every backend. A kernel does the
same for arrays of one backend, faster, where it `fits`; a law says that they agree. `kernels(...)`
chooses between them:

    with minibn.kernels("reference"):    # the definitions only
        loss = model(x)

    "fast"       kernels wherever they pay (the default); they may keep arrays from the forward pass
                 for the backward pass, as Winograd's transformed images: time for memory
    "lean"       the same kernels, which recompute instead, and free memory at once: memory for time
    "reference"  no kernels (and no rounding, whatever `minibn.precision` says)
    "always"     kernels also where they do not pay, for tests on small shapes

Registered per backend: `Backend.kernels` maps an op's class to its kernels, the first that fits
wins.
"""

from __future__ import annotations

import contextvars
import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minibn.backend import backend_of

if TYPE_CHECKING:
    from minibn.tape import Op

MODES = ("fast", "lean", "reference", "always")
_mode: contextvars.ContextVar[str] = contextvars.ContextVar("minibn_kernels", default="fast")


class Kernel:
    """One run of an op by other means. Like an op it has `forward` and `vjp`, on arrays only, and
    an instance lives as long as the graph's node: what it keeps between the two is its own.

    op      the op that it stands for, with its settings
    wants   which inputs want a gradient; none of them if no backward pass can follow. Set by the
            tape before `forward`, and again before `vjp`
    keep    whether arrays may be kept to save time: something wants a gradient, and the mode is
            not "lean"

    `vjp` may be called twice (retain_graph), and must not write into its arguments.
    """

    wants: tuple[bool, ...] = ()
    keep = False

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
        raise NotImplementedError

    def by_definition(self, g: Any, out: Any, *inputs: Any) -> Any:
        """The op's own vjp, for cotangents that the kernel is not made for."""
        self.op.wants = self.wants
        return self.op.vjp(g, out, *inputs)


def mode() -> str:
    """The current mode: "fast", "lean", "reference" or "always"."""
    return _mode.get()


def find(op: Op, inputs: list[Any]) -> Kernel | None:
    """A kernel to run `op` on these arrays, or None: then the definition runs."""
    if _mode.get() == "reference":
        return None
    return first(backend_of(*inputs).kernels.get(type(op), ()), op, inputs)


def first(among: Iterable[type[Kernel]], op: Op, inputs: Iterable[Any]) -> Kernel | None:
    """The first of these kernels that fits and is worth it, or None."""
    always = _mode.get() == "always"
    for kernel in among:
        if kernel.fits(op, *inputs) and (always or kernel.pays(op, *inputs)):
            return kernel(op)
    return None


class kernels:
    """From here on ops run so: "fast", "lean", "reference" or "always" (see `backend.kernels`).

    In a `with` statement until its end. The choice belongs to the thread (or async task) that
    makes it. Raises ValueError for another name.

    >>> with kernels("reference"):
    ...     mode()
    'reference'
    >>> mode()
    'fast'
    """

    def __init__(self, name: str) -> None:
        if name not in MODES:
            near = difflib.get_close_matches(str(name), MODES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(MODES)}."
            raise ValueError(f"kernels {name!r} are unknown. {hint}")
        self.name, self._before = name, [_mode.get()]
        self._entered = False
        _mode.set(name)

    def __enter__(self) -> kernels:
        if self._entered or _mode.get() != self.name:  # again, or after another choice
            self._before.append(_mode.get())
        self._entered = True
        _mode.set(self.name)
        return self

    def __exit__(self, *error: Any) -> None:
        _mode.set(self._before.pop())
