"""Which quantity a log's column holds, told from its name alone.

Knows the names of TRL, LLaMA-Factory, OpenRLHF, verl, torchtune, NeMo-RL, mlx-lm, the original DPO
code and the paper's logs, and recognises sensible variants of them; values are never looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from squeeze.diagnosis import series as q

_EVAL = {"eval", "evaluation", "val", "valid", "validation", "test", "dev", "heldout", "holdout"}
_TRAIN = {"train", "training"}
_CHOSEN = {"chosen", "preferred", "accepted", "winner", "win", "yw", "real"}
_REJECTED = {"rejected", "reject", "dispreferred", "loser", "lose", "yl", "generated"}
# Beside a reward or a log-prob only: r_w, logp_l, reward_good.
_SHORT = {
    **dict.fromkeys(("w", "good", "pos", "positive"), "chosen"),
    **dict.fromkeys(("l", "bad", "neg", "negative"), "rejected"),
}
_ARGMAX = {"argmax", "greedy", "ystar"}
_LOGP = {"logps", "logp", "logprobs", "logprob", "loglik", "loglikelihood", "lp", "ll"}
_NLL = {"nll", "ce", "crossentropy"}
_REWARD = {"reward", "rewards", "r"}
_MARGIN = {"margin", "margins"}
_ACCURACY = {"accuracy", "accuracies", "acc"}
_REPETITION = {"repetition", "repetitiveness", "repeated", "repeat"}
# Words that change nothing about what is measured.
_NEUTRAL = {
    *("mean", "avg", "average", "sum", "total", "metrics", "metric", "squeeze", "probe", "policy"),
    *("model", "log", "prob", "probs", "likelihood", "history", "curve", "series", "list"),
    *("values", "value", "per", "token", "seq", "sequence", "nats", "of", "the", "answer"),
    *("answers", "response", "responses", "completion", "completions", "set", "split", "over"),
    *("epochs", "dpo", "path", "along", "held", "out", "y", "scores", "score", "share", "ngram"),
    *("actor", "preference", "implicit"),
}
# Words that make it another thing: reference values, spreads, raw logits, ORPO's odds.
_FOREIGN = {
    *("ref", "reference", "std", "stdev", "stderr", "sem", "var", "min", "max", "ci", "lower"),
    *("upper", "odds", "ratio", "ratios", "kl", "count", "num", "length", "len", "except"),
    *("ppl", "perplexity", "grad", "lr", "runtime", "seconds", "beta", "weight", "delta", "diff"),
}
_SET_PREFIX = re.compile(r"^eval[_/](?P<set>[^/]+?)[_/](?P<rest>(?:rewards|logps)/.+|loss)$", re.I)
_MEAN_OVER = re.compile(r"(?<=\w)_(?:step|epoch)$")  # Lightning's suffix of a line, of an epoch
# What `SqueezeCallback` logs: a fixed probe, to be kept apart from the trainer's own batches.
_PROBE = re.compile(r"^(?:train/)?squeeze/(?:(?P<split>[^/]+)/)?(?P<name>[^/]+)$")
_OF_PROBE = {
    "chosen": q.CHOSEN,
    "rejected": q.REJECTED,
    "argmax": q.ARGMAX,
    "entropy": q.ENTROPY,
}
# What trainers that sample their answers log of them (TRL; verl), with "_" for "/" as in the names
# of TensorBoard's downloads.
_ROLLOUTS = {
    "reward": q.REWARD,
    "critic_score_mean": q.REWARD,
    "completions_mean_length": q.LENGTH,
    "response_length_mean": q.LENGTH,
    "completions_clipped_ratio": q.CUT,
    "response_length_clip_ratio": q.CUT,
    "frac_reward_zero_std": q.TIED,
    "actor_entropy_loss": q.ENTROPY,  # verl's older name of the mean entropy
}
STEP_NAMES = (
    *("step", "global_step", "current_steps", "train/global_step", "eval/global_step"),
    *("trainer/global_step", "steps", "iteration", "iter", "examples_counter", "counters/examples"),
    *("training/global_step", "global_step/max_steps", "iters", "update", "training_step"),
    *("_step", "epoch", "epochs", "train/epoch", "epoca", "época"),
)
RUN_NAMES = (
    *("run", "run_id", "run id", "run_name", "arm", "experiment", "exp_name"),
    *("run.hash", "run hash", "experimentkey"),
)
# What says of each row whether it is of training or of an evaluation.
SPLIT_NAMES = (
    *("type", "split", "phase", "mode", "stage", "set", "subset"),
    *("context.subset", "metric.context.subset"),
)
# What tells rows of different runs apart in a table of results, which has no steps.
SETTINGS = ("model", "method", "variant", "setting", "name", "beta", "β", "alpha", "seed")


@dataclass(frozen=True)
class Meaning:
    """What a column holds; `negate` turns a negative log-likelihood into a log-prob."""

    quantity: str
    split: str
    negate: bool = False


@lru_cache(maxsize=50_000)  # a console's lines name the same columns over and over
def recognise(column: str) -> Meaning | None:
    """Return what a column of that name holds, or None if it is none of a diagnosis' business."""
    column = _MEAN_OVER.sub("", column)
    plain = re.sub(r"^train[/_]", "", column)
    if (sampled := _ROLLOUTS.get(plain.replace("/", "_"))) is not None:
        return Meaning(sampled, "" if plain == column else "train")
    probe = _PROBE.match(column)
    if probe:
        return _of_probe(probe["split"], probe["name"])
    named_set = _SET_PREFIX.match(column)
    if named_set and named_set["set"].lower() not in _EVAL | _TRAIN:
        inner = recognise(named_set["rest"])
        split = f"eval {named_set['set']}"
        return None if inner is None else Meaning(inner.quantity, split, inner.negate)
    prefix, _, last = column.rpartition("/")
    words, before = _words(column), _words(prefix)
    split = _split(before if _names_split(before) else words)
    rest = [w for w in words if w not in _EVAL | _TRAIN and not (w == "held" and "out" in words)]
    if any(w in _FOREIGN for w in rest):
        return None
    meaning = _quantity(rest, _kind(last))
    return None if meaning is None else Meaning(meaning[0], split, meaning[1])


def _of_probe(split: str | None, name: str) -> Meaning | None:
    if name in ("margin", "severity", "overhead"):  # the margin follows from the other two
        return None
    return Meaning(_OF_PROBE.get(name, q.OTHER + name), f"probe {split}" if split else "probe")


def of_fixed_set(column: str) -> bool:
    """Whether a column says that it is an evaluation, also one on prompts that are trained on."""
    words = set(_words(column))
    return bool(words & (_EVAL | _ARGMAX))  # no trainer logs an argmax of its own batches


def says_logp(column: str) -> bool:
    """Whether a column's name says that it holds log-probs."""
    words = set(_words(column))
    return bool(words & _LOGP) or {"log", "prob"} <= words or {"log", "probs"} <= words


def is_telling(column: str) -> bool:
    """Whether a column of that name says something about the trained answers."""
    meaning = recognise(column)
    return meaning is not None and meaning.quantity in q.TELLING


def is_step(column: str) -> bool:
    """Whether a column of that name counts training time."""
    return column.strip().lower() in STEP_NAMES


def is_split(word: str) -> bool:
    """Whether a word names a split, and nothing else."""
    return word.strip().lower() in _EVAL | _TRAIN


def _words(text: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return [w for w in re.split(r"[^a-z0-9]+", spaced.lower()) if w]


def _names_split(words: list[str]) -> bool:
    return any(w in _EVAL | _TRAIN for w in words) or ("held" in words and "out" in words)


def _split(words: list[str]) -> str:
    # The paper's "logps_eval_prob_train/..." are evaluations on prompts of the training set.
    if any(w in _TRAIN for w in words):
        return "train"
    return "eval" if _names_split(words) else ""


def _kind(last: str) -> str:
    return "_".join(w for w in _words(last) if w not in _LOGP | _NEUTRAL)


def _quantity(words: list[str], kind: str) -> tuple[str, bool] | None:
    """Return quantity and sign of words without split and foreign ones."""
    given = set(words)
    if given & (_LOGP | _REWARD):
        given = {_SHORT.get(word, word) for word in given}
    logp = bool(given & _LOGP) or {"log", "prob"} <= given or {"log", "probs"} <= given
    known = _CHOSEN | _REJECTED | _ARGMAX | _LOGP | _NLL | _REWARD | _MARGIN | _ACCURACY
    residual = given - known - _NEUTRAL - _REPETITION
    if given & _ARGMAX:
        return (q.ARGMAX, False) if residual <= {"logits"} else None
    if "logits" in given or "logit" in given:
        return None
    if given <= _NEUTRAL | {"loss"} and "loss" in given:
        return q.LOSS, False
    if given - _NEUTRAL == {"entropy"}:
        return q.ENTROPY, False
    if {"mean", "token", "accuracy"} <= given or {"token", "accuracy"} == given:
        return q.TOKEN_ACCURACY, False
    if given & _REPETITION and not residual - {"n"}:
        return q.REPETITION, False
    return _preference(given, residual, logp, kind)


def _preference(
    given: set[str], residual: set[str], logp: bool, kind: str
) -> tuple[str, bool] | None:
    chosen, rejected = bool(given & _CHOSEN), bool(given & _REJECTED)
    if given & _MARGIN:
        return None if residual or logp else (q.MARGIN, False)
    if given & _ACCURACY:
        return None if residual else (q.ACCURACY, False)
    if given & _NLL:
        if residual - {"loss"}:
            return None
        if chosen or rejected:
            return (q.CHOSEN if chosen else q.REJECTED), True
        return q.NLL, False
    if residual:
        return (q.OTHER + kind, False) if logp and kind else None
    if chosen == rejected:  # neither, or a name that says both
        return None
    if given & _REWARD:
        return (q.CHOSEN_REWARD if chosen else q.REJECTED_REWARD), False
    return (q.CHOSEN if chosen else q.REJECTED), False
