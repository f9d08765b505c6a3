"""The base of both machines: a backend in use, and blocks of no_grad() that open and close."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from minibn.autograd.tape import no_grad, set_grad_enabled
from minibn.backend import use


class Machine(RuleBasedStateMachine):
    """A program on Tensors of `backend`; settings are restored when it ends, even by an error."""

    backend = "numpy"

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.device = self.stack.enter_context(use(self.backend))
        self.stack.enter_context(set_grad_enabled(True))  # whatever ran before
        self.blocks: list[Any] = []  # the no_grad() blocks that are open

    def teardown(self) -> None:
        while self.blocks:
            self.blocks.pop().__exit__(None, None, None)
        self.stack.close()

    @precondition(lambda self: len(self.blocks) < 2)
    @rule()
    def enter_no_grad(self) -> None:
        block = no_grad()
        block.__enter__()
        self.blocks.append(block)

    @precondition(lambda self: self.blocks)
    @rule()
    def leave_no_grad(self) -> None:
        self.blocks.pop().__exit__(None, None, None)
