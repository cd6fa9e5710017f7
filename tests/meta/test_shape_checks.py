"""The shape checks that every other test relies on are really switched on."""

import pytest
import torch
from jaxtyping import TypeCheckError

from squeeze.kernels import TokenStatistics

pytestmark = pytest.mark.cpu


def test_a_wrong_shape_is_refused_while_tests_run():
    three, two, token = torch.zeros(3), torch.zeros(2), torch.zeros(3, dtype=torch.int64)
    TokenStatistics(three, token, three, three, three, three)
    with pytest.raises(TypeCheckError):
        TokenStatistics(three, token, three, three, three, two)
