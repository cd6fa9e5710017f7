"""The list of all claims. Topic modules register theirs on import; `load()` imports them all."""

from __future__ import annotations

import difflib
import importlib

from squeeze.claims.types import Claim
from squeeze.errors import InputError

TOPICS = (
    "softmax",
    "decomposition",
    "preference",
    "policy_gradient",
    "finetuning",
    "tokens",
    "onpolicy",
    "degeneration",
    "variants",
    "course",
    "displacement",
    "qwen",
)

_CLAIMS: dict[str, Claim] = {}


def register(claim: Claim) -> Claim:
    """Add a claim to the registry and return it; an id may be used once."""
    if claim.id in _CLAIMS and _CLAIMS[claim.id] != claim:
        raise InputError(f"claim id {claim.id!r} is registered twice; give each claim its own id")
    _CLAIMS[claim.id] = claim
    return claim


def load() -> dict[str, Claim]:
    """Import every topic module and return all claims by id, in the order of registration."""
    for topic in TOPICS:
        importlib.import_module(f"squeeze.claims.{topic}")
    return dict(_CLAIMS)


def get(claim_id: str) -> Claim:
    """Return one claim; raise `InputError` naming the nearest id if it is unknown."""
    claims = _CLAIMS if claim_id in _CLAIMS else load()
    if claim_id in claims:
        return claims[claim_id]
    near = difflib.get_close_matches(claim_id.upper(), claims, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"unknown claim {claim_id!r}; {hint}`squeeze claims` lists them all")
