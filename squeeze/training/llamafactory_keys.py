"""The keys of a LLaMA-Factory configuration: read, honoured with one value, or without meaning.

Facts about LLaMA-Factory (its `hparams` and `data/template.py`, 0.9): data alone, no reading.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from squeeze.training.declared import (
    Count,
    Decay,
    Norm,
    Number,
    Positive,
    Rank,
    Rate,
    Schedule,
    Seed,
    Share,
    Tokens,
    Validation,
    Warmup,
)

STAGES = ("dpo", "sft")
ELSEWHERE = {
    "kto": "Paired KTO is: stage dpo with pref_loss kto_pair reads KTO data too",
    "rm": "Reward models are not trained here",
    "ppo": "Reinforcement learning is not done here",
    "pt": "Continued pretraining is not done here",
}

_QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
# template → (ours, its system message for rows without one)
TEMPLATES = {
    "qwen": ("chatml", _QWEN),
    "qwen2_vl": ("chatml", "You are a helpful assistant."),
    "qwen3_nothink": ("chatml", ""),
    "chatml": ("chatml", ""),
    "empty": ("plain", ""),
}
# templates that an instruct model's own tokenizer carries
MODEL_TEMPLATES = (
    "qwen3",
    "llama2",
    "llama3",
    "mistral",
    "mistral_small",
    "gemma",
    "gemma2",
    "gemma3",
    "phi",
    "phi4",
    "glm4",
    "deepseek",
    "deepseek3",
    "intern2",
    "granite3",
    "smollm",
    "smollm2",
    "yi",
)

_KIND = "squeeze trains LoRA adapters or all weights: use finetuning_type: lora or full"
_OPTIMIZER = "remove it: plain AdamW is used here"
_LORA = "remove it: plain LoRA is used here"
_ROW = "remove it: every row is one example here"
_UNQUANTIZED = "remove it: the model is trained unquantized (float32 or bfloat16) here"
_VOCABULARY = "remove it: the vocabulary stays as it is here"
_OFF: tuple[Any, ...] = (False, 0, 0.0)

# key → (the values that are honoured, the way out for others)
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "finetuning_type": (("lora", "full"), _KIND),
    "do_train": ((True,), "set it to true: squeeze replicate trains"),
    "fp16": (_OFF, "use bf16: true, or neither for float32"),
    "fp8": (_OFF, "use bf16: true, or neither for float32"),
    "max_steps": ((-1, 0), "remove it and set num_train_epochs: whole epochs are probed"),
    "quantization_bit": ((), _UNQUANTIZED),
    "optim": (
        ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw"),
        "use adamw_torch: plain AdamW is used here",
    ),
    "adam_beta1": ((0.9,), "remove it: 0.9 is used here"),
    "adam_beta2": ((0.999,), "remove it: 0.999 is used here"),
    "adam_epsilon": ((1e-8, "1e-8"), "remove it: 1e-8 is used here"),
    "lr_scheduler_kwargs": (({}, ""), "remove it: schedules take no arguments here"),
    "label_smoothing_factor": (_OFF, "remove it: SFT has plain cross-entropy here"),
    "neftune_noise_alpha": (_OFF, "remove it: embeddings get no noise here"),
    "use_dft_loss": (_OFF, "remove it: SFT has plain cross-entropy here"),
    "use_asft_loss": (_OFF, "remove it: SFT has plain cross-entropy here"),
    "use_eaft_loss": (_OFF, "remove it: SFT has plain cross-entropy here"),
    "pref_bco_weight": (_OFF, "remove it: no BCO term is added here"),
    "ld_alpha": (
        (),
        "remove it: there it weighs the policy's tokens and not the reference's; ours, "
        "compare-losses --losses ld_dpo, weighs both",
    ),
    "use_rslora": (_OFF, _LORA),
    "use_dora": (_OFF, _LORA),
    "pissa_init": (_OFF, _LORA),
    "loraplus_lr_ratio": ((), _LORA),
    "additional_target": ((), _LORA),
    "pissa_convert": (_OFF, _LORA),
    "use_llama_pro": (_OFF, _LORA),
    "use_galore": (_OFF, _OPTIMIZER),
    "use_apollo": (_OFF, _OPTIMIZER),
    "use_badam": (_OFF, _OPTIMIZER),
    "use_adam_mini": (_OFF, _OPTIMIZER),
    "use_muon": (_OFF, _OPTIMIZER),
    "packing": (_OFF, _ROW),
    "neat_packing": (_OFF, _ROW),
    "train_on_prompt": (_OFF, "remove it: only responses are trained on here"),
    "disable_shuffling": (_OFF, "remove it: rows are shuffled here"),
    "mix_strategy": (("concat",), "use concat: data sets are read one after the other"),
    "eval_dataset": ((), "use val_size: held-out rows are taken from the data sets themselves"),
    "resize_vocab": (_OFF, _VOCABULARY),
    "add_tokens": ((), _VOCABULARY),
    "add_special_tokens": ((), _VOCABULARY),
    "new_special_tokens": ((), _VOCABULARY),
    "init_special_tokens": ((), _VOCABULARY),
    "shift_attn": (_OFF, "remove it: attention stays as the model has it"),
    "mixture_of_depths": ((), "remove it: layers stay as the model has them"),
    "moe_aux_loss_coef": (_OFF, "remove it: no balancing loss is added here"),
    "rope_scaling": ((), "remove it: positions stay as the model has them"),
    "train_from_scratch": (_OFF, "remove it: finetuning starts from pretrained weights here"),
    "model_revision": (("main",), "download that revision and give its directory"),
}


def _joined(value: Any) -> Any:
    """Newer versions take lists where commas would do."""
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        value = ",".join(map(str, value))
    return None if value == "" else value


Text = Annotated[str | None, BeforeValidator(_joined)]
PrefLoss = Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"]  # ours have these names


class Keys(BaseModel):
    """Every key that is read, with its type, its range and LLaMA-Factory's default."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    stage: str = "sft"
    model_name_or_path: Text = None
    adapter_name_or_path: Text = None
    create_new_adapter: StrictBool = False
    finetuning_type: Literal["lora", "full"] = "lora"
    lora_rank: Rank = 8
    lora_alpha: Count | None = None
    lora_dropout: Share = 0.0
    lora_target: Text = "all"
    pref_loss: PrefLoss = "sigmoid"
    pref_beta: Positive = 0.1
    pref_ftx: Norm = 0.0
    dpo_label_smoothing: Annotated[Number, Field(ge=0, lt=0.5)] = 0.0
    simpo_gamma: Norm = 0.5
    ref_model: Text = None
    ref_model_adapters: Text = None
    ref_model_quantization_bit: Any = None
    dataset: Text = None
    dataset_dir: Text = "data"
    template: Text = None
    default_system: Text = None
    cutoff_len: Tokens = 2048
    max_samples: Count | None = None
    val_size: Validation = 0.0
    mask_history: StrictBool = False
    num_train_epochs: Annotated[Number, Field(gt=0, le=1e12)] = 3.0
    learning_rate: Rate = 5e-5
    lr_scheduler_type: Schedule = "linear"
    warmup_ratio: Share = 0.0
    warmup_steps: Warmup = 0.0
    weight_decay: Decay = 0.0
    max_grad_norm: Norm = 1.0
    per_device_train_batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    gradient_checkpointing: StrictBool = False
    seed: Seed = 42
    bf16: StrictBool = False
    pure_bf16: StrictBool = False


READ = tuple(Keys.model_fields)

# What concerns files, logs, speed or hardware, and changes no number of the experiment.
_IGNORED = """
output_dir overwrite_output_dir overwrite_cache logging_dir logging_steps logging_strategy
logging_first_step save_steps save_strategy save_total_limit save_only_model save_safetensors
plot_loss report_to run_name disable_tqdm log_level resume_from_checkpoint
include_num_input_tokens_seen
include_tokens_per_second include_effective_tokens_per_second compute_accuracy
do_eval do_predict predict_with_generate eval_steps eval_strategy evaluation_strategy
eval_on_each_dataset eval_num_beams eval_delay per_device_eval_batch_size load_best_model_at_end
metric_for_best_model greater_is_better early_stopping_steps
preprocessing_num_workers preprocessing_batch_size interleave_probs
dataloader_num_workers dataloader_pin_memory
dataloader_drop_last tokenized_path streaming buffer_size remove_unused_columns media_dir
tool_format ignore_pad_token_for_loss data_seed group_by_length
deepspeed fsdp fsdp_config ddp_timeout ddp_find_unused_parameters local_rank ray_run_name
ray_storage_path ray_num_workers resources_per_worker placement_strategy use_mca
flash_attn use_unsloth use_unsloth_gc enable_liger_kernel use_v1_kernels low_cpu_mem_usage
disable_gradient_checkpointing use_reentrant_gc upcast_layernorm upcast_lmhead_output
quantization_method quantization_type double_quantization quantization_device_map
offload_folder infer_backend infer_dtype use_kv_cache use_cache torch_compile tf32
trust_remote_code use_fast_tokenizer cache_dir hf_hub_token ms_hub_token om_hub_token
print_param_status push_to_hub hub_model_id freeze_vision_tower freeze_multi_modal_projector
freeze_language_model image_max_pixels video_max_pixels enable_thinking
use_swanlab swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key
swanlab_logdir kto_chosen_weight kto_rejected_weight reward_model ppo_score_norm
do_sample temperature top_p top_k max_new_tokens repetition_penalty
"""
IGNORED = frozenset(_IGNORED.split())
