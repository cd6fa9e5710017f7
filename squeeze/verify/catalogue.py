"""Every check, in the order in which they are asked: the modules that register them, imported."""

# isort: off
from squeeze.verify import checks_tokens  # noqa: F401
from squeeze.verify import checks_loss  # noqa: F401
from squeeze.verify import checks_invariance  # noqa: F401
from squeeze.verify import checks_step  # noqa: F401
from squeeze.verify import checks_reference  # noqa: F401
from squeeze.verify import checks_functions  # noqa: F401
from squeeze.verify import checks_groups  # noqa: F401

# isort: on
from squeeze.verify.types import CHECKS

__all__ = ["CHECKS"]
