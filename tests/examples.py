"""How many examples a hypothesis search draws: `settings(max_examples=examples(100))`."""

from __future__ import annotations

import os

MUTATION = 15


def examples(usual: int) -> int:
    """Return `usual`; ten times that when hunting, at most `MUTATION` in mutation testing.

    A number given to a test's settings overrides its profile's, so the profiles of the root's
    conftest alone would not be enough.
    """
    profile = os.environ.get("HYPOTHESIS_PROFILE", "ci")
    return {"search": 10 * usual, "mutation": min(usual, MUTATION)}.get(profile, usual)
