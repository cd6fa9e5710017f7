"""Hypothesis strategies for the theory: logits drawn to be nasty, all in one place."""

from __future__ import annotations

from hypothesis import strategies as st

from squeeze.claims.situations import SHAPES, Situation

LARGEST_VOCAB = 100_000


def step_sizes() -> st.SearchStrategy[float]:
    """η from 1e-6 to 10, evenly in its logarithm, the ends included."""
    exponents = st.floats(-6, 1, allow_nan=False)
    return st.one_of(st.sampled_from([1e-6, 1.0, 10.0]), exponents.map(lambda x: 10.0**x))


def label_probabilities() -> st.SearchStrategy[float | None]:
    """π(y) from 1e-30 to 1 − 1e-12, or None: whatever the shape gives it."""
    small = st.floats(-30, -1).map(lambda x: 10.0**x)
    near_one = st.floats(-12, -1).map(lambda x: 1 - 10.0**x)
    return st.one_of(st.none(), st.floats(0.05, 0.95), small, near_one)


def listed_logits(smallest_vocab: int, largest_vocab: int) -> st.SearchStrategy[tuple[float, ...]]:
    """Few logits drawn one by one, with ties and near ties, for counterexamples that shrink.

    At most 300 apart: at 350 the square of the smallest probability underflows in float64, and with
    it the change of a label that has all the rest of the mass.
    """
    logit = st.one_of(st.floats(-150, 150), st.sampled_from([0.0, 1e-12, 1.0, 40.0]))
    return st.lists(logit, min_size=smallest_vocab, max_size=largest_vocab).map(tuple)


@st.composite
def small_situations(draw: st.DrawFn, smallest_vocab: int = 2, largest_vocab: int = 8) -> Situation:
    """Situations whose logits are listed in full."""
    listed = draw(listed_logits(smallest_vocab, largest_vocab))
    return Situation(
        vocab=len(listed),
        rank=draw(st.integers(0, len(listed) - 1)),
        eta=draw(step_sizes()),
        label_probability=draw(label_probabilities()),
        listed=listed,
    )


@st.composite
def shaped_situations(
    draw: st.DrawFn, smallest_vocab: int = 2, largest_vocab: int = LARGEST_VOCAB
) -> Situation:
    """Flat, Gaussian, peaky, tied, two-peaked and Zipfian logits of any vocabulary."""
    sizes = [size for size in (10, 1000, LARGEST_VOCAB) if size <= largest_vocab]
    few = st.integers(smallest_vocab, min(100, largest_vocab))
    vocab = draw(st.one_of(few, st.sampled_from(sizes)))
    return Situation(
        vocab=vocab,
        rank=draw(st.one_of(st.sampled_from([0, 1, vocab - 1]), st.integers(0, vocab - 1))),
        eta=draw(step_sizes()),
        shape=draw(st.sampled_from(SHAPES)),
        seed=draw(st.integers(0, 2**31 - 1)),
        label_probability=draw(label_probabilities()),
    )


def situations(
    smallest_vocab: int = 2, largest_vocab: int = LARGEST_VOCAB
) -> st.SearchStrategy[Situation]:
    """Every kind of situation."""
    return st.one_of(
        small_situations(smallest_vocab), shaped_situations(smallest_vocab, largest_vocab)
    )
