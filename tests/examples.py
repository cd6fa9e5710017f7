"""Hypothesis profiles, and how many examples a search draws: `max_examples=examples(100)`.

HYPOTHESIS_PROFILE chooses one: `ci` (the default), `search` to hunt for counterexamples,
`mutation` for mutation testing.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

MUTATION = 15
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")

# Deadlines would measure the machine's load. Derandomized: a red run must stay red when repeated.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Draws anew on every run, and ten times as much.
settings.register_profile(
    "search", settings.get_profile("ci"), derandomize=False, max_examples=1000
)
# Few examples, and no time spent on a smaller or a second counterexample where one is enough.
settings.register_profile(
    "mutation",
    settings.get_profile("ci"),
    max_examples=MUTATION,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)


def examples(usual: int) -> int:
    """Return `usual`; ten times that when hunting, at most `MUTATION` in mutation testing.

    A number given to a test's settings overrides its profile's, so the profiles alone would not be
    enough.
    """
    return {"search": 10 * usual, "mutation": min(usual, MUTATION)}.get(PROFILE, usual)
