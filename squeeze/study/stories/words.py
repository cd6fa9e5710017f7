"""The material of `generator`, read from words.yaml: who, where, what, and eight plots."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_POSSESSIVE = {"he": "his", "she": "her"}


class Character(NamedTuple):
    """A name, what it belongs to, and its pronouns."""

    name: str
    kind: str
    pronoun: str
    possessive: str


class Plot(NamedTuple):
    """A verb that names it, what happens in order (phrasings of each part), and its point."""

    verb: str
    parts: list[list[str]]
    summaries: list[str]
    morals: list[str]


class Words(NamedTuple):
    """Everything a story is made of."""

    characters: list[Character]
    places: list[str]
    things: list[str]
    feelings: list[str]
    openings: list[str]
    endings: list[str]
    plots: list[Plot]


@cache
def words() -> Words:
    """The words, read once."""
    path = Path(__file__).with_name("words.yaml")
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    characters = [
        Character(name, kind, pronoun, _POSSESSIVE[pronoun])
        for pronoun, kinds in data.pop("characters").items()
        for name, kind in kinds.items()
    ]
    plots = [Plot(**plot) for plot in data.pop("plots")]
    return Words(characters=characters, plots=plots, **data)
