"""State machines: random programs, each step checked against a naive twin.

`GraphMachine` draws programs on Tensors; its twin carries dense slopes (`twin.py`).
`ModuleMachine` trains, evaluates, saves and loads a model; its twin is closed forms in NumPy.
Both are `hypothesis.stateful.RuleBasedStateMachine`s. A test of one line runs them:

    run_state_machine_as_test(GraphMachine)

`on(machine, "strict")` is the same machine with its Tensors on another backend.
"""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine

from suite.machines.graph_machine import GraphMachine
from suite.machines.module_machine import ModuleMachine

__all__ = ["GraphMachine", "ModuleMachine", "on"]


def on(machine: type[RuleBasedStateMachine], backend: str) -> type[RuleBasedStateMachine]:
    """The machine with its Tensors on the backend of this name."""
    return type(f"{machine.__name__}On{backend.title()}", (machine,), {"backend": backend})
