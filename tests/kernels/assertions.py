"""Assertions on statistics of tokens: within their bounds, and an argmax that is one."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from squeeze.kernels.statistics import TokenStatistics


def assert_close(
    found: TokenStatistics, expected: TokenStatistics, bounds: dict[str, Tensor]
) -> None:
    """Fail with the statistic, the row and both numbers where `found` leaves its bound."""
    for name, bound in bounds.items():
        here, there = getattr(found, name).double(), getattr(expected, name)
        wrong = ~((here == there) | ((here - there).abs() <= bound))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            raise AssertionError(
                f"{name}[{row}] is {here[row].item()!r}, not {there[row].item()!r} "
                f"± {bound[row].item():.1e}"
            )


def assert_argmax_is_a_maximiser(found: TokenStatistics, logits: Tensor) -> None:
    """Fail unless each argmax token's logit is its row's largest (ties may break anyhow)."""
    picked = logits.gather(-1, found.argmax_token.unsqueeze(-1)).squeeze(-1)
    assert torch.equal(picked, logits.amax(-1))


def rows_of(statistics: TokenStatistics, rows: Tensor) -> TokenStatistics:
    """Return the statistics of some rows."""
    values = {
        field.name: value[rows]
        for field in dataclasses.fields(statistics)
        if (value := getattr(statistics, field.name)) is not None
    }
    return TokenStatistics(**values)
