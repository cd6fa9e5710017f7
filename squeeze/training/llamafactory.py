"""A LLaMA-Factory training configuration (YAML, or JSON with comments) as one of ours.

`translate` reads the keys of LLaMA-Factory's `llamafactory-cli train their.yaml` (stages dpo and
sft) and gives the fields of `RunConfig`, plus warnings. Which keys mean what, and which mean
nothing here, is `llamafactory_keys`' list. Nothing is loaded or trained here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeeze.errors import InputError, did_you_mean
from squeeze.training.declared import checked
from squeeze.training.llamafactory_keys import (
    ELSEWHERE,
    IGNORED,
    MODEL_TEMPLATES,
    ONLY,
    READ,
    STAGES,
    TEMPLATES,
    Keys,
)

_MISSING = object()
PROBED_HELD_OUT = 16  # of the validation rows; all of them would cost more than the training


@dataclass(frozen=True)
class Translation:
    """`settings` are fields of `RunConfig`; `warnings` say, a sentence each, what differs here."""

    settings: dict[str, Any]
    warnings: tuple[str, ...]


def is_llamafactory(values: Mapping[str, Any]) -> bool:
    """Whether a configuration is LLaMA-Factory's and not one of `squeeze replicate`."""
    return "model_name_or_path" in values or "stage" in values


# our options → the keys that they override
_OVERRIDES = {
    "model": "model_name_or_path",
    "pairs": "max_samples",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "beta": "pref_beta",
    "learning_rate": "learning_rate",
    "max_length": "cutoff_len",
    "seed": "seed",
}


def overridden(
    values: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """LLaMA-Factory's keys with our options in them, and the options that it has no key for."""
    theirs = {_OVERRIDES[key]: value for key, value in options.items() if key in _OVERRIDES}
    own = {key: value for key, value in options.items() if key not in _OVERRIDES}
    own.pop("sft_epochs", None)  # num_train_epochs, whatever the stage
    return {**values, **theirs}, own


def _keys(values: Mapping[str, Any]) -> Keys:
    given = {key: value for key, value in values.items() if value is not None}
    keys: Keys = checked(lambda: Keys(**given), lambda key: key)
    return keys


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _refuse_what_cannot_be_honoured(values: Mapping[str, Any]) -> None:
    for key, (honoured, way_out) in ONLY.items():
        value = values.get(key, _MISSING)
        if value is not _MISSING and value is not None and value not in honoured:
            raise InputError(f"{key}: {value!r} cannot be honoured here; {way_out}")


def _key_warnings(values: Mapping[str, Any]) -> list[str]:
    """One sentence for all keys without a meaning here, and one for each that nobody knows."""
    warnings = []
    ignored = [key for key in values if key in IGNORED]
    if ignored:
        warnings.append(f"without a meaning here, and ignored: {', '.join(ignored)}")
    known = [*READ, *ONLY, *IGNORED]
    for key in values:
        if key not in known:
            hint = did_you_mean(key, known, cutoff=0.6)
            warnings.append(f"unknown key {key!r} ignored{hint}")
    return warnings


def _loss(keys: Keys) -> tuple[str, dict[str, Any], list[str]]:
    """The registered loss with its hyper-parameters, but for β; and what is different here."""
    name: str = keys.pref_loss
    if keys.dpo_label_smoothing and name != "sigmoid":
        raise InputError(
            f"dpo_label_smoothing goes with pref_loss sigmoid only, not {name}; set it to 0"
        )
    options: dict[str, Any] = {}
    warnings = []
    if keys.dpo_label_smoothing:
        name, options = "cdpo", {"label_smoothing": keys.dpo_label_smoothing}
    elif name == "ipo":
        options = {"length_normalized": True}
    elif name == "orpo":
        options = {"lam": keys.pref_beta}
    elif name == "simpo":
        options = {"gamma": keys.simpo_gamma}
    elif name == "kto_pair":
        warnings.append(
            "pref_loss kto_pair: the gradient does not flow through the batch's reference points "
            "here, as in the KTO paper; in LLaMA-Factory it does"
        )
    ftx = keys.pref_ftx
    if ftx and name == "sigmoid":
        return "rpo", {"alpha": ftx, "normalization": "token"}, warnings
    if ftx:
        return f"ftx_{name}", options | {"ftx": ftx}, warnings
    return name, options, warnings


def _reference(keys: Keys) -> tuple[dict[str, Any], list[str]]:
    """The reference model, if it is another than the model itself with its new adapter off."""
    model, adapters = keys.ref_model, keys.ref_model_adapters
    if adapters and not model:
        raise InputError(
            "ref_model_adapters goes with ref_model; give the model that they belong to there"
        )
    if model and keys.pref_loss in ("orpo", "simpo"):
        return {}, [f"pref_loss {keys.pref_loss} has no reference, so ref_model is not loaded"]
    if not model:
        return {}, []
    warnings = []
    if keys.ref_model_quantization_bit is not None:
        warnings.append(
            "ref_model_quantization_bit: the reference is not quantized here; it is read once, "
            "before training, and then let go"
        )
    return {"ref_model": model, "ref_model_adapters": adapters}, warnings


def _model(keys: Keys) -> dict[str, Any]:
    if not keys.model_name_or_path:
        raise InputError("model_name_or_path is missing; give a local directory or a hub id")
    settings: dict[str, Any] = {"model": keys.model_name_or_path}
    if keys.adapter_name_or_path:
        if not keys.create_new_adapter:
            raise InputError(
                "adapter_name_or_path: training an adapter further is not done here; with "
                "create_new_adapter: true the given ones are merged into the model first (and are "
                "then part of the reference too)"
            )
        settings["adapters"] = keys.adapter_name_or_path
    return settings


def _lora(keys: Keys) -> dict[str, Any]:
    if keys.finetuning_type == "full":
        return {"finetuning": "full"}
    targets = _names(keys.lora_target) or ["all"]
    return {
        "lora_r": keys.lora_rank,
        "lora_alpha": keys.lora_alpha or 2 * keys.lora_rank,
        "lora_dropout": keys.lora_dropout,
        "lora_targets": "all-linear" if targets == ["all"] else ",".join(targets),
    }


def _schedule(keys: Keys) -> dict[str, Any]:
    epochs, rate = keys.num_train_epochs, keys.learning_rate
    if epochs != int(epochs):
        raise InputError(
            f"num_train_epochs: {epochs:g} cannot be honoured here, where epochs are whole; use "
            f"{int(epochs) or 1} or {int(epochs) + 1}"
        )
    return {
        "epochs": int(epochs),
        "sft_epochs": int(epochs),
        "learning_rate": rate,
        "sft_learning_rate": rate,
        "batch_size": keys.per_device_train_batch_size,
        "accumulation": keys.gradient_accumulation_steps,
        "schedule": keys.lr_scheduler_type,
        "warmup": keys.warmup_steps or keys.warmup_ratio,
        "weight_decay": keys.weight_decay,
        "max_grad_norm": keys.max_grad_norm,
        "seed": keys.seed,
        "dtype": "auto" if keys.bf16 or keys.pure_bf16 else "float32",
        "weights": "bfloat16" if keys.pure_bf16 else "float32",
        "gradient_checkpointing": keys.gradient_checkpointing,
    }


def _template(keys: Keys) -> tuple[dict[str, Any], list[str]]:
    name, system = keys.template, keys.default_system
    if name is None:
        return {"template": "model", "system": system or ""}, []
    if name in TEMPLATES:
        ours, default = TEMPLATES[name]
        return {"template": ours, "system": default if system is None else system}, []
    if name in MODEL_TEMPLATES:
        return {"template": "model", "system": system or ""}, [
            f"template {name}: the chat template of the model's own tokenizer is used"
        ]
    known = [*TEMPLATES, *MODEL_TEMPLATES]
    hint = did_you_mean(name, known, cutoff=0.6) or ";"
    raise InputError(
        f"template {name!r} is not known here{hint} leave it out to use the model's own chat "
        f"template, or choose {', '.join(known)}"
    )


def _data(keys: Keys, base: Path) -> dict[str, Any]:
    """The data sets, found from the working directory as in LLaMA-Factory, or beside the file."""
    names = _names(keys.dataset)
    if not names:
        raise InputError("dataset is missing; name one or more of dataset_info.json, with commas")
    directory = Path(keys.dataset_dir or "data").expanduser()
    places = [directory / "dataset_info.json", base / directory / "dataset_info.json"]
    info = next((place for place in places if place.is_file()), None)
    if info is None:
        raise InputError(
            f"dataset_dir: {places[0]} does not exist (nor {places[1]}); give the directory that "
            "holds dataset_info.json"
        )
    validation = keys.val_size
    if validation >= 1 and validation != int(validation):
        raise InputError(f"val_size must be a share below 1 or a whole number, not {validation:g}")
    settings: dict[str, Any] = {
        "data": f"{info}:{','.join(names)}",
        "val_size": validation,
        "held_out": PROBED_HELD_OUT,
        "max_length": keys.cutoff_len,
        "too_long": "cut",
    }
    if keys.max_samples is not None:
        settings["max_samples"] = keys.max_samples
    return settings


def translate(values: Mapping[str, Any], base: Path) -> Translation:
    """A LLaMA-Factory configuration as ours; `base` is the directory of its file.

    Raises `InputError` naming the key for what is wrong or cannot be honoured, with the way out.
    """
    stage = str(values.get("stage") or "sft")
    if stage not in STAGES:
        why = ELSEWHERE.get(stage, "No other stage is known")
        raise InputError(f"stage {stage!r} is not run here; choose dpo or sft. {why}")
    _refuse_what_cannot_be_honoured(values)
    warnings = _key_warnings(values)
    keys = _keys(values)
    settings = _model(keys) | _lora(keys) | _schedule(keys) | _data(keys, base)
    if keys.pure_bf16:
        warnings.append("pure_bf16: the frozen weights are bfloat16 here, the adapter is float32")
    template, said = _template(keys)
    settings |= template
    warnings += said
    if stage == "sft":
        settings["arms"] = [f"sft-{settings['epochs']}"]
        settings["demonstrations"] = True
        if not keys.mask_history:
            warnings.append(
                "stage sft: in conversations of several turns only the last answer is trained on "
                "here, as with mask_history: true"
            )
        return Translation(settings, tuple(warnings))
    loss, options, said = _loss(keys)
    warnings += said
    reference, said = _reference(keys)
    settings |= reference | {
        "arms": ["dpo"],
        "beta": keys.pref_beta,
        "loss_type": loss,
        "loss_options": options,
    }
    return Translation(settings, tuple(warnings + said))
