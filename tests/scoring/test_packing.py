"""What a packed pass costs: no padding to a single long answer, no wait for the device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from squeeze.data.encoding import EncodedItem
from squeeze.packing import packs
from squeeze.scoring import score
from squeeze.tree_attention import Tree, _tree_attention
from tests.tiny_model import tiny_model

pytestmark = pytest.mark.cpu

CPU = torch.device("cpu")


def item(name, prompt, *answers):
    responses = {f"answer {i}": [7] * length for i, length in enumerate(answers)}
    return EncodedItem(name, "train", [5] * prompt, responses)


def needed(prompts, answers):
    """Scores of attention that somebody looks at, padded neither way."""
    own = sum(n * n for n in prompts)
    return own + sum(
        n * (prompt + n) for prompt, some in zip(prompts, answers, strict=True) for n in some
    )


SHAPES = {
    "one long answer among short ones": ([40], [[1500] + [20] * 350]),
    "one long prompt among short ones": ([1500, *[20] * 30], [[20] * 10] * 31),
    "all lengths": ([20, 90, 400], [[1, 5, 30], [200, 17, 3], [64, 128, 900]]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_answer_is_padded_beyond_twice_its_length_and_twice_its_prompt_s(shape):
    prompts, answers = SHAPES[shape]
    paid = sum(group.mask.numel() for group in Tree(prompts, answers, CPU).groups)
    assert paid <= 4 * needed(prompts, answers)


def test_lengths_of_every_size_in_one_pack_are_scored_as_alone():
    model = tiny_model(max_position_embeddings=2048)
    items = [item("a", 30, 1, 2, 300, 9), item("b", 200, 40, 3), item("c", 3, 80)]
    together = score(model, items)
    plain = [row for one in items for row in score(model, [one], shared_prefix=False)]
    for a, b in zip(together, plain, strict=True):
        assert (a.example, a.kind) == (b.example, b.kind)
        assert a.logp == pytest.approx(b.logp, rel=1e-5, abs=1e-3)


def test_keys_that_every_answer_copies_of_its_prompt_close_a_pack():
    many_short = [item(name, 1000, *[2] * 100) for name in "abcdef"]
    assert len(packs(many_short, torch.device("cuda"))) == 6
    assert [len(pack) for pack in packs([item(n, 50, 50, 50) for n in "abcdef"], CPU)] == [6]


def test_no_layer_waits_for_the_device():
    waiting = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = str(function)
            masks = name.startswith("aten.index") and any(
                isinstance(index, torch.Tensor) and index.dtype == torch.bool
                for index in (args[1] if isinstance(args[1], list | tuple) else ())
            )
            if masks or "nonzero" in name or "_local_scalar_dense" in name:
                waiting.append(name)
            return function(*args, **(kwargs or {}))

    model, tree = tiny_model(), Tree([4, 6], [[3, 1], [2]], CPU)
    layer = model.model.layers[0].self_attn
    states = torch.randn(1, 2, 16, 8)
    with Watch():
        _tree_attention(layer, states, states[:, :1], states[:, :1], None, tree=tree)
    assert waiting == []
    with Watch():  # a mask as an index would be seen
        states[0, 0][torch.ones(16, dtype=torch.bool)]
    assert waiting
