"""Claims, the checks that can refute them, and their verdicts."""

from squeeze.claims.types import Verdict

__all__ = ["Verdict"]
