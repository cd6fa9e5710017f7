"""Any registered loss trains through TRL's DPOTrainer, and TRL's own losses come out the same."""

from dataclasses import replace

import pytest
import torch

from squeeze.data.loading import load_examples, split
from squeeze.errors import InputError
from squeeze.losses import LOSSES, PairLogps, get_loss
from squeeze.losses.token_weights import beyond, wpo_weights
from squeeze.models import load_model, load_tokenizer
from squeeze.training.arms import TRAINED_BY_TRL
from squeeze.training.loss_trainer import RegisteredLossTrainer
from squeeze.training.phase_place import PhasePlace
from squeeze.training.trainers import make_trainer, quiet

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def build(tiny_directory, tiny_config, tmp_path_factory):
    """Make a trainer of the tiny model with a given loss; the data are the same every time."""
    train, _ = split(load_examples("enthusiastic_en", None), 4, 0, seed=0)
    tokenizer = load_tokenizer(str(tiny_directory))
    base = next(arm for arm in tiny_config.phase_arms() if arm.name == "dpo").phases[0]

    def make(loss_type, **options):
        quiet()
        phase = replace(base, loss_type=loss_type, loss_options=options, epochs=3)
        place = PhasePlace(tmp_path_factory.mktemp("phase"))
        model = load_model(str(tiny_directory))
        return make_trainer(model, tokenizer, train, phase, tiny_config, place, [], bf16=False)

    return make


def _one_batch(trainer):
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def _gradients(trainer, loss):
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


@pytest.fixture(scope="module")
def hooked(build):
    return build("hinge")


OURS = [name for name in LOSSES if name not in TRAINED_BY_TRL]


@pytest.mark.parametrize("name", [*OURS, "gated_sigmoid", "weighted_sigmoid"])
def test_every_registered_loss_gives_the_trainer_a_gradient(hooked, name):
    hooked._loss, hooked._loss_options = get_loss(name), {}
    batch = _one_batch(hooked)
    value = hooked._compute_loss(hooked.model, batch, False)
    assert torch.isfinite(value)
    assert _gradients(hooked, value).abs().sum() > 0


@pytest.mark.parametrize("name", ["sigmoid", "hinge", "robust", "sppo_hard"])
def test_the_hook_differentiates_what_trl_does_where_both_have_the_loss(hooked, name):
    from trl import DPOTrainer

    hooked._loss = get_loss(name)
    hooked._loss_options = {"label_smoothing": 0.0} if name == "robust" else {}
    hooked.loss_types = [name]
    batch = _one_batch(hooked)
    ours = hooked._compute_loss(hooked.model, batch, False)
    theirs = DPOTrainer._compute_loss(hooked, hooked.model, batch, False)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(_gradients(hooked, ours), _gradients(hooked, theirs))


def test_weight_zero_takes_the_rejected_term_out_of_the_gradient(hooked):
    batch = _one_batch(hooked)

    def gradient(name, **options):
        hooked._loss, hooked._loss_options = get_loss(name), options
        return _gradients(hooked, hooked._compute_loss(hooked.model, batch, False))

    none, half, one = (gradient("weighted_sigmoid", rejected_weight=w) for w in (0.0, 0.5, 1.0))
    torch.testing.assert_close(one, gradient("sigmoid"))
    torch.testing.assert_close(half, (none + one) / 2)
    # At the start s+ is pushed up with weight β/2 a pair: SFT's gradient but for that factor.
    torch.testing.assert_close(none, 0.1 / 2 * gradient("sft"))


def test_the_hook_keeps_trls_metrics(hooked):
    hooked._metrics["train"].clear()
    hooked._compute_loss(hooked.model, _one_batch(hooked), False)
    assert {"rewards/chosen", "logps/rejected", "rewards/margins"} <= set(hooked._metrics["train"])


@pytest.mark.parametrize(
    ("name", "options"),
    [("sigmoid", {"beta": 0.3}), ("ld_dpo", {"ld_alpha": 0.3}), ("wpo", {"beta": 0.3})],
)
def test_what_trl_trains_itself_is_the_loss_of_that_name(build, name, options):
    """Value and every weight's gradient, our log-probs from plain logits."""
    trainer = build(name, **options)
    batch = _one_batch(trainer)
    with torch.no_grad():  # off the reference
        for p in (p for p in trainer.model.parameters() if p.requires_grad):
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    theirs = trainer._compute_loss(trainer.model, batch, False)
    logps = _pair_logps(trainer, batch)
    ours = get_loss(name)(logps, **options).mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    a, b = _gradients(trainer, ours), _gradients(trainer, theirs)
    assert (a - b).norm() < 1e-3 * b.norm()


def _pair_logps(trainer, batch):
    """What a loss sees of the batch, from the logits of policy and reference."""
    mask = batch["completion_mask"][:, 1:].bool()
    targets = batch["input_ids"][:, 1:]

    def token_logps():
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        every = trainer.model(**inputs).logits[:, :-1].log_softmax(-1)
        return every.gather(-1, targets[..., None])[..., 0] * mask, (2 * every).logsumexp(-1)

    (policy, squares), lengths = token_logps(), mask.sum(1).chunk(2)
    with torch.no_grad(), trainer.model.disable_adapter():
        reference, _ = token_logps()
    late = beyond(mask, torch.minimum(*lengths).repeat(2)) * (policy - reference)
    halves = [each.chunk(2) for each in (policy, squares, mask)]
    weight = wpo_weights(*(half[0] for half in halves), *(half[1] for half in halves))
    return PairLogps(
        *(half for each in (policy, reference) for half in each.sum(1).chunk(2)),
        margin_beyond=late.sum(1)[: len(late) // 2] - late.sum(1)[len(late) // 2 :],
        pair_weight=weight,
    )


def test_a_phase_of_a_registered_loss_trains_to_its_end(build):
    trainer = build("weighted_sigmoid", rejected_weight=0.5)
    assert isinstance(trainer, RegisteredLossTrainer)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses[-1] < losses[0]


def test_an_unknown_hyper_parameter_is_refused_before_training(build):
    with pytest.raises(InputError, match="no hyper-parameter 'gama'"):
        build("simpo", gama=1.0)
