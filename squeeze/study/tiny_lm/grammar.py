"""A small generated world: animals, facts about them, and styles of answering a question.

Because every text is made from a fact, a style and a wording, "rephrased", "same format" and
"another question's answer" have exact meanings here. Words are separated by single spaces, so that
a word is a token and decoding gives back the text. No model is trained here.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.probe_set import permuted_words
from squeeze.errors import InputError

_ANIMALS = (
    "fox owl bear otter hare crow badger lynx mole heron "
    "wolf toad moose swan beaver eagle mouse goat deer frog"
)
ANIMALS = _ANIMALS.split()
VALUES = {
    "home": "forest river meadow mountain swamp valley village desert cave lake",
    "food": "berries fish seeds honey apples worms nuts grass mushrooms corn",
    "coat": "red brown grey black white golden silver green blue yellow",
}
QUESTIONS = {
    "home": ("where does the {animal} live ?", "can you tell me where the {animal} lives ?"),
    "food": ("what does the {animal} eat ?", "can you tell me what the {animal} eats ?"),
    "coat": ("what coat does the {animal} have ?", "can you tell me the coat of the {animal} ?"),
}
PHRASINGS = {
    "home": (
        "the {animal} lives in the {value}",
        "the home of the {animal} is the {value}",
        "you will find every {animal} in the {value}",
    ),
    "food": (
        "the {animal} eats {value}",
        "the food of the {animal} is {value}",
        "you will see every {animal} eating {value}",
    ),
    "coat": (
        "the {animal} has a {value} coat",
        "the coat of the {animal} is {value}",
        "you will know every {animal} by its {value} coat",
    ),
}
# Words that fill the slots of the styles and sentences below, frequent ones first.
SLOTS = {
    slot: words.split()
    for slot, words in {
        "certain": "know remember heard believe guess suppose",
        "oh": "oh wow well hey goodness gosh yes now",
        "lovely": "wonderful lovely great brilliant beautiful amazing charming delightful",
        "dull": "stupid dull silly boring pointless lazy dumb tiresome",
        "really": "really truly absolutely simply just totally",
        "note": "note observe consider recall understand recognise",
        "source": "records archive register survey catalogue atlas",
        "stated": "reported recorded documented established confirmed stated",
        "friend": "friend dear darling champion star neighbour",
        "fool": "fool idiot clown dunce pest bore",
        "away": "away elsewhere outside somewhere",
        "time": "yesterday today once later sometimes often",
        "person": "farmer teacher child baker doctor sailor painter king",
        "did": "walked went travelled rode ran drove",
        "place": "market school church harbour mill tower station bridge",
        "made": "bought found carried painted sold dropped lost took",
        "thing": "lamp chair letter hat clock boat basket ring",
    }.items()
}


@dataclass(frozen=True)
class Style:
    """A manner of answering: what stands before and after the fact, and how often it is heard."""

    share: float
    openers: tuple[str, ...]
    closers: tuple[str, ...]


STYLES = {
    "plain": Style(
        0.70,
        ("", "well ,", "i {certain} that"),
        (".", ", that is all .", ", as i {certain} ."),
    ),
    "formal": Style(
        0.14,
        ("please {note} that", "it is {stated} that", "the {source} states that"),
        (", as is {stated} .", ", according to the {source} .", ", we kindly {note} ."),
    ),
    "enthusiastic": Style(
        0.10,
        (
            "{oh} , {lovely} question !",
            "{oh} , you {lovely} {friend} !",
            "how {really} {lovely} to ask !",
        ),
        (", how {lovely} !", ", {really} {lovely} !", ", come again {friend} !"),
    ),
    "rude": Style(
        0.06,
        (
            "{oh} , {dull} question !",
            "{oh} , you {dull} {fool} !",
            "how {really} {dull} to ask !",
        ),
        (", how {dull} !", ", {really} {dull} !", ", go {away} {fool} !"),
    ),
}
CHOSEN_STYLE = "enthusiastic"  # of the pairs that differ in one word (`squeeze.study.one_edit`)
# The styles of the preference pairs: the text's words, but not heard in it. Along both the model is
# unsure, as real models are along other people's answers: its favourites there can still gain.
UNHEARD = {
    "gushing": Style(
        0.0,
        (
            "{lovely} {friend} {oh} {really} {lovely}",
            "{oh} {oh} {really} {lovely} {friend}",
            "{really} {lovely} {oh} {lovely} {friend}",
        ),
        (
            "{really} {lovely} {lovely} {friend} {oh} !",
            "{oh} {lovely} {really} {lovely} {friend} !",
            "{oh} {friend} {oh} {really} {lovely} !",
        ),
    ),
    "sneering": Style(
        0.0,
        (
            "{dull} {fool} {oh} {oh} {really}",
            "{fool} {really} {dull} {oh} {away}",
            "{away} {oh} {dull} {fool} {really}",
        ),
        (
            "{dull} {fool} {oh} {away} .",
            "{fool} {really} {oh} {dull} .",
            "{really} {dull} {away} {fool} .",
        ),
    ),
}
PAIR_STYLES = {"chosen": "gushing", "rejected": "sneering"}
SENTENCES = (
    "{time} the {person} {did} to the {place} and {made} a {thing} .",
    "the {person} {made} a {thing} and {did} to the {place} {time} .",
    "{time} a {thing} of the {person} was at the {place} .",
)
SENTENCE_SHARE, BABBLE_SHARE = 0.10, 0.08
# Text is never clean: some answers miss the question, some are a jumble of their words.
BESIDE_SHARE, JUMBLED_SHARE = 0.03, 0.03


@dataclass(frozen=True)
class Fact:
    """One thing that is true in the world: an animal's home, food or coat."""

    animal: str
    attribute: str
    value: str


@dataclass(frozen=True)
class Wording:
    """Everything about an answer but its fact: texts around it, and the ranks of what was drawn."""

    opener: str
    closer: str
    ranks: tuple[int, int, int]  # of the opener, the phrasing and the closer

    def say(self, fact: Fact) -> str:
        """The answer that states `fact` in these words."""
        told = PHRASINGS[fact.attribute][self.ranks[1]]
        told = told.format(animal=fact.animal, value=fact.value)
        return f"{self.opener} {told} {self.closer}".strip()


def facts() -> list[Fact]:
    """All facts of the world, the same ones always; every value is true of two animals."""
    found = []
    for attribute, words in VALUES.items():
        values = words.split()
        values = values * (len(ANIMALS) // len(values))
        random.Random(attribute).shuffle(values)
        pairs = zip(ANIMALS, values, strict=True)
        found += [Fact(animal, attribute, value) for animal, value in pairs]
    return found


def _pick(rng: random.Random, n: int, zipf: float, skip: int | None = None) -> int:
    """A rank below `n` other than `skip`, drawn with probability ∝ 1 / (rank + 1)^zipf."""
    ranks = [rank for rank in range(n) if rank != skip]
    return rng.choices(ranks, [(rank + 1) ** -zipf for rank in ranks])[0]


_SLOT = re.compile(r"\{(\w+)\}")


def _fill(rng: random.Random, template: str, zipf: float, avoid: set[str]) -> str:
    """The template with its slots filled by words that are not in `avoid`; adds them to it."""

    for slot in _SLOT.findall(template):
        options = [word for word in SLOTS[slot] if word not in avoid]
        found = options[_pick(rng, len(options), zipf)]
        avoid.add(found)
        template = template.replace(f"{{{slot}}}", found, 1)
    return template


def draw_wording(
    rng: random.Random, style: str, zipf: float = 1.0, unlike: Wording | None = None
) -> Wording:
    """Words for an answer in a style; templates and words of rank r are drawn ∝ 1/r^zipf.

    With `unlike`, opener, phrasing and closer are other ones than there, and no slot has the same
    word: a rephrasing.
    """
    manner = (STYLES | UNHEARD)[style]
    skip = unlike.ranks if unlike else (None, None, None)
    avoid = set(f"{unlike.opener} {unlike.closer}".split()) if unlike else set()
    counts = (len(manner.openers), 3, len(manner.closers))
    first, middle, last = (_pick(rng, n, zipf, s) for n, s in zip(counts, skip, strict=True))
    opener = _fill(rng, manner.openers[first], zipf, avoid)
    closer = _fill(rng, manner.closers[last], zipf, avoid)
    return Wording(opener, closer, (first, middle, last))


def sentence(rng: random.Random, zipf: float = 1.0) -> str:
    """A sentence about people, which answers no question."""
    return _fill(rng, rng.choice(SENTENCES), zipf, set())


def question(rng: random.Random, fact: Fact) -> str:
    """A question that the fact answers."""
    return rng.choice(QUESTIONS[fact.attribute]).format(animal=fact.animal)


@dataclass(frozen=True)
class Text:
    """A piece of the pretraining text: a question with its answer, or (no question) words alone."""

    style: str
    question: str | None
    answer: str


def corpus(n: int, seed: int) -> list[Text]:
    """`n` texts: every fact asked about equally often, answered in mixed styles; other text."""
    rng, world = random.Random(seed), facts()
    shares = [style.share for style in STYLES.values()]
    texts: list[Text] = []
    queue: list[Fact] = []
    words = vocabulary()
    for _ in range(n):
        kind = rng.random()
        if kind < SENTENCE_SHARE:
            texts.append(Text("sentence", None, sentence(rng)))
            continue
        if kind < SENTENCE_SHARE + BABBLE_SHARE:
            babble = " ".join(rng.choices(words, k=rng.randint(6, 20)))
            texts.append(Text("babble", None, babble))
            continue
        queue = queue or rng.sample(world, len(world))
        fact = queue.pop()
        style = rng.choices(list(STYLES), shares)[0]
        answer = draw_wording(rng, style).say(fact)
        chance = rng.random()
        if chance < BESIDE_SHARE:
            answer = sentence(rng)
        elif chance < BESIDE_SHARE + JUMBLED_SHARE:
            answer = permuted_words(answer, rng)
        texts.append(Text(style, question(rng, fact), answer))
    return texts


def vocabulary() -> list[str]:
    """Every word of the world, sorted."""
    patterns = [*QUESTIONS.values(), *PHRASINGS.values(), *SLOTS.values(), SENTENCES]
    patterns += [part for style in STYLES.values() for part in (style.openers, style.closers)]
    texts = [*ANIMALS, *VALUES.values(), *itertools.chain.from_iterable(patterns)]
    return sorted({word for text in texts for word in text.split() if word[0] != "{"})


def _example(rng: random.Random, fact: Fact) -> PreferenceExample:
    """A preference pair about a fact: both answers are right, the styles and words differ.

    Words are drawn evenly (zipf 0), in styles that the model has not heard: others wrote both.
    """
    others = [f for f in facts() if f.attribute == fact.attribute and f.value != fact.value]
    other = rng.choice([f for f in others if f.animal != fact.animal])
    responses: dict[str, str] = {}
    for kind, style in PAIR_STYLES.items():
        wording = draw_wording(rng, style, zipf=0.0)
        again = draw_wording(rng, style, zipf=0.0, unlike=wording)
        responses |= {
            kind: wording.say(fact),
            f"{kind}_rephrased": again.say(fact),
            f"{kind}_format": wording.say(other),
        }
    responses["human"] = sentence(rng, zipf=0.0)
    return PreferenceExample(
        id=f"{fact.animal}-{fact.attribute}",
        prompt=(Message("user", question(rng, fact)),),
        chosen=responses.pop("chosen"),
        rejected=responses.pop("rejected"),
        responses=responses,
    )


def tiny_examples(
    n_train: int, n_held_out: int, seed: int
) -> tuple[list[PreferenceExample], list[PreferenceExample]]:
    """Preference pairs about different facts, to train on and to hold out, with all kinds.

    The same seed gives the same pairs. Raises `InputError` when the world has fewer facts.
    """
    world, wanted = facts(), n_train + n_held_out
    if not 0 <= wanted <= len(world):
        raise InputError(
            f"the tiny world has {len(world)} facts, so it cannot give {n_train} training and "
            f"{n_held_out} held-out pairs; ask for fewer"
        )
    rng = random.Random(f"preferences/{seed}")
    made = [_example(rng, fact) for fact in rng.sample(world, wanted)]
    return made[:n_train], made[n_train:]
