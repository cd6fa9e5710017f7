"""A LLaMA-Factory training configuration (YAML, or JSON with comments) as one of ours.

`translate` reads the keys of LLaMA-Factory's `llamafactory-cli train their.yaml` (stages dpo and
sft) and gives the fields of `RunConfig`, plus warnings. Which keys mean what, and which mean
nothing here, is `llamafactory_keys`' list. Nothing is loaded or trained here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeeze.errors import InputError
from squeeze.training.llamafactory_keys import (
    ELSEWHERE,
    IGNORED,
    LOSSES,
    MODEL_TEMPLATES,
    ONLY,
    READ,
    SCHEDULES,
    STAGES,
    TEMPLATES,
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


class _Reader:
    """Typed access to the keys; every mistake is an `InputError` that names the key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = {key: value for key, value in values.items() if value is not None}

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self.values.get(key, default)
        if isinstance(value, list):  # newer versions take lists where commas would do
            value = ",".join(map(str, value))
        if value is not None and not isinstance(value, str):
            raise InputError(f"{key} must be text, not {value!r}")
        return value or None

    def names(self, key: str) -> list[str]:
        return [name.strip() for name in (self.text(key) or "").split(",") if name.strip()]

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise InputError(f"{key} must be true or false, not {value!r}")
        return value

    def number(self, key: str, default: float, *, positive: bool = False) -> float:
        value = self.values.get(key, default)
        try:
            number = float(value)  # YAML reads 5e-5 as text
        except (TypeError, ValueError):
            raise InputError(f"{key} must be a number, not {value!r}") from None
        if isinstance(value, bool) or not (number > 0 if positive else number >= 0):
            kind = "positive" if positive else "0 or more"
            raise InputError(f"{key} must be {kind}, not {value!r}")
        return number

    def whole(self, key: str, default: int, *, positive: bool = True) -> int:
        number = self.number(key, float(default), positive=positive)
        if number != int(number):
            raise InputError(f"{key} must be a whole number, not {self.values[key]!r}")
        return int(number)

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = str(self.values.get(key, default))
        if value not in choices:
            raise InputError(f"{key} {value!r} is not known here; choose {', '.join(choices)}")
        return value


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
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            warnings.append(f"unknown key {key!r} ignored{hint}")
    return warnings


def _loss(read: _Reader) -> tuple[str, dict[str, Any], list[str]]:
    """The registered loss with its hyper-parameters, but for β; and what is different here."""
    name = read.choice("pref_loss", LOSSES, "sigmoid")
    beta = read.number("pref_beta", 0.1, positive=True)
    smoothing = read.number("dpo_label_smoothing", 0.0)
    ftx = read.number("pref_ftx", 0.0)
    if smoothing and name != "sigmoid":
        raise InputError(
            f"dpo_label_smoothing goes with pref_loss sigmoid only, not {name}; set it to 0"
        )
    if smoothing >= 0.5:
        raise InputError(f"dpo_label_smoothing must be below 0.5, not {smoothing:g}")
    options: dict[str, Any] = {}
    warnings = []
    if name == "sigmoid" and smoothing:
        name, options = "cdpo", {"label_smoothing": smoothing}
    elif name == "ipo":
        options = {"length_normalized": True}
    elif name == "orpo":
        options = {"lam": beta}
    elif name == "simpo":
        options = {"gamma": read.number("simpo_gamma", 0.5)}
    elif name == "kto_pair":
        warnings.append(
            "pref_loss kto_pair: the gradient does not flow through the batch's reference points "
            "here, as in the KTO paper; in LLaMA-Factory it does"
        )
    if ftx and name == "sigmoid":
        return "rpo", {"alpha": ftx, "normalization": "token"}, warnings
    if ftx:
        return f"ftx_{name}", options | {"ftx": ftx}, warnings
    return name, options, warnings


def _reference(read: _Reader, loss: str) -> tuple[dict[str, Any], list[str]]:
    """The reference model, if it is another than the model itself with its new adapter off."""
    model, adapters = read.text("ref_model"), read.text("ref_model_adapters")
    if adapters and not model:
        raise InputError(
            "ref_model_adapters goes with ref_model; give the model that they belong to there"
        )
    if model and loss in ("orpo", "simpo"):
        return {}, [f"pref_loss {loss} has no reference, so ref_model is not loaded"]
    if not model:
        return {}, []
    warnings = []
    if read.values.get("ref_model_quantization_bit") is not None:
        warnings.append(
            "ref_model_quantization_bit: the reference is not quantized here; it is read once, "
            "before training, and then let go"
        )
    return {"ref_model": model, "ref_model_adapters": adapters}, warnings


def _model(read: _Reader) -> dict[str, Any]:
    model = read.text("model_name_or_path")
    if not model:
        raise InputError("model_name_or_path is missing; give a local directory or a hub id")
    settings: dict[str, Any] = {"model": model}
    adapters = read.text("adapter_name_or_path")
    if adapters:
        if not read.flag("create_new_adapter"):
            raise InputError(
                "adapter_name_or_path: training an adapter further is not done here; with "
                "create_new_adapter: true the given ones are merged into the model first (and are "
                "then part of the reference too)"
            )
        settings["adapters"] = adapters
    return settings


def _lora(read: _Reader) -> dict[str, Any]:
    rank = read.whole("lora_rank", 8)
    targets = read.names("lora_target") or ["all"]
    return {
        "lora_r": rank,
        "lora_alpha": read.whole("lora_alpha", 2 * rank),
        "lora_dropout": read.number("lora_dropout", 0.0),
        "lora_targets": "all-linear" if targets == ["all"] else ",".join(targets),
    }


def _schedule(read: _Reader) -> dict[str, Any]:
    epochs = read.number("num_train_epochs", 3.0, positive=True)
    if epochs != int(epochs):
        raise InputError(
            f"num_train_epochs: {epochs:g} cannot be honoured here, where epochs are whole; use "
            f"{int(epochs) or 1} or {int(epochs) + 1}"
        )
    ratio, steps = read.number("warmup_ratio", 0.0), read.number("warmup_steps", 0.0)
    if ratio >= 1:
        raise InputError(f"warmup_ratio must be below 1, not {ratio:g}; warmup_steps counts steps")
    rate = read.number("learning_rate", 5e-5, positive=True)
    return {
        "epochs": int(epochs),
        "sft_epochs": int(epochs),
        "learning_rate": rate,
        "sft_learning_rate": rate,
        "batch_size": read.whole("per_device_train_batch_size", 8),
        "accumulation": read.whole("gradient_accumulation_steps", 1),
        "schedule": read.choice("lr_scheduler_type", SCHEDULES, "linear"),
        "warmup": steps or ratio,
        "weight_decay": read.number("weight_decay", 0.0),
        "max_grad_norm": read.number("max_grad_norm", 1.0),
        "seed": read.whole("seed", 42, positive=False),
        "dtype": "auto" if read.flag("bf16") or read.flag("pure_bf16") else "float32",
        "weights": "bfloat16" if read.flag("pure_bf16") else "float32",
        "gradient_checkpointing": read.flag("gradient_checkpointing"),
    }


def _template(read: _Reader) -> tuple[dict[str, Any], list[str]]:
    name = read.text("template")
    system = read.text("default_system")
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
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"template {name!r} is not known here; {hint}leave it out to use the model's own chat "
        f"template, or choose {', '.join(known)}"
    )


def _data(read: _Reader, base: Path) -> dict[str, Any]:
    """The data sets, found from the working directory as in LLaMA-Factory, or beside the file."""
    names = read.names("dataset")
    if not names:
        raise InputError("dataset is missing; name one or more of dataset_info.json, with commas")
    directory = Path(read.text("dataset_dir", "data") or "data").expanduser()
    places = [directory / "dataset_info.json", base / directory / "dataset_info.json"]
    info = next((place for place in places if place.is_file()), None)
    if info is None:
        raise InputError(
            f"dataset_dir: {places[0]} does not exist (nor {places[1]}); give the directory that "
            "holds dataset_info.json"
        )
    validation = read.number("val_size", 0.0)
    if validation >= 1 and validation != int(validation):
        raise InputError(f"val_size must be a share below 1 or a whole number, not {validation:g}")
    settings: dict[str, Any] = {
        "data": f"{info}:{','.join(names)}",
        "val_size": validation,
        "held_out": PROBED_HELD_OUT,
        "max_length": read.whole("cutoff_len", 2048),
        "too_long": "cut",
    }
    if "max_samples" in read.values:
        settings["max_samples"] = read.whole("max_samples", 1)
    return settings


def translate(values: Mapping[str, Any], base: Path) -> Translation:
    """A LLaMA-Factory configuration as ours; `base` is the directory of its file.

    Raises `InputError` naming the key for what is wrong or cannot be honoured, with the way out.
    """
    read = _Reader(values)
    stage = str(read.values.get("stage", "sft"))
    if stage not in STAGES:
        why = ELSEWHERE.get(stage, "No other stage is known")
        raise InputError(f"stage {stage!r} is not run here; choose dpo or sft. {why}")
    _refuse_what_cannot_be_honoured(values)
    warnings = _key_warnings(values)
    settings = _model(read) | _lora(read) | _schedule(read) | _data(read, base)
    if read.flag("pure_bf16"):
        warnings.append("pure_bf16: the frozen weights are bfloat16 here, the adapter is float32")
    template, said = _template(read)
    settings |= template
    warnings += said
    if stage == "sft":
        settings["arms"] = [f"sft-{settings['epochs']}"]
        settings["demonstrations"] = True
        if not read.flag("mask_history"):
            warnings.append(
                "stage sft: in conversations of several turns only the last answer is trained on "
                "here, as with mask_history: true"
            )
        return Translation(settings, tuple(warnings))
    loss, options, said = _loss(read)
    warnings += said
    reference, said = _reference(read, read.choice("pref_loss", LOSSES, "sigmoid"))
    settings |= reference | {
        "arms": ["dpo"],
        "beta": read.number("pref_beta", 0.1, positive=True),
        "loss_type": loss,
        "loss_options": options,
    }
    return Translation(settings, tuple(warnings + said))
