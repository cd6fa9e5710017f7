"""Squeeze: learning dynamics of LLM finetuning as falsifiable claims, checked and reported.

The names in `__all__` are what the package promises; everything else is private by convention.
They are imported when first used: torch and transformers take seconds, and reading a log needs
neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from squeeze.diagnosis import diagnose as diagnose
    from squeeze.diagnosis import load as load
    from squeeze.diagnosis.callback import SqueezeCallback as SqueezeCallback
    from squeeze.diagnosis.callback import SqueezeWarning as SqueezeWarning
    from squeeze.errors import InputError as InputError
    from squeeze.kernels import token_statistics as token_statistics
    from squeeze.losses import get_loss as get_loss
    from squeeze.losses import register_loss as register_loss
    from squeeze.replicate import replicate as run_replication
    from squeeze.scan import scan as scan_pairs
    from squeeze.scoring import score as score
    from squeeze.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "SqueezeCallback",
    "SqueezeWarning",
    "Trajectory",
    "__version__",
    "diagnose",
    "get_loss",
    "load",
    "register_loss",
    "run_replication",
    "scan_pairs",
    "score",
    "token_statistics",
]

# `squeeze.replicate` and `squeeze.scan` are modules, which would hide functions of these names.
_HOMES = {
    "InputError": ("errors", "InputError"),
    "SqueezeCallback": ("diagnosis.callback", "SqueezeCallback"),
    "SqueezeWarning": ("diagnosis.callback", "SqueezeWarning"),
    "Trajectory": ("trajectory", "Trajectory"),
    "diagnose": ("diagnosis", "diagnose"),
    "get_loss": ("losses", "get_loss"),
    "load": ("diagnosis", "load"),
    "register_loss": ("losses", "register_loss"),
    "run_replication": ("replicate", "replicate"),
    "scan_pairs": ("scan", "scan"),
    "score": ("scoring", "score"),
    "token_statistics": ("kernels", "token_statistics"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from squeeze.extras import way_out

    module, attribute = _HOMES[name]
    try:
        return getattr(import_module(f"squeeze.{module}"), attribute)
    except ModuleNotFoundError as error:
        if (sentence := way_out(error)) is None:
            raise
        raise ImportError(f"squeeze.{name}: {sentence}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
