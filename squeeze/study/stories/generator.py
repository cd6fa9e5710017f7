"""Stories with instructions, made up in the manner of TinyStories-Instruct; no download.

A story is one of eight plots told with drawn characters, places and things, each of its sentences
drawn from several phrasings. All that is random comes from the seed: story i of a seed is always
the same. The words live in words.yaml.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from squeeze.study.stories.words import words


@dataclass(frozen=True)
class Story:
    """An instruction and the story that was written for it."""

    prompt: str
    text: str


def instruction(given: Sequence[str], features: Sequence[str], summary: str) -> str:
    """A prompt in TinyStories-Instruct's layout; it ends where the story begins."""
    lines = [
        f"Words: {', '.join(given)}" if given else "",
        f"Features: {', '.join(features)}" if features else "",
        f"Summary: {summary}" if summary else "",
        "Story:\n",
    ]
    return "\n".join(line for line in lines if line)


def make_story(seed: int, index: int) -> Story:
    """Story `index` of a seed."""
    rng = random.Random(f"story/{seed}/{index}")
    w = words()
    plot = rng.choice(w.plots)
    hero, friend = rng.sample(w.characters, 2)
    thing, other = rng.sample(w.things, 2)
    feeling, mood = rng.sample(w.feelings, 2)
    slots = {
        "hero": hero.name,
        "kind": hero.kind,
        "he": hero.pronoun,
        "He": hero.pronoun.capitalize(),
        "his": hero.possessive,
        "His": hero.possessive.capitalize(),
        "friend": friend.name,
        "fkind": friend.kind,
        "fhe": friend.pronoun,
        "FHe": friend.pronoun.capitalize(),
        "place": rng.choice(w.places),
        "thing": thing,
        "other": other,
        "feeling": feeling,
        "mood": mood,
    }
    moral = rng.random() < 0.5
    parts = [rng.choice(part) for part in (w.openings, *plot.parts, w.endings)]
    text = " ".join(part.format_map(slots) for part in parts)
    if moral:
        text += f" The moral of the story is: {rng.choice(plot.morals)}"
    features = ["Dialogue"] * ('"' in text) + ["MoralValue"] * moral
    given = rng.sample([thing.split()[-1], feeling, plot.verb], 3)
    prompt = instruction(given, features, rng.choice(plot.summaries).format_map(slots))
    return Story(prompt, text)


def make_stories(count: int, seed: int, start: int = 0) -> list[Story]:
    """`count` stories of a seed from number `start`; different numbers, different draws."""
    return [make_story(seed, start + i) for i in range(count)]
