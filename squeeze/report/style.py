"""Styles of response kinds and arms: looks and names, in every figure and table of a report.

Colours are Okabe & Ito's, told apart by colour-blind readers; members of one family share a colour
and differ in their dash. No drawing happens here.
"""

from __future__ import annotations

from dataclasses import dataclass

from squeeze.data.probe_set import KINDS

# The model's favourite token at each position of the chosen answer: a curve, not a response kind.
ARGMAX = "argmax"

_BLUE, _RED, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#A8578C"
_ORANGE, _SKY, _GREY, _INK = "#B57F00", "#3A9BD1", "#767676", "#111111"


@dataclass(frozen=True)
class KindStyle:
    """A kind's name in the report, its colour, its dash (plotly's name) and whether it leads."""

    name: str
    colour: str
    dash: str
    leading: bool = False

    @property
    def width(self) -> float:
        """Line width in points."""
        return 2.6 if self.leading else 1.5

    @property
    def pattern(self) -> str | tuple[int, tuple[float, ...]]:
        """The dash as matplotlib spells it."""
        return {"solid": "-", "dash": "--", "dot": ":"}.get(self.dash, (0, (5.0, 2.0, 1.0, 2.0)))


STYLES: dict[str, KindStyle] = {
    ARGMAX: KindStyle("model's favourite tokens", _INK, "solid", leading=True),
    "chosen": KindStyle("chosen", _BLUE, "solid", leading=True),
    "chosen_rephrased": KindStyle("chosen, rephrased", _BLUE, "dash"),
    "chosen_format": KindStyle("chosen, other meaning", _BLUE, "dot"),
    "rejected": KindStyle("rejected", _RED, "solid", leading=True),
    "rejected_rephrased": KindStyle("rejected, rephrased", _RED, "dash"),
    "rejected_format": KindStyle("rejected, other meaning", _RED, "dot"),
    "other_answer": KindStyle("another prompt's answer", _GREEN, "solid"),
    "unseen_answer": KindStyle("unseen prompt's answer", _GREEN, "dash"),
    "human": KindStyle("human sentence", _ORANGE, "solid"),
    "initial": KindStyle("own first answer", _SKY, "dashdot"),
    "permuted": KindStyle("chosen, words shuffled", _PURPLE, "dash"),
    "random": KindStyle("random words", _GREY, "dot"),
}

ARM_COLOURS = (_BLUE, _RED, _GREEN, _PURPLE, _ORANGE, _GREY)
SPLITS = {"train": "training prompts", "held_out": "held-out prompts"}


def style(kind: str) -> KindStyle:
    """The style of a kind; one that the paper does not have is drawn in grey under its own name."""
    return STYLES.get(kind, KindStyle(kind.replace("_", " "), _GREY, "dashdot"))


def description(kind: str) -> str:
    """One line: the paper's symbol and what the kind is."""
    if kind == ARGMAX:
        return "y*: the most likely token at each position of the chosen answer"
    symbol, what = KINDS.get(kind, ("", "a response kind of this data set"))
    return f"{symbol}: {what}" if symbol else what


def split_name(split: str) -> str:
    """A split in words."""
    return SPLITS.get(split, split.replace("_", " "))


def in_order(kinds: list[str]) -> list[str]:
    """The argmax first where `chosen` is present, then the paper's kinds, then the rest."""
    lead = [ARGMAX] if "chosen" in kinds else []
    return lead + [k for k in KINDS if k in kinds] + [k for k in kinds if k not in KINDS]
