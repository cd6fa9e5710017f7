"""A log is checked against itself: each inconsistency is found, and a sound log has none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from squeeze.diagnosis import RunSeries, Series, diagnose
from squeeze.diagnosis.consistency import check
from tests.diagnosis.logs import noisy, run

pytestmark = pytest.mark.cpu


def sound(n: int = 30) -> dict[str, np.ndarray]:
    """Rewards from 0 on, their margin, and a loss a little above what the margin allows."""
    t = np.linspace(0, 1, n)
    chosen, rejected = 0.8 * t, -3 * t
    margin = chosen - rejected
    return {
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "reward_margin": margin,
        "loss": np.logaddexp(0, -margin) + 0.02 * t,
        "reward_accuracy": 0.5 + 0.4 * t,
    }


def kinds(series: RunSeries, **options: Any) -> list[str]:
    return [f.kind for f in check(series, **options)]


def test_sound_log_has_no_finding() -> None:
    assert kinds(run(**sound())) == []


def _changed(**changes: Any) -> dict[str, np.ndarray]:
    values = sound()
    return values | {k: f(values) for k, f in changes.items()}


def _wrong_accuracy(v: dict[str, np.ndarray]) -> np.ndarray:
    accuracy = v["reward_accuracy"].copy()
    accuracy[10:] = 0.0
    return accuracy


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("margin", _changed(reward_margin=lambda v: v["reward_margin"] / 2 + 0.3), "but chosen"),
        ("swapped", _changed(reward_margin=lambda v: -v["reward_margin"]), "are swapped"),
        ("accuracy", _changed(reward_accuracy=_wrong_accuracy), "excludes the other"),
        ("loss bound", _changed(loss=lambda v: v["loss"] ** 3 * 2), "Jensen"),
        ("first loss", _changed(loss=lambda v: v["loss"] * 16), "16 times DPO's"),
        ("first loss", _changed(loss=lambda v: v["loss"] + 1.2), "an NLL"),
        ("copies", _changed(rejected_reward=lambda v: v["chosen_reward"]), "the same numbers"),
    ],
    ids=["margin", "swapped", "accuracy", "Jensen", "summed loss", "further term", "copies"],
)
def test_inconsistency_is_found_and_explained(
    kind: str, values: dict[str, np.ndarray], said: str
) -> None:
    found = {f.kind: f for f in check(run(**values))}
    assert kind in found
    assert said in str(found[kind])
    assert "step" in found[kind].where


def test_loss_of_hinge_is_named_by_where_it_starts() -> None:
    values = _changed(loss=lambda v: np.maximum(0, 1 - v["reward_margin"]) + 1e-3)
    (first,) = check(run(**values))  # its loss is not held to DPO's bound
    assert (first.kind, "hinge" in first.cause) == ("first loss", True)


def test_loss_of_hinge_is_held_to_its_own_bound() -> None:
    values = _changed(loss=lambda v: np.maximum(0, 1 - 1.5 * v["reward_margin"]) + 1e-3)
    below = next(f for f in check(run(**values)) if f.kind == "loss bound")
    assert "another loss than the hinge" in below.cause


@pytest.mark.parametrize(("beta", "start", "name"), [(0.3, 4, "IPO"), (0.3, 2, "SPPO")])
def test_first_loss_of_squared_losses_is_told_by_the_logs_own_beta(
    beta: float, start: float, name: str
) -> None:
    values = _changed(loss=lambda v: 1 / (start * beta**2) / (1 + v["reward_margin"]))
    logps = -150 + values["chosen_reward"] / beta
    found = check(run(**values, chosen_logp=logps))
    assert [f.kind for f in found] == ["first loss"]
    assert f"{name} at β = 0.3" in found[0].cause


def test_reference_that_drifts_is_found_on_a_fixed_set_only() -> None:
    logps = np.linspace(-150, -140, 20)
    moving = -150 + np.linspace(0, 40, 20)
    drifting = run(chosen_logp=logps, chosen_reward=0.1 * (logps - moving))
    still = run(chosen_logp=logps, chosen_reward=0.1 * (logps + 150))
    assert "drift" in kinds(drifting, beta=0.1)
    assert "drift" not in kinds(still, beta=0.1)
    assert "drift" in kinds(still, beta=0.3)  # not the β of this log


@pytest.mark.parametrize(("others", "found"), [(0, True), (2, True), (8, False)])
def test_one_column_logged_twice_is_found_though_some_lines_differ(
    others: int, found: bool
) -> None:
    values = sound(40)
    values["rejected_reward"] = (
        values["chosen_reward"] + np.r_[np.zeros(40 - others), [-1] * others]
    )
    assert ("copies" in kinds(run(**values))) == found


@pytest.mark.parametrize(("fall", "verdict"), [(100, "undetermined"), (0, "healthy")])
def test_log_prob_that_falls_while_its_reward_rises_is_never_healthy(
    fall: float, verdict: str
) -> None:
    """A reference that follows the policy; batches are of other prompts, so of other log-probs."""
    found = run("train", **sound(40), chosen_logp=noisy(-250, -250 - fall, n=40, noise=15))
    found = replace(found, series=tuple(replace(s, batches=True) for s in found.series))
    d = diagnose(found)
    assert (d.verdict, "direction" in [f.kind for f in d.findings]) == (verdict, fall > 0)


@pytest.mark.parametrize("axis", ["step", "steps", "iteration", "update"])
def test_first_line_is_held_against_its_step_whatever_the_log_calls_it(axis: str) -> None:
    values = {name: series[10:] for name, series in sound().items()}
    begun = replace(run("train", **values), axis=axis)
    late = tuple(replace(s, steps=s.steps + 1, batches=True) for s in begun.series)
    assert "reference" in kinds(replace(begun, series=late))


def test_argmax_below_chosen_is_never_used() -> None:
    values = {"chosen_logp": noisy(-150, -175), "argmax_logp": noisy(-190, -160)}
    d = diagnose(run(**values))
    assert d.verdict == "displacement"  # not squeezing, though that argmax rises
    (finding,) = d.findings
    assert finding.kind == "argmax"
    assert "another text" in finding.what


def test_argmax_below_chosen_in_some_prompts_is_found_though_the_means_allow_it() -> None:
    chosen = np.random.default_rng(0).normal(-150, 40, (50, 6))
    argmax = chosen + 30
    argmax[:15] = chosen[:15] - 20
    named = (("chosen_logp", chosen), ("argmax_logp", argmax))
    series = tuple(
        Series(name, "eval", np.arange(6.0), v.mean(axis=0), name, v) for name, v in named
    )
    assert kinds(RunSeries("r", "r", "r", "step", series)) == ["argmax"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "loss", "steps", "found"),
    [
        ([8.0, 7.1, 8.8, 7.6, 8.7], [-0.3, -0.5, -0.6, -0.6, -0.5], 0.02, 5, True),
        ([13.3, 13.2, 13.1, 13.0, 12.9], [12.1, 11.7, 11.3, 10.9, 10.5], 0.3, 10, True),
        ([-3.0, -2.98, -2.97, -2.96, -2.95], [-3.0, -9, -9, -9, -9], None, 0, True),
        ([0.2, 1.1, 1.5, 1.8, 1.8], [0.0, 0.1, -0.2, -0.5, -1.1], 0.6, 2, False),
        ([-1.1, -1.1, -1.09, -1.1, -1.12], [-3.1] * 5, 0.2, 10, False),
        ([-2.5, -3.2, -1.4, -1.6, -2.0], [-3.0, -3.6, -1.5, -2.4, -2.6], 0.7, 500, False),
    ],
    ids=["loss", "both up", "at step 0", "learns fast", "learned before", "late evaluation"],
)
def test_reference_of_another_model_is_told_from_fast_learning(
    chosen: list[float], rejected: list[float], loss: float | None, steps: int, found: bool
) -> None:
    at = np.arange(5.0) * max(steps, 5) + steps
    named = {"chosen_reward": chosen, "rejected_reward": rejected}
    if loss is not None:
        named["loss"] = [loss] * 5
    series = tuple(
        Series(k, "train", at, np.array(v), k, batches=steps > 0) for k, v in named.items()
    )
    d = diagnose(RunSeries("r", "r", "r", "step", series))
    assert ("reference" in [f.kind for f in d.findings]) == found
    if found:
        assert d.verdict != "healthy"
        assert d.reason.startswith("the reference is not the model")
        assert all(e.reference is None for e in d.splits[0].evidence)


def test_saturation_leads() -> None:
    margin = np.r_[np.linspace(0, 20, 8), np.full(8, 30.0)]
    values = {
        "chosen_reward": margin / 3,
        "rejected_reward": margin / 3 - margin,
        "reward_margin": margin,
        "loss": np.logaddexp(0, -margin),
    }
    assert diagnose(run(**values)).reason.startswith("saturated since")


def test_first_value_of_a_fixed_set_is_exact_and_a_plateau_below_it_is_a_fall() -> None:
    rng = np.random.default_rng(0)
    chosen = np.r_[-152.0, -174 + rng.normal(0, 7, 39)]
    argmax = np.r_[-61.6, -61.6 + rng.normal(0, 3, 39)]
    d = diagnose(run(chosen_logp=chosen, argmax_logp=argmax))
    assert d.verdict == "displacement"
    assert d.splits[0].evidence[0].start == -152.0


def test_fall_of_a_tenth_of_a_percent_less_than_matters_is_no_collapse() -> None:
    """A good run that moves chosen by 0.9 nats, however surely, does not collapse."""
    values = {"chosen_logp": noisy(-15.2, -16.1, noise=0.02), "rejected_logp": noisy(-20, -20.5)}
    assert diagnose(run(**values)).verdict != "collapse"


def test_collapse_is_not_said_where_another_kind_rises() -> None:
    falls = {
        "chosen_logp": noisy(-150, -175),
        "rejected_logp": noisy(-130, -155),
        "argmax_logp": noisy(-110, -140),
    }
    assert diagnose(run(**falls)).verdict == "collapse"
    rising = falls | {"other:permuted": noisy(-240, -200)}
    assert diagnose(run(**rising)).verdict == "displacement"


def test_healthy_says_which_fall_it_could_have_shown() -> None:
    d = diagnose(run(chosen_logp=noisy(-150, -150), rejected_logp=noisy(-130, -220)))
    assert d.verdict == "healthy"
    assert "no fall that this log could show, which is one of" in d.reason


def test_entropy_of_a_grpo_log_is_told_and_right_answers_are_asked_for() -> None:
    series = run("train", entropy=noisy(1.2, 0.7, noise=0.01), loss=noisy(0, 0))
    d = diagnose(RunSeries(**(vars(series) | {"method": "grpo"})))
    assert d.verdict == "undetermined"
    assert "GRPO" in d.reason
    assert any("entropy falls" in c for c in d.cautions)


def saturated(split: str = "train", **changes: Any) -> RunSeries:
    """A loss of 0 at every line, of pairs that are told apart from the first one on."""
    rng = np.random.default_rng(0)
    values = {
        "loss": np.zeros(20),
        "chosen_reward": 12 + 0.02 * np.arange(20) + rng.normal(0, 0.05, 20),
        "rejected_reward": -20 + rng.normal(0, 0.2, 20),
        "reward_accuracy": np.ones(20),
    }
    return run(split, **(values | changes))


@pytest.mark.parametrize("split", ["train", "eval"])
def test_log_saturated_from_its_first_line_is_never_healthy(split: str) -> None:
    d = diagnose(saturated(split))
    assert d.verdict == "undetermined"
    assert d.reason.startswith("saturated since")
    assert d.findings[0].where == "from its first line on"


def test_saturation_that_the_log_shows_coming_on_keeps_its_verdict() -> None:
    t = np.arange(20)
    d = diagnose(saturated("eval", loss=np.where(t < 3, 0.69, 0.0), chosen_reward=0.2 * t))
    assert (d.verdict, d.findings[0].where) == ("healthy", "")


def test_loss_and_accuracy_alone_show_a_saturation() -> None:
    both = {"loss": np.full(9, 1e-4), "reward_accuracy": np.ones(9)}
    assert diagnose(run("train", **both)).reason.startswith("saturated since")


def test_saturated_run_of_unmoved_rewards_is_not_told_to_train_more() -> None:
    d = diagnose(saturated(chosen_reward=np.full(20, 12.0), rejected_reward=np.full(20, -20.0)))
    assert (d.verdict, d.advice) == ("undetermined", "")


def test_loss_of_0_at_small_margins_is_no_loss() -> None:
    t = np.arange(20)
    d = diagnose(saturated(chosen_reward=0.01 * t, rejected_reward=-0.01 * t))
    assert (d.verdict, d.findings[0].kind) == ("undetermined", "no loss")
    hinge = {"chosen_reward": 0.6 + 0.01 * t, "rejected_reward": -0.6 - 0.01 * t}
    assert "no loss" not in kinds(saturated(**hinge))


def test_falling_chosen_beside_a_copy_of_it_is_no_collapse() -> None:
    chosen = noisy(-150, -175)
    d = diagnose(run(chosen_logp=chosen, rejected_logp=chosen))
    assert (d.verdict, [f.kind for f in d.findings]) == ("displacement", ["copies"])


def test_noise_of_the_first_line_is_no_other_reference() -> None:
    """A large first value among values that scatter as widely about 0."""
    noise = np.random.default_rng(1).normal(0, 2, (2, 20))
    noise[:, :4] = [[-4.7, -0.9, 0.2, -0.3], [-4.4, -0.3, 0.6, -2.9]]
    values = {"chosen_reward": noise[0], "rejected_reward": noise[1]}
    loss = np.logaddexp(0, noise[1] - noise[0])
    assert "reference" not in kinds(run("train", **values, loss=loss))
