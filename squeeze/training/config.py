"""What is trained on what: arms, phases and the configuration of a run, all plain data.

Nothing here trains; `run` turns a `RunConfig` into TRL trainers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from squeeze.errors import InputError
from squeeze.jsonc import strip_comments
from squeeze.training.arms import Arm, Phase, make_arm

ARM_NAMES = ("dpo", "sft-dpo", "extend-dpo")


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run. Fields are the options of `squeeze replicate`.

    `probe_train` training prompts and all held-out ones are scored at every probe; `generations`
    prompts of each part are answered after every phase, in at most `max_new_tokens` tokens.
    `data_format` names the data file's format ("auto" recognises it). `max_length` is in tokens.
    `dtype` is "float32", "bfloat16" or "auto": bfloat16 where this device multiplies it faster.

    Fields from `system` to `max_grad_norm` are LLaMA-Factory's (`llamafactory`). `system` goes
    before prompts without a system message. `demonstrations` lets data lack rejected answers (SFT
    alone). `max_samples` rows of each data set are read. With `val_size` (a share below 1, or a
    count) that
    part is held out, at most `held_out` rows of it are probed, and all others are trained on,
    whatever `pairs` is. `too_long` is "refuse" or "cut": what becomes of answers beyond
    `max_length`. `adapters` (directories, with commas) are merged into the model first;
    `ref_model`, with `ref_model_adapters`, is DPO's reference instead of the model itself.

    `split_seed`, where it is set, chooses and orders the pairs and draws the probe set in `seed`'s
    place, so that runs of several seeds score the same prompts and responses.

    `weights` is the frozen weights' numeric type, "float32" or "bfloat16". DPO is probed every
    `probe_every` epochs and at its end. `sft_…` fields replace their namesakes in SFT phases; a
    warm-up of 1 and more counts steps.
    """

    model: str = "smollm2-135m"
    data: str = "enthusiastic_en"
    data_format: str = "auto"
    template: str = "model"
    arms: tuple[str, ...] = ARM_NAMES
    pairs: int = 16
    held_out: int = 6
    probe_train: int = 8
    epochs: int = 5
    sft_epochs: int = 2
    seed: int = 0
    beta: float = 0.1
    loss_type: str = "sigmoid"
    learning_rate: float = 4e-4
    sft_learning_rate: float = 2e-4
    batch_size: int = 4
    accumulation: int = 1
    schedule: str = "constant_with_warmup"
    warmup: float = 0.1
    weight_decay: float = 0.0
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: str = "all-linear"
    gradient_checkpointing: bool = False
    max_length: int = 1024
    dtype: str = "auto"
    generations: int = 2
    max_new_tokens: int = 48
    variant_probe_every: int = 1
    system: str = ""
    demonstrations: bool = False
    max_samples: int | None = None
    val_size: float | None = None
    too_long: str = "refuse"
    adapters: str | None = None
    ref_model: str | None = None
    ref_model_adapters: str | None = None
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    max_grad_norm: float = 1.0
    weights: str = "float32"
    split_seed: int | None = None
    probe_every: int = 1
    sft_batch_size: int | None = None
    sft_accumulation: int | None = None
    sft_warmup: float | None = None
    sft_weight_decay: float | None = None

    def phase_arms(self) -> tuple[Arm, ...]:
        """The arms of this run as phases; raises `InputError` for an unknown name."""
        return tuple(self.arm(name) for name in self.arms)

    def arm(self, name: str) -> Arm:
        """The arm of this name under these settings; raises `InputError` for an unknown one."""
        return make_arm(name, self.main_arms(), self.variant_probe_every)

    def main_arms(self) -> tuple[Arm, Arm, Arm]:
        """The main job's three arms under these settings."""
        shared = {
            "batch_size": self.batch_size,
            "accumulation": self.accumulation,
            "schedule": self.schedule,
            "warmup": self.warmup,
            "weight_decay": self.weight_decay,
        }
        dpo = Phase(
            "dpo",
            "pairs",
            self.epochs,
            self.learning_rate,
            beta=self.beta,
            loss_type=self.loss_type,
            loss_options=self.loss_options,
            probe_every=self.probe_every,
            **shared,  # type: ignore[arg-type]
        )
        own = {name: getattr(self, f"sft_{name}") for name in _SFT_OWN}
        sft = Phase(
            "sft",
            "chosen",
            self.sft_epochs,
            self.sft_learning_rate,
            probe_every=self.sft_epochs,
            **shared | {name: value for name, value in own.items() if value is not None},  # type: ignore[arg-type]
        )
        extended = replace(sft, on="chosen+rejected")
        return (
            Arm("dpo", "DPO from the pretrained model", (dpo,)),
            Arm("sft-dpo", "SFT on chosen, then DPO", (sft, dpo)),
            Arm("extend-dpo", "SFT on chosen and rejected, then DPO", (extended, dpo)),
        )

    @property
    def data_seed(self) -> int:
        """What chooses and orders the pairs and draws the probe set."""
        return self.seed if self.split_seed is None else self.split_seed

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as written to `run.json` and `config.yaml`.

        Fields from `system` on are there only where they are set.
        """
        values = asdict(self) | {"arms": list(self.arms)}
        defaults = {f.name: f.default for f in fields(self)} | {"loss_options": {}}
        return {k: v for k, v in values.items() if k not in _EXTRA or v != defaults[k]}


_OPTIONAL = {
    "max_samples": int,
    "val_size": float,
    "split_seed": int,
    "adapters": str,
    "ref_model": str,
    "ref_model_adapters": str,
}
_SFT_OWN = ("batch_size", "accumulation", "warmup", "weight_decay")
_OPTIONAL |= {
    "sft_batch_size": int,
    "sft_accumulation": int,
    "sft_warmup": float,
    "sft_weight_decay": float,
}
_EXTRA = (
    *_OPTIONAL,
    "system",
    "demonstrations",
    "too_long",
    "loss_options",
    "max_grad_norm",
    "weights",
    "probe_every",
)

# What --quick changes: every arm and every station, on a few examples.
QUICK = {
    "pairs": 4,
    "held_out": 2,
    "probe_train": 3,
    "epochs": 2,
    "sft_epochs": 1,
    "batch_size": 2,
    "generations": 1,
}

_POSITIVE = (
    "pairs",
    "probe_train",
    "epochs",
    "sft_epochs",
    "beta",
    "learning_rate",
    "sft_learning_rate",
    "batch_size",
    "accumulation",
    "lora_r",
    "lora_alpha",
    "max_length",
    "max_new_tokens",
    "variant_probe_every",
)


def flag(field: str) -> str:
    """The command-line option of a configuration field."""
    return "--" + field.replace("_", "-")


def make_config(values: Mapping[str, Any]) -> RunConfig:
    """A checked configuration from options or a YAML mapping; unset (None) values take defaults.

    Raises `InputError` naming the field, its value and what is allowed.
    """
    given = {key.replace("-", "_"): value for key, value in values.items() if value is not None}
    known = {f.name: f for f in fields(RunConfig)}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"unknown configuration field {key!r}{hint}")
    if isinstance(given.get("arms"), str):
        given["arms"] = [name.strip() for name in given["arms"].split(",") if name.strip()]
    if "arms" in given:
        given["arms"] = tuple(given["arms"])
    defaults = RunConfig()
    for key, value in given.items():
        wanted = _OPTIONAL.get(key, type(getattr(defaults, key)))
        if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            given[key] = value = _as_float(key, value)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise InputError(f"{flag(key)} must be of type {wanted.__name__}, not {value!r}")
    config = replace(defaults, **given)
    _check(config)
    return config


def _as_float(key: str, value: int | str) -> float:
    try:
        return float(value)  # YAML reads 1e-4 as a string
    except ValueError:
        raise InputError(f"{flag(key)} must be a number, not {value!r}") from None


def _check(config: RunConfig) -> None:
    for key in _POSITIVE:
        if not getattr(config, key) > 0:
            raise InputError(f"{flag(key)} must be positive, not {getattr(config, key)}")
    for key in ("held_out", "generations", "warmup", "weight_decay", "lora_dropout", "seed"):
        if getattr(config, key) < 0:
            raise InputError(f"{flag(key)} must not be negative, but is {getattr(config, key)}")
    if not config.arms or len(set(config.arms)) != len(config.arms):
        raise InputError("--arms needs at least one arm, each named once")
    config.phase_arms()  # an unknown name is an error here
    if config.too_long not in ("refuse", "cut"):
        raise InputError(f"too_long must be refuse or cut, not {config.too_long!r}")
    for key in ("max_samples", "val_size", "max_grad_norm", "split_seed"):
        if (getattr(config, key) or 0) < 0:
            raise InputError(f"{key} must not be negative, but is {getattr(config, key)}")
    for key in ("probe_every", "sft_batch_size", "sft_accumulation"):
        value = getattr(config, key)
        if value is not None and value < 1:
            raise InputError(f"{key} must be at least 1, not {value}")
    if config.weights not in ("float32", "bfloat16"):
        raise InputError(f"weights must be float32 or bfloat16, not {config.weights!r}")
    if config.dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"--dtype must be auto, float32 or bfloat16, not {config.dtype!r}")


def read_config(path: Path) -> dict[str, Any]:
    """Read a mapping of fields in YAML or JSON with comments; `InputError` if it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
        is_json = text.lstrip().startswith(("{", "//", "/*"))
        values = yaml.safe_load(strip_comments(text) if is_json else text)
    except FileNotFoundError:
        raise InputError(f"the configuration {path} given with --config does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the configuration {path} is not readable YAML ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"the configuration {path} must be a mapping of fields to values")
    return {str(key): value for key, value in values.items()}
