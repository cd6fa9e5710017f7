"""`squeeze observe`: what of a registered level may be replaced, and how."""

import pytest
from typer.testing import CliRunner

from squeeze import cli

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("finetuning", "--set must be FIELD=VALUE"),
        ("seed=3", "--seeds"),
        ("finetunig=full", "did you mean 'finetuning'?"),
        ("learning_rate=fast", "--learning-rate"),
        ("data=nowhere.jsonl", "nowhere.jsonl"),
        ("epochs=1000000000000", "more than a day"),
    ],
)
def test_a_replaced_field_of_the_recipe_is_checked_like_any(given, said, tmp_path):
    arguments = ["observe", "pretrained", "--claims", "EX-1", "--seeds", "0", "--set", given]
    result = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path)])
    assert said in str(result.exception or result.output)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("seeds", ["", "1,1", "-1", "4294967296", "0.5"])
def test_seeds_are_distinct_and_numpys(seeds, tmp_path):
    """The same seed twice would count as two: an interval from nothing."""
    arguments = ["observe", "tiny", "--seeds", seeds, "--out", str(tmp_path)]
    assert "--seeds must be" in str(CliRunner().invoke(cli.app, arguments).exception)


@pytest.mark.parametrize("given", [("--set", "epochs=1"), ("--model", "gemma3-270m")])
def test_a_claim_that_stands_apart_refuses_what_does_not_reach_it(given, tmp_path):
    arguments = ["observe", "tiny", "--claims", "GR-1", *given, "--out", str(tmp_path)]
    result = CliRunner().invoke(cli.app, arguments)
    assert "GR-1 has its own" in str(result.exception or result.output)
