"""Hypothesis strategies for preference examples, and which of them a format can hold."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from squeeze.data.examples import Message, PreferenceExample, make_example
from squeeze.data.probe_set import KINDS

ROLES = ("system", "developer", "user", "assistant", "tool")

# Any Unicode but lone surrogates, with what formats use as syntax made likely.
_SYNTAX = st.sampled_from(
    ["\n\nHuman:", "\n\nAssistant: ", "\n", " ", "\u2028", '"', "\\n", "}]", ","]
)
_ANY = st.text(max_size=12)
texts = st.lists(_ANY | _SYNTAX, min_size=1, max_size=4).map("".join)
filled = texts.filter(lambda text: bool(text.strip()))


def _alternating(turns: int) -> st.SearchStrategy[tuple[Message, ...]]:
    roles = ["user", "assistant"] * turns + ["user"]
    return st.tuples(
        *[st.builds(Message, st.just(role), texts) for role in roles[:-1]],
        st.builds(Message, st.just("user"), filled),
    )


_systems = st.just(()) | st.tuples(st.builds(Message, st.just("system"), texts))
_dialogues = st.integers(0, 2).flatmap(_alternating)
_any_turns = st.builds(Message, st.sampled_from(ROLES), texts)
_free = st.lists(_any_turns, max_size=3).map(tuple)
prompts = st.one_of(
    st.builds(lambda content: (Message("user", content),), filled),
    st.builds(lambda system, turns: system + turns, _systems, _dialogues),
    st.builds(
        lambda turns, last: (*turns, last), _free, st.builds(Message, st.just("user"), filled)
    ),
)
_kinds = st.sampled_from([k for k in KINDS if k not in ("chosen", "rejected")])
_responses = st.dictionaries(
    _kinds | st.sampled_from(["rank_2", "rank_3", "чужой"]), texts, max_size=3
)
_identities = st.none() | st.text("abc-_ é", min_size=1, max_size=8).filter(
    lambda t: bool(t.strip())
)


class Parts(NamedTuple):
    """An example's parts. Tests build it, because beartype draws on `random` while it checks."""

    id: str | None
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    responses: dict[str, str]

    def build(self) -> PreferenceExample:
        return make_example(*self)


examples = st.builds(Parts, _identities, prompts, filled, filled, _responses).filter(
    lambda parts: parts.chosen != parts.rejected
)
