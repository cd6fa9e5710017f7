"""The packed loss against a loop that does the same by hand, on groups of random sizes."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from squeeze.errors import InputError
from squeeze.losses import PairLogps, get_loss, packed_loss
from tests.examples import examples

pytestmark = pytest.mark.cpu

GROUPS = st.lists(st.integers(2, 5), min_size=1, max_size=4)


def packed(sizes: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy, reference, token counts and offsets of groups of these sizes."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    policy, reference = -30 * torch.rand(2, n, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 40, (n,), generator=generator)
    return policy, reference, lengths, torch.tensor([0, *sizes]).cumsum(0)


def by_hand(
    name: str, sizes: list[int], parts: tuple[Tensor, Tensor, Tensor], best_only: bool
) -> list[float]:
    """Each group's mean over its pairs, one pair and one number at a time."""
    policy, reference, lengths = (part.tolist() for part in parts)
    means, start = [], 0
    for size in sizes:
        terms = []
        for i, j in combinations(range(start, start + size), 2):
            if best_only and i != start:
                continue
            numbers = policy[i], policy[j], reference[i], reference[j]
            pair = PairLogps(
                *(torch.tensor([value], dtype=torch.float64) for value in numbers),
                *(torch.tensor([lengths[k]]) for k in (i, j)),
            )
            terms.append(get_loss(name)(pair).item())
        means.append(sum(terms) / len(terms))
        start += size
    return means


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "simpo"])
@pytest.mark.parametrize("against", ["all", "best"])
@given(sizes=GROUPS, seed=st.integers(0, 2**16))
@settings(max_examples=examples(15))
def test_packed_groups_are_the_loop_over_their_pairs(
    name: str, against: str, sizes: list[int], seed: int
) -> None:
    policy, reference, lengths, offsets = packed(sizes, seed)
    got = packed_loss(policy, reference, offsets, loss=name, lengths=lengths, against=against)  # type: ignore[arg-type]
    expected = by_hand(name, sizes, (policy, reference, lengths), against == "best")
    # Up to ten terms are added in another order: a few units in the last place of float64.
    assert got.tolist() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("against", ["all", "best"])
@given(sizes=GROUPS, seed=st.integers(0, 2**16))
@settings(max_examples=examples(15))
def test_the_packed_gradient_is_the_sum_of_its_pairs_residuals(
    against: str, sizes: list[int], seed: int
) -> None:
    policy, reference, _, offsets = packed(sizes, seed)
    policy.requires_grad_()
    packed_loss(policy, reference, offsets, beta=0.3, against=against).sum().backward()  # type: ignore[arg-type]
    ratio, expected, start = (policy - reference).tolist(), [0.0] * len(policy), 0
    for size in sizes:
        pairs = [
            (i, j)
            for i, j in combinations(range(start, start + size), 2)
            if against == "all" or i == start
        ]
        for i, j in pairs:  # ∂(−log σ(βm))/∂s± = ∓β(1 − σ(βm))
            push = 0.3 / (1 + torch.tensor(0.3 * (ratio[i] - ratio[j])).double().exp().item())
            expected[i] -= push / len(pairs)
            expected[j] += push / len(pairs)
        start += size
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_one_good_and_one_bad_is_the_same_against_all_and_against_the_best() -> None:
    policy, reference, _, offsets = packed([2, 2], 0)
    everyone = packed_loss(policy, reference, offsets)
    torch.testing.assert_close(everyone, packed_loss(policy, reference, offsets, against="best"))


def test_one_good_and_no_bad_is_an_error_that_names_the_group() -> None:
    policy, reference, _, _ = packed([3], 0)
    with pytest.raises(InputError, match="group 1 of cu_lengths has 1 responses; a pair needs two"):
        packed_loss(policy, reference, torch.tensor([0, 2, 3]), against="best")


@pytest.mark.parametrize("short", ["reference", "lengths"])
def test_a_reference_or_lengths_of_another_number_of_responses_is_an_error(short: str) -> None:
    policy, reference, lengths, offsets = packed([3, 2], 0)
    given = {"reference": reference, "lengths": lengths}
    given[short] = given[short][:-1]
    with pytest.raises(InputError, match=rf"{short} has 4 values for 5 responses"):
        packed_loss(policy, given["reference"], offsets, lengths=given["lengths"])
