"""LLaMA-Factory's trainer as a subject: its YAML, run by its own entry point up to the first step.

Its rows hold tokens, no text, so what they mask is believed and what their text should be is not
asked; loss, reference, log-probs and metrics are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from squeeze.errors import InputError
from squeeze.losses import get_loss
from squeeze.training.config import read_config
from squeeze.training.trl_compat import calling_trainer
from squeeze.verify.families import Metrics, Pairs, logged_of_pairs, pairs_of
from squeeze.verify.scorer import Scores
from squeeze.verify.subject import InstanceSubject
from squeeze.verify.types import DoesNotApply

MEANS = ("ipo", "orpo", "simpo")  # whose log-probs it takes as means over an answer's tokens
STAGE = "dpo"


class LlamaFactoryPairs(Pairs):
    """`stage: dpo` of LLaMA-Factory 0.9: pref_loss, with pref_ftx times an SFT term.

    Labels are smoothed as in cDPO, which its TRL calls sigmoid as well.
    """

    name = "CustomDPOTrainer"

    def __init__(self, *, has_reference: bool) -> None:
        self.has_reference = has_reference

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """`pref_loss`; arXiv 2403.07691 and 2405.14734 where there is no reference."""
        if args.pref_bco_weight:
            raise DoesNotApply("no closed form is known here for pref_bco_weight")
        pair = pairs_of(policy, reference)
        if args.loss_type == "orpo":
            losses = get_loss("orpo")(pair, lam=args.beta)
        elif args.loss_type == "simpo":
            losses = get_loss("simpo")(pair, beta=args.beta, gamma=args.simpo_gamma)
        elif args.loss_type == "kto_pair":
            losses = get_loss("kto_pair")(pair, beta=args.beta)
        elif args.loss_type == "sigmoid":
            losses = get_loss("cdpo")(
                self.pair(policy, reference, args),
                beta=args.beta,
                label_smoothing=args.label_smoothing,
            )
        else:
            return super().loss(policy, reference, args, rows) + self._sft(pair, args)
        return losses.mean() + self._sft(pair, args)

    def _sft(self, pair: Any, args: Any) -> Tensor:
        term: Tensor = args.pref_ftx * get_loss("sft")(pair, normalization="token").mean()
        return term

    def logged(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Metrics:
        """Means over an answer's tokens for some losses; no entropy."""
        pair = (
            pairs_of(policy, reference) if reference is None else self.pair(policy, reference, args)
        )
        return logged_of_pairs(pair, args.beta, means=args.loss_type in MEANS)


class LlamaFactorySubject(InstanceSubject):
    """LLaMA-Factory's trainer before its first step."""

    @property
    def args(self) -> Any:
        """Its training arguments, with what it declares of the loss under TRL's names."""
        own = self.trainer.finetuning_args
        return SimpleNamespace(
            **vars(self.trainer.args)
            | {
                "beta": own.pref_beta,
                "loss_type": own.pref_loss,
                "label_smoothing": own.dpo_label_smoothing,
                "ld_alpha": own.ld_alpha,
                "simpo_gamma": own.simpo_gamma,
                "pref_ftx": own.pref_ftx,
                "pref_bco_weight": getattr(own, "pref_bco_weight", 0.0),
            }
        )

    @property
    def family(self) -> Any:
        """Pairs, with a reference or without."""
        return LlamaFactoryPairs(has_reference=self.trainer.finetuning_args.use_ref_model)


class _Caught(Exception):
    """The trainer is there; nothing is to be trained."""


class _Catch(TrainerCallback):
    """Stops a training before its first step and keeps its trainer."""

    trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the trainer, and leave."""
        self.trainer = calling_trainer()
        raise _Caught


def llamafactory_subject(file: str) -> LlamaFactorySubject:
    """The trainer that `llamafactory-cli train FILE` would start, in float32, nothing written.

    Raises `InputError` for a file that is none of its configurations, for another stage than dpo,
    and without LLaMA-Factory.
    """
    values = _read(Path(file))
    try:
        from llamafactory.train.tuner import run_exp
    except ImportError as error:
        raise InputError(
            f"{file} needs LLaMA-Factory, which is not installed here ({error}); install it in an "
            "environment of its own with dpo-squeeze beside it (its TRL is older than ours), or "
            "verify the data alone: squeeze verify --data FILE --model DIR"
        ) from error
    catch = _Catch()
    with tempfile.TemporaryDirectory(prefix="squeeze-verify-") as scratch:
        quiet = {"output_dir": scratch, "overwrite_output_dir": True, "report_to": "none"}
        exact = {"bf16": False, "fp16": False, "do_train": True, "gradient_accumulation_steps": 1}
        try:
            run_exp(args=values | quiet | exact, callbacks=[catch])
        except _Caught:
            return LlamaFactorySubject(catch.trainer)
    raise InputError(f"LLaMA-Factory ran {file} without starting a training; set do_train: true")


def _read(path: Path) -> dict[str, Any]:
    values = read_config(path)
    if "model_name_or_path" not in values:
        raise InputError(
            f"{path} is no configuration of LLaMA-Factory: model_name_or_path is not set"
        )
    stage = values.get("stage", "sft")
    if stage != STAGE:
        raise InputError(
            f"{path} has stage {stage!r}; only {STAGE!r} can be asked. The data can, without a "
            "training: squeeze verify --data FILE --model DIR"
        )
    return values
