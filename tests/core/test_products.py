from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebsc_core.coefficients import top_k_inner_products
from ebsc_core.products import PackedRows


@given(
    n=st.integers(1, 40),
    b=st.integers(1, 20),
    width=st.integers(1, 30),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=50, deadline=None)
def test_products_are_those_of_the_rows(n: int, b: int, width: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, width, generator=generator, dtype=dtype)
    queries = torch.randn(2 * b, width, generator=generator, dtype=dtype)[::2]  # not contiguous
    packed = PackedRows(rows)
    assert len(packed) == n
    torch.testing.assert_close(packed.products(queries), queries @ rows.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_search_is_the_same_in_packed_rows(dtype: torch.dtype) -> None:
    rows = torch.randn(50, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    own = torch.arange(50)
    plain = top_k_inner_products(rows, rows, 5, own)
    packed = top_k_inner_products(rows, PackedRows(rows), 5, own)
    assert torch.equal(plain[1], packed[1])
    torch.testing.assert_close(plain[0], packed[0])
    torch.testing.assert_close(plain[2], packed[2])
