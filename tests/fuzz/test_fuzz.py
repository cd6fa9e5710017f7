"""Short form of the fuzz suite: whatever stands in a file, every command speaks in one sentence."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import call
from tests.fuzz.commands import COMMANDS

pytestmark = pytest.mark.cpu


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", COMMANDS)
@given(seed=st.integers(1, 10**9).filter(lambda n: n % 10))
@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_damaged_input_ends_in_one_sentence(name, seed):
    _, faults = call(COMMANDS[name], seed)
    assert not faults, f"python -m tests.fuzz --only '{name}' --seed {seed}"
