"""Tokens of an answer, where the mass went: changes, their colours, and the largest losses.

Input are the `tokens` entries of samples.json; nothing is scored here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_LOSS, _GAIN = (230, 133, 50), (88, 160, 220)
N_LARGEST, N_GAINED = 6, 3


@dataclass(frozen=True)
class TokenChange:
    """One token of the chosen answer; log-probs in nats, favourites as (text, log-prob)."""

    position: int
    text: str
    before: float
    after: float
    favourite_before: tuple[str, float]
    favourite_after: tuple[str, float]
    colour: str
    displaced: bool

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True)
class TokenView:
    """One example's tokens; `half` tokens carry half of all that was lost, out of `losing`.

    `largest` are the largest losses and `gained` the largest gains.
    """

    arm: str
    example: str
    split: str
    prompt: str
    chosen: str
    change: float
    tokens: tuple[TokenChange, ...]
    largest: tuple[TokenChange, ...]
    half: int
    losing: int
    gained: tuple[TokenChange, ...] = ()


def visible(text: str) -> str:
    """A token's text with its line breaks made visible."""
    return text.replace("\n", "⏎").replace("\t", "⇥")


def shade(change: float, scale: float) -> str:
    """A CSS colour from white at 0 to orange (loss) or blue (gain) at `scale` nats and beyond."""
    weight = min(abs(change) / scale, 1.0) ** 0.8
    end = _LOSS if change < 0 else _GAIN
    return f"rgb({','.join(str(round(255 + (c - 255) * weight)) for c in end)})"


def colour_scale(entries: tuple[dict[str, Any], ...]) -> float:
    """Where colours saturate: the 95th percentile of all absolute changes, at least 1 nat."""
    changes = [abs(t["logp_after"] - t["logp_before"]) for e in entries for t in e["tokens"]]
    return max(1.0, float(np.percentile(changes, 95))) if changes else 1.0


def _change(position: int, token: dict[str, Any], scale: float) -> TokenChange:
    change = token["logp_after"] - token["logp_before"]
    favourite = str(token["argmax_after"])
    return TokenChange(
        position,
        str(token["text"]),
        float(token["logp_before"]),
        float(token["logp_after"]),
        (str(token["argmax_before"]), float(token["argmax_logp_before"])),
        (favourite, float(token["argmax_logp_after"])),
        shade(change, scale),
        displaced=change < -0.5 * scale and favourite != token["text"],
    )


def token_view(entry: dict[str, Any], scale: float) -> TokenView:
    """The view of one `tokens` entry, coloured on a common scale."""
    tokens = tuple(_change(i, t, scale) for i, t in enumerate(entry["tokens"], start=1))
    gaining = sorted((t for t in tokens if t.change > 0), key=lambda t: -t.change)
    losing = sorted((t for t in tokens if t.change < 0), key=lambda t: t.change)
    lost = np.cumsum([-t.change for t in losing])
    half = int(np.searchsorted(lost, lost[-1] / 2)) + 1 if losing else 0
    return TokenView(
        arm=str(entry["arm"]),
        example=str(entry["example"]),
        split=str(entry.get("split", "")),
        prompt=str(entry.get("prompt", "")),
        chosen=str(entry.get("chosen", "")),
        change=float(entry["delta_logp"]),
        tokens=tokens,
        largest=tuple(losing[:N_LARGEST]),
        half=half,
        losing=len(losing),
        gained=tuple(gaining[:N_GAINED]),
    )
