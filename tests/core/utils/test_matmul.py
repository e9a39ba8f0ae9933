from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebsc_core.utils.matmul import PackedRows


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
