"""Where faster code plugs in: the one place at which the core asks for another way to compute.

A *definition* is what people read: an op, an optimizer's update, a layer, a function that draws.
Before it runs, `find_kernel` is asked for a kernel: an object that does the same on these arrays,
faster. `minibn.fast` plugs itself in here; without it there are no kernels, and nothing else is
missing. `kernels(...)` chooses what may run:

    with minibn.kernels("reference"):    # the definitions only: what a debugger steps through
        loss = model(x)

    "fast"       kernels wherever they pay (the default); they may keep arrays from the forward pass
                 for the backward pass, as Winograd's transformed images: time for memory
    "lean"       the same kernels, which recompute instead, and free memory at once: memory for time
    "reference"  no kernels (and no rounding, whatever `minibn.precision` says)
    "always"     kernels also where they do not pay, for tests on small shapes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minibn.setting import Choice, ChoiceScope

_mode = Choice("kernels", ("fast", "lean", "reference", "always"), default="fast")
mode = _mode.get  # () -> the current mode: "fast", "lean", "reference" or "always"

# (definition, inputs, needs_input_grad, backend or None) -> a kernel, or None
Finder = Callable[[Any, Sequence[Any], tuple[bool, ...], Any], Any]
_finder: list[Finder] = []


def kernels(name: str) -> ChoiceScope:
    """From here on definitions run so: "fast", "lean", "reference" or "always" (see above).

    In a `with` statement until its end. The choice belongs to the thread (or asyncio task) that
    makes it. Raises ValueError for another name.

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
    """A kernel that does what `definition` does on these inputs, or None: the definition runs.

    definition: an op, an optimizer, a layer or a function. needs: for each input whether it needs a
    gradient. backend: whose kernels, if no input is an array.
    """
    if not _finder or _mode.get() == "reference":
        return None
    return _finder[0](definition, inputs, needs, backend)


def plug_in(finder: Finder) -> None:
    """Let `finder` choose the kernels from here on, in the whole process."""
    _finder[:] = [finder]
