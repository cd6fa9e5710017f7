"""A registry of two made-up claims, so that these tests do not depend on the real ones."""

import pytest

from squeeze.claims import catalogue
from squeeze.claims.catalogue import Claim


@pytest.fixture
def made_up(monkeypatch):
    """T-1 (toy) and T-2 (toy, pretrained), and no others."""
    claims = [
        Claim("T-1", "water is wet", "§1", "theorem", ("toy",), "a desert", print, math="w > 0"),
        Claim("T-2", "a | b", "§2", "observation", ("toy", "pretrained"), "c", print, run="pytest"),
    ]
    catalogue.load()  # or a module imported later would add its claims to the made-up ones
    monkeypatch.setattr(catalogue, "_CLAIMS", {claim.id: claim for claim in claims})
    monkeypatch.setattr(catalogue, "load", lambda: dict(catalogue._CLAIMS))
    return catalogue.load()
