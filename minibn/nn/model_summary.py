"""`summary`: what a network consists of, as a table."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from minibn.autograd.tape import no_grad
from minibn.backend import backend_of
from minibn.nn.module import Module


def summary(model: Module, input_shape: tuple[int, ...]) -> str:
    """A table of the layers in the order of their calls: name, kind, output shape, parameters.

    input_shape: of one example, such as (32, 32, 3). The model runs once on zeros, in eval mode.
    """
    rows: list[tuple[str, str, str, str]] = []
    paths = {id(module): path for path, module in model.named_modules()}

    def note(module: Module, inputs: tuple, output: Any) -> None:
        own = sum(p.size for p in module.parameters())
        shape = "×".join(str(n) for n in output.shape[1:])
        rows.append((paths[id(module)], type(module).__name__, shape, f"{own:,}" if own else ""))

    first = model.parameters()[0].data
    x = backend_of(first).xp.zeros((1, *input_shape), first.dtype)
    with ExitStack() as stack:
        stack.enter_context(model.mode(training=False))
        stack.enter_context(no_grad())
        for _, module in model.named_modules():
            if not list(module.children()):
                stack.enter_context(module.watch(note))
        model(x)
    total = sum(p.size for p in model.parameters())
    table = [("layer", "kind", "output", "parameters"), *rows, ("total", "", "", f"{total:,}")]
    wide = [max(len(row[i]) for row in table) for i in range(4)]
    return "\n".join(
        f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:<{wide[2]}}  {d:>{wide[3]}}".rstrip()
        for a, b, c, d in table
    )
