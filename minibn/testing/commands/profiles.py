"""How many problems hypothesis draws: its profiles `quick`, `ci` and `nightly`.

| profile | problems | which |
|---|---|---|
| quick   | 5 | the same on every run |
| ci      | 100 | the same on every run |
| nightly | 2000 | others on every run; a failure prints how to reproduce it |

A project that has a profile of one of these names keeps its own.
"""

from __future__ import annotations

from typing import Any

PROFILES: dict[str, dict[str, Any]] = {
    "quick": {"max_examples": 5, "derandomize": True, "database": None},
    "ci": {"max_examples": 100, "derandomize": True, "database": None},
    "nightly": {"max_examples": 2000, "derandomize": False},
}


def share(count: int, of: int = 25) -> int:
    """`count` examples for a profile of `of`, in proportion for the profile in use; at least 1."""
    from hypothesis import settings

    return max(1, round(count * settings().max_examples / of))


def register() -> None:
    """Make the profiles known to hypothesis, without using one: that is `load_profile(name)`."""
    from hypothesis import HealthCheck, settings
    from hypothesis.errors import InvalidArgument

    for name, chosen in PROFILES.items():
        try:
            settings.get_profile(name)
        except InvalidArgument:
            settings.register_profile(
                name,
                deadline=None,  # a busy machine is no bug
                print_blob=True,
                suppress_health_check=[HealthCheck.too_slow],
                **chosen,
            )
