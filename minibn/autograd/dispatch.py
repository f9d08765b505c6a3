"""Dispatch: whether a definition runs itself, or a faster kernel in its place.

A *definition* is readable code: an op, an optimizer's update, a layer, a function that draws random
numbers. Before it runs, `find_kernel` looks for a kernel: an object that computes the same on these
arrays, faster. `minibn.fast` registers its kernels here; without it only definitions run.
`kernels(...)` chooses what may run:

    with minibn.kernels("reference"):    # the definitions only: what a debugger steps through
        loss = model(x)

    "fast"       kernels wherever they are faster (the default); they may save arrays of the forward
                 pass, such as Winograd's transformed images: more memory, less time
    "lean"       the same kernels, which recompute these arrays and free memory at once
    "reference"  no kernels (and no rounding, whatever `minibn.precision` says)
    "always"     kernels also where they are slower, for tests on small shapes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minibn.setting import Choice, SettingScope

_mode = Choice("kernels", ("fast", "lean", "reference", "always"), default="fast")
mode = _mode.get  # () -> the current mode: "fast", "lean", "reference" or "always"

# (definition, inputs, needs_input_grad, backend or None) -> a kernel, or None
Finder = Callable[[Any, Sequence[Any], tuple[bool, ...], Any], Any]
_finder: list[Finder] = []


def kernels(name: str) -> SettingScope:
    """Choose the mode from here on: "fast", "lean", "reference" or "always" (see above).

    In a `with` statement it ends with the block. It holds for the current thread or asyncio task
    only. Raises ValueError for another name.

    >>> with kernels("reference"):
    ...     mode()
    'reference'
    >>> mode()
    'fast'
    """
    return _mode.choose(name)


def find_kernel(
    definition: Any, inputs: Sequence[Any], needs: tuple[bool, ...] = (), backend: Any = None
) -> Any:
    """The kernel to run in the place of `definition` on these inputs; None if there is none.

    definition: an op, an optimizer, a layer or a function. needs: for each input, whether it needs
    a gradient. backend: needed if no input is an array.
    """
    if not _finder or _mode.get() == "reference":
        return None
    return _finder[0](definition, inputs, needs, backend)


def plug_in(finder: Finder) -> None:
    """Register `finder`, which chooses the kernels in the whole process."""
    _finder[:] = [finder]
