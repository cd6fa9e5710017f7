"""Extras: what to install where an optional dependency is missing.

The base install reads and judges logs; what trains, scores and draws is imported late.
"""

from __future__ import annotations

REPORT = ("matplotlib", "plotly")
TRAIN = (
    *("accelerate", "datasets", "gguf", "jaxtyping", "peft", "regex", "safetensors"),
    *("torch", "transformers", "trl"),
)
EXTRAS = dict.fromkeys(REPORT, "report") | dict.fromkeys(TRAIN, "train")


def way_out(error: ModuleNotFoundError) -> str | None:
    """Return a sentence with the missing package and its extra; None where it is in no extra."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return f"{package} is not installed; run: pip install 'dpo-squeeze[{EXTRAS[package]}]'"
