"""Squeeze: learning dynamics of LLM finetuning as falsifiable claims, checked and reported."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from squeeze.diagnosis.callback import SqueezeCallback as SqueezeCallback

__all__ = ["SqueezeCallback", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # transformers takes seconds to import, which `squeeze --help` should not wait for.
    if name == "SqueezeCallback":
        from squeeze.diagnosis.callback import SqueezeCallback

        return SqueezeCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
