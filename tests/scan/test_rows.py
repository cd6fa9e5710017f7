"""The scan's numbers against the scores, and against claim SM-4's own falling set."""

from dataclasses import astuple

import pytest
import torch

from squeeze.data.loading import load_examples
from squeeze.errors import InputError
from squeeze.scan import ches_scores, scan
from squeeze.scan.ches import encode_pairs
from squeeze.scoring import score
from squeeze.theory.softmax import falling_set
from tests.tiny_model import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def examples():
    return load_examples("enthusiastic_en")[:3]


@pytest.fixture(scope="module")
def items(examples):
    return encode_pairs(tiny_tokenizer(), examples)


def test_a_rows_scores_are_those_of_scoring_and_ches(examples, items):
    model = tiny_model()
    scores = {(s.example, s.kind): s for s in score(model, items)}
    for row, known in zip(
        scan(model, items), ches_scores(model, tiny_tokenizer(), examples), strict=True
    ):
        chosen, rejected = (scores[row.example, kind] for kind in ("chosen", "rejected"))
        assert (row.ches, row.normalised_ches) == (known.ches, known.normalised)
        assert row.chosen_logp == pytest.approx(chosen.logp)
        assert row.rejected_logp == pytest.approx(rejected.logp)
        assert row.chosen_mean_logp == pytest.approx(chosen.logp / chosen.n_tokens)
        assert row.rejected_mean_logp == pytest.approx(rejected.logp / rejected.n_tokens)
        assert row.rejected_peakiness == pytest.approx(rejected.peakiness)
        assert (row.chosen_tokens, row.rejected_tokens) == (chosen.n_tokens, rejected.n_tokens)


@pytest.mark.parametrize(
    ("family", "options"), [("llama", {}), ("gemma3", {"final_logit_softcapping": 5.0})]
)
@torch.no_grad()
def test_the_threshold_statistics_are_claim_sm4s(family, options, items):
    model = tiny_model(family, **options)
    for row, item in zip(scan(model, items), items, strict=True):
        rejected = torch.tensor(item.response_ids["rejected"])
        ids = torch.tensor([*item.prompt_ids, *rejected.tolist()])[None]
        logits = model(input_ids=ids).logits[0, len(item.prompt_ids) - 1 : -1].double()
        probs = logits.softmax(-1)
        falls = falling_set(logits, rejected)
        own = probs.gather(-1, rejected[:, None])[:, 0]
        assert row.positions_none_fall == float((own >= probs.square().sum(-1)).double().mean())
        # A label within float32's rounding of the threshold may fall on either side of it.
        assert row.labels_falling == pytest.approx(float(falls.double().mean()), abs=2 / 400)
        assert row.mass_falling == pytest.approx(float((probs * falls).sum(-1).mean()), abs=1e-3)
        assert 0 < row.labels_falling < 1


def test_long_answers_are_taken_in_pieces_with_the_same_result(items, monkeypatch):
    model = tiny_model()
    whole = list(scan(model, items))
    monkeypatch.setattr("squeeze.scan.rows._POSITIONS", 5)
    for piece, row in zip(scan(model, items), whole, strict=True):
        assert astuple(piece)[1:] == pytest.approx(astuple(row)[1:])


def test_a_model_that_gives_nan_is_named_with_the_example(items):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(InputError, match=items[0].example):
        list(scan(model, items))
