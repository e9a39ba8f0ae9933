"""How many coefficients a row keeps when nobody says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebsc_core.clustering.coefficients import auto_top_k


@given(n_rows=st.integers(2, 10**6), n_clusters=st.integers(1, 10**4))
def test_is_from_5_to_10_or_all_others(n_rows: int, n_clusters: int) -> None:
    chosen = auto_top_k(n_rows, n_clusters)
    assert min(5, n_rows - 1) <= chosen <= min(10, n_rows - 1)


@pytest.mark.parametrize(
    ("n_rows", "n_clusters", "expected"), [(400, 40, 5), (1797, 10, 7), (70_000, 10, 10)]
)
def test_grows_with_the_clusters(n_rows: int, n_clusters: int, expected: int) -> None:
    assert auto_top_k(n_rows, n_clusters) == expected
