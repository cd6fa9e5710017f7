"""Claims, the checks that can refute them, and their verdicts."""

from squeeze.claims.types import Claim, Verdict

__all__ = ["Claim", "Verdict"]
