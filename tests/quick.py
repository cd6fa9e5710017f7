"""Sizes that run all of a study's machinery and decide nothing: one seed, a few examples."""

RECIPE = {
    "pairs": 4,
    "held_out": 2,
    "probe_train": 2,
    "epochs": 1,
    "sft_epochs": 1,
    "batch_size": 2,
    "max_new_tokens": 8,
}
SETTINGS = {
    "long_sft_epochs": 1,
    "doses": [0, 1],
    "peakier_epochs": [1, 2],
    "on_policy_rounds": 1,
    "long_dpo_epochs": 2,
    "long_answer_tokens": 8,
    "losses": ["sigmoid", "ipo"],
    "token_steps": 2,
}
APART = {"questions": 4, "group": 4}
