"""A fault for each law: a wrong op, layer or function that breaks it, so that every law can fail.

    add_faults(max_pool_equals_loops=Fault("max_pool2d", subject=wrong_pooling))

`tests/testing/test_laws_can_fail.py` plants every fault and demands that its law is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minibn.testing.problem import Problem


@dataclass(frozen=True)
class Fault:
    """One of three things.

    subject  replaces the law's subject, while examples are drawn for `case`
    patch    (target, attribute, value): planted in minibn, while examples are drawn for `case`
    problem  a problem whose op is wrong; the law is checked on it
    """

    case: str = ""
    subject: Any = None
    patch: tuple[Any, str, Any] | None = None
    problem: Problem | None = None


FAULTS: dict[str, Fault] = {}


def add_faults(**faults: Fault) -> None:
    """Enter faults by the names of the laws that they break; raises ValueError for a second one."""
    if again := FAULTS.keys() & faults:
        raise ValueError(f"add_faults: {sorted(again)} have one already.")
    FAULTS.update(faults)


def scaled(f: Callable[..., Any], by: float = 1.01) -> Callable[..., Any]:
    """f, its result multiplied."""
    return lambda *arguments, **settings: f(*arguments, **settings) * by
