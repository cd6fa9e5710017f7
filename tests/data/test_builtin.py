"""What the datasheet of the embedded data promises, checked."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from squeeze import models
from squeeze.data.examples import PreferenceExample
from squeeze.data.loading import builtin_names, load_examples, split

pytestmark = pytest.mark.cpu

REWRITES = ("chosen_rephrased", "chosen_format", "rejected_rephrased", "rejected_format")
ROWS = {"enthusiastic_en": 96, "enthusiastic_zh": 48}


def texts(example: PreferenceExample) -> dict[str, str]:
    return {"chosen": example.chosen, "rejected": example.rejected, **example.responses}


def units(text: str, name: str) -> list[str]:
    """Words, or characters where the script does not space its words."""
    if name.endswith("_zh"):
        return re.findall(r"\w", text)
    return re.findall(r"[\w']+", text.lower())


def ngrams(text: str, name: str) -> set[tuple[str, ...]]:
    size = 8 if name.endswith("_zh") else 5
    found = units(text, name)
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}


@pytest.fixture(scope="module", params=sorted(ROWS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def examples(name: str) -> list[PreferenceExample]:
    return load_examples(name)


def test_the_embedded_sets_are_the_two_of_the_datasheet() -> None:
    assert builtin_names() == sorted(ROWS)


def test_every_row_has_all_four_rewrites(name: str, examples: list[PreferenceExample]) -> None:
    assert len(examples) >= ROWS[name]
    assert all(tuple(e.responses) == REWRITES for e in examples)


def test_no_prompt_and_no_text_occurs_twice(examples: list[PreferenceExample]) -> None:
    everything = [t for e in examples for t in (e.prompt[0].content, *texts(e).values())]
    assert [t for t, n in Counter(everything).items() if n > 1] == []


@pytest.mark.parametrize("kind", ["chosen", "rejected", *REWRITES])
def test_no_two_texts_of_a_kind_open_alike(
    name: str, examples: list[PreferenceExample], kind: str
) -> None:
    length = 4 if name.endswith("_zh") else 3
    openings = Counter(tuple(units(texts(e)[kind], name)[:length]) for e in examples)
    assert [o for o, n in openings.items() if n > 1] == []


def test_texts_of_two_examples_hardly_share_an_ngram(
    name: str, examples: list[PreferenceExample]
) -> None:
    grams = [(e.id, kind, ngrams(t, name)) for e in examples for kind, t in texts(e).items()]
    where: dict[tuple[str, ...], list[int]] = {}
    for index, (_, _, found) in enumerate(grams):
        for gram in found:
            where.setdefault(gram, []).append(index)
    shared = Counter(
        pair for indices in where.values() for pair in itertools.combinations(indices, 2)
    )

    def offenders() -> Iterator[tuple[str, ...]]:
        for (a, b), count in shared.items():
            (id_a, kind_a, grams_a), (id_b, kind_b, grams_b) = grams[a], grams[b]
            if id_a != id_b and count > 0.05 * min(len(grams_a), len(grams_b)):
                yield id_a, kind_a, id_b, kind_b

    assert list(offenders()) == []


def test_chosen_and_rejected_are_equally_long(name: str, examples: list[PreferenceExample]) -> None:
    lengths = [(len(units(e.chosen, name)), len(units(e.rejected, name))) for e in examples]
    mean_difference = sum(c - r for c, r in lengths) / len(lengths)
    assert abs(mean_difference) < 1
    assert max(abs(c - r) for c, r in lengths) <= 8


def test_chinese_responses_have_at_most_60_characters() -> None:
    rows = load_examples("enthusiastic_zh")
    assert max(len(t) for e in rows for t in texts(e).values()) <= 60


def test_english_responses_have_at_most_60_tokens_and_balanced_ones() -> None:
    if not models.is_cached("smollm2-135m"):
        pytest.skip("smollm2-135m is not cached; run: squeeze models fetch smollm2-135m")
    tokenizer = models.load_tokenizer("smollm2-135m")
    rows = load_examples("enthusiastic_en")
    counts = [{k: len(tokenizer(t)["input_ids"]) for k, t in texts(e).items()} for e in rows]
    assert max(max(c.values()) for c in counts) <= 60
    chosen, rejected = (sum(c[kind] for c in counts) for kind in ("chosen", "rejected"))
    assert chosen / rejected == pytest.approx(1, abs=0.1)


def test_the_split_of_embedded_data_is_by_the_ids_number(
    name: str, examples: list[PreferenceExample]
) -> None:
    train, held_out = split(examples, ROWS[name] * 2 // 3, ROWS[name] // 3, seed=0)
    assert all(int(e.id[3:]) % 3 == 0 for e in held_out)
    assert all(int(e.id[3:]) % 3 != 0 for e in train)
