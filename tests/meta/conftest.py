"""A counterfactual test goes through the claim's own check: `@pytest.mark.counterfactual(ID)`."""

import pytest

from squeeze.claims.catalogue import Claim


@pytest.fixture(autouse=True)
def through_the_claims_own_check(request, monkeypatch):
    """Fail a test marked as a claim's counterfactual that did not call that claim's `check`."""
    wanted = {mark.args[0] for mark in request.node.iter_markers("counterfactual")}
    asked, check = set(), Claim.check

    def noted(self, evidence):
        asked.add(self.id)
        return check(self, evidence)

    monkeypatch.setattr(Claim, "check", noted)
    yield
    assert wanted <= asked, f"the check of {', '.join(wanted - asked)} was not called"
