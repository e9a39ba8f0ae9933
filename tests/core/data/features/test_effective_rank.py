from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebsc_core.data.features.effective_rank import effective_rank


@given(rank=st.integers(1, 8), copies=st.integers(1, 5), scale=st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_orthogonal_directions_of_equal_weight_are_counted(rank: int, copies: int, scale: float) -> None:
    rows = scale * torch.eye(8)[:rank].repeat(copies, 1)
    assert effective_rank(rows) == pytest.approx(rank, rel=1e-3)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_effective_rank_lies_between_1_and_the_smaller_side(n: int, width: int, seed: int) -> None:
    rows = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    assert 1 - 1e-4 <= effective_rank(rows) <= min(n, width) + 1e-4


def test_parallel_or_zero_rows_have_rank_1() -> None:
    assert effective_rank(torch.ones(9, 1) * torch.randn(1, 5)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(9, 5)) == pytest.approx(1)


def test_effective_rank_of_two_unequal_weights() -> None:
    # Singular values 3 and 1: shares 3/4 and 1/4.
    expected = (4 / 3) ** 0.75 * 4**0.25
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected)
