"""Checks of tokens: what the model reads and learns of a row, against the row's own text.

The standard is the text as the model will meet it at inference: the chat template's rendering.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from squeeze.verify.preflight import DataSubject
from squeeze.verify.subject import TrainerSubject
from squeeze.verify.tokens import Traced, Traces, common_prefix
from squeeze.verify.types import DoesNotApply, Measured, check

BOTH = (TrainerSubject, DataSubject)
CUT_SHARE = 0.05  # of the answers that may be cut


def _count(what: str, bad: Iterable[Traced], all_: Iterable[Traced]) -> Measured:
    """How many answers are bad, the first of them named."""
    wrong, n = list(bad), len(list(all_))
    first = f", first {wrong[0].where}" if wrong else ""
    return Measured(len(wrong), f"{what}: {len(wrong)} of {n} answers{first}")


def _answers(subject: Any) -> tuple[Traced, ...]:
    traces: Traces = subject.traces
    if not traces.answers:
        raise DoesNotApply("no row is left")
    return traces.answers


@check(
    "not-emptied",
    *BOTH,
    standard="every row keeps tokens of its answer after truncation",
    cure="max_length is used up by prompts: raise it, or drop the long rows; an answer without "
    "tokens gives a loss of nothing, or NaN",
    tolerance=0,
    unit="rows",
)
def not_emptied(subject: Any) -> Measured:
    """Rows dropped, or left without a token of an answer."""
    traces = subject.traces
    empty = {t.expected.row for t in traces.answers if t.is_empty}
    lost = traces.n_lost + len(empty)
    first = f", first row {min(empty) + 1}" if empty else ""
    return Measured(lost, f"rows dropped or emptied: {lost} of {traces.n_rows}{first}")


@check(
    "one-bos",
    *BOTH,
    standard="a sequence begins with one beginning-of-text token",
    cure="the text already holds the token and the tokenizer adds another: leave it out of the "
    "data or the template, or set add_bos_token=False",
    tolerance=0,
    unit="answers",
)
def one_bos(subject: Any) -> Measured:
    """Sequences that begin with it twice."""
    bos = subject.tokenizer.bos_token_id
    if bos is None:
        raise DoesNotApply("the tokenizer has no beginning-of-text token")
    answers = _answers(subject)
    return _count(
        "begin with it twice", (t for t in answers if t.seen.ids[:2] == (bos, bos)), answers
    )


@check(
    "inference-tokens",
    *BOTH,
    standard="a prompt is the same tokens in training as when the model generates from it",
    cure="the chat template renders a prompt differently with add_generation_prompt, another "
    "template is used in training, or tokens merge across the boundary: mend the template, end "
    "prompts where a token ends",
    tolerance=0,
    unit="answers",
    needs=("not-emptied", "one-bos"),
)
def inference_tokens(subject: Any) -> Measured:
    """Sequences that do not begin with the prompt's ids at inference."""
    answers = _answers(subject)

    def differs(t: Traced) -> bool:
        prompt = t.expected.prompt_ids
        return t.seen.ids[: len(prompt)] != prompt

    return _count("another prompt than at inference", filter(differs, answers), answers)


@check(
    "answer-tokens",
    *BOTH,
    standard="an answer is the tokens that the chat template (or the text) makes of it, no more",
    cure="the trainer tokenizes prompt and answer apart, or adds tokens of its own (a second "
    "end-of-text, a space): compare the ids with tokenizer.apply_chat_template",
    tolerance=0,
    unit="answers",
    needs=("inference-tokens",),
)
def answer_tokens(subject: Any) -> Measured:
    """Sequences that are neither answer's text of their row, whole or cut."""
    answers = _answers(subject)
    texts: dict[int, list[tuple[int, ...]]] = {}
    for t in answers:
        texts.setdefault(t.expected.row, []).append(t.expected.ids)

    def differs(t: Traced) -> bool:
        n = len(t.seen.ids)
        return all(t.seen.ids != ids[:n] for ids in texts[t.expected.row])

    return _count("other tokens than the text's", filter(differs, answers), answers)


@check(
    "not-swapped",
    *BOTH,
    standard="what is trained as chosen is the row's chosen answer",
    cure="the columns are the wrong way round somewhere: in the data, or where they are renamed",
    tolerance=0,
    unit="rows",
    needs=("not-emptied", "inference-tokens"),
)
def not_swapped(subject: Any) -> Measured:
    """Rows whose chosen sequence is the rejected text; rows whose scores or twins say so."""
    pairs = subject.traces.pairs()
    if not pairs:
        raise DoesNotApply("the rows are not pairs")
    swapped = {
        c.expected.row
        for c, r in pairs
        if c.expected.ids != r.expected.ids and _is_of(c, r) and _is_of(r, c)
    }
    told = _told_by_data(subject.raw)
    found = sorted(swapped | set(told))
    hint = f", first row {found[0] + 1}" if found else ""
    why = f" ({told[found[0]]})" if found and found[0] in told else ""
    return Measured(len(found), f"chosen and rejected swapped: {len(found)} rows{hint}{why}")


def _is_of(seen: Traced, text: Traced) -> bool:
    """Whether a sequence is another answer's text, as far as truncation leaves both."""
    own = common_prefix(seen.seen.ids, seen.expected.ids)
    return common_prefix(seen.seen.ids, text.expected.ids) > own


def _told_by_data(rows: list[Mapping[str, Any]]) -> dict[int, str]:
    """Rows whose own scores prefer the rejected answer, or that another row contradicts."""
    told = {}
    preferred: dict[str, int] = {}
    for i, row in enumerate(rows):
        preferred.setdefault(repr((row.get("prompt"), row.get("chosen"))), i)
    for i, row in enumerate(rows):
        scores = [row.get(f"score_{k}", row.get(f"{k}_score")) for k in ("chosen", "rejected")]
        if None not in scores and scores[0] < scores[1]:
            told[i] = f"its scores are {scores[0]} and {scores[1]}"
        twin = preferred.get(repr((row.get("prompt"), row.get("rejected"))))
        if twin is not None and twin != i and row.get("chosen") != row.get("rejected"):
            told.setdefault(i, f"its rejected answer is chosen in row {twin + 1}")
    return told


@check(
    "distinct",
    *BOTH,
    standard="the two answers of a pair differ in what is left of them",
    cure="the row's answers are equal, or equal up to where max_length cuts them: drop the row or "
    "raise max_length; such a pair has a gradient of 0, or of noise",
    tolerance=0,
    unit="rows",
    needs=("not-emptied",),
)
def distinct(subject: Any) -> Measured:
    """Pairs of equal sequences."""
    pairs = subject.traces.pairs()
    if not pairs:
        raise DoesNotApply("the rows are not pairs")
    same = [c for c, r in pairs if c.seen.ids == r.seen.ids]
    first = f", first row {same[0].expected.row + 1}" if same else ""
    return Measured(len(same), f"equal answers: {len(same)} of {len(pairs)} rows{first}")


@check(
    "uncut",
    *BOTH,
    standard=f"truncation takes tokens of no more than {CUT_SHARE:.0%} of the answers",
    cure="raise max_length or shorten the answers: a cut answer teaches the model not to end",
    tolerance=CUT_SHARE,
    unit="share",
    needs=("not-emptied", "inference-tokens", "not-swapped"),
)
def uncut(subject: Any) -> Measured:
    """The share of answers that lose their end, or the start of their prompt."""
    answers = _answers(subject)
    cut = [t for t in answers if t.n_cut]
    lost = Counter({t.where: t.n_cut for t in cut})
    worst = "; most: {} ({} tokens)".format(*lost.most_common(1)[0]) if lost else ""
    return Measured(len(cut) / len(answers), f"cut: {len(cut)} of {len(answers)} answers{worst}")


@check(
    "prompt-masked",
    TrainerSubject,
    standard="tokens of the prompt, and padding, carry no loss",
    cure="the loss runs over the prompt or the padding: mask labels up to the answer's first token",
    tolerance=0,
    unit="answers",
    needs=("inference-tokens", "not-swapped"),
)
def prompt_masked(subject: TrainerSubject) -> Measured:
    """Sequences with a token before the answer, or of padding, that the loss depends on."""
    answers = _loss_carriers(subject)
    if subject.family.trains_prompts(subject.args):
        raise DoesNotApply("the trainer is told to train on prompts as well")

    def carries(t: Traced) -> bool:
        return any(t.seen.carries[: len(t.expected.prompt_ids)]) or t.seen.padding_carries > 0

    return _count("prompt or padding carries loss", filter(carries, answers), answers)


@check(
    "end-of-text",
    *BOTH,
    standard="the token that ends generation is in the answer and carries loss",
    cure="the template or the mask leaves it out: the model is not taught to stop; write "
    "eos_token after the assistant's turn, and do not mask it as padding",
    tolerance=0,
    unit="answers",
    needs=("not-emptied", "inference-tokens"),
)
def end_of_text(subject: Any) -> Measured:
    """Uncut answers that do not train an end-of-text token."""
    ends = _end_ids(subject)
    answers = [t for t in _carriers_or_ids(subject) if not t.n_cut]
    if not answers or not ends:
        raise DoesNotApply("every answer is cut" if ends else "the tokenizer has no such token")

    def misses(t: Traced) -> bool:
        start = len(t.expected.prompt_ids)
        taught = zip(t.seen.ids[start:], t.seen.carries[start:], strict=True)
        return not any(token in ends and carries for token, carries in taught)

    return _count("end-of-text not trained on", filter(misses, answers), answers)


@check(
    "whole-answer",
    TrainerSubject,
    standard="all of the answer carries loss, from its first token on",
    cure="the mask begins late or has holes: an off-by-one at the boundary, labels shifted twice",
    tolerance=0,
    unit="answers",
    needs=("inference-tokens", "prompt-masked", "end-of-text"),
)
def whole_answer(subject: TrainerSubject) -> Measured:
    """Sequences in which a token of the answer carries no loss."""
    answers = _loss_carriers(subject)

    def misses(t: Traced) -> bool:
        return not all(t.seen.carries[len(t.expected.prompt_ids) :])

    return _count("part of the answer carries no loss", filter(misses, answers), answers)


def _loss_carriers(subject: TrainerSubject) -> list[Traced]:
    """The answers that carry loss at all: some losses leave the rejected ones alone."""
    if subject.family.name == "RewardTrainer":
        raise DoesNotApply("a reward model has one score a sequence, not a loss a token")
    answers = [t for t in _answers(subject) if any(t.seen.carries)]
    if not answers:
        raise DoesNotApply("no token carries any loss")
    return answers


def _carriers_or_ids(subject: Any) -> list[Traced]:
    if isinstance(subject, TrainerSubject):
        return _loss_carriers(subject)
    return list(_answers(subject))


def _end_ids(subject: Any) -> set[int]:
    """End-of-text by the tokenizer, and by the model's generation configuration."""
    ids = {subject.tokenizer.eos_token_id}
    trainer = getattr(subject, "trainer", None)
    generation = getattr(getattr(trainer, "model", None), "generation_config", None)
    more = getattr(generation, "eos_token_id", None)
    ids |= set(more) if isinstance(more, list) else {more}
    return {int(i) for i in ids if i is not None}
