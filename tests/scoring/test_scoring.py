"""Scores against the plain definition: full logits, float64 log-softmax, one response at a time."""

from contextlib import nullcontext

import pytest
import torch
import transformers
from peft import LoraConfig, PrefixTuningConfig, get_peft_model

from squeeze import scoring
from squeeze.data.encoding import EncodedItem, encode_item
from squeeze.data.loading import load_examples, split
from squeeze.data.probe_set import build_probe_set
from squeeze.errors import InputError
from squeeze.scoring import product_dtype, score, score_responses
from tests.tiny_model import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def items():
    train, held_out = split(load_examples("enthusiastic_en"), 2, 2, seed=0)
    return [encode_item(tiny_tokenizer(), i) for i in build_probe_set(train, held_out).items]


@torch.no_grad()
def by_definition(model, item, kind):
    """Log-softmax of all logits in float64; positions that predict the response's tokens."""
    ids = torch.tensor([item.prompt_ids + item.response_ids[kind]])
    logp = model(input_ids=ids).logits[0].double().log_softmax(-1)
    rows = logp[len(item.prompt_ids) - 1 : -1]
    targets = ids[0, len(item.prompt_ids) :]
    p = rows.exp()
    return {
        "logp": rows.gather(1, targets[:, None]).sum().item(),
        "argmax_logp": rows.max(-1).values.sum().item(),
        "entropy": -(p * rows).sum(-1).mean().item(),
        "peakiness": p.square().sum(-1).mean().item(),
    }


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_scores_are_the_definition_in_every_family(family, shared_prefix, items):
    model = tiny_model(family)
    for row in score(model, items, shared_prefix=shared_prefix):
        item = next(i for i in items if i.example == row.example)
        expected = by_definition(model, item, row.kind)
        for name, value in expected.items():
            assert getattr(row, name) == pytest.approx(value, abs=1e-3), (row.kind, name)
        assert row.n_tokens == len(item.response_ids[row.kind])


SMALL = {
    **{
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    **{"num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("Cohere", {"logit_scale": 0.25}),
        ("Granite", {"logits_scaling": 8.0}),
        ("FalconH1", {"lm_head_multiplier": 0.125, "mamba_d_ssm": 32, "mamba_n_heads": 4}),
    ],
)
def test_a_model_that_scales_its_logits_is_scored_with_the_scale(name, scale, items):
    config = getattr(transformers, f"{name}Config")(
        **SMALL, **scale, vocab_size=len(tiny_tokenizer())
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    row = score(model, items[:1])[0]
    for field, value in by_definition(model, items[0], "chosen").items():
        assert getattr(row, field) == pytest.approx(value, abs=1e-3), field


def test_an_adapter_on_the_head_counts_and_a_disabled_one_does_not(items):
    lora = LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model = get_peft_model(tiny_model("qwen3", tie_word_embeddings=False), lora).eval()
    for on in (True, False):
        with nullcontext() if on else model.disable_adapter():
            row = score(model, items[:1])[0]
            expected = by_definition(model, items[0], "chosen")["logp"]
        assert row.logp == pytest.approx(expected, abs=1e-3)


def test_learned_prompts_are_refused(items):
    tuning = PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    with pytest.raises(InputError, match="prefix and prompt tuning"):
        score(get_peft_model(tiny_model(), tuning), items[:1])


def test_a_sliding_window_shorter_than_the_pack_is_scored_plainly_and_right(items):
    model = tiny_model("gemma3", sliding_window=8)
    assert "sliding_attention" in model.config.layer_types
    row = score(model, items[:1])[0]
    assert row.logp == pytest.approx(by_definition(model, items[0], "chosen")["logp"], abs=1e-3)


def test_what_all_prompts_begin_with_is_read_once_and_changes_nothing(items):
    model, lengths = tiny_model(), []
    model.model.embed_tokens.register_forward_hook(
        lambda _m, args, _o: lengths.append(args[0].numel())
    )
    together = score(model, items)
    read_together, lengths[:] = sum(lengths), []
    alone = [row for item in items for row in score(model, [item])]
    assert read_together < sum(lengths)
    for a, b in zip(together, alone, strict=True):
        assert a.logp == pytest.approx(b.logp, abs=1e-3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scoring_leaves_the_attention_as_it_was_and_needs_no_special_one(attention, items):
    model = tiny_model()
    model.set_attn_implementation(attention)
    row = score(model, items[:2])[0]
    assert row.logp == pytest.approx(by_definition(model, items[0], "chosen")["logp"], abs=1e-3)
    assert model.config._attn_implementation == attention


def test_an_adapter_is_scored_as_it_stands(items):
    model = tiny_model()
    before = [row.logp for row in score(model, items[:1])]
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    after = score(tuned, items[:1])
    assert max(abs(a.logp - b) for a, b in zip(after, before, strict=True)) > 1
    expected = by_definition(tuned, items[0], "chosen")["logp"]
    assert after[0].logp == pytest.approx(expected, abs=1e-3)


def test_soft_capped_logits_are_scored_as_the_model_gives_them(items):
    model = tiny_model("gemma3", final_logit_softcapping=5.0)
    row = score(model, items[:1])[0]
    assert row.logp == pytest.approx(by_definition(model, items[0], "chosen")["logp"], abs=1e-3)


def test_scoring_leaves_the_model_in_the_mode_it_was_in(items):
    model = tiny_model().train()
    score(model, items[:1])
    assert model.training


def test_bfloat16_is_close_and_not_equal(items):
    model = tiny_model()
    exact, fast = score(model, items[:1]), score(model, items[:1], dtype=torch.bfloat16)
    errors = [abs(a.logp - b.logp) for a, b in zip(exact, fast, strict=True)]
    # 8 bits of mantissa: 2^-8 relative on logits of order 10, over some 60 tokens, random signs.
    assert 0 < max(errors) < 10


@pytest.mark.parametrize("adapter", [False, True])
def test_16_bit_weights_are_scored_exactly_where_the_cpu_would_emulate_them(
    adapter, items, monkeypatch
):
    monkeypatch.setattr(scoring, "has_bf16_matmul", lambda: False)
    model = tiny_model().to(torch.bfloat16)
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    before = [(weight, weight.clone()) for weight in model.parameters()]
    rows = score(model, items[:1])
    for now, (then, values) in zip(model.parameters(), before, strict=True):
        assert now is then
        assert torch.equal(now, values)
    assert model.dtype == torch.bfloat16
    expected = by_definition(model.float(), items[0], "chosen")["logp"]
    assert rows[0].logp == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("weights", "autocast", "device", "expected"),
    [
        (torch.float32, torch.bfloat16, "cuda", torch.bfloat16),
        (torch.float32, torch.bfloat16, "cpu", torch.float32),
        (torch.float32, None, "cuda", torch.float32),
        (torch.float16, torch.bfloat16, "cuda", torch.float16),
    ],
)
def test_under_autocast_a_gpu_multiplies_the_head_in_16_bits(weights, autocast, device, expected):
    assert product_dtype(weights, autocast, torch.device(device)) == expected


def test_16_bit_weights_are_multiplied_as_they_are_where_the_cpu_can(items, monkeypatch):
    monkeypatch.setattr(scoring, "has_bf16_matmul", lambda: True)
    model = tiny_model().to(torch.bfloat16)
    rounded = score(model, items[:1])[0].logp
    exact = by_definition(model.float(), items[0], "chosen")["logp"]
    assert 1e-3 < abs(rounded - exact) < 10


def test_a_response_of_one_token_is_scored_from_the_prompt_alone(items):
    item = EncodedItem("x", "train", items[0].prompt_ids, {"chosen": [7], "rejected": [8, 9]})
    model = tiny_model()
    rows = score(model, [item])
    assert rows[0].logp == pytest.approx(by_definition(model, item, "chosen")["logp"], abs=1e-3)
    assert [r.n_tokens for r in rows] == [1, 2]


def test_nan_is_an_error_that_names_the_example(items):
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=items[0].example):
        score(model, items[:1])


def test_a_model_without_a_head_is_refused(items):
    with pytest.raises(InputError, match="no LM head"):
        list(score_responses(tiny_model().model, items[:1]))
